// SPDX-License-Identifier: MIT
/*
 * abi.c - whatever arguments come, the kernel answers by the table, and
 * nothing leaks.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define GET VFIO_DEVICE_FEATURE_GET
#define SET VFIO_DEVICE_FEATURE_SET

typedef struct vfio_region_dma_range range_t;

/* Values at which arithmetic breaks, and some that are good. */
static uint64_t extreme(void)
{
	static const uint64_t values[] = { 0,
					   1,
					   PAGE_SIZE - 1,
					   PAGE_SIZE,
					   2 * PAGE_SIZE,
					   MIB(2),
					   RAM_SIZE - PAGE_SIZE,
					   RAM_SIZE,
					   RAM_SIZE + PAGE_SIZE,
					   UINT32_MAX,
					   1ull << 32,
					   1ull << 40,
					   INT64_MAX,
					   1ull << 63,
					   -PAGE_SIZE,
					   UINT64_MAX };

	switch (random_word() % 4) {
	case 0:
		return random_word();
	case 1:
		return random_word() % RAM_PAGES * PAGE_SIZE;
	default:
		return values[random_word() % (sizeof(values) / sizeof(*values))];
	}
}

static bool fits(const range_t *range)
{
	return range->length && !(range->offset % PAGE_SIZE) &&
	       !(range->length % PAGE_SIZE) && range->offset <= RAM_SIZE &&
	       range->length <= RAM_SIZE - range->offset;
}

TEST(export_random, "random exports succeed if and only if the table says so")
{
	enum { ROUNDS = 20000, MOST = 4 };
	struct barlease_device dev = open_device(RAM_DEVICE);
	unsigned int fds = count_fds(), good = 0;

	for (int round = 0; round < (int)rounds(ROUNDS); round++) {
		uint32_t count = 1 + random_word() % MOST;
		range_t ranges[MOST];
		bool all_fit = true;
		int fd;

		for (uint32_t i = 0; i < count; i++) {
			ranges[i] = (range_t){ extreme(), extreme() };
			all_fit &= fits(&ranges[i]);
		}
		fd = abi_export(dev.device_fd, RAM_BAR, ranges, count, O_RDWR);
		if (all_fit) {
			CHECK_OK(fd);
			CHECK_EQ(info(&dev, fd).nr_ranges, count);
			close(fd);
			good++;
		} else {
			CHECK_ERRNO(fd, EINVAL);
		}
	}
	CHECK(good);
	CHECK_EQ(count_fds(), fds);
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

TEST(feature_random, "random feature calls harm nothing and leak nothing")
{
	enum { ROUNDS = 50000, SIZE = 256 };
	static const uint32_t numbers[] = { VFIO_DEVICE_FEATURE_DMA_BUF,
					    BARLEASE_FEATURE_REVOKE,
					    BARLEASE_FEATURE_MEMATTR,
					    BARLEASE_FEATURE_INFO };
	struct barlease_device dev = open_device(RAM_DEVICE);
	unsigned int fds = count_fds();
	union {
		struct vfio_device_feature feature;
		uint64_t words[SIZE / 8];
	} call;
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));

	for (int round = 0; round < (int)rounds(ROUNDS); round++) {
		int result;

		for (int i = 0; i < SIZE / 8; i++)
			call.words[i] = random_word() % 3 ? extreme() : (uint64_t)fd;
		call.feature.argsz = (uint32_t)(random_word() % (SIZE + 1));
		call.feature.flags = numbers[random_word() % 4] |
				     (uint32_t)(random_word() % 8) << 16;
		result = ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, &call);
		if (result > 0)
			close(result);
		else if (!result)
			continue;
		else
			CHECK_THAT(
				errno == EINVAL || errno == EBADF || errno == ENODEV ||
					errno == ENOTTY || errno == EBADFD ||
					errno == ENOENT || errno == ENOSPC ||
					errno == E2BIG || errno == EFAULT,
				"%#x: saw %s", call.feature.flags, errno_name(errno));
	}
	close(fd);
	CHECK_EQ(count_fds(), fds);
	CHECK_EQ(lease_rows(dev.bdf), 0);
	CHECK_LOADS(map(lease(&dev, RAM_BAR, 0, PAGE_SIZE), 0, PAGE_SIZE, PROT_READ));
}

TEST(info_larger_argsz, "info with a larger argsz zeroes the rest, and no more")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, MIB(3), MIB(5));
	const size_t known = sizeof(struct barlease_feature_info);
	const size_t header = sizeof(struct vfio_device_feature);
	struct barlease_feature_info want = info(&dev, fd);
	/* The call's end is the page's, and behind it there is nothing. */
	unsigned char *page =
		CHECK_MAP(mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	CHECK_OK(munmap(page + PAGE_SIZE, PAGE_SIZE));
	for (size_t extra = 0; extra < 512; extra += 7) {
		unsigned char *start = page + 64;
		struct vfio_device_feature *feature = (void *)start;

		memset(page, 0xff, PAGE_SIZE);
		feature->argsz = (uint32_t)(header + known + extra);
		feature->flags = GET | BARLEASE_FEATURE_INFO;
		memcpy(feature->data, &fd, sizeof(fd));
		CHECK_OK(ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, feature));
		CHECK(!memcmp(feature->data, &want, known));
		for (size_t i = 0; i < extra; i++)
			CHECK_EQ(start[header + known + i], 0);
		CHECK_EQ(start[header + known + extra], 0xff);
		CHECK_EQ(page[63], 0xff);
	}
}

TEST(info_largest_argsz, "an argsz beyond the caller's memory is EFAULT for info")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	char *page = CHECK_MAP(mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	struct vfio_device_feature *feature = (void *)page;

	CHECK_OK(munmap(page + PAGE_SIZE, PAGE_SIZE));
	for (uint32_t argsz = PAGE_SIZE + 1; argsz > PAGE_SIZE; argsz *= 2) {
		feature->argsz = argsz;
		feature->flags = GET | BARLEASE_FEATURE_INFO;
		memcpy(feature->data, &fd, sizeof(fd));
		CHECK_ERRNO(ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, feature), EFAULT);
	}
}

TEST(set_larger_argsz, "revoke and memattr take no notice of a larger argsz")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	int32_t data[32];

	memset(data, 0xff, sizeof(data));
	data[0] = fd;
	data[1] = BARLEASE_MEMATTR_WC;
	CHECK_OK(abi_feature(dev.device_fd, SET | BARLEASE_FEATURE_MEMATTR, data,
			     sizeof(data)));
	CHECK_EQ(info(&dev, fd).memattr, BARLEASE_MEMATTR_WC);
	data[1] = 0;
	CHECK_OK(abi_feature(dev.device_fd, SET | BARLEASE_FEATURE_REVOKE, data,
			     sizeof(data)));
	CHECK_EQ(info(&dev, fd).state, BARLEASE_STATE_REVOKED);
}
