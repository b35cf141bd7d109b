// SPDX-License-Identifier: MIT
/*
 * mapping.c - whatever is done to a mapping of a lease, it shows the right
 * pages and no others.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

/* Two spans: page n of the lease is FIRST + n, then SECOND + n - SEAM. */
#define FIRST  512
#define SECOND 8192
#define SEAM   1536
#define PAGES  (2 * SEAM)
#define LENGTH (PAGES * PAGE_SIZE)

static uint64_t bar_page(uint64_t page)
{
	return page < SEAM ? FIRST + page : SECOND + page - SEAM;
}

static int lease_seam(struct barlease_device *dev)
{
	const struct vfio_region_dma_range ranges[] = {
		{ FIRST * PAGE_SIZE, SEAM * PAGE_SIZE },
		{ SECOND * PAGE_SIZE, SEAM * PAGE_SIZE },
	};

	*dev = open_device(RAM_DEVICE);
	stamp_pages(dev);
	return lease_ranges(dev, RAM_BAR, ranges, 2, O_RDWR | O_CLOEXEC);
}

/* At this address lie these pages of the lease. */
static void check_view(const char *at, uint64_t page, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		CHECK_PAGE(at + i * PAGE_SIZE, bar_page(page + i));
}

static char *map_seam(int fd)
{
	return map_at(fd, 0, LENGTH, READ_WRITE, FIRST * PAGE_SIZE);
}

TEST(map_offsets, "a mapping from any offset starts at that page, across seams")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);

	for (int round = 0; round < 200; round++) {
		uint64_t first = random_word() % PAGES;
		uint64_t count = 1 + random_word() % (PAGES - first);
		char *at;

		if (count > 300)
			count = 300;
		at = map(fd, first * PAGE_SIZE, count * PAGE_SIZE, PROT_READ);
		check_view(at, first, count);
		CHECK_OK(munmap(at, count * PAGE_SIZE));
	}
	check_view(map(fd, (SEAM - 1) * PAGE_SIZE, 2 * PAGE_SIZE, PROT_READ), SEAM - 1,
		   2);
	check_view(map(fd, LENGTH - PAGE_SIZE, PAGE_SIZE, PROT_READ), PAGES - 1, 1);
}

