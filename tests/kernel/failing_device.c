// SPDX-License-Identifier: MIT
/*
 * failing_device.c - what is done to a device, and to the module, with each of its
 * allocations and user copies failed in turn.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "inject.h"
#include "system.h"

#define DRIVER_DIR  "/sys/bus/pci/drivers/" BARLEASE_DRIVER
#define PCI_DEVICES "/sys/bus/pci/devices"
#define DEBUGFS     "/sys/kernel/debug/barlease"

typedef struct vfio_region_dma_range range_t;

/* What is done is done to. */
static struct {
	struct barlease_device dev;
	const char *bdf;
	int fd;    /* a lease */
	int reset; /* sysfs' file */
	char *at;
} it;

/*
 * Open
 */

static int open_it(void)
{
	return try_open_address(&it.dev, it.bdf);
}

/* Where a BAR could not be claimed the open is as good, but for that BAR. */
static void close_it(void)
{
	range_t page = { 0, PAGE_SIZE };
	int fd = abi_export(it.dev.device_fd, 0, &page, 1, O_RDWR);

	if (fd == -1)
		CHECK_EQ(errno, EBUSY);
	else
		close(fd);
	barlease_device_close(&it.dev);
}

TEST(failing_open, "an open that runs out of memory fails, and works the next time",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "open",
					  .make = open_it,
					  .undo = close_it };
	struct barlease_device dev;

	it.bdf = device_bdf(NVME_DEVICE);
	/*
	 * ACPI's interpreter goes on to use what it has freed where memory lacks, and
	 * takes it hundreds of times to look up an interrupt.
	 */
	inject_below_driver("acpi_pci_irq_enable");
	fail_each(&call);
	dev = open_address(it.bdf);
	close(lease(&dev, 0, 0, PAGE_SIZE));
}

/*
 * Close
 */

static void lease_page(void)
{
	it.fd = lease(&it.dev, 0, 0, PAGE_SIZE);
	it.at = map(it.fd, 0, PAGE_SIZE, PROT_READ);
	CHECK_LOADS(it.at);
}

static void end_lease(void)
{
	CHECK_OK(munmap(it.at, PAGE_SIZE));
	CHECK_OK(close(it.fd));
}

static void open_and_lease(void)
{
	it.dev = open_address(it.bdf);
	lease_page();
}

static void see_it_gone(void)
{
	CHECK_GONE(it.at);
	end_lease();
}

TEST(failing_device_close, "a close takes no memory, and has the leases without any",
     .needs = FAULT_INJECTION)
{
	it.bdf = device_bdf(NVME_DEVICE);
	/* It is ACPI's lookup of an interrupt, as at open, that takes some. */
	inject_below_driver("acpi_pci_irq_disable");
	open_and_lease();
	inject_all();
	barlease_device_close(&it.dev);
	CHECK_EQ(injected_all(), 0);
	see_it_gone();
}

/*
 * Bind and load
 */

/* 0, or -1 with errno. */
static int try_write(const char *path, const char *text)
{
	int fd = (int)CHECK_OK(open(path, O_WRONLY | O_CLOEXEC)), error;
	ssize_t written = write(fd, text, strlen(text));

	error = errno;
	close(fd);
	errno = error;
	return written < 0 ? -1 : 0;
}

static bool is_bound(const char *bdf)
{
	char path[96];

	snprintf(path, sizeof(path), DRIVER_DIR "/%s", bdf);
	return !access(path, F_OK);
}

static int bind_it(void)
{
	int result = try_write(DRIVER_DIR "/bind", it.bdf), error = errno;
	char path[96];

	if (result) {
		snprintf(path, sizeof(path), DEBUGFS "/%s", it.bdf);
		CHECK(!is_bound(it.bdf));
		CHECK_ERRNO(access(path, F_OK), ENOENT);
		errno = error;
	}
	return result;
}

static void unbind_it(void)
{
	write_file(DRIVER_DIR "/unbind", it.bdf);
}

