// SPDX-License-Identifier: MIT
/*
 * prefault.c - after a prefault no access faults, and what must not be touched
 * was not.
 */
#define _GNU_SOURCE
#include <linux/dma-buf.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)
#define WRITABLE   2 /* of an x86 page table entry */

/* Every page can be used without one fault, of the kernel's count and ours. */
static void check_no_faults(const struct barlease_device *dev, int fd, char *at,
			    uint64_t length)
{
	uint64_t seen = faults(dev, fd);
	long before;

	/* What the loop itself faults in, it does here. */
	CHECK_STORES(at);
	before = thread_faults();
	for (uint64_t off = 0; off < length; off += PAGE_SIZE)
		CHECK_STORES(at + off);
	CHECK_EQ(thread_faults(), before);
	CHECK_EQ(faults(dev, fd), seen);
}

static void check_prefault(const struct barlease_device *dev, uint64_t length)
{
	int fd = lease(dev, RAM_BAR, 0, length);
	char *at[3];

	for (uint64_t i = 0; i < 3; i++)
		at[i] = map_at(fd, 0, length, READ_WRITE,
			       i == 2 ? KIB(64) : i * PAGE_SIZE);
	CHECK_OK(abi_prefault(fd));
	for (int i = 0; i < 3; i++) {
		check_no_faults(dev, fd, at[i], length);
		CHECK_OK(munmap(at[i], length));
	}
	close(fd);
}

TEST(prefault_all, "after a prefault no page of any mapping of it faults")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	check_prefault(&dev, PAGE_SIZE);
	check_prefault(&dev, MIB(2));
	check_prefault(&dev, MIB(64));
	check_prefault(&dev, MIB(7) - PAGE_SIZE);
}

TEST(prefault_whole_bar, "a prefault of 1 GiB aligned takes 512 faults, then none")
{
	struct barlease_device dev = open_device(BIG_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, BIG_SIZE);
	char *at = map_at(fd, 0, BIG_SIZE, READ_WRITE, 0);

	CHECK_OK(abi_prefault(fd));
	CHECK_EQ(faults(&dev, fd), 512);
	check_no_faults(&dev, fd, at, BIG_SIZE);
}

TEST(prefault_whole_bar_pud, "with huge_pud=1 it takes one fault, then none",
     .params = "huge_pud=1")
{
	struct barlease_device dev = open_device(BIG_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, BIG_SIZE);
	char *at = map_at(fd, 0, BIG_SIZE, READ_WRITE, 0);

	CHECK_OK(abi_prefault(fd));
	CHECK_EQ(faults(&dev, fd), 1);
	check_no_faults(&dev, fd, at, BIG_SIZE);
}

TEST(prefault_no_thp, "with huge pages forbidden by prctl a prefault does as much")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	CHECK_OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	check_prefault(&dev, PAGE_SIZE);
	check_prefault(&dev, MIB(2));
	check_prefault(&dev, MIB(64));
}

TEST(prefault_no_thp_pud, "with huge pages forbidden and huge_pud=1 too",
     .params = "huge_pud=1")
{
	struct barlease_device dev = open_device(BIG_DEVICE);

	CHECK_OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	check_prefault(&dev, BIG_SIZE);
}

TEST(prefault_spans, "a prefault reaches every span of many")
{
	enum { COUNT = 3000 };
	struct vfio_region_dma_range ranges[COUNT];
	struct barlease_device dev = open_device(RAM_DEVICE);
	uint64_t length;
	int fd;

	for (uint64_t i = 0; i < COUNT; i++)
		ranges[i] = (struct vfio_region_dma_range){ (i * 77) % 9000 * PAGE_SIZE,
							    (1 + i % 3) * PAGE_SIZE };
	fd = lease_ranges(&dev, RAM_BAR, ranges, COUNT, O_RDWR);
	length = info(&dev, fd).size;
	for (uint64_t off = 0; off < 2; off++) {
		char *at = map_at(fd, 0, length, READ_WRITE, off * PAGE_SIZE);

		CHECK_OK(abi_prefault(fd));
		check_no_faults(&dev, fd, at, length);
	}
}

