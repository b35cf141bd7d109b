// SPDX-License-Identifier: MIT
/*
 * hugepage.c - whatever a lessee does to a part of a huge entry: its pages stay
 * right, and a revoke takes every one of them.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

struct huge {
	struct barlease_device dev;
	int fd;
	char *at; /* the whole BAR, all of it in huge entries */
};

/* Parts of that mapping, in pages. */
static const struct part {
	uint64_t first, count;
} parts[] = {
	{ 0, 1 },
	{ 1, 1 },
	{ 511, 2 },
	{ 700, 900 },
	{ 1024, 512 },
	{ BIG_PAGES / 2 + 5, 3000 },
	{ BIG_PAGES - 1, 1 },
};
#define NR_PARTS (sizeof(parts) / sizeof(*parts))

static struct huge huge_start(void)
{
	struct huge huge = { .dev = open_device(BIG_DEVICE) };

	stamp_pages(&huge.dev);
	return huge;
}

/* A fresh lease, mapped and touched. */
static void huge_lease(struct huge *huge, uint32_t level)
{
	uint64_t leaf = level == PTWALK_PUD ? GIB(1) : MIB(2);

	huge->fd = lease(&huge->dev, RAM_BAR, 0, BIG_SIZE);
	huge->at = map_at(huge->fd, 0, BIG_SIZE, READ_WRITE, 0);
	for (uint64_t at = 0; at < BIG_SIZE; at += leaf) {
		CHECK_STORES(huge->at + at);
		CHECK_EQ(page_entry(huge->at + at).level, level);
	}
}

/* Pages of the part's and of each 2 MiB block's edges, inside [from, to). */
static void each_edge(const struct part *part, uint64_t from, uint64_t to,
		      void (*check)(const char *at, uint64_t page), const char *base)
{
	const uint64_t edges[] = { part->first, part->first + part->count };

	for (uint64_t page = from; page < to; page = (page / 512 + 1) * 512)
		check(base + page * PAGE_SIZE, page);
	for (int i = 0; i < 2; i++)
		for (uint64_t page = edges[i] > 2 ? edges[i] - 2 : 0;
		     page < edges[i] + 2; page++)
			if (page >= from && page < to)
				check(base + page * PAGE_SIZE, page);
}

static void check_right(const char *at, uint64_t page)
{
	CHECK_PAGE(at, page);
}

static void check_gone(const char *at, uint64_t page)
{
	(void)page;
	CHECK_GONE(at);
}

static void check_no_mapping(const char *at, uint64_t page)
{
	(void)page;
	CHECK_LOAD(at, SIGSEGV);
}

/* All of the mapping but the part. */
static void each_other(const struct part *part, void (*check)(const char *, uint64_t),
		       const char *base)
{
	each_edge(part, 0, part->first, check, base);
	each_edge(part, part->first + part->count, BIG_PAGES, check, base);
}

static void each_inside(const struct part *part, void (*check)(const char *, uint64_t),
			const char *base)
{
	each_edge(part, part->first, part->first + part->count, check, base);
}

static void huge_revoke(const struct huge *huge)
{
	CHECK_OK(abi_revoke(huge->dev.device_fd, huge->fd));
}

static void huge_end(const struct huge *huge)
{
	CHECK_OK(munmap(huge->at, BIG_SIZE));
	close(huge->fd);
}

static void munmap_inside(uint32_t level)
{
	struct huge huge = huge_start();

	for (const struct part *part = parts; part < parts + NR_PARTS; part++) {
		huge_lease(&huge, level);
		CHECK_OK(munmap(huge.at + part->first * PAGE_SIZE,
				part->count * PAGE_SIZE));
		each_inside(part, check_no_mapping, huge.at);
		each_other(part, check_right, huge.at);
		huge_revoke(&huge);
		each_inside(part, check_no_mapping, huge.at);
		each_other(part, check_gone, huge.at);
		huge_end(&huge);
	}
}

