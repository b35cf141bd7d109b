// SPDX-License-Identifier: MIT
/* spares.c - mappings that are there to be given up. */
#define _GNU_SOURCE
#include "spares.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ones.h"

/* The kernel has it be a page. */
#define LENGTH 1

/* Who takes an address out by one atomic step, alone unmaps it. */
static _Atomic uintptr_t spares[NR_SPARES];

static void unmap(uintptr_t addr)
{
	syscall(SYS_munmap, addr, LENGTH);
}

bool barlease_spares_fill(void)
{
	for (int i = 0; i < NR_SPARES; i++) {
		uintptr_t none = 0, addr;

		if (atomic_load(&spares[i]))
			continue;
		addr = (uintptr_t)barlease_nothing_map_somewhere(LENGTH);
		if (!addr)
			return i >= LAST_SPARE;
		if (!atomic_compare_exchange_strong(&spares[i], &none, addr))
			unmap(addr);
	}
	return true;
}

bool barlease_spares_are_whole(void)
{
	for (int i = 0; i < NR_SPARES; i++) {
		if (!atomic_load(&spares[i]))
			return false;
	}
	return true;
}

bool barlease_spares_give_up(int kept)
{
	for (int i = NR_SPARES; i-- > kept;) {
		uintptr_t addr = atomic_exchange(&spares[i], 0);

		if (!addr)
			continue;
		unmap(addr);
		return true;
	}
	return false;
}
