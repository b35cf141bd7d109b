// SPDX-License-Identifier: MIT
/*
 * observe.c - info, debugfs and the tracepoints say what happened.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

typedef struct vfio_region_dma_range range_t;

TEST(info_fields, "info tells what was exported")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	const range_t ranges[] = { { MIB(5), MIB(1) },
				   { MIB(6), MIB(2) },
				   { PAGE_SIZE, PAGE_SIZE } };
	int fd = lease_ranges(&dev, RAM_BAR, ranges, 3, O_RDONLY);
	struct barlease_feature_info seen = info(&dev, fd), revoked;

	CHECK_EQ(seen.dmabuf_fd, fd);
	CHECK_EQ(seen.state, BARLEASE_STATE_LIVE);
	CHECK(seen.id);
	CHECK_EQ(seen.size, MIB(3) + PAGE_SIZE);
	CHECK_EQ(seen.nr_ranges, 3);
	CHECK_EQ(seen.nr_spans, 2);
	CHECK_EQ(seen.memattr, BARLEASE_MEMATTR_UC);
	CHECK_EQ(seen.open_flags, O_RDONLY);
	CHECK_EQ(seen.va_hint, (bar_start(dev.bdf, RAM_BAR) + MIB(5)) % GIB(1));
	CHECK_EQ(seen.faults, 0);
	CHECK_OK(abi_memattr(dev.device_fd, fd, BARLEASE_MEMATTR_WC));
	CHECK_EQ(info(&dev, fd).memattr, BARLEASE_MEMATTR_WC);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	seen.state = BARLEASE_STATE_REVOKED;
	seen.memattr = BARLEASE_MEMATTR_WC;
	revoked = info(&dev, fd);
	CHECK(!memcmp(&seen, &revoked, sizeof(seen)));
}

TEST(info_va_hint, "va_hint is the first span's physical start modulo 1 GiB")
{
	struct barlease_device ram = open_device(RAM_DEVICE);
	struct barlease_device edu = open_device(EDU_DEVICE);

	for (int round = 0; round < 100; round++) {
		uint64_t offset = random_word() % RAM_PAGES * PAGE_SIZE;
		int fd = lease(&ram, RAM_BAR, offset, PAGE_SIZE);

		CHECK_EQ(info(&ram, fd).va_hint,
			 (bar_start(ram.bdf, RAM_BAR) + offset) % GIB(1));
		close(fd);
	}
	CHECK(bar_start(edu.bdf, 0) % GIB(1));
	CHECK_EQ(info(&edu, lease(&edu, 0, PAGE_SIZE, PAGE_SIZE)).va_hint,
		 (bar_start(edu.bdf, 0) + PAGE_SIZE) % GIB(1));
}

TEST(info_id, "each lease has an id of its own, on all devices, never 0")
{
	enum { COUNT = 200 };
	struct barlease_device devs[] = { open_device(RAM_DEVICE),
					  open_device(EDU_DEVICE) };
	uint64_t last = 0;

	for (int i = 0; i < COUNT; i++) {
		const struct barlease_device *dev = &devs[i % 2];
		int fd = lease(dev, i % 2 ? 0 : RAM_BAR, 0, PAGE_SIZE);
		uint64_t id = info(dev, fd).id;

		CHECK_THAT(id > last, "expected an id above %" PRIu64 ", saw %" PRIu64,
			   last, id);
		last = id;
		/* Some live on, some are gone when the next one is made. */
		if (i % 3)
			close(fd);
	}
}

TEST(info_faults, "faults counts the handler's calls that mapped something")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	char *at = map_at(fd, 0, MIB(4), READ_WRITE, PAGE_SIZE);

	for (uint64_t i = 0; i < 10; i++) {
		CHECK_EQ(faults(&dev, fd), i);
		CHECK_LOADS(at + i * KIB(64) + KIB(32));
		CHECK_LOADS(at + i * KIB(64) + KIB(32));
	}
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_GONE(at);
	CHECK_EQ(faults(&dev, fd), 10);
}

TEST(debugfs_mode, "debugfs' leases can be read by root and do nothing else")
{
	char path[96];
	struct stat about;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/barlease/%s/leases",
		 device_bdf(RAM_DEVICE));
	CHECK_OK(stat(path, &about));
	CHECK_EQ(about.st_mode, S_IFREG | 0400);
	CHECK_EQ(about.st_uid, 0);
	fd = (int)CHECK_OK(open(path, O_RDONLY));
	CHECK_EQ(mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0), -1);
	CHECK_ERRNO(ioctl(fd, VFIO_DEVICE_RESET), ENOTTY);
	fd = open(path, O_RDWR);
	CHECK(fd < 0 || write(fd, "0", 1) < 0);
}

