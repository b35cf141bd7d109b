// SPDX-License-Identifier: MIT
/*
 * faults.c - how many faults a layout takes, and none for what others lose.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)
#define AROUND     KIB(64)

typedef struct vfio_region_dma_range range_t;

/* Store into each page: so many faults does a fresh mapping take. */
static uint64_t touch(const struct barlease_device *dev, int fd, char *at,
		      uint64_t length)
{
	uint64_t before = faults(dev, fd);

	for (uint64_t off = 0; off < length; off += PAGE_SIZE)
		CHECK_STORES(at + off);
	return faults(dev, fd) - before;
}

/* All of a lease of these ranges, mapped at this distance from congruent. */
static uint64_t layout(const range_t *ranges, uint32_t count, uint64_t off)
{
	bool big = ranges[0].length > RAM_SIZE;
	struct barlease_device dev = open_device(big ? BIG_DEVICE : RAM_DEVICE);
	int fd = lease_ranges(&dev, RAM_BAR, ranges, count, O_RDWR | O_CLOEXEC);
	struct barlease_feature_info seen = info(&dev, fd);
	char *at = map_at(fd, 0, seen.size, READ_WRITE, seen.va_hint + off);
	uint64_t taken = touch(&dev, fd, at, seen.size);

	CHECK_EQ(touch(&dev, fd, at, seen.size), 0);
	CHECK_OK(munmap(at, seen.size));
	close(fd);
	barlease_device_close(&dev);
	return taken;
}

static uint64_t one_range(uint64_t offset, uint64_t length, uint64_t off)
{
	return layout(&(range_t){ offset, length }, 1, off);
}

TEST(faults_aligned, "1 GiB aligned takes 512 faults, one for each 2 MiB")
{
	CHECK_EQ(one_range(0, BIG_SIZE, 0), 512);
}

TEST(faults_aligned_pud, "1 GiB aligned takes one fault with huge_pud=1",
     .params = "huge_pud=1")
{
	CHECK_EQ(one_range(0, BIG_SIZE, 0), 1);
}

TEST(faults_nearly_pud, "a page less than 1 GiB has 2 MiB entries with huge_pud=1",
     .params = "huge_pud=1")
{
	CHECK_EQ(one_range(0, BIG_SIZE - PAGE_SIZE, 0), 511 + 32);
}

TEST(faults_congruent,
     "a congruent mapping has 2 MiB entries within, 64 KiB at its ends")
{
	/* Up to the first 2 MiB, then 15 of them, then what is left. */
	CHECK_EQ(one_range(3 * PAGE_SIZE, MIB(32), 0), 32 + 15 + 1);
	CHECK_EQ(one_range(MIB(2), MIB(32), 0), 16);
	CHECK_EQ(one_range(MIB(3), MIB(32), 0), 16 + 15 + 16);
	CHECK_EQ(one_range(MIB(1), MIB(1), 0), 16);
}

TEST(faults_odd, "an odd mapping takes one fault for each 64 KiB")
{
	const uint64_t length = MIB(16), blocks = length / AROUND;
	uint64_t taken;

	CHECK_EQ(one_range(0, length, AROUND), blocks);
	CHECK_EQ(one_range(0, length, MIB(1)), blocks);
	/* Off by a page, its ends may lie inside a block each. */
	taken = one_range(0, length, PAGE_SIZE);
	CHECK_THAT(taken == blocks || taken == blocks + 1,
		   "expected %llu faults or one more, saw %llu",
		   (unsigned long long)blocks, (unsigned long long)taken);
}

TEST(faults_merged, "huge entries cross the seams of adjacent ranges")
{
	range_t ranges[1024];

	for (uint64_t i = 0; i < 1024; i++)
		ranges[i] = (range_t){ MIB(4) + i * PAGE_SIZE, PAGE_SIZE };
	CHECK_EQ(layout(ranges, 1024, 0), 2);
	/* Out of order by one pair, the second 2 MiB is in pieces. */
	ranges[1022].offset += PAGE_SIZE;
	ranges[1023].offset -= PAGE_SIZE;
	CHECK_EQ(layout(ranges, 1024, 0), 1 + 32 + 2);
}

TEST(faults_spans, "a fault maps up to its span's end and no further")
{
	const range_t swapped[] = { { MIB(1), MIB(1) }, { 0, MIB(1) } };
	range_t pages[64];

	CHECK_EQ(layout(swapped, 2, 0), 32);
	for (uint64_t i = 0; i < 64; i++)
		pages[i] = (range_t){ 2 * i * PAGE_SIZE, PAGE_SIZE };
	CHECK_EQ(layout(pages, 64, 0), 64);
}

