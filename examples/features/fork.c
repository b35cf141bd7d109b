// SPDX-License-Identifier: MIT
/*
 * fork.c - what a child of fork() has: a map of its own, or none of it.
 *
 * Usage: fork ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"

#define BAR  2 /* QEMU's "ivshmem" has memory there */
#define WORD 0x5eed

static struct barlease_map *map_of(int lease, uint32_t flags)
{
	const struct barlease_map_options options = { .size = sizeof(options),
						      .flags = flags };
	struct barlease_map *map = barlease_map(lease, &options);

	if (!map)
		err(1, "map");
	return map;
}

static int child(struct barlease_map *copied, struct barlease_map *kept)
{
	unsigned char resident;

	if (barlease_read32(copied, 0) != WORD || barlease_unmap(copied))
		return 1;
	printf("child: read its own copy, and unmapped it\n");
	/* Where the other one was there is nothing; to forget it is allowed. */
	if (mincore(barlease_map_addr(kept), 1, &resident) == 0 || errno != ENOMEM ||
	    barlease_unmap(kept))
		return 1;
	printf("child: has nothing of the other one\n");
	return fflush(stdout) != 0;
}

int main(int argc, char *argv[])
{
	struct barlease_range range = { 0, (uint64_t)sysconf(_SC_PAGESIZE) };
	struct barlease_map *copied, *kept;
	struct barlease_device dev;
	int lease, status;
	pid_t pid;

	if (argc != 2)
		errx(2, "usage: fork ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	lease = barlease_export(dev.device_fd, BAR, &range, 1, O_RDWR);
	if (lease < 0)
		err(1, "lease");
	copied = map_of(lease, 0);
	kept = map_of(lease, BARLEASE_MAP_DONTFORK);
	barlease_write32(copied, 0, WORD);

	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid)
		_exit(child(copied, kept));
	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "the child found it otherwise");
	if (barlease_read32(copied, 0) != WORD || barlease_read32(kept, 0) != WORD)
		errx(1, "the child's unmapping took away the parent's");
	printf("parent: has both\n");

	barlease_unmap(kept);
	barlease_unmap(copied);
	close(lease);
	barlease_device_close(&dev);
	return 0;
}
