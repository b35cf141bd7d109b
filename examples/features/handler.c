// SPDX-License-Identifier: MIT
/*
 * handler.c - a program that has its own handler of SIGBUS, for a file of its own,
 * lets the library look first.
 *
 * Usage: handler ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"
#include "barlease_mmio.h"

#define BAR 2 /* QEMU's "ivshmem" has memory there */

static sigjmp_buf landing;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	/* A map's: all of it reads as ones now, and the load is done again. */
	if (barlease_handle_sigbus(sig, info, context))
		return;
	siglongjmp(landing, 1);
}

int main(int argc, char *argv[])
{
	struct barlease_range range = { 0, sysconf(_SC_PAGESIZE) };
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE |
							 BARLEASE_MAP_NO_HANDLER };
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	struct barlease_device dev;
	struct barlease_map *map;
	int lease, file = memfd_create("empty", MFD_CLOEXEC);
	void *page = mmap(NULL, range.length, PROT_READ, MAP_SHARED, file, 0);

	if (argc != 2)
		errx(2, "usage: handler ADDRESS");
	/* A handler that interrupted this one could not survive a loss. */
	sigfillset(&action.sa_mask);
	if (page == MAP_FAILED || sigaction(SIGBUS, &action, NULL))
		err(1, "handler");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	lease = barlease_export(dev.device_fd, BAR, &range, 1, O_RDWR);
	if (lease < 0 || !(map = barlease_map(lease, &options)))
		err(1, "lease");

	if (sigsetjmp(landing, 1) == 0) {
		barlease_mmio_read32(page);
		errx(1, "a page that is not there can be read");
	}
	printf("SIGBUS of the program's file: the program's\n");

	if (barlease_revoke(dev.device_fd, lease))
		err(1, "revoke");
	if (sigsetjmp(landing, 1))
		errx(1, "the library did not take its own");
	if (barlease_mmio_read32(barlease_map_addr(map)) != UINT32_MAX ||
	    !barlease_map_lost(map))
		errx(1, "the map is not lost");
	printf("SIGBUS of the map: the library's\n");

	if (barlease_unmap(map))
		err(1, "unmap");
	barlease_device_close(&dev);
	return 0;
}