static void mprotect_inside(uint32_t level)
{
	struct huge huge = huge_start();

	for (const struct part *part = parts; part < parts + NR_PARTS; part++) {
		char *inside;
		uint64_t length = part->count * PAGE_SIZE;

		huge_lease(&huge, level);
		inside = huge.at + part->first * PAGE_SIZE;
		CHECK_OK(mprotect(inside, length, PROT_READ));
		each_edge(part, 0, BIG_PAGES, check_right, huge.at);
		CHECK_STORE(inside, SIGSEGV);
		CHECK_STORE(inside + length - PAGE_SIZE, SIGSEGV);
		CHECK_OK(mprotect(inside, length, PROT_NONE));
		each_inside(part, check_no_mapping, huge.at);
		each_other(part, check_right, huge.at);
		CHECK_OK(mprotect(inside, length, READ_WRITE));
		CHECK_STORES(inside);
		CHECK_STORES(inside + length - PAGE_SIZE);
		each_edge(part, 0, BIG_PAGES, check_right, huge.at);
		CHECK_OK(mprotect(inside, length, PROT_READ));
		each_edge(part, 0, BIG_PAGES, check_right, huge.at);
		huge_revoke(&huge);
		each_edge(part, 0, BIG_PAGES, check_gone, huge.at);
		huge_end(&huge);
	}
}

/* Whether the kernel takes an advice is its affair. */
static void madvise_inside(uint32_t level)
{
	enum { LAST_ADVICE = 25 }; /* MADV_COLLAPSE */
	struct huge huge = huge_start();

	for (const struct part *part = parts; part < parts + NR_PARTS; part++) {
		uint32_t taken = 0;

		huge_lease(&huge, level);
		for (int advice = 0; advice <= LAST_ADVICE; advice++) {
			if (madvise(huge.at + part->first * PAGE_SIZE,
				    part->count * PAGE_SIZE, advice))
				continue;
			taken++;
			each_inside(part, check_right, huge.at);
		}
		CHECK(taken);
		each_other(part, check_right, huge.at);
		huge_revoke(&huge);
		each_edge(part, 0, BIG_PAGES, check_gone, huge.at);
		huge_end(&huge);
	}
}

static void mremap_inside(uint32_t level)
{
	struct huge huge = huge_start();

	for (const struct part *part = parts; part < parts + NR_PARTS; part++) {
		uint64_t start = part->first * PAGE_SIZE;
		uint64_t length = part->count * PAGE_SIZE;
		/* Congruent to the old place modulo 1 GiB, modulo 2 MiB, not. */
		const uint64_t hints[] = { start, start + MIB(2), start + PAGE_SIZE };

		for (size_t i = 0; i < sizeof(hints) / sizeof(*hints); i++) {
			char *room = map_at(huge.dev.device_fd,
					    huge.dev.bars[RAM_BAR].offset, length,
					    PROT_NONE, hints[i]);

			huge_lease(&huge, level);
			CHECK(mremap(huge.at + start, length, length,
				     MREMAP_MAYMOVE | MREMAP_FIXED, room) == room);
			each_inside(part, check_no_mapping, huge.at);
			each_inside(part, check_right, room - start);
			each_other(part, check_right, huge.at);
			huge_revoke(&huge);
			each_inside(part, check_gone, room - start);
			each_other(part, check_gone, huge.at);
			CHECK_OK(munmap(room, length));
			huge_end(&huge);
		}
	}
}

/* Stores without pause, wherever that leads. */
struct wanderer {
	_Atomic(volatile uint32_t *) at;
	_Atomic uint32_t tries;
};

__attribute__((noreturn)) static void *wander(void *arg)
{
	struct wanderer *wanderer = arg;

	for (;;) {
		(void)try_store(wanderer->at, wanderer->tries + 1);
		wanderer->tries++;
	}
}

static void await_tries(const struct wanderer *wanderer)
{
	uint32_t start = wanderer->tries;

	while (wanderer->tries - start < 3)
		sched_yield();
}

/*
 * The thread stays where the mapping was. Its TLB may hold the entry that
 * mremap took away; after the revoke no store may use it. Nor may mremap have
 * moved the entry: while it does, a revoke can miss it.
 */
