// SPDX-License-Identifier: MIT
/*
 * pushout.c - stores made before a revoke or the close have arrived when it
 * returns: a read of the Vendor ID pushes them out, where the device answers.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

#define TRACEFS "/sys/kernel/tracing"
#define PROBE   TRACEFS "/events/kprobes/read_config"

/* Emulated stores arrive at once, so what is watched is the read that pushes. */
static void watch_reads(void)
{
	if (access(PROBE, F_OK))
		write_file(TRACEFS "/kprobe_events",
			   "p:read_config pci_read_config_word where=%si:u32");
	write_file(PROBE "/filter", "where==0"); /* PCI_VENDOR_ID */
	write_file(PROBE "/enable", "1");
	trace_start();
}

static unsigned int count_reads(void)
{
	char *trace = trace_stop();
	unsigned int reads = 0;

	write_file(PROBE "/enable", "0");
	for (const char *at = trace; (at = strstr(at, ": read_config:")); at++)
		reads++;
	free(trace);
	return reads;
}

static int lease_stored_to(const struct barlease_device *dev, uint32_t bar)
{
	int fd = lease(dev, bar, 0, PAGE_SIZE);

	CHECK_STORES(map(fd, 0, PAGE_SIZE, READ_WRITE));
	return fd;
}

TEST(push_out_revoke, "a revoke pushes out the stores before it")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	volatile uint32_t *word = map_bar(&dev, RAM_BAR, 0, PAGE_SIZE, PROT_READ);
	int fd = lease_stored_to(&dev, RAM_BAR);
	char *at = map(fd, 0, PAGE_SIZE, READ_WRITE);

	for (uint32_t value = 1; value <= 3; value++)
		CHECK_EQ(try_store(at, value), 0);
	watch_reads();
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_EQ(*word, 3);
	CHECK_EQ(count_reads(), 1);
}

TEST(push_out_close, "the close pushes out the stores before it, once a device")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	uint32_t value;

	for (int i = 0; i < 3; i++)
		(void)lease_stored_to(&dev, RAM_BAR);
	watch_reads();
	barlease_device_close(&dev);
	CHECK_EQ(count_reads(), 1);
	dev = open_device(RAM_DEVICE);
	CHECK_EQ(try_load(map_bar(&dev, RAM_BAR, 0, PAGE_SIZE, PROT_READ), &value), 0);
	CHECK_EQ(value, 0x5709e);
}

TEST(push_out_d3, "a device in D3 or low power is left alone by revoke and close")
{
	for (int low = 0; low < 2; low++) {
		struct barlease_device dev = open_device(BLK_DEVICE);
		int fd = lease_stored_to(&dev, 4);

		(void)lease_stored_to(&dev, 4);
		if (low)
			CHECK_OK(
				abi_feature(dev.device_fd,
					    VFIO_DEVICE_FEATURE_SET |
						    VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
					    NULL, 0));
		else
			set_power_state(&dev, 3);
		watch_reads();
		CHECK_OK(abi_revoke(dev.device_fd, fd));
		CHECK_EQ(count_reads(), 0);
		watch_reads();
		barlease_device_close(&dev);
		CHECK_EQ(count_reads(), 0);
	}
}