TEST(map_adjacent, "two mappings side by side show each its pages")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);
	uint64_t half = LENGTH / 2;
	char *room = CHECK_MAP(
		mmap(NULL, LENGTH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	for (int swap = 0; swap < 2; swap++) {
		for (uint64_t i = 0; i < 2; i++)
			CHECK_MAP(mmap(room + i * half, half, PROT_READ,
				       MAP_SHARED | MAP_FIXED, fd,
				       (off_t)((i ^ (uint64_t)swap) * half)));
		check_view(room, swap ? SEAM : 0, SEAM);
		check_view(room + half, swap ? 0 : SEAM, SEAM);
	}
}

TEST(map_two_leases, "leases side by side in memory are not mixed up")
{
	struct barlease_device dev;
	int one = lease_seam(&dev), two = lease(&dev, RAM_BAR, 0, LENGTH);
	char *room = CHECK_MAP(
		mmap(NULL, 2 * LENGTH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	CHECK_MAP(mmap(room, LENGTH, PROT_READ, MAP_SHARED | MAP_FIXED, one, 0));
	CHECK_MAP(
		mmap(room + LENGTH, LENGTH, PROT_READ, MAP_SHARED | MAP_FIXED, two, 0));
	check_view(room, 0, PAGES);
	for (uint64_t page = 0; page < PAGES; page++)
		CHECK_PAGE(room + LENGTH + page * PAGE_SIZE, page);
	CHECK_OK(abi_revoke(dev.device_fd, one));
	CHECK_GONE(room);
	CHECK_GONE(room + LENGTH - PAGE_SIZE);
	CHECK_PAGE(room + LENGTH, 0);
}

TEST(map_holes, "holes punched into a mapping are holes, the rest stays right")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);

	for (int touched = 0; touched < 2; touched++) {
		char *at = map_seam(fd);

		if (touched)
			check_view(at, 0, PAGES);
		CHECK_OK(munmap(at + 100 * PAGE_SIZE, PAGE_SIZE));
		CHECK_OK(munmap(at + 1000 * PAGE_SIZE, 600 * PAGE_SIZE));
		check_view(at, 0, 100);
		CHECK_LOAD(at + 100 * PAGE_SIZE, SIGSEGV);
		check_view(at + 101 * PAGE_SIZE, 101, 899);
		CHECK_LOAD(at + 1000 * PAGE_SIZE, SIGSEGV);
		CHECK_LOAD(at + 1599 * PAGE_SIZE, SIGSEGV);
		check_view(at + 1600 * PAGE_SIZE, 1600, PAGES - 1600);
		CHECK_OK(munmap(at, LENGTH));
	}
}

TEST(map_split, "a mapping split by mprotect shows the right pages in each part")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);

	for (int touched = 0; touched < 2; touched++) {
		char *at = map_seam(fd);

		if (touched)
			check_view(at, 0, PAGES);
		for (uint64_t page = 1; page < PAGES; page += 177)
			CHECK_OK(mprotect(at + page * PAGE_SIZE, PAGE_SIZE, PROT_READ));
		CHECK_OK(mprotect(at + 700 * PAGE_SIZE, PAGE_SIZE, PROT_NONE));
		check_view(at, 0, 700);
		CHECK_LOAD(at + 700 * PAGE_SIZE, SIGSEGV);
		check_view(at + 701 * PAGE_SIZE, 701, PAGES - 701);
		CHECK_STORE(at + PAGE_SIZE, SIGSEGV);
		CHECK_STORES(at);
		CHECK_STORES(at + 2 * PAGE_SIZE);
		CHECK_OK(munmap(at, LENGTH));
	}
}

TEST(map_moved, "mremap takes the pages along, and leaves none behind")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);

	for (int touched = 0; touched < 2; touched++) {
		/* Congruent to the old place, then not. */
		for (uint64_t off = 0; off < 2; off++) {
			char *at = map_seam(fd);
			char *room = map_at(fd, 0, LENGTH, PROT_NONE,
					    (FIRST + off) * PAGE_SIZE);

			if (touched)
				check_view(at, 0, PAGES);
			CHECK(mremap(at, LENGTH, LENGTH, MREMAP_MAYMOVE | MREMAP_FIXED,
				     room) == room);
			CHECK_LOAD(at, SIGSEGV);
			check_view(room, 0, PAGES);
			CHECK_OK(munmap(room, LENGTH));
		}
	}
}

TEST(map_moved_part, "mremap of a part moves that part alone")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);
	char *at = map_seam(fd);
	uint64_t part = 700 * PAGE_SIZE, length = 900 * PAGE_SIZE;
	char *room = map_at(fd, 0, LENGTH, PROT_NONE, 0);

	check_view(at, 0, PAGES);
	CHECK(mremap(at + part, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, room) ==
	      room);
	check_view(at, 0, 700);
	CHECK_LOAD(at + part, SIGSEGV);
	check_view(at + part + length, 1600, PAGES - 1600);
	check_view(room, 700, 900);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_GONE(at);
	CHECK_GONE(room);
	CHECK_GONE(at + part + length);
}

TEST(map_resized, "mremap shrinks a mapping and never grows or doubles it")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);
	char *at = map_seam(fd);

	check_view(at, 0, PAGES);
	CHECK(mremap(at, LENGTH, PAGE_SIZE, 0) == at);
	check_view(at, 0, 1);
	CHECK_LOAD(at + PAGE_SIZE, SIGSEGV);
	CHECK_EQ(mremap(at, PAGE_SIZE, 2 * PAGE_SIZE, 0), -1);
	CHECK_EQ(mremap(at, PAGE_SIZE, LENGTH, MREMAP_MAYMOVE), -1);
	CHECK_EQ(mremap(at, PAGE_SIZE, LENGTH + PAGE_SIZE, MREMAP_MAYMOVE), -1);
	CHECK_EQ(mremap(at, 0, PAGE_SIZE, MREMAP_MAYMOVE), -1);
	CHECK_EQ(mremap(at, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP),
		 -1);
	check_view(at, 0, 1);
}

