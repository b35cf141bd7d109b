// SPDX-License-Identifier: MIT
/*
 * memattr.c - the memory type that the page tables really hold.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)
#define FRAME      0x000ffffffffff000ull

/* Of a test of 1 GiB entries it is another. */
static enum device_kind device = RAM_DEVICE;

/* The entry that maps this page of the BAR. */
static struct ptwalk entry_of(const void *at, uint64_t page, uint32_t level)
{
	static const uint64_t sizes[] = { 0, PAGE_SIZE, MIB(2), GIB(1) };
	static uint64_t start;
	struct ptwalk entry = page_entry(at);
	uint64_t physical;

	if (!start)
		start = bar_start(device_bdf(device), RAM_BAR);
	physical = start + page * PAGE_SIZE;
	CHECK_EQ(entry.level, level);
	CHECK_EQ(entry.entry & FRAME & -sizes[level], physical & -sizes[level]);
	return entry;
}

static void check_uncached(const void *at, uint64_t page, uint32_t level)
{
	uint32_t memtype = entry_of(at, page, level).memtype;

	CHECK_THAT(memtype == PTWALK_UC || memtype == PTWALK_UC_MINUS,
		   "expected uncached, saw memory type %u", memtype);
}

static void check_combining(const void *at, uint64_t page)
{
	CHECK_EQ(entry_of(at, page, PTWALK_PTE).memtype, PTWALK_WC);
}

/* Touched by loads and by stores in turn, as both make entries. */
static void touch(char *at, uint64_t length)
{
	for (uint64_t off = 0; off < length; off += 2 * PAGE_SIZE) {
		CHECK_LOADS(at + off);
		CHECK_STORES(at + off + PAGE_SIZE);
	}
}

static int lease_combining(const struct barlease_device *dev, uint64_t length)
{
	int fd = lease(dev, RAM_BAR, 0, length);

	CHECK_OK(abi_memattr(dev->device_fd, fd, BARLEASE_MEMATTR_WC));
	CHECK_EQ(info(dev, fd).memattr, BARLEASE_MEMATTR_WC);
	return fd;
}

static void check_all_combining(const char *at, uint64_t length)
{
	for (uint64_t page = 0; page < length / PAGE_SIZE; page++)
		check_combining(at + page * PAGE_SIZE, page);
}

TEST(memattr_uc, "an uncached lease's entries are uncached, of 2 MiB and 4 KiB")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(8));
	char *huge = map_at(fd, 0, MIB(8), READ_WRITE, 0);
	char *odd = map_at(fd, 0, MIB(8), READ_WRITE, PAGE_SIZE);

	CHECK_EQ(info(&dev, fd).memattr, BARLEASE_MEMATTR_UC);
	touch(huge, MIB(8));
	touch(odd, MIB(8));
	for (uint64_t page = 0; page < MIB(8) / PAGE_SIZE; page++) {
		check_uncached(huge + page * PAGE_SIZE, page, PTWALK_PMD);
		check_uncached(odd + page * PAGE_SIZE, page, PTWALK_PTE);
	}
}

TEST(memattr_uc_pud, "a 1 GiB entry is uncached", .params = "huge_pud=1")
{
	struct barlease_device dev = open_device(device = BIG_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, BIG_SIZE);
	char *at = map_at(fd, 0, BIG_SIZE, READ_WRITE, 0);

	CHECK_STORES(at);
	check_uncached(at, 0, PTWALK_PUD);
	check_uncached(at + BIG_SIZE - PAGE_SIZE, BIG_PAGES - 1, PTWALK_PUD);
}

TEST(memattr_wc, "a write-combining lease's entries are write-combining")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease_combining(&dev, MIB(4));

	stamp_pages(&dev);
	for (uint64_t off = 0; off < 2; off++) {
		char *at = map_at(fd, 0, MIB(4), READ_WRITE, off * PAGE_SIZE);

		touch(at, MIB(4));
		check_all_combining(at, MIB(4));
		for (uint64_t page = 0; page < MIB(4) / PAGE_SIZE; page++)
			CHECK_PAGE(at + page * PAGE_SIZE, page);
	}
}

TEST(memattr_wc_pud, "write-combining holds with huge_pud=1 too",
     .params = "huge_pud=1")
{
	struct barlease_device dev = open_device(device = BIG_DEVICE);
	int fd = lease_combining(&dev, BIG_SIZE);
	char *at = map_at(fd, 0, BIG_SIZE, READ_WRITE, 0);

	touch(at, MIB(4));
	check_all_combining(at, MIB(4));
}