TEST(failing_bind, "a bind that runs out of memory fails, and works the next time",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "bind",
					  .make = bind_it,
					  .undo = unbind_it };

	it.bdf = device_bdf(NVME_DEVICE);
	unbind_it();
	/* VFIO warns when it gives up a group that it could not make. */
	inject_below_driver("vfio_create_group");
	fail_each(&call);
	bind_devices();
	it.dev = open_address(it.bdf);
	close(lease(&it.dev, 0, 0, PAGE_SIZE));
}

static void see_it_unloaded(void)
{
	CHECK(!module_is_loaded());
	CHECK_ERRNO(access(DRIVER_DIR, F_OK), ENOENT);
	CHECK_ERRNO(access(DEBUGFS, F_OK), ENOENT);
}

static int load_it(void)
{
	int result = module_try_load(NULL), error = errno;

	if (result) {
		see_it_unloaded();
		errno = error;
	}
	return result;
}

static void unload_it(void)
{
	CHECK_OK(module_try_unload());
}

TEST(failing_load, "a load that runs out of memory fails, and works the next time",
     .needs = FAULT_INJECTION)
{
	/* EINVAL is how the core says that there was no memory for a directory. */
	static const struct call call = {
		.name = "load", .make = load_it, .undo = unload_it, .also = EINVAL
	};

	/* Otherwise it would bind them again each time. */
	unbind_devices();
	unload_it();
	inject_below("do_one_initcall");
	fail_each(&call);
	module_load(NULL);
}

/*
 * Resets
 */

static int reset_it(void)
{
	return barlease_device_reset(&it.dev);
}

static int hot_reset_it(void)
{
	return barlease_device_hot_reset(&it.dev);
}

static int reset_by_sysfs(void)
{
	return (int)pwrite(it.reset, "1", 1, 0);
}

/* Whatever became of the reset, it is over and the lease is there. */
static void use_lease(void)
{
	CHECK_LOADS(it.at);
	CHECK_OK(abi_revoke(it.dev.device_fd, it.fd));
	CHECK_GONE(it.at);
	end_lease();
}

TEST(failing_reset, "resets that run out of memory fail or not, and are over",
     .needs = FAULT_INJECTION)
{
	static const struct call calls[] = {
		{ .name = "reset",
		  .prepare = lease_page,
		  .make = reset_it,
		  .undo = use_lease },
		{ .name = "hot reset",
		  .prepare = lease_page,
		  .make = hot_reset_it,
		  .undo = use_lease },
		{ .name = "sysfs reset",
		  .prepare = lease_page,
		  .make = reset_by_sysfs,
		  .undo = use_lease },
	};

	char path[96];

	it.bdf = device_bdf(NVME_DEVICE);
	it.dev = open_address(it.bdf);
	snprintf(path, sizeof(path), PCI_DEVICES "/%s/reset", it.bdf);
	it.reset = (int)CHECK_OK(open(path, O_WRONLY | O_CLOEXEC));
	inject_everywhere();
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		fail_each(&calls[i]);
}

/*
 * Unbind and removal, each with a lease that outlives them
 */

static void leave_lease(void)
{
	open_and_lease();
	barlease_device_close(&it.dev);
}

static int try_unbind(void)
{
	return try_write(DRIVER_DIR "/unbind", it.bdf);
}

static int remove_it(void)
{
	char path[96];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/remove", it.bdf);
	return try_write(path, "1");
}

static void end_and_bind(void)
{
	CHECK(!is_bound(it.bdf));
	see_it_gone();
	write_file("/sys/bus/pci/rescan", "1");
	bind_devices();
}

TEST(failing_unbind, "nothing that lacks memory holds up an unbind or a removal",
     .needs = FAULT_INJECTION)
{
	static const struct call calls[] = {
		{ .name = "unbind",
		  .prepare = leave_lease,
		  .make = try_unbind,
		  .undo = end_and_bind },
		{ .name = "remove",
		  .prepare = leave_lease,
		  .make = remove_it,
		  .undo = end_and_bind },
	};

	it.bdf = device_bdf(NVME_DEVICE);
	inject_below_driver(NULL);
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		fail_each(&calls[i]);
	it.dev = open_address(it.bdf);
	close(lease(&it.dev, 0, 0, PAGE_SIZE));
}