TEST(faults_around_least, "fault_around_kb=4 takes one fault a page",
     .params = "fault_around_kb=4")
{
	CHECK_EQ(one_range(0, MIB(4), PAGE_SIZE), 1024);
	CHECK_EQ(one_range(0, MIB(4), 0), 2);
}

TEST(faults_around_most, "fault_around_kb=2048 takes one fault for each 2 MiB",
     .params = "fault_around_kb=2048")
{
	uint64_t taken = one_range(0, MIB(32), PAGE_SIZE);

	CHECK_THAT(taken == 16 || taken == 17, "expected 16 or 17 faults, saw %llu",
		   (unsigned long long)taken);
}

TEST(faults_load_then_store, "a store after a load takes no fault of its own")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));

	for (uint64_t off = 0; off < 2; off++) {
		char *at = map_at(fd, 0, MIB(4), READ_WRITE, off * PAGE_SIZE);

		for (uint64_t page = 0; page < MIB(4); page += PAGE_SIZE)
			CHECK_LOADS(at + page);
		CHECK_EQ(touch(&dev, fd, at, MIB(4)), 0);
	}
}

/* What a bystander sees of another lease's revoke. */
struct bystander {
	int fd;
	char *huge, *odd;
};

static void use(struct bystander *one)
{
	for (uint64_t off = 0; off < MIB(8); off += PAGE_SIZE) {
		CHECK_STORES(one->huge + off);
		CHECK_STORES(one->odd + off);
	}
}

static struct bystander bystand(const struct barlease_device *dev)
{
	struct bystander one = { .fd = lease(dev, RAM_BAR, 0, MIB(8)) };

	one.huge = map_at(one.fd, 0, MIB(8), READ_WRITE, 0);
	one.odd = map_at(one.fd, 0, MIB(8), READ_WRITE, PAGE_SIZE);
	use(&one);
	return one;
}

/* The loop's own faults, as after a fork, are had before. */
static void check_undisturbed(struct bystander *one)
{
	long before = thread_faults();

	use(one);
	CHECK_EQ(thread_faults(), before);
}

static void watch_from_afar(int sock, void *lease)
{
	struct bystander *one = lease;

	use(one);
	check_undisturbed(one);
	say(sock, 0);
	hear(sock);
	check_undisturbed(one);
}

TEST(revoke_spares_aliases,
     "revoking a lease costs other leases of the same pages no fault")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct bystander victim = bystand(&dev), other = bystand(&dev);
	struct kid kid = kid_start(watch_from_afar, &other);
	uint64_t seen;

	hear(kid.sock);
	use(&other);
	check_undisturbed(&other);
	seen = faults(&dev, other.fd);
	CHECK_OK(abi_revoke(dev.device_fd, victim.fd));
	check_undisturbed(&other);
	say(kid.sock, 0);
	kid_join(&kid);
	CHECK_EQ(faults(&dev, other.fd), seen);
	CHECK_GONE(victim.huge);
	CHECK_GONE(victim.odd);
}

TEST(revoke_spares_owner,
     "revoking a lease costs the owner's own mapping of the pages no fault")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct bystander owner = {
		.huge = map_bar(&dev, RAM_BAR, 0, MIB(8), READ_WRITE),
		.odd = map_bar(&dev, RAM_BAR, 0, MIB(8), READ_WRITE),
	};

	use(&owner);
	for (int round = 0; round < 50; round++) {
		struct bystander victim = bystand(&dev);

		check_undisturbed(&owner);
		CHECK_OK(abi_revoke(dev.device_fd, victim.fd));
		check_undisturbed(&owner);
		CHECK_GONE(victim.huge);
		CHECK_GONE(victim.odd);
		close(victim.fd);
		munmap(victim.huge, MIB(8));
		munmap(victim.odd, MIB(8));
	}
}

TEST(release_spares_others, "a lease that ends costs others no fault")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct bystander gone = bystand(&dev), other = bystand(&dev);

	check_undisturbed(&other);
	close(gone.fd);
	CHECK_OK(munmap(gone.huge, MIB(8)));
	CHECK_OK(munmap(gone.odd, MIB(8)));
	check_undisturbed(&other);
	CHECK_EQ(lease_rows(dev.bdf), 1);
}
