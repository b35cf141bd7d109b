// SPDX-License-Identifier: MIT
/*
 * reset.c - a reset, of whatever kind, is nothing that a lessee sees: it waits,
 * and goes on.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "lessees.h"
#include "system.h"

/* A register that keeps its value over a reset, and is not all ones. */
static const struct {
	int bar;
	uint64_t offset;
} steady[] = {
	[RAM_DEVICE] = { RAM_BAR, 0x10 },
	[BLK_DEVICE] = { 4, 0x10 },  /* msix_config, num_queues */
	[NVME_DEVICE] = { 0, 0x08 }, /* VS */
	[EDU_DEVICE] = { 0, 0x00 },  /* identification */
};

typedef void reset_fn(struct barlease_device *dev);

/* Two lessees read one page, each by a lease of its own, all the while. */
static void check_reset(enum device_kind kind, reset_fn *reset, int rounds)
{
	struct barlease_device dev = open_device(kind);
	struct readers readers;
	int leases[2];

	for (int i = 0; i < 2; i++)
		leases[i] = lease(&dev, (uint32_t)steady[kind].bar, 0, PAGE_SIZE);
	readers = readers_start(leases, 2, steady[kind].offset);
	for (int round = 0; round < rounds; round++) {
		reset(&dev);
		readers_wait_works(&readers);
	}
	CHECK_EQ(readers_count_sigbus(&readers), 0);
	readers_stop(&readers);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(info(&dev, leases[i]).state, BARLEASE_STATE_LIVE);
}

static void vfio_reset(struct barlease_device *dev)
{
	CHECK_OK(barlease_device_reset(dev));
}

static void hot_reset(struct barlease_device *dev)
{
	CHECK_OK(barlease_device_hot_reset(dev));
}

static void write_attribute(const struct barlease_device *dev, const char *name,
			    const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", dev->bdf, name);
	write_file(path, text);
}

static void sysfs_reset(struct barlease_device *dev)
{
	write_attribute(dev, "reset", "1");
}

TEST(reset_flr, "a function-level reset through VFIO shows no lessee a SIGBUS")
{
	check_reset(BLK_DEVICE, vfio_reset, 5);
	check_reset(NVME_DEVICE, vfio_reset, 5);
}

TEST(reset_bus, "a bus reset through VFIO shows no lessee a SIGBUS")
{
	check_reset(RAM_DEVICE, vfio_reset, 5);
}

TEST(reset_hot, "VFIO's hot reset shows no lessee a SIGBUS")
{
	check_reset(RAM_DEVICE, hot_reset, 3);
	check_reset(BLK_DEVICE, hot_reset, 3);
	check_reset(NVME_DEVICE, hot_reset, 3);
}

TEST(reset_hot_enodev, "a hot reset of what lies on the root bus is ENODEV")
{
	struct barlease_device dev = open_device(AHCI_DEVICE);

	CHECK_ERRNO(barlease_device_hot_reset(&dev), ENODEV);
}

TEST(reset_pair, "a hot reset of two functions shows no lessee of either a SIGBUS")
{
	struct barlease_device dev = open_device(EDU_DEVICE);
	struct barlease_device sibling = open_beside(&dev, EDU_SIBLING);
	struct readers readers;
	int leases[2];

	leases[0] = lease(&dev, 0, 0, PAGE_SIZE);
	leases[1] = lease(&sibling, 0, 0, PAGE_SIZE);
	readers = readers_start(leases, 2, steady[EDU_DEVICE].offset);
	for (int round = 0; round < 5; round++) {
		hot_reset(round % 2 ? &sibling : &dev);
		readers_wait_works(&readers);
	}
	CHECK_EQ(readers_count_sigbus(&readers), 0);
	readers_stop(&readers);
}

TEST(reset_sysfs, "a reset from sysfs, of which VFIO knows nothing, shows no lessee "
		  "a SIGBUS")
{
	check_reset(RAM_DEVICE, sysfs_reset, 3);
	check_reset(BLK_DEVICE, sysfs_reset, 5);
	check_reset(NVME_DEVICE, sysfs_reset, 5);
}

static void load_for_ever(int sock, void *at)
{
	CHECK_GONE(at);
	say(sock, 0);
	while (true)
		CHECK_GONE(at);
}

TEST(reset_ignores_revoked, "a lessee whose lease was revoked waits for no reset")
{
	struct barlease_device dev = open_device(BLK_DEVICE);
	int fd = lease(&dev, (uint32_t)steady[BLK_DEVICE].bar, 0, PAGE_SIZE);
	void *at = map(fd, 0, PAGE_SIZE, PROT_READ);
	struct counter waits;
	struct kid kid;

	CHECK_OK(abi_revoke(dev.device_fd, fd));
	kid = kid_start(load_for_ever, at);
	hear(kid.sock);
	waits = counter_start("barlease", "lease_wait");
	for (int round = 0; round < 5; round++)
		sysfs_reset(&dev);
	CHECK_EQ(counter_stop(&waits), 0);
}

/* Another process's wait that a fatal signal ends shows as D. */
static bool is_waiting(pid_t pid)
{
	char path[32], *text, *state;
	bool waiting;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	text = read_file(path);
	state = strrchr(text, ')');
	CHECK(state);
	waiting = state[2] == 'D';
	free(text);
	return waiting;
}

static void load_on(int sock, void *at)
{
	say(sock, 0);
	while (true)
		CHECK_LOADS(at);
}

struct resetter {
	struct barlease_device *dev;
	reset_fn *reset;
	_Atomic bool *over;
};

static void reset_once(int sock, void *arg)
{
	struct resetter *resetter = arg;

	hear(sock);
	resetter->reset(resetter->dev);
	*resetter->over = true;
}

/* Whether a lessee that waited for this reset was gone before its end. */
static bool dies_meanwhile(struct barlease_device *dev, void *at, reset_fn *reset)
{
	struct resetter resetter = {
		.dev = dev,
		.reset = reset,
		.over = CHECK_MAP(mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0)),
	};
	struct kid kid = kid_start(load_on, at);
	struct kid other = kid_start(reset_once, &resetter);
	bool waited = false, in_time;

	hear(kid.sock);
	say(other.sock, 0);
	while (!waited && !*resetter.over)
		waited = is_waiting(kid.pid);
	CHECK_OK(kill(kid.pid, SIGKILL));
	CHECK_OK(waitpid(kid.pid, NULL, 0));
	in_time = !*resetter.over;
	close(kid.sock);
	kid_join(&other);
	CHECK_OK(munmap((void *)resetter.over, PAGE_SIZE));
	return waited && in_time;
}

/* A wait may be missed, or a slow kernel's exit outlast the reset; not each time. */
static void check_dies_meanwhile(reset_fn *reset)
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	void *at = map(lease(&dev, RAM_BAR, 0, PAGE_SIZE), 0, PAGE_SIZE, PROT_READ);
	time_t start = time(NULL);
	bool seen = false;

	while (!seen && time(NULL) - start < 100)
		seen = dies_meanwhile(&dev, at, reset);
	CHECK_THAT(seen, "expected a lessee to die in a reset, saw none");
	barlease_device_close(&dev);
}

TEST(reset_kill, "a lessee that waits for a reset can be killed before its end")
{
	check_dies_meanwhile(vfio_reset);
	check_dies_meanwhile(sysfs_reset);
}
