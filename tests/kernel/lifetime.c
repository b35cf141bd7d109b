// SPDX-License-Identifier: MIT
/*
 * lifetime.c - a lease may outlive its device's opening, binding and existence,
 * and is dead then, for good, without harm to anyone.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "lessees.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

/* A lease and a mapping of it that were good once. */
struct relic {
	int fd;
	char *at;
};

static struct relic leave_relic(const struct barlease_device *dev, uint32_t bar)
{
	struct relic relic = { .fd = lease(dev, bar, 0, PAGE_SIZE) };

	relic.at = map(relic.fd, 0, PAGE_SIZE, READ_WRITE);
	CHECK_LOADS(relic.at);
	return relic;
}

static void check_no_access(const struct relic *relic)
{
	CHECK_GONE(relic->at);
	CHECK_STORE(relic->at, SIGBUS);
	CHECK_ERRNO((long)mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, relic->fd, 0),
		    ENODEV);
	CHECK_ERRNO(abi_prefault(relic->fd), ENODEV);
}

/* Nor does its device, open once more, know it. */
static void check_dead(const struct barlease_device *dev, const struct relic *relic)
{
	struct barlease_feature_info info;

	check_no_access(relic);
	CHECK_ERRNO(abi_info(dev->device_fd, relic->fd, &info), ENODEV);
	CHECK_ERRNO(abi_revoke(dev->device_fd, relic->fd), ENODEV);
	CHECK_ERRNO(abi_memattr(dev->device_fd, relic->fd, BARLEASE_MEMATTR_UC),
		    ENODEV);
}

static void end_relic(const struct relic *relic)
{
	CHECK_OK(munmap(relic->at, PAGE_SIZE));
	close(relic->fd);
}

static void write_attribute(enum device_kind kind, const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", device_bdf(kind),
		 name);
	write_file(path, text);
}

static void remove_device(enum device_kind kind)
{
	write_attribute(kind, "remove", "1");
}

static void rescan(void)
{
	write_file("/sys/bus/pci/rescan", "1");
	bind_devices();
}

static void check_new_lease(const struct barlease_device *dev, uint32_t bar)
{
	struct relic fresh = leave_relic(dev, bar);

	CHECK_OK(abi_revoke(dev->device_fd, fresh.fd));
	CHECK_GONE(fresh.at);
	end_relic(&fresh);
}

TEST(life_close, "closing the device ends each access of lessees, reopening none")
{
	enum { ROUNDS = 20 };

	for (int round = 0; round < (int)rounds(ROUNDS); round++) {
		struct barlease_device dev = open_device(RAM_DEVICE);
		int leases[2] = { lease(&dev, RAM_BAR, 0, MIB(2)),
				  lease(&dev, RAM_BAR, PAGE_SIZE, PAGE_SIZE) };
		struct readers readers = readers_start(leases, 2, 0x10);
		uint64_t works;

		CHECK_EQ(readers_count_sigbus(&readers), 0);
		barlease_device_close(&dev);
		readers_wait_sigbus(&readers);
		works = readers_count_works(&readers);
		dev = open_device(RAM_DEVICE);
		check_new_lease(&dev, RAM_BAR);
		readers_wait_sigbus(&readers);
		CHECK_EQ(readers_count_works(&readers), works);
		readers_stop(&readers);
		barlease_device_close(&dev);
		for (int i = 0; i < 2; i++)
			close(leases[i]);
	}
}

TEST(life_reopen, "leases of each former opening stay dead through later ones")
{
	enum { OPENINGS = 5 };
	struct relic relics[OPENINGS];

	for (int i = 0; i < OPENINGS; i++) {
		struct barlease_device dev = open_device(RAM_DEVICE);

		for (int old = 0; old < i; old++)
			check_dead(&dev, &relics[old]);
		relics[i] = leave_relic(&dev, RAM_BAR);
		barlease_device_close(&dev);
		check_no_access(&relics[i]);
	}
}

