// SPDX-License-Identifier: MIT
/*
 * ranges.c - whatever ranges a lease is made of, each of its pages is the
 * right page of the BAR.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

typedef struct vfio_region_dma_range range_t;

static range_t pages(uint64_t first, uint64_t count)
{
	return (range_t){ first * PAGE_SIZE, count * PAGE_SIZE };
}

/* Ranges that go on where the last one ended are one span. */
static uint32_t count_spans(const range_t *ranges, uint32_t count)
{
	uint32_t spans = count;

	for (uint32_t i = 1; i < count; i++)
		spans -=
			ranges[i].offset == ranges[i - 1].offset + ranges[i - 1].length;
	return spans;
}

static uint64_t total(const range_t *ranges, uint32_t count)
{
	uint64_t size = 0;

	for (uint32_t i = 0; i < count; i++)
		size += ranges[i].length;
	return size;
}

static void check_pages(const char *at, const range_t *ranges, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t page = ranges[i].offset / PAGE_SIZE;

		for (uint64_t left = ranges[i].length; left; left -= PAGE_SIZE) {
			CHECK_PAGE(at, page++);
			at += PAGE_SIZE;
		}
	}
}

/* As a whole, at an address that allows huge pages and at one that does not. */
static void check_lease(const struct barlease_device *dev, const range_t *ranges,
			uint32_t count)
{
	uint64_t size = total(ranges, count);
	int fd = lease_ranges(dev, RAM_BAR, ranges, count, O_RDWR);
	struct barlease_feature_info seen = info(dev, fd);
	char *at;

	CHECK_EQ(seen.size, size);
	CHECK_EQ(seen.nr_ranges, count);
	CHECK_EQ(seen.nr_spans, count_spans(ranges, count));
	CHECK_EQ(lseek(fd, 0, SEEK_END), size);
	at = map_at(fd, 0, size, PROT_READ, seen.va_hint);
	check_pages(at, ranges, count);
	CHECK_OK(munmap(at, size));
	at = map_at(fd, 0, size, PROT_READ, seen.va_hint + PAGE_SIZE);
	check_pages(at, ranges, count);
	CHECK_OK(munmap(at, size));
	close(fd);
}

#define CHECK_LEASE(dev, ...)                                                 \
	do {                                                                  \
		range_t ranges_[] = { __VA_ARGS__ };                          \
		check_lease(dev, ranges_, sizeof(ranges_) / sizeof(range_t)); \
	} while (0)

TEST(ranges_one, "one range shows exactly its pages, wherever it lies")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	stamp_pages(&dev);
	CHECK_LEASE(&dev, pages(0, 1));
	CHECK_LEASE(&dev, pages(1, 1));
	CHECK_LEASE(&dev, pages(RAM_PAGES - 1, 1));
	CHECK_LEASE(&dev, pages(0, 512));
	CHECK_LEASE(&dev, pages(511, 2));
	CHECK_LEASE(&dev, pages(513, 1023));
	CHECK_LEASE(&dev, pages(RAM_PAGES - 1025, 1025));
}

TEST(ranges_whole_bar, "a lease of the whole BAR shows all its pages")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	stamp_pages(&dev);
	CHECK_LEASE(&dev, pages(0, RAM_PAGES));
}

TEST(ranges_unordered, "ranges appear in the order given, not the BAR's")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	stamp_pages(&dev);
	CHECK_LEASE(&dev, pages(9, 1), pages(5, 2), pages(7, 1), pages(0, 3));
	CHECK_LEASE(&dev, pages(1024, 512), pages(0, 512), pages(512, 512));
	CHECK_LEASE(&dev, pages(RAM_PAGES - 1, 1), pages(0, 1));
}

TEST(ranges_repeated, "a range given twice appears twice")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	stamp_pages(&dev);
	CHECK_LEASE(&dev, pages(3, 1), pages(3, 1));
	CHECK_LEASE(&dev, pages(512, 512), pages(512, 512), pages(512, 512));
	CHECK_LEASE(&dev, pages(0, 1), pages(1, 1), pages(0, 1), pages(1, 1));
}

TEST(ranges_overlapping, "ranges may overlap, by any number of pages")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	stamp_pages(&dev);
	CHECK_LEASE(&dev, pages(0, 8), pages(4, 8), pages(0, 12));
	CHECK_LEASE(&dev, pages(0, 1024), pages(511, 514), pages(1, 2));
}

TEST(ranges_merged, "adjacent ranges are one span, and show the same pages")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t ranges[4096];

	stamp_pages(&dev);
	for (uint32_t i = 0; i < 4096; i++)
		ranges[i] = pages(512 + i, 1);
	CHECK_EQ(count_spans(ranges, 4096), 1);
	check_lease(&dev, ranges, 4096);
	/* The same but for one that breaks the chain. */
	ranges[2048] = pages(0, 1);
	CHECK_EQ(count_spans(ranges, 4096), 3);
	check_lease(&dev, ranges, 4096);
}

TEST(ranges_most, "65,536 ranges show each page in its place")
{
	struct barlease_device dev = open_device(BIG_DEVICE);
	uint32_t count = BARLEASE_MAX_RANGES;
	range_t *ranges = calloc(count, sizeof(*ranges));

	CHECK(ranges);
	stamp_pages(&dev);
	/* An odd factor meets every page once, none after its neighbour. */
	for (uint32_t i = 0; i < count; i++)
		ranges[i] = pages(i * 40503u % count, 1);
	CHECK_EQ(count_spans(ranges, count), count);
	check_lease(&dev, ranges, count);
}

TEST(ranges_random, "random layouts show each page in its place")
{
	enum { ROUNDS = 60, MOST = 24 };
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t ranges[MOST];

	stamp_pages(&dev);
	for (int round = 0; round < (int)rounds(ROUNDS); round++) {
		uint32_t count = 1 + random_word() % MOST;
		uint64_t next = 0;

		for (uint32_t i = 0; i < count; i++) {
			uint64_t length =
				1 + random_word() % (random_word() % 2 ? 1100 : 20);
			/* Every other one adjoins, so that there are merges. */
			uint64_t first =
				random_word() % 2 ? next : random_word() % RAM_PAGES;

			if (first + length > RAM_PAGES)
				first = RAM_PAGES - length;
			ranges[i] = pages(first, length);
			next = first + length;
		}
		check_lease(&dev, ranges, count);
	}
}

TEST(ranges_many_whole, "thousands of whole BARs in one lease show the right pages")
{
	enum { COUNT = 1024 };
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t ranges[COUNT];
	int fd;

	stamp_pages(&dev);
	for (int i = 0; i < COUNT; i++)
		ranges[i] = pages(0, RAM_PAGES);
	fd = lease_ranges(&dev, RAM_BAR, ranges, COUNT, O_RDWR);
	CHECK_EQ(info(&dev, fd).size, COUNT * RAM_SIZE);
	for (int i = 0; i < 200; i++) {
		uint64_t page = random_word() % (COUNT * RAM_PAGES - 600);
		char *at = map(fd, page * PAGE_SIZE, 600 * PAGE_SIZE, PROT_READ);

		for (uint64_t next = 0; next < 600; next += 1 + next % 7)
			CHECK_PAGE(at + next * PAGE_SIZE, (page + next) % RAM_PAGES);
		CHECK_OK(munmap(at, 600 * PAGE_SIZE));
	}
}
