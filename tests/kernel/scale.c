// SPDX-License-Identifier: MIT
/*
 * scale.c - many leases at once, and the bounds of what a device holds.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

typedef struct vfio_region_dma_range range_t;

TEST(scale_10000, "10,000 leases live side by side, each its own page")
{
	enum { COUNT = 10000 };
	static int fds[COUNT];
	static char *at[COUNT];
	struct rlimit limit = { COUNT + 64, COUNT + 64 };
	struct barlease_device dev = open_device(RAM_DEVICE);

	stamp_pages(&dev);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	for (uint64_t i = 0; i < COUNT; i++) {
		fds[i] = lease(&dev, RAM_BAR, i * PAGE_SIZE, PAGE_SIZE);
		at[i] = map(fds[i], 0, PAGE_SIZE, PROT_READ);
	}
	CHECK_EQ(lease_rows(dev.bdf), COUNT);
	for (uint64_t i = 0; i < COUNT; i++)
		CHECK_PAGE(at[i], i);
	for (int i = 0; i < COUNT; i += 3)
		CHECK_OK(abi_revoke(dev.device_fd, fds[i]));
	for (uint64_t i = 0; i < COUNT; i++) {
		if (i % 3)
			CHECK_PAGE(at[i], i);
		else
			CHECK_GONE(at[i]);
	}
	barlease_device_close(&dev);
	for (int i = 0; i < COUNT; i++)
		CHECK_GONE(at[i]);
}

TEST(scale_export_close, "exported and closed over and over, nothing is used up")
{
	struct barlease_device dev = open_device(BIG_DEVICE);
	unsigned int fds = count_fds();

	/* Together many times what the windows hold at once. */
	for (int round = 0; round < (int)rounds(20000); round++)
		close(lease(&dev, RAM_BAR, 0, BIG_SIZE));
	CHECK_EQ(count_fds(), fds);
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

/* A lease of so many whole BARs, one after the other. */
static int lease_whole(const struct barlease_device *dev, uint32_t count)
{
	range_t *ranges = calloc(count, sizeof(*ranges));
	int fd, error;

	CHECK(ranges);
	for (uint32_t i = 0; i < count; i++)
		ranges[i].length = BIG_SIZE;
	fd = abi_export(dev->device_fd, RAM_BAR, ranges, count, O_RDWR);
	error = errno;
	free(ranges);
	errno = error;
	return fd;
}

TEST(scale_windows, "about 6 TiB of leases fit a device; more is ENOSPC")
{
	enum { MOST = 16, TIB = 1024 };
	struct barlease_device dev = open_device(BIG_DEVICE);
	struct barlease_device other = open_device(EDU_DEVICE);
	unsigned int fds = count_fds();

	stamp_pages(&dev);
	for (int round = 0; round < 3; round++) {
		int held[MOST], count = 0;
		void *last;

		while (count < MOST && (held[count] = lease_whole(&dev, TIB / 2)) >= 0)
			count++;
		CHECK_ERRNO(lease_whole(&dev, TIB / 2), ENOSPC);
		CHECK_THAT(count >= 10 && count <= 12,
			   "expected 10 to 12 leases of half a TiB, saw %d", count);
		/* Smaller ones still fit, and other devices do not care. */
		close(lease(&dev, RAM_BAR, 0, PAGE_SIZE));
		close(lease(&other, 0, 0, PAGE_SIZE));
		last = map(held[count - 1], GIB(TIB / 2) - PAGE_SIZE, PAGE_SIZE,
			   PROT_READ);
		CHECK_PAGE(last, BIG_PAGES - 1);
		/* A revoked lease keeps its window until it is closed. */
		CHECK_OK(abi_revoke(dev.device_fd, held[0]));
		CHECK_ERRNO(lease_whole(&dev, TIB / 2), ENOSPC);
		close(held[0]);
		held[0] = lease_whole(&dev, TIB / 2);
		CHECK_OK(held[0]);
		CHECK_OK(munmap(last, PAGE_SIZE));
		while (count--)
			close(held[count]);
		CHECK_EQ(lease_rows(dev.bdf), 0);
	}
	CHECK_EQ(count_fds(), fds);
	CHECK_ERRNO(lease_whole(&dev, BARLEASE_MAX_RANGES), ENOSPC);
}