TEST(map_remapped, "remap_file_pages keeps to the lease and shows its pages")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);
	char *at = map_seam(fd);

	check_view(at, 0, 8);
	CHECK_OK(remap_file_pages(at, 4 * PAGE_SIZE, 0, SEAM - 2, 0));
	check_view(at, SEAM - 2, 4);
	check_view(at + 4 * PAGE_SIZE, 4, 4);
	/* A refusal may leave a hole: each call has pages of its own. */
	CHECK_EQ(remap_file_pages(at + 8 * PAGE_SIZE, PAGE_SIZE, 0, PAGES, 0), -1);
	CHECK_EQ(remap_file_pages(at + 9 * PAGE_SIZE, 2 * PAGE_SIZE, 0, PAGES - 1, 0),
		 -1);
	CHECK_EQ(remap_file_pages(at + 11 * PAGE_SIZE, PAGE_SIZE, 0, 1ul << 28, 0), -1);
	check_view(at + 12 * PAGE_SIZE, 12, 4);
}

static void check_forked(int sock, void *at)
{
	check_view(at, 0, PAGES);
	say(sock, 0);
	hear(sock);
	CHECK_GONE(at);
	CHECK_GONE((char *)at + LENGTH - PAGE_SIZE);
}

TEST(map_forked, "a child has its parent's mappings, and loses them by revoke")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);
	char *at = map_seam(fd);
	struct kid kid;

	check_view(at, 0, PAGES);
	kid = kid_start(check_forked, at);
	hear(kid.sock);
	check_view(at, 0, PAGES);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	say(kid.sock, 0);
	kid_join(&kid);
	CHECK_GONE(at);
}

static void check_passed(int sock, void *unused)
{
	int fd = receive_fd(sock);
	char *at = map_seam(fd);

	(void)unused;
	check_view(at, 0, PAGES);
	check_view(map(dup(fd), 0, LENGTH, PROT_READ), 0, PAGES);
	close(fd);
	say(sock, 0);
	hear(sock);
	CHECK_GONE(at);
}

TEST(map_passed, "a lease passed over a socket maps there, and can be revoked")
{
	/* Forked before the device is opened, it has but what it is passed. */
	struct kid kid = kid_start(check_passed, NULL);
	struct barlease_device dev;
	int fd = lease_seam(&dev);

	send_fd(kid.sock, fd);
	hear(kid.sock);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	say(kid.sock, 0);
	kid_join(&kid);
}

TEST(map_fd_closed, "a mapping outlives its fd, and still dies with the device")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);
	char *at = map_seam(fd);

	check_view(at, 0, 600);
	close(fd);
	CHECK_EQ(lease_rows(dev.bdf), 1);
	check_view(at, 0, PAGES);
	CHECK_OK(munmap(at, LENGTH / 2));
	CHECK_EQ(lease_rows(dev.bdf), 1);
	check_view(at + LENGTH / 2, SEAM, SEAM);
	barlease_device_close(&dev);
	CHECK_GONE(at + LENGTH / 2);
	CHECK_GONE(at + LENGTH - PAGE_SIZE);
}

TEST(map_last_gone, "a lease ends with its last fd and mapping")
{
	struct barlease_device dev;
	int fd = lease_seam(&dev);
	char *at = map_seam(fd);

	check_view(at, 0, PAGES);
	close(fd);
	CHECK_EQ(lease_rows(dev.bdf), 1);
	CHECK_OK(munmap(at, LENGTH));
	CHECK_EQ(lease_rows(dev.bdf), 0);
}
