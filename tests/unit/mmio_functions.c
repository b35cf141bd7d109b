// SPDX-License-Identifier: MIT
/*
 * mmio_functions.c - functions of barlease_mmio.h in use, for ./mmio to look at
 * what a compiler makes of them.
 */
#include "barlease_mmio.h"

#define WIDTH(n)                                                                   \
	uint##n##_t load##n(const volatile void *at);                              \
	uint##n##_t load##n(const volatile void *at)                               \
	{                                                                          \
		return barlease_mmio_read##n(at);                                  \
	}                                                                          \
	/* Neither merged, nor left out as nobody looks at the first. */           \
	uint##n##_t load_twice##n(const volatile void *at);                        \
	uint##n##_t load_twice##n(const volatile void *at)                         \
	{                                                                          \
		barlease_mmio_read##n(at);                                         \
		return barlease_mmio_read##n(at);                                  \
	}                                                                          \
	void store##n(volatile void *at, uint##n##_t value);                       \
	void store##n(volatile void *at, uint##n##_t value)                        \
	{                                                                          \
		barlease_mmio_write##n(at, value);                                 \
	}                                                                          \
	/* Neighbours, which make one wider store, and one that is overwritten. */ \
	void store_thrice##n(volatile void *at);                                   \
	void store_thrice##n(volatile void *at)                                    \
	{                                                                          \
		barlease_mmio_write##n(at, 0);                                     \
		barlease_mmio_write##n((volatile char *)at + n / 8, 0);            \
		barlease_mmio_write##n(at, 0);                                     \
	}
WIDTH(8)
WIDTH(16)
WIDTH(32)
WIDTH(64)

/* The doorbell may not be rung before the descriptor is written... */
void ring(uint64_t *descriptor, volatile void *bell);
void ring(uint64_t *descriptor, volatile void *bell)
{
	descriptor[0] = 0x1111;
	barlease_dma_wmb();
	barlease_mmio_write32(bell, 0x2222);
	descriptor[0] = 0x3333;
}

/* ...nor the data be read before the flag was. */
uint64_t reap(const uint64_t *data, const volatile void *flag);
uint64_t reap(const uint64_t *data, const volatile void *flag)
{
	uint64_t early = data[0];

	while (!barlease_mmio_read8(flag))
		;
	barlease_dma_rmb();
	return data[0] - early;
}

void flush(volatile void *bell);
void flush(volatile void *bell)
{
	barlease_mmio_write64(bell, 0);
	barlease_wc_flush();
}