/* As many ranges as there may be, each a span: one MiB to remember them. */
static range_t *most_ranges(void)
{
	range_t *ranges = calloc(BARLEASE_MAX_RANGES, sizeof(*ranges));

	CHECK(ranges);
	for (uint32_t i = 0; i < BARLEASE_MAX_RANGES; i++)
		ranges[i] = (range_t){ i % 2 * MIB(1), PAGE_SIZE };
	return ranges;
}

/* Exports of a MiB each give it back, that end at once or fail with an error. */
static void check_no_leak(const struct barlease_device *dev, uint32_t region,
			  const range_t *ranges, int error)
{
	enum { ROUNDS = 60, MOST_LOST = ROUNDS / 3 }; /* MiB */
	uint64_t before = amount("/proc/meminfo", "MemAvailable:"), after;
	struct rlimit limit, none;

	CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
	none = (struct rlimit){ error ? 3 : limit.rlim_cur, limit.rlim_max };
	CHECK(dev->device_fd >= 3);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &none));
	for (int round = 0; round < ROUNDS; round++) {
		int fd = abi_export(dev->device_fd, region, ranges, BARLEASE_MAX_RANGES,
				    O_RDWR);

		if (error)
			CHECK_ERRNO(fd, error);
		else
			close((int)CHECK_OK(fd));
	}
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	after = amount("/proc/meminfo", "MemAvailable:");
	CHECK_THAT(after + MOST_LOST * 1024 > before,
		   "%s: expected to lose less than %d MiB, saw %lld KiB go",
		   errno_name(error), MOST_LOST, (long long)(before - after));
}

TEST(scale_spans, "the spans alive on a device are bounded: ENOSPC")
{
	enum { MOST = 1000 };
	struct barlease_device dev = open_device(RAM_DEVICE);
	uint32_t each = BARLEASE_MAX_RANGES;
	range_t *ranges = most_ranges();
	int held[MOST], count = 0;

	while (count < MOST && (held[count] = abi_export(dev.device_fd, RAM_BAR, ranges,
							 each, O_RDWR)) >= 0)
		count++;
	CHECK_THAT(count >= 4 && count < MOST,
		   "expected a bound on spans, saw none after %d leases", count);
	check_no_leak(&dev, RAM_BAR, ranges, ENOSPC);
	CHECK_EQ(info(&dev, held[0]).nr_spans, each);
	close(held[0]);
	CHECK_OK(abi_export(dev.device_fd, RAM_BAR, ranges, each, O_RDWR));
}

TEST(scale_no_leak, "exports that fail or end give their memory back")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t *ranges = most_ranges(), *last = &ranges[BARLEASE_MAX_RANGES - 1];

	check_no_leak(&dev, RAM_BAR, ranges, 0);
	check_no_leak(&dev, VFIO_PCI_ROM_REGION_INDEX, ranges, ENODEV);
	/* As there is no fd: it was a lease already. */
	check_no_leak(&dev, RAM_BAR, ranges, EMFILE);
	last->length++;
	check_no_leak(&dev, RAM_BAR, ranges, EINVAL);
}

TEST(scale_accounted, "what leases take is charged to the cgroup of their lessor")
{
	enum { COUNT = 16 };
	static const char *const top = "/sys/fs/cgroup/cgroup.subtree_control";
	static const char *const group = "/sys/fs/cgroup/lessor";
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t *ranges = most_ranges();
	uint64_t before, after;

	write_file(top, "+memory");
	CHECK_OK(mkdir(group, 0700));
	write_file("/sys/fs/cgroup/lessor/cgroup.procs", "0");
	before = amount("/sys/fs/cgroup/lessor/memory.stat", "\nkernel ");
	for (int i = 0; i < COUNT; i++)
		lease_ranges(&dev, RAM_BAR, ranges, BARLEASE_MAX_RANGES, O_RDWR);
	after = amount("/sys/fs/cgroup/lessor/memory.stat", "\nkernel ");
	/* 16 bytes a span. */
	CHECK(after - before >= COUNT * MIB(1));
	write_file("/sys/fs/cgroup/cgroup.procs", "0");
	CHECK_OK(rmdir(group));
}
