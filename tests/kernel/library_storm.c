// SPDX-License-Identifier: MIT
/*
 * library_storm.c - leases are revoked, one after the other, while threads read
 * maps of them that survive, and while handlers of SIGBUS from before the first
 * such map and from after it get what is theirs.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_mmio.h"
#include "device.h"
#include "harness.h"

#define ROUNDS  1000
#define READERS 8
#define MAPS    4 /* at once; see storm() */
#define APART   MIB(8)

/* In each page; the second one is stored to when the map is lost. */
#define PLAIN   0x10
#define SCRATCH 0x20
#define GARBAGE 0xdeadbeef

/*
 * Handlers of the program itself, and pages that are not there
 */

enum { BEFORE, AFTER, HANDLERS };

static char *foreign[HANDLERS]; /* whose SIGBUS is which handler's */
static _Atomic uint64_t calls[HANDLERS];
static atomic_bool after_is_there;
static struct sigaction replaced; /* by AFTER */

/* The access that this thread is about, and what came of it. */
static _Thread_local struct {
	sigjmp_buf landing;
	const volatile char *at;
	int handler;
	bool passed_on;
} fault;

static void land(int handler, const siginfo_t *info)
{
	CHECK_EQ(info->si_signo, SIGBUS);
	CHECK_EQ(info->si_code, BUS_ADRERR);
	CHECK_EQ((uintptr_t)info->si_addr, (uintptr_t)fault.at);
	calls[handler]++;
	fault.handler = handler;
	siglongjmp(fault.landing, 1);
}

static void on_before(int sig, siginfo_t *info, void *context)
{
	(void)context;
	CHECK_EQ(sig, SIGBUS);
	land(BEFORE, info);
}

static void on_after(int sig, siginfo_t *info, void *context)
{
	if (barlease_handle_sigbus(sig, info, context))
		return;
	if ((char *)info->si_addr - foreign[AFTER] < (ptrdiff_t)PAGE_SIZE &&
	    (char *)info->si_addr >= foreign[AFTER])
		land(AFTER, info);
	fault.passed_on = true;
	replaced.sa_sigaction(sig, info, context);
}

static void install(void (*handler)(int, siginfo_t *, void *), struct sigaction *was)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	CHECK_OK(sigaction(SIGBUS, &action, was));
}

static char *foreign_page(void)
{
	int fd = (int)CHECK_OK(memfd_create("foreign", MFD_CLOEXEC));
	char *page;

	CHECK_OK(ftruncate(fd, PAGE_SIZE));
	page = CHECK_MAP(mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0));
	CHECK_OK(ftruncate(fd, 0));
	close(fd);
	return page;
}

/* An access that must end in that handler. */
static void fault_for(int handler, uint64_t offset)
{
	fault.at = foreign[handler] + offset;
	fault.handler = HANDLERS;
	fault.passed_on = false;
	if (sigsetjmp(fault.landing, 1) == 0)
		barlease_mmio_read8(fault.at);
	fault.at = NULL;
	CHECK_EQ(fault.handler, handler);
}

/*
 * Readers
 */

/* What becomes of a map: the phase counts on, by four in each of its rounds. */
enum { NONE, LIVE, REVOKING, REVOKED };
#define KIND(phase) ((phase) % 4)

static struct victim {
	_Atomic uint32_t phase;
	struct barlease_map *map;
	int lease;
	uint64_t offset; /* in the BAR */
	uint32_t pages;
	uint32_t word; /* in its first page; one more in each page after it */
} victims[MAPS];

static atomic_bool stop;

static struct reader {
	pthread_t thread;
	uint64_t seed;
	_Atomic uint32_t seen[MAPS]; /* the phase in which it was last done with it */
	uint64_t loads, ones, faults[HANDLERS];
} readers[READERS];

static uint64_t next(struct reader *reader)
{
	reader->seed = reader->seed * 6364136223846793005 + 1442695040888963407;
	return reader->seed >> 32;
}

/* A word that was read, by pointer or by offset. */
static void check_word(const struct victim *victim, uint32_t page, uint32_t seen)
{
	if (seen != UINT32_MAX)
		CHECK_EQ(seen, victim->word + page);
	else
		CHECK_THAT(barlease_map_lost(victim->map),
			   "read ones of a map that is not lost");
}