TEST(prefault_twice, "a second prefault finds nothing to do")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(16));
	uint64_t seen;

	map_at(fd, 0, MIB(16), READ_WRITE, 0);
	map_at(fd, 0, MIB(16), PROT_READ, PAGE_SIZE);
	CHECK_OK(abi_prefault(fd));
	seen = faults(&dev, fd);
	CHECK(seen >= 8 + 256);
	CHECK_OK(abi_prefault(fd));
	CHECK_EQ(faults(&dev, fd), seen);
}

TEST(prefault_directions, "SYNC_START faults in for any direction")
{
	static const uint64_t directions[] = { DMA_BUF_SYNC_READ, DMA_BUF_SYNC_WRITE,
					       DMA_BUF_SYNC_RW };
	struct barlease_device dev = open_device(RAM_DEVICE);

	for (int i = 0; i < 3; i++) {
		int fd = lease(&dev, RAM_BAR, 0, MIB(4));
		char *at = map(fd, 0, MIB(4), READ_WRITE);

		CHECK_OK(abi_sync(fd, DMA_BUF_SYNC_START | directions[i]));
		check_no_faults(&dev, fd, at, MIB(4));
	}
}

static void map_and_wait(int sock, void *lease)
{
	char *at = map(*(int *)lease, 0, MIB(4), READ_WRITE);

	say(sock, 0);
	hear(sock);
	CHECK_EQ(page_entry(at).level, PTWALK_NONE);
	CHECK_OK(abi_prefault(*(int *)lease));
	CHECK(page_entry(at).level != PTWALK_NONE);
}

TEST(prefault_not_mapped,
     "a lease the caller has not mapped: 0, and nobody is faulted in")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4)), other;
	struct kid kid;

	CHECK_OK(abi_prefault(fd));
	kid = kid_start(map_and_wait, &fd);
	hear(kid.sock);
	CHECK_OK(abi_prefault(fd));
	CHECK_EQ(faults(&dev, fd), 0);
	/* Nor is another lease of the caller's. */
	other = lease(&dev, RAM_BAR, 0, MIB(4));
	map(other, 0, MIB(4), READ_WRITE);
	CHECK_OK(abi_prefault(fd));
	CHECK_EQ(faults(&dev, other), 0);
	say(kid.sock, 0);
	kid_join(&kid);
}

TEST(prefault_prot_none, "a mapping without access is skipped, not an error")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	char *none = map(fd, 0, MIB(4), PROT_NONE);
	char *both;

	CHECK_OK(abi_prefault(fd));
	CHECK_EQ(faults(&dev, fd), 0);
	both = map(fd, 0, MIB(4), READ_WRITE);
	CHECK_OK(mprotect(both + MIB(1), MIB(1), PROT_NONE));
	CHECK_OK(abi_prefault(fd));
	CHECK_EQ(page_entry(none).level, PTWALK_NONE);
	CHECK_EQ(page_entry(both + MIB(1)).level, PTWALK_NONE);
	check_no_faults(&dev, fd, both, MIB(1));
	check_no_faults(&dev, fd, both + MIB(2), MIB(2));
}

TEST(prefault_write_only, "a write-only mapping is faulted in for writing")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));

	for (uint64_t off = 0; off < 2; off++) {
		char *at = map_at(fd, 0, MIB(4), PROT_WRITE, off * PAGE_SIZE);

		CHECK_OK(abi_prefault(fd));
		CHECK_EQ(page_entry(at).entry & WRITABLE, WRITABLE);
		check_no_faults(&dev, fd, at, MIB(4));
	}
}

TEST(prefault_read_only, "a read-only mapping is faulted in for reading alone")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));

	for (uint64_t off = 0; off < 2; off++) {
		char *at = map_at(fd, 0, MIB(4), PROT_READ, off * PAGE_SIZE);

		CHECK_OK(abi_prefault(fd));
		for (uint64_t page = 0; page < MIB(4); page += PAGE_SIZE) {
			struct ptwalk entry = page_entry(at + page);

			CHECK(entry.level != PTWALK_NONE);
			CHECK_EQ(entry.entry & WRITABLE, 0);
		}
	}
}

TEST(prefault_stale, "pages that decoding off took away are brought back")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(8));
	char *at = map_at(fd, 0, MIB(8), READ_WRITE, 0);

	CHECK_OK(abi_prefault(fd));
	set_decoding(&dev, false);
	CHECK_EQ(page_entry(at).level, PTWALK_NONE);
	set_decoding(&dev, true);
	CHECK_OK(abi_prefault(fd));
	check_no_faults(&dev, fd, at, MIB(8));
}