static void mremap_under_stores(uint32_t level)
{
	enum { ROUNDS = 200 };
	struct huge huge = huge_start();
	volatile uint32_t *word = map_bar(&huge.dev, RAM_BAR, 0, PAGE_SIZE, PROT_READ);
	static struct wanderer wanderer;
	pthread_t thread;
	uint32_t seen;

	wanderer.at = &seen;
	CHECK_EQ(pthread_create(&thread, NULL, wander, &wanderer), 0);
	for (int round = 0; round < (int)rounds(ROUNDS); round++) {
		char *room = map_at(huge.dev.device_fd, huge.dev.bars[RAM_BAR].offset,
				    BIG_SIZE, PROT_NONE, 0);

		huge.fd = lease(&huge.dev, RAM_BAR, 0, BIG_SIZE);
		huge.at = map_at(huge.fd, 0, BIG_SIZE, READ_WRITE, 0);
		wanderer.at = (volatile uint32_t *)huge.at;
		await_tries(&wanderer);
		CHECK_EQ(page_entry(huge.at).level, level);
		CHECK(mremap(huge.at, BIG_SIZE, BIG_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
			     room) == room);
		CHECK_EQ(page_entry(room).level, PTWALK_NONE);
		/* Every other round with nothing in between. */
		if (round % 2)
			CHECK_PAGE(room, 0);
		huge_revoke(&huge);
		seen = *word;
		await_tries(&wanderer);
		CHECK_EQ(*word, seen);
		CHECK_GONE(room);
		CHECK_GONE(room + BIG_SIZE - PAGE_SIZE);
		CHECK_OK(munmap(room, BIG_SIZE));
		close(huge.fd);
	}
}

TEST(huge_2m_munmap, "munmap inside 2 MiB entries takes those pages alone")
{
	munmap_inside(PTWALK_PMD);
}

TEST(huge_2m_mprotect, "mprotect inside 2 MiB entries holds for those pages alone")
{
	mprotect_inside(PTWALK_PMD);
}

TEST(huge_2m_madvise, "no madvise inside 2 MiB entries makes a page wrong or stay")
{
	madvise_inside(PTWALK_PMD);
}

TEST(huge_2m_mremap, "mremap inside 2 MiB entries moves those pages alone")
{
	mremap_inside(PTWALK_PMD);
}

TEST(huge_2m_mremap_stores, "no store reaches 2 MiB entries after mremap and REVOKE")
{
	mremap_under_stores(PTWALK_PMD);
}

TEST(huge_1g_munmap, "munmap inside a 1 GiB entry takes those pages alone",
     .params = "huge_pud=1")
{
	munmap_inside(PTWALK_PUD);
}

TEST(huge_1g_mprotect, "mprotect inside a 1 GiB entry holds for those pages alone",
     .params = "huge_pud=1")
{
	mprotect_inside(PTWALK_PUD);
}

TEST(huge_1g_madvise, "no madvise inside a 1 GiB entry makes a page wrong or stay",
     .params = "huge_pud=1")
{
	madvise_inside(PTWALK_PUD);
}

TEST(huge_1g_mremap, "mremap inside a 1 GiB entry moves those pages alone",
     .params = "huge_pud=1")
{
	mremap_inside(PTWALK_PUD);
}

TEST(huge_1g_mremap_stores, "no store reaches a 1 GiB entry after mremap and REVOKE",
     .params = "huge_pud=1")
{
	mremap_under_stores(PTWALK_PUD);
}

/* A kid with a huge entry of its own, until it is told to look and leave. */
static void hold_entry(int sock, void *arg)
{
	const struct huge *huge = arg;

	CHECK_PAGE(huge->at, 0);
	CHECK_EQ(page_entry(huge->at).level, PTWALK_PUD);
	say(sock, 1);
	hear(sock);
	CHECK_EQ(page_entry(huge->at).level, PTWALK_PUD);
	CHECK_PAGE(huge->at + GIB(1) - PAGE_SIZE, BIG_PAGES - 1);
}

/*
 * The kid's mm is not locked meanwhile: had the zap reached into it for part of
 * the entry, the kernel would complain, and so fail the whole run.
 */
TEST(huge_1g_mremap_kid, "mremap of a page leaves another process its 1 GiB entry",
     .params = "huge_pud=1")
{
	struct huge huge = huge_start();
	struct kid kid;
	char *room = map_at(huge.dev.device_fd, huge.dev.bars[RAM_BAR].offset,
			    PAGE_SIZE, PROT_NONE, 0);

	huge_lease(&huge, PTWALK_PUD);
	kid = kid_start(hold_entry, &huge);
	hear(kid.sock);
	CHECK(mremap(huge.at + 5 * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE,
		     MREMAP_MAYMOVE | MREMAP_FIXED, room) == room);
	CHECK_PAGE(room, 5);
	say(kid.sock, 1);
	kid_join(&kid);
}