TEST(memattr_wc_prefault, "write-combining entries are what a prefault makes")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease_combining(&dev, MIB(4));
	char *at = map_at(fd, 0, MIB(4), READ_WRITE, 0);
	uint64_t seen;

	CHECK_OK(abi_prefault(fd));
	check_all_combining(at, MIB(4));
	seen = faults(&dev, fd);
	CHECK_EQ(seen, MIB(4) / KIB(64));
	touch(at, MIB(4));
	CHECK_EQ(faults(&dev, fd), seen);
}

TEST(memattr_later, "a memory attribute is that of later mmap()s alone")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	char *first = map_at(fd, 0, MIB(4), READ_WRITE, 0), *second, *third;

	CHECK_STORES(first);
	CHECK_OK(abi_memattr(dev.device_fd, fd, BARLEASE_MEMATTR_WC));
	second = map_at(fd, 0, MIB(4), READ_WRITE, 0);
	CHECK_STORES(second);
	CHECK_OK(abi_memattr(dev.device_fd, fd, BARLEASE_MEMATTR_UC));
	third = map_at(fd, 0, MIB(4), READ_WRITE, 0);
	/* Of entries made before the change, and after it. */
	for (uint64_t page = 0; page < 1024; page += 512) {
		CHECK_STORES(first + page * PAGE_SIZE);
		CHECK_STORES(second + page * PAGE_SIZE);
		CHECK_STORES(third + page * PAGE_SIZE);
		check_uncached(first + page * PAGE_SIZE, page, PTWALK_PMD);
		check_combining(second + page * PAGE_SIZE, page);
		check_uncached(third + page * PAGE_SIZE, page, PTWALK_PMD);
	}
}

TEST(memattr_others, "leases of the same pages keep each its own memory type")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int combining = lease_combining(&dev, MIB(4));
	int uncached = lease(&dev, RAM_BAR, 0, MIB(4));
	int victim = lease(&dev, RAM_BAR, 0, MIB(4));
	char *wc = map_at(combining, 0, MIB(4), READ_WRITE, 0);
	char *uc = map_at(uncached, 0, MIB(4), READ_WRITE, 0);
	char *gone = map_at(victim, 0, MIB(4), READ_WRITE, 0);
	char *owner = map_bar(&dev, RAM_BAR, 0, MIB(4), READ_WRITE);

	CHECK_STORES(owner);
	CHECK_STORES(wc);
	CHECK_STORES(uc);
	CHECK_STORES(gone);
	CHECK_OK(abi_revoke(dev.device_fd, victim));
	check_combining(wc, 0);
	check_uncached(uc, 0, PTWALK_PMD);
	CHECK_EQ(page_entry(gone).level, PTWALK_NONE);
	CHECK_STORES(wc + MIB(2));
	check_combining(wc + MIB(2), 512);
}

TEST(memattr_wc_lasts, "write-combining survives mremap, mprotect and decoding off")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease_combining(&dev, MIB(4));
	char *at = map_at(fd, 0, MIB(4), READ_WRITE, 0);
	char *room = map_at(fd, 0, MIB(4), PROT_NONE, 0);

	touch(at, MIB(4));
	CHECK(mremap(at, MIB(4), MIB(4), MREMAP_MAYMOVE | MREMAP_FIXED, room) == room);
	touch(room, MIB(4));
	check_all_combining(room, MIB(4));
	CHECK_OK(mprotect(room, MIB(1), PROT_READ));
	CHECK_OK(mprotect(room, MIB(1), READ_WRITE));
	check_all_combining(room, MIB(4));
	set_decoding(&dev, false);
	CHECK_EQ(page_entry(room).level, PTWALK_NONE);
	set_decoding(&dev, true);
	touch(room, MIB(4));
	check_all_combining(room, MIB(4));
}

TEST(memattr_wc_revoke, "a revoke takes write-combining entries away")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease_combining(&dev, MIB(4));
	char *at = map_at(fd, 0, MIB(4), READ_WRITE, 0);

	touch(at, MIB(4));
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	for (uint64_t off = 0; off < MIB(4); off += PAGE_SIZE)
		CHECK_EQ(page_entry(at + off).level, PTWALK_NONE);
	CHECK_GONE(at);
}

TEST(memattr_wc_stores, "what is stored write-combining arrives at the device")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease_combining(&dev, MIB(4));
	char *at = map(fd, 0, MIB(4), READ_WRITE);
	char *owner = map_bar(&dev, RAM_BAR, 0, MIB(4), PROT_READ);

	for (uint32_t off = 0; off < MIB(4); off += PAGE_SIZE)
		CHECK_EQ(try_store(at + off, ~off), 0);
	/* Revoke pushes them out. */
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	for (uint32_t off = 0; off < MIB(4); off += PAGE_SIZE) {
		uint32_t seen;

		CHECK_EQ(try_load(owner + off, &seen), 0);
		CHECK_EQ(seen, ~off);
	}
}
