// SPDX-License-Identifier: MIT
/*
 * decoding.c - while the device answers no access (decoding off, D3, VFIO's
 * low power) lessees get SIGBUS, and afterwards they go on.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "lessees.h"

/* The register page of virtio-blk: msix_config, num_queues. */
#define BLK_BAR    4
#define BLK_STEADY 0x10

typedef void switch_fn(struct barlease_device *dev, bool on);

static void switch_power(struct barlease_device *dev, bool on)
{
	set_power_state(dev, on ? 0 : 3);
}

static void switch_low_power(struct barlease_device *dev, bool on)
{
	uint32_t feature = on ? VFIO_DEVICE_FEATURE_LOW_POWER_EXIT :
				VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;

	CHECK_OK(abi_feature(dev->device_fd, VFIO_DEVICE_FEATURE_SET | feature, NULL,
			     0));
}

/* Two lessees read all the while. Off means that not one access goes through. */
static void off_and_on(enum device_kind kind, uint32_t bar, switch_fn *turn)
{
	enum { ROUNDS = 20 };
	struct barlease_device dev = open_device(kind);
	int leases[2] = { lease(&dev, bar, 0, PAGE_SIZE),
			  lease(&dev, bar, 0, PAGE_SIZE) };
	struct readers readers = readers_start(leases, 2, BLK_STEADY);

	for (int round = 0; round < (int)rounds(ROUNDS); round++) {
		uint64_t works, sigbus = readers_count_sigbus(&readers);

		readers_wait_works(&readers);
		CHECK_EQ(readers_count_sigbus(&readers), sigbus);
		turn(&dev, false);
		readers_wait_sigbus(&readers);
		works = readers_count_works(&readers);
		readers_wait_sigbus(&readers);
		CHECK_EQ(readers_count_works(&readers), works);
		for (int i = 0; i < 2; i++)
			CHECK_EQ(info(&dev, leases[i]).state, BARLEASE_STATE_LIVE);
		turn(&dev, true);
		/* A reader may have been on its way to its SIGBUS. */
		readers_wait_works(&readers);
	}
	readers_stop(&readers);
}

TEST(decoding_off, "decoding off is SIGBUS for every lessee, on again works again")
{
	off_and_on(BLK_DEVICE, BLK_BAR, set_decoding);
	off_and_on(RAM_DEVICE, RAM_BAR, set_decoding);
}

TEST(power_d3, "D3 is SIGBUS for every lessee, D0 works again")
{
	off_and_on(BLK_DEVICE, BLK_BAR, switch_power);
}

TEST(power_low, "VFIO's low power is SIGBUS for every lessee, its end works again")
{
	off_and_on(BLK_DEVICE, BLK_BAR, switch_low_power);
	off_and_on(RAM_DEVICE, RAM_BAR, switch_low_power);
}

static void revoke_while_off(switch_fn *turn)
{
	struct barlease_device dev = open_device(BLK_DEVICE);
	int fd = lease(&dev, BLK_BAR, 0, PAGE_SIZE), later;
	char *at = map(fd, 0, PAGE_SIZE, PROT_READ);

	CHECK_LOADS(at);
	turn(&dev, false);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	later = lease(&dev, BLK_BAR, 0, PAGE_SIZE);
	turn(&dev, true);
	CHECK_GONE(at);
	CHECK_LOADS(map(later, 0, PAGE_SIZE, PROT_READ));
	barlease_device_close(&dev);
}

TEST(decoding_off_calls, "a device that is off can be leased, and leases be revoked")
{
	revoke_while_off(set_decoding);
	revoke_while_off(switch_power);
}
