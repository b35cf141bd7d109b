// SPDX-License-Identifier: MIT
/* spares.c - mappings that are there to be given up. */
#define _GNU_SOURCE
#include "spares.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "ones.h"

/* The kernel has it be a page. */
#define LENGTH 1

static void unmap(uintptr_t addr)
{
	syscall(SYS_munmap, addr, LENGTH);
}

bool barlease_spares_fill(struct spares *spares)
{
	for (int i = 0; i < NR_SPARES; i++) {
		uintptr_t none = 0, addr;

		if (atomic_load(&spares->at[i]))
			continue;
		addr = (uintptr_t)barlease_nothing_map_somewhere(LENGTH);
		if (!addr)
			break;
		if (!atomic_compare_exchange_strong(&spares->at[i], &none, addr))
			unmap(addr);
	}
	return atomic_load(&spares->at[0]);
}

bool barlease_spares_give_up(struct spares *spares, int kept)
{
	for (int i = kept; i < NR_SPARES; i++) {
		uintptr_t addr = atomic_exchange(&spares->at[i], 0);

		if (!addr)
			continue;
		unmap(addr);
		return true;
	}
	return false;
}
