/* SPDX-License-Identifier: MIT */
/*
 * barlease_mmio.h - inline accesses to device registers, and the barriers that a
 * doorbell needs.
 *
 * Each access is one load or store instruction of its width, which no compiler
 * splits, merges, repeats or leaves out. Nothing is checked: the address must be
 * mapped and a multiple of the width. Values are in the CPU's byte order. Accesses to
 * an uncached map keep their order among each other, stores to a write-combining one
 * only where barlease_wc_flush() is between them; against those to memory the barriers
 * order them. A lost map with SURVIVE reads as ones. Threads: any, at once with all
 * but barlease_unmap() of what they access; signal handlers too. A barrier orders what
 * its own thread does.
 */
#ifndef BARLEASE_MMIO_H
#define BARLEASE_MMIO_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__x86_64__)
#define BARLEASE_MMIO_(width, type, load, store, regs)                                 \
	static inline type barlease_mmio_read##width(const volatile void *addr)        \
	{                                                                              \
		type value;                                                            \
		__asm__ volatile(load " %1, %0"                                        \
				 : "=" regs(value)                                     \
				 : "m"(*(const volatile type *)addr));                 \
		return value;                                                          \
	}                                                                              \
	static inline void barlease_mmio_write##width(volatile void *addr, type value) \
	{                                                                              \
		__asm__ volatile(store " %1, %0"                                       \
				 : "=m"(*(volatile type *)addr)                        \
				 : regs(value));                                       \
	}

BARLEASE_MMIO_(8, uint8_t, "movb", "movb", "q")
BARLEASE_MMIO_(16, uint16_t, "movw", "movw", "r")
BARLEASE_MMIO_(32, uint32_t, "movl", "movl", "r")
BARLEASE_MMIO_(64, uint64_t, "movq", "movq", "r")

#elif defined(__aarch64__)
/* Without an index or writeback, which a hypervisor may not be able to emulate. */
#define BARLEASE_MMIO_(width, type, suffix, reg)                                       \
	static inline type barlease_mmio_read##width(const volatile void *addr)        \
	{                                                                              \
		type value;                                                            \
		__asm__ volatile("ldr" suffix " %" reg "0, [%1]"                       \
				 : "=r"(value)                                         \
				 : "r"(addr), "m"(*(const volatile type *)addr));      \
		return value;                                                          \
	}                                                                              \
	static inline void barlease_mmio_write##width(volatile void *addr, type value) \
	{                                                                              \
		__asm__ volatile("str" suffix " %" reg "2, [%1]"                       \
				 : "=m"(*(volatile type *)addr)                        \
				 : "r"(addr), "rZ"(value));                            \
	}

BARLEASE_MMIO_(8, uint8_t, "b", "w")
BARLEASE_MMIO_(16, uint16_t, "h", "w")
BARLEASE_MMIO_(32, uint32_t, "", "w")
BARLEASE_MMIO_(64, uint64_t, "", "x")

#else
/* As compilers have it: a volatile access is one instruction where there is one. */
#define BARLEASE_MMIO_(width, type)                                                    \
	static inline type barlease_mmio_read##width(const volatile void *addr)        \
	{                                                                              \
		return *(const volatile type *)addr;                                   \
	}                                                                              \
	static inline void barlease_mmio_write##width(volatile void *addr, type value) \
	{                                                                              \
		*(volatile type *)addr = value;                                        \
	}

BARLEASE_MMIO_(8, uint8_t)
BARLEASE_MMIO_(16, uint16_t)
BARLEASE_MMIO_(32, uint32_t)
#if UINTPTR_MAX > 0xffffffff
BARLEASE_MMIO_(64, uint64_t)
#endif
#endif

#undef BARLEASE_MMIO_

/*
 * Stores to memory before it are seen by the device before what is stored after
 * it: between filling a descriptor and ringing an uncached doorbell. x86 keeps
 * that order itself, so that only the compiler has to be told; where the doorbell
 * is write-combining, use barlease_wc_flush() in its place.
 */
static inline void barlease_dma_wmb(void)
{
#if defined(__x86_64__)
	__asm__ volatile("" : : : "memory");
#elif defined(__aarch64__)
	__asm__ volatile("dmb oshst" : : : "memory");
#else
	__sync_synchronize();
#endif
}

/*
 * Loads after it, from memory, are not done before those before it: between
 * finding that a descriptor is done, in memory or in a register, and reading what
 * the device has written.
 */
static inline void barlease_dma_rmb(void)
{
#if defined(__x86_64__)
	__asm__ volatile("" : : : "memory");
#elif defined(__aarch64__)
	__asm__ volatile("dmb oshld" : : : "memory");
#else
	__sync_synchronize();
#endif
}

/*
 * Stores before it leave the CPU's write-combining buffers, in front of all that
 * is stored after it: after a write-combining doorbell, so that it is rung now,
 * between descriptors in memory and such a doorbell, and between two stores to a
 * write-combining map whose order matters.
 */
static inline void barlease_wc_flush(void)
{
#if defined(__x86_64__)
	__asm__ volatile("sfence" : : : "memory");
#elif defined(__aarch64__)
	__asm__ volatile("dsb st" : : : "memory");
#else
	__sync_synchronize();
#endif
}

#ifdef __cplusplus
}
#endif

#endif /* BARLEASE_MMIO_H */