/* By pointer: what nobody stores to while readers are at it. */
static char *word_at(const struct victim *victim, uint32_t page)
{
	return (char *)barlease_map_addr(victim->map) + page * PAGE_SIZE + PLAIN;
}

static bool load(struct reader *reader, const struct victim *victim, uint32_t page)
{
	uint64_t at = page * PAGE_SIZE, how = next(reader) % 3;
	uint32_t seen;

	if (how == 0)
		seen = barlease_mmio_read32(word_at(victim, page));
	else
		seen = barlease_read32(victim->map, at + (how == 1 ? PLAIN : SCRATCH));
	reader->loads++;
	reader->ones += seen == UINT32_MAX;
	check_word(victim, page, seen);
	return seen == UINT32_MAX;
}

/* What is stored in a lost map goes nowhere, or where only pointers see it. */
static void store_lost(const struct victim *victim, uint32_t page)
{
	uint64_t at = page * PAGE_SIZE;

	barlease_write32(victim->map, at + PLAIN, GARBAGE);
	barlease_mmio_write32((char *)barlease_map_addr(victim->map) + at + SCRATCH,
			      GARBAGE);
}

static void fault_elsewhere(struct reader *reader)
{
	/* Both may be there before it is told that they are, but not the reverse. */
	bool both = after_is_there;

	fault_for(BEFORE, next(reader) % PAGE_SIZE);
	reader->faults[BEFORE]++;
	if (!both)
		return;
	CHECK(fault.passed_on);
	fault_for(AFTER, next(reader) % PAGE_SIZE);
	reader->faults[AFTER]++;
}

static void visit(struct reader *reader, struct victim *victim)
{
	_Atomic uint32_t *seen = &reader->seen[victim - victims];
	uint32_t phase = victim->phase, page;
	bool ones, lost;

	if (KIND(phase) != NONE) {
		page = next(reader) % victim->pages;
		ones = load(reader, victim, page);
		lost = barlease_map_lost(victim->map);
		if (lost) {
			CHECK_THAT(barlease_mmio_read32(word_at(victim, page)) ==
					   UINT32_MAX,
				   "a map that is lost has a page of the lease left");
			store_lost(victim, page);
		}
		if (KIND(phase) == REVOKED)
			CHECK_THAT(ones && lost, "read a word after the revoke");
		if (KIND(phase) == LIVE && victim->phase == phase)
			CHECK_THAT(!ones && !lost, "lost a map that is live");
		if (KIND(phase) == REVOKED && *seen != phase)
			fault_elsewhere(reader);
	}
	*seen = phase;
}

static void *read_on(void *arg)
{
	struct reader *reader = arg;

	while (!stop) {
		for (int i = 0; i < MAPS; i++)
			visit(reader, &victims[i]);
		/* Let the others come as far. */
		sched_yield();
	}
	return NULL;
}

/*
 * The lessor
 */

static struct barlease_device dev;
static char *bar; /* the owner's own mapping */

static char *page_of(const struct victim *victim, uint32_t page)
{
	return bar + victim->offset + page * PAGE_SIZE;
}

static void lend(struct victim *victim, uint32_t round)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct barlease_info info = { .size = sizeof(info) };
	struct barlease_range range;

	/* Most are small; one is as long as several pieces of ones. */
	victim->pages = victim - victims == MAPS - 1 ? MIB(5) / PAGE_SIZE :
						       1 + random_word() % 3;
	victim->offset = (uint64_t)(victim - victims) * APART;
	victim->word = 0x40000000 + (round << 12);
	for (uint32_t page = 0; page < victim->pages; page++) {
		barlease_mmio_write32(page_of(victim, page) + PLAIN,
				      victim->word + page);
		barlease_mmio_write32(page_of(victim, page) + SCRATCH,
				      victim->word + page);
	}
	range = (struct barlease_range){ victim->offset, victim->pages * PAGE_SIZE };
	victim->lease = (int)CHECK_OK(
		barlease_export(dev.device_fd, RAM_BAR, &range, 1, O_RDWR));
	CHECK_OK(barlease_get_info(dev.device_fd, victim->lease, &info));
	options.va_hint = info.va_hint;
	victim->map = barlease_map(victim->lease, &options);
	CHECK(victim->map);
	victim->phase++;
}