/* A row has all these words. */
static void check_row(const struct barlease_device *dev, uint64_t id, const char *state,
		      const char *access, const char *memattr, uint64_t size,
		      unsigned int ranges, unsigned int spans)
{
	char want[128], *row = lease_row(dev->bdf, id);

	CHECK(row);
	snprintf(want, sizeof(want), "%" PRIu64 " %s %s %s %" PRIu64 " %u %u ", id,
		 state, access, memattr, size, ranges, spans);
	CHECK_THAT(!strncmp(row, want, strlen(want)),
		   "expected a row \"%s...\", saw \"%s\"", want, row);
	free(row);
}

TEST(debugfs_rows, "debugfs has a row a lease, from export to the last close")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	const range_t ranges[] = { { 0, MIB(1) }, { MIB(1), MIB(1) }, { 0, MIB(2) } };
	int one = lease_ranges(&dev, RAM_BAR, ranges, 3, O_RDONLY);
	int two = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	uint64_t first = info(&dev, one).id, second = info(&dev, two).id;

	check_row(&dev, first, "live", "ro", "uc", MIB(4), 3, 2);
	check_row(&dev, second, "live", "rw", "uc", PAGE_SIZE, 1, 1);
	CHECK_OK(abi_memattr(dev.device_fd, two, BARLEASE_MEMATTR_WC));
	check_row(&dev, second, "live", "rw", "wc", PAGE_SIZE, 1, 1);
	CHECK_OK(abi_revoke(dev.device_fd, one));
	check_row(&dev, first, "revoked", "ro", "uc", MIB(4), 3, 2);
	check_row(&dev, second, "live", "rw", "wc", PAGE_SIZE, 1, 1);
	CHECK_EQ(lease_rows(dev.bdf), 2);
	close(one);
	CHECK(!lease_row(dev.bdf, first));
	CHECK_EQ(lease_rows(dev.bdf), 1);
	barlease_device_close(&dev);
	check_row(&dev, second, "closed", "rw", "wc", PAGE_SIZE, 1, 1);
	close(two);
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

TEST(debugfs_faults, "debugfs counts a lease's faults as info does")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, RAM_SIZE);
	char *row, *count;

	map_at(fd, 0, RAM_SIZE, PROT_READ, 0);
	CHECK_OK(abi_prefault(fd));
	row = lease_row(dev.bdf, info(&dev, fd).id);
	CHECK(row);
	count = strrchr(row, ' ');
	CHECK(count);
	CHECK_EQ(strtoull(count, NULL, 0), RAM_SIZE / MIB(2));
}

/* How often an event of this lease is in the trace, with one more word. */
static unsigned int events(const char *trace, const char *event, uint64_t id,
			   const char *word)
{
	char name[64], number[64];
	unsigned int found = 0;
	char *copy = strdup(trace), *rest = copy;

	snprintf(name, sizeof(name), ": %s: ", event);
	snprintf(number, sizeof(number), " id=%" PRIu64 " ", id);
	for (char *line; (line = strsep(&rest, "\n"));)
		found += strstr(line, name) && strstr(line, number) &&
			 strstr(line, word);
	free(copy);
	return found;
}

TEST(trace_story, "the tracepoints tell a lease's life, with its device and id")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	uint64_t id;
	char *at, *trace;
	int fd;

	trace_start();
	fd = lease(&dev, RAM_BAR, 0, MIB(4));
	id = info(&dev, fd).id;
	at = map_at(fd, 0, MIB(4), READ_WRITE, PAGE_SIZE);
	for (uint64_t i = 1; i <= 5; i++)
		CHECK_STORES(at + i * KIB(64));
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_GONE(at + KIB(64));
	CHECK_OK(munmap(at, MIB(4)));
	close(fd);
	trace = trace_stop();
	CHECK_EQ(events(trace, "lease_export", id, dev.bdf), 1);
	CHECK_EQ(events(trace, "lease_export", id, "size=0x400000 "), 1);
	CHECK_EQ(events(trace, "lease_fault", id, dev.bdf), 6);
	CHECK_EQ(events(trace, "lease_fault", id, "result=NOPAGE"), 5);
	CHECK_EQ(events(trace, "lease_fault", id, "pages=16 "), 6);
	CHECK_EQ(events(trace, "lease_fault", id, "result=SIGBUS"), 1);
	CHECK_EQ(events(trace, "lease_revoke", id, dev.bdf), 1);
	CHECK_EQ(events(trace, "lease_release", id, "faults=5"), 1);
	CHECK(strstr(trace, "lease_export") < strstr(trace, "lease_fault"));
	CHECK(strstr(trace, "lease_fault") < strstr(trace, "lease_revoke"));
	CHECK(strstr(trace, "lease_revoke") < strstr(trace, "lease_release"));
}

TEST(trace_refused, "what was refused leaves no trace")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t bad = { 1, PAGE_SIZE };
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	char *trace;

	CHECK_OK(abi_revoke(dev.device_fd, fd));
	trace_start();
	CHECK_ERRNO(abi_export(dev.device_fd, RAM_BAR, &bad, 1, O_RDWR), EINVAL);
	CHECK_ERRNO(abi_revoke(dev.device_fd, fd), EBADFD);
	trace = trace_stop();
	CHECK(!strstr(trace, "lease_"));
}
