// SPDX-License-Identifier: MIT
/*
 * descriptor.c - descriptors in memory and a doorbell in a lease, and the barriers
 * between them. QEMU has no device for it that does so little, so the lessor plays
 * one: it finds in the BAR what the lessee has rung.
 *
 * Usage: descriptor ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"
#include "barlease_mmio.h"

#define BAR      2 /* QEMU's "ivshmem" has memory there */
#define DOORBELL 0 /* how many descriptors there were so far */
#define ENTRIES  16
#define BATCH    4
#define BATCHES  1000

/* In memory that both have, as a device has what is mapped for its DMA. */
struct descriptor {
	uint64_t number;
	uint64_t square;
	volatile uint32_t done; /* so many rounds */
};

static void use_device(int lease, struct descriptor *ring)
{
	struct barlease_map *map = barlease_map(lease, NULL);
	uint32_t filled = 0, taken = 0;

	if (!map)
		err(1, "map");
	for (int batch = 0; batch < BATCHES; batch++) {
		for (int i = 0; i < BATCH; i++, filled++)
			ring[filled % ENTRIES].number = filled;
		/* The device is to find them when it sees the doorbell. */
		barlease_dma_wmb();
		barlease_write32(map, DOORBELL, filled);

		for (; taken != filled; taken++) {
			struct descriptor *entry = &ring[taken % ENTRIES];

			while (entry->done != taken / ENTRIES + 1)
				sched_yield();
			/* What it has written is there if it says so. */
			barlease_dma_rmb();
			if (entry->square != (uint64_t)taken * taken)
				errx(1, "descriptor %u has another's result", taken);
		}
	}
	printf("lessee: %u descriptors done, with their results\n", taken);
	if (barlease_unmap(map))
		err(1, "unmap");
}

static void set_doorbell(const struct barlease_device *dev, uint32_t value)
{
	if (pwrite(dev->device_fd, &value, sizeof(value),
		   dev->bars[BAR].offset + DOORBELL) != sizeof(value))
		err(1, "BAR");
}

static uint32_t doorbell(const struct barlease_device *dev)
{
	uint32_t value;

	if (pread(dev->device_fd, &value, sizeof(value),
		  dev->bars[BAR].offset + DOORBELL) != sizeof(value))
		err(1, "BAR");
	return value;
}

/* Until the lessee ends: returns how. */
static int play_device(const struct barlease_device *dev, struct descriptor *ring,
		       pid_t lessee)
{
	uint32_t done = 0;
	int status;

	while (waitpid(lessee, &status, WNOHANG) == 0) {
		uint32_t rung = doorbell(dev);

		/* A device's own order is in its circuits; a CPU has these. */
		barlease_dma_rmb();
		for (; done != rung; done++) {
			struct descriptor *entry = &ring[done % ENTRIES];

			entry->square = entry->number * entry->number;
			barlease_dma_wmb();
			entry->done++;
		}
	}
	return status;
}

int main(int argc, char *argv[])
{
	const struct barlease_range range = { 0, sysconf(_SC_PAGESIZE) };
	struct barlease_device dev;
	struct descriptor *ring;
	int lease, status;
	pid_t lessee;

	if (argc != 2)
		errx(2, "usage: descriptor ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	lease = barlease_export(dev.device_fd, BAR, &range, 1, O_RDWR);
	if (lease < 0)
		err(1, "export");
	ring = mmap(NULL, ENTRIES * sizeof(*ring), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ring == MAP_FAILED)
		err(1, "memory");
	set_doorbell(&dev, 0);

	lessee = fork();
	if (lessee < 0)
		err(1, "fork");
	if (lessee == 0) {
		/* Without a device it would wait for ever. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		use_device(lease, ring);
		exit(0);
	}
	status = play_device(&dev, ring, lessee);
	if (status)
		errx(1, "the lessee ended with status %#x", status);
	printf("device: rung up to %u\n", doorbell(&dev));

	close(lease);
	barlease_device_close(&dev);
	return 0;
}