TEST(life_unbind,
     "unbound and bound again with a lease alive: that is dead, new ones live")
{
	struct barlease_device dev = open_device(BLK_DEVICE);
	struct relic relic = leave_relic(&dev, 4);

	barlease_device_close(&dev);
	write_attribute(BLK_DEVICE, "driver/unbind", device_bdf(BLK_DEVICE));
	check_no_access(&relic);
	bind_devices();
	dev = open_device(BLK_DEVICE);
	check_dead(&dev, &relic);
	check_new_lease(&dev, 4);
	end_relic(&relic);
	check_new_lease(&dev, 4);
}

TEST(life_other_driver, "another driver can have the device while a lease is alive")
{
	struct barlease_device dev = open_device(BLK_DEVICE);
	struct relic relic = leave_relic(&dev, 4);

	barlease_device_close(&dev);
	CHECK_OK(barlease_device_bind(device_bdf(BLK_DEVICE), "virtio-pci"));
	check_no_access(&relic);
	bind_devices();
	dev = open_device(BLK_DEVICE);
	check_dead(&dev, &relic);
	check_new_lease(&dev, 4);
}

/* What is found by the rescan shares its bus, so its resets, with the relic. */
static void outlive_removal(enum device_kind kind, uint32_t bar)
{
	struct barlease_device dev = open_device(kind);
	struct relic relic = leave_relic(&dev, bar);

	barlease_device_close(&dev);
	remove_device(kind);
	check_no_access(&relic);
	rescan();
	dev = open_device(kind);
	check_dead(&dev, &relic);
	for (int round = 0; round < 2; round++) {
		CHECK_OK(barlease_device_hot_reset(&dev));
		check_dead(&dev, &relic);
		check_new_lease(&dev, bar);
	}
	end_relic(&relic);
	CHECK_OK(barlease_device_hot_reset(&dev));
	check_new_lease(&dev, bar);
	barlease_device_close(&dev);
}

TEST(life_rescan, "removed and found again with a lease alive, the device can be "
		  "hot reset")
{
	outlive_removal(RAM_DEVICE, RAM_BAR);
	outlive_removal(BLK_DEVICE, 4);
}

TEST(life_sibling, "removed with a lease alive, a function is no part of its "
		   "sibling's hot reset")
{
	struct barlease_device dev = open_device(EDU_DEVICE);
	struct barlease_device sibling = open_beside(&dev, EDU_SIBLING);
	struct relic relic = leave_relic(&sibling, 0), own = leave_relic(&dev, 0);

	barlease_device_close(&sibling);
	remove_device(EDU_SIBLING);
	check_no_access(&relic);
	for (int round = 0; round < 2; round++) {
		CHECK_OK(barlease_device_hot_reset(&dev));
		CHECK_LOADS(own.at);
		check_no_access(&relic);
	}
	rescan();
	sibling = open_beside(&dev, EDU_SIBLING);
	CHECK_OK(barlease_device_hot_reset(&dev));
	CHECK_LOADS(own.at);
	check_dead(&sibling, &relic);
	check_new_lease(&sibling, 0);
	end_relic(&relic);
	CHECK_OK(barlease_device_hot_reset(&sibling));
	CHECK_LOADS(own.at);
}

TEST(life_many, "removed with a hundred leases alive, and found again, all stay dead")
{
	enum { COUNT = 100, TIMES = 3 };
	struct relic relics[TIMES][COUNT];

	for (int time = 0; time < TIMES; time++) {
		struct barlease_device dev = open_device(RAM_DEVICE);

		for (int i = 0; i < COUNT; i++)
			relics[time][i] = leave_relic(&dev, RAM_BAR);
		barlease_device_close(&dev);
		remove_and_rescan(dev.bdf);
	}
	for (int time = 0; time < TIMES; time++)
		for (int i = 0; i < COUNT; i++) {
			check_no_access(&relics[time][i]);
			end_relic(&relics[time][i]);
		}
}