/* The readers are not waited for, but meet it as they read. */
static void take_back(struct victim *victim)
{
	victim->phase++;
	CHECK_OK(barlease_revoke(dev.device_fd, victim->lease));
	victim->phase++;
}

/* All have seen that it is lost, and still read it. */
static void let_go(struct victim *victim)
{
	CHECK_EQ(barlease_map_lost(victim->map), 1);
	CHECK_ERRNO(barlease_map_restore(victim->map), ENODEV);
	victim->phase++;
}

/* All have let go of it. */
static void end(struct victim *victim)
{
	CHECK_OK(barlease_unmap(victim->map));
	close(victim->lease);
	for (uint32_t page = 0; page < victim->pages; page++) {
		CHECK_EQ(barlease_mmio_read32(page_of(victim, page) + PLAIN),
			 victim->word + page);
		CHECK_EQ(barlease_mmio_read32(page_of(victim, page) + SCRATCH),
			 victim->word + page);
	}
}

/* Each comes to the phase that each map is in, which is that it lives, too. */
static void await_readers(void)
{
	for (int i = 0; i < READERS; i++)
		for (int map = 0; map < MAPS; map++)
			while (readers[i].seen[map] != victims[map].phase)
				sched_yield();
}

/* The lease that was made so many steps ago, if it is one of them. */
static struct victim *lent(uint32_t step, uint32_t ago, uint32_t count)
{
	return step >= ago && step - ago < count ? &victims[(step - ago) % MAPS] : NULL;
}

/* A lease lives for two steps, and its map is read for one more. */
static void storm(uint32_t count)
{
	for (uint32_t step = 0; step < count + 3; step++) {
		struct victim *fresh = lent(step, 0, count);
		struct victim *taken = lent(step, 2, count);
		struct victim *gone = lent(step, 3, count);

		if (fresh)
			lend(fresh, step);
		if (taken)
			take_back(taken);
		if (gone)
			let_go(gone);
		await_readers();
		if (gone)
			end(gone);
		if (step == count / 2) {
			install(on_after, &replaced);
			after_is_there = true;
		}
	}
}

static void start_readers(void)
{
	for (int i = 0; i < READERS; i++) {
		readers[i].seed = random_word();
		CHECK_EQ(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]),
			 0);
	}
}

static void stop_readers(uint32_t count)
{
	uint64_t loads = 0, ones = 0, faults[HANDLERS] = { 0 };

	stop = true;
	for (int i = 0; i < READERS; i++) {
		CHECK_EQ(pthread_join(readers[i].thread, NULL), 0);
		loads += readers[i].loads;
		ones += readers[i].ones;
		for (int handler = 0; handler < HANDLERS; handler++)
			faults[handler] += readers[i].faults[handler];
	}
	note("%u revokes, %llu loads, %llu of ones; SIGBUS of others: %llu, %llu",
	     count, (unsigned long long)loads, (unsigned long long)ones,
	     (unsigned long long)calls[BEFORE], (unsigned long long)calls[AFTER]);
	CHECK_EQ(calls[BEFORE], faults[BEFORE]);
	CHECK_EQ(calls[AFTER], faults[AFTER]);
	CHECK_EQ(faults[BEFORE], (uint64_t)count * READERS);
	CHECK(faults[AFTER]);
}

TEST(library_storm,
     "threads that read live through 1,000 revokes, with handlers of "
     "SIGBUS from before and after",
     .timeout = 1200)
{
	uint32_t count = rounds(ROUNDS);

	dev = open_device(RAM_DEVICE);
	bar = map_bar(&dev, RAM_BAR, 0, MAPS * APART, PROT_READ | PROT_WRITE);
	for (int handler = 0; handler < HANDLERS; handler++)
		foreign[handler] = foreign_page();
	install(on_before, NULL);
	start_readers();
	storm(count);
	stop_readers(count);
}
