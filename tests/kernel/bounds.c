// SPDX-License-Identifier: MIT
/*
 * bounds.c - how long a hostile lessee can hold up its lessor, and what it can
 * make the kernel allocate. The figures are noted, a quiet lessee's of the same
 * run beside them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define CGROUPS    "/sys/fs/cgroup"
#define GROUP      CGROUPS "/lessee"
#define SPINNERS   CGROUPS "/spinner"
#define READ_WRITE (PROT_READ | PROT_WRITE)

/* Each lessee's leases: as many as it loses one after the other, or fewer. */
#define ROUNDS 8
#define SLICE  MIB(4)

/* Seconds to wait for a lessee's next access. */
#define PATIENCE 4

/*
 * A lessee with 1 ms of CPU a second. It may be stopped with a lock held until a
 * later period. By then it may owe several, as it is looked at but once a tick,
 * and what a busy host takes from the VM's CPU counts as its own. So what is too
 * long is told by TIMES and somebody who is throttled alike, but holds no lock.
 */
#define THROTTLED "1000 1000000"
#define UNLIMITED "max 1000000"
#define TIMES     5

/*
 * Near the 65,530 that Linux lets a process have, and a tenth. A slow kernel takes
 * minutes to make so many.
 */
static unsigned int many(void)
{
	return rounds(rounds(60000));
}

static unsigned int few(void)
{
	return many() / 10;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double longer(double a, double b)
{
	return a > b ? a : b;
}

/* A cgroup; a test that failed before may have left it. */
static void make_cgroup(const char *path)
{
	char file[64];

	write_file(CGROUPS "/cgroup.subtree_control", "+cpu +memory");
	if (!access(path, F_OK)) {
		snprintf(file, sizeof(file), "%s/cgroup.kill", path);
		write_file(file, "1");
		while (rmdir(path))
			CHECK_EQ(errno, EBUSY);
	}
	CHECK_OK(mkdir(path, 0700));
}

/* The lessee's, which joins it by enter_group(). */
static void make_group(void)
{
	make_cgroup(GROUP);
}

static void enter_group(void)
{
	write_file(GROUP "/cgroup.procs", "0");
}

/* Let it run for some while, then stop it wherever it is. */
static void stop_anywhere(void)
{
	uint64_t before;

	write_file(GROUP "/cpu.max", UNLIMITED);
	usleep(random_word() % 200000);
	before = amount(GROUP "/cpu.stat", "\nnr_throttled ");
	write_file(GROUP "/cpu.max", THROTTLED);
	while (amount(GROUP "/cpu.stat", "\nnr_throttled ") == before)
		usleep(1000);
}

/* Who only looks at the clock, throttled: when it did last, its longest pause. */
static struct spinner {
	struct kid kid;
	_Atomic double last, longest;
	atomic_bool over;
} * spinner;

static void spin(int sock, void *arg)
{
	(void)sock;
	(void)arg;
	write_file(SPINNERS "/cgroup.procs", "0");
	while (!spinner->over) {
		double now = seconds(), pause = now - spinner->last;

		if (pause > spinner->longest)
			spinner->longest = pause;
		spinner->last = now;
	}
}

static void start_spinner(void)
{
	spinner = CHECK_MAP(mmap(NULL, sizeof(*spinner), READ_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	make_cgroup(SPINNERS);
	write_file(SPINNERS "/cpu.max", THROTTLED);
	spinner->last = seconds();
	spinner->kid = kid_start(spin, NULL);
}

/* Its longest pause, also one that has not ended. */
static double stop_spinner(void)
{
	double pause = longer(spinner->longest, seconds() - spinner->last);

	spinner->over = true;
	write_file(SPINNERS "/cpu.max", UNLIMITED);
	kid_join(&spinner->kid);
	CHECK_OK(rmdir(SPINNERS));
	CHECK_OK(munmap(spinner, sizeof(*spinner)));
	return pause;
}

struct lessee {
	atomic_bool ready, entered, over;
	_Atomic uint64_t stores;
	bool grouped;
	void (*burden)(void); /* once, in the group */
	int leases[ROUNDS], nr_leases;
};

/*
 * Fault on every lease without pause: each is mapped anew, a page off what huge
 * entries need, so that its page tables are made anew too.
 */
static void *fault_on(void *shared)
{
	struct lessee *lessee = shared;

	while (!lessee->over) {
		for (int i = 0; i < lessee->nr_leases && !lessee->over; i++) {
			char *at = mmap(NULL, SLICE, READ_WRITE, MAP_SHARED,
					lessee->leases[i], 0);
			uint64_t off;

			if (at == MAP_FAILED)
				continue;
			for (off = 0; off < SLICE && !lessee->over; off += KIB(64)) {
				if (try_store(at + off, 1))
					break;
				lessee->stores++;
			}
			munmap(at, SLICE);
			lessee->ready = true;
		}
	}
	return NULL;
}

static void be_lessee(int sock, void *arg)
{
	struct lessee *lessee = arg;
	pthread_t thread;

	(void)sock;
	CHECK_EQ(pthread_create(&thread, NULL, fault_on, lessee), 0);
	while (!lessee->ready)
		usleep(1000);
	if (lessee->grouped)
		enter_group();
	if (lessee->burden)
		lessee->burden();
	lessee->entered = true;
	fault_on(lessee);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* Until it has gone on, or for some time. */
static void await_stores(const struct lessee *lessee)
{
	uint64_t stores = lessee->stores;
	double start = seconds();

	while (lessee->stores == stores && seconds() < start + PATIENCE)
		usleep(1000);
}

struct longest {
	double revoke, reset;
};

static double time_reset(struct barlease_device *dev)
{
	double start = seconds();

	CHECK_OK(barlease_device_reset(dev));
	return seconds() - start;
}

static double time_revoke(const struct barlease_device *dev, int fd)
{
	double start = seconds();

	CHECK_OK(abi_revoke(dev->device_fd, fd));
	return seconds() - start;
}

/*
 * The longest of some revokes and of as many resets while a lessee faults, each
 * after it went on for a while; a throttled one is stopped wherever it was then.
 */
static struct longest measure(bool grouped, void (*burden)(void), bool throttled)
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct lessee *lessee = CHECK_MAP(mmap(NULL, sizeof(*lessee), READ_WRITE,
					       MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	struct longest longest = { 0, 0 };
	struct kid kid;
	uint64_t stores;

	lessee->grouped = grouped;
	lessee->burden = burden;
	lessee->nr_leases = (int)rounds(ROUNDS);
	for (int i = 0; i < lessee->nr_leases; i++)
		lessee->leases[i] =
			lease(&dev, RAM_BAR, (uint64_t)i * SLICE + PAGE_SIZE, SLICE);
	kid = kid_start(be_lessee, lessee);
	while (!lessee->entered)
		usleep(1000);
	stores = lessee->stores;
	for (int i = 0; i < lessee->nr_leases; i++) {
		if (throttled)
			stop_anywhere();
		else
			await_stores(lessee);
		longest.reset = longer(longest.reset, time_reset(&dev));
		if (throttled)
			stop_anywhere();
		else
			await_stores(lessee);
		longest.revoke =
			longer(longest.revoke, time_revoke(&dev, lessee->leases[i]));
	}
	/* It did fault in between, or nothing was measured. */
	CHECK(lessee->stores > stores);
	lessee->over = true;
	if (throttled)
		write_file(GROUP "/cpu.max", UNLIMITED);
	kid_join(&kid);
	CHECK_OK(munmap(lessee, sizeof(*lessee)));
	barlease_device_close(&dev);
	return longest;
}

static void compare(const char *what, struct longest hostile, struct longest quiet)
{
	note("longest revoke of %d: %.1f ms %s, %.1f ms else; longest reset: %.1f ms, "
	     "%.1f ms else",
	     (int)rounds(ROUNDS), hostile.revoke * 1e3, what, quiet.revoke * 1e3,
	     hostile.reset * 1e3, quiet.reset * 1e3);
}

TEST(bounds_throttled,
     "a lessee with 1 ms of CPU a second holds up a revoke as it is held up itself",
     .timeout = 600)
{
	struct longest quiet = measure(false, NULL, false), hostile;
	double pause;

	make_group();
	start_spinner();
	hostile = measure(true, NULL, true);
	pause = stop_spinner();
	CHECK_OK(rmdir(GROUP));
	compare("throttled", hostile, quiet);
	note("longest pause of another throttled process: %.1f ms", pause * 1e3);
	CHECK(hostile.revoke < quiet.revoke + pause * TIMES);
	CHECK(hostile.reset < quiet.reset + pause * TIMES);
}

/*
 * Read a file larger than the limit, once, then without end: whatever else wants
 * memory has to reclaim its pages.
 */
static void read_file_once(int fd)
{
	static char buffer[1 << 16];

	CHECK_OK(lseek(fd, 0, SEEK_SET));
	while (CHECK_OK(read(fd, buffer, sizeof(buffer))))
		;
}

static void *churn_cache(void *fd)
{
	while (true)
		read_file_once(*(int *)fd);
	return NULL;
}

static void start_churning(void)
{
	const char *path = getenv("BARLEASE_LARGE_FILE");
	static int fd;
	pthread_t thread;

	CHECK_THAT(
		path && *path,
		"expected tests/kernel/run to find the compiler, whose file is large");
	fd = (int)CHECK_OK(open(path, O_RDONLY | O_CLOEXEC));
	read_file_once(fd);
	CHECK_EQ(pthread_create(&thread, NULL, churn_cache, &fd), 0);
	CHECK_EQ(pthread_detach(thread), 0);
}

TEST(bounds_memory,
     "a lessee at its memory cgroup's limit holds up a revoke no more than another",
     .timeout = 600)
{
	enum { RATIO = 50, TRIES = 3 };
	struct longest quiet, hostile;
	uint64_t reclaimed;

	/* A busy host may hold up the one and not the other. */
	for (int i = 0; i < TRIES; i++) {
		quiet = measure(false, NULL, false);
		make_group();
		write_file(GROUP "/memory.max", "8M");
		hostile = measure(true, start_churning, false);
		reclaimed = amount(GROUP "/memory.stat", "\npgscan ");
		CHECK_OK(rmdir(GROUP));
		compare("at its limit", hostile, quiet);
		CHECK_THAT(reclaimed,
			   "expected a lessee at its limit, saw nothing reclaimed");
		if (hostile.revoke < quiet.revoke * RATIO &&
		    hostile.reset < quiet.reset * RATIO)
			return;
	}
	FAIL("expected less than %d times as long, saw more, %d times", RATIO, TRIES);
}

/* Map one page so many times, in one block of addresses, so far apart; touch each. */
static char *map_apart(int fd, unsigned int count, uint64_t distance)
{
	char *block =
		CHECK_MAP(mmap(NULL, count * distance, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

	for (unsigned int i = 0; i < count; i++)
		CHECK_STORES(CHECK_MAP(mmap(block + i * distance, PAGE_SIZE, READ_WRITE,
					    MAP_SHARED | MAP_FIXED, fd, 0)));
	return block;
}

static char *map_often(int fd, unsigned int count)
{
	return map_apart(fd, count, PAGE_SIZE);
}

struct mappings {
	int fd;
	unsigned int count;
	uint64_t distance;
};

static void *run_on(void *arg)
{
	const atomic_bool *over = arg;

	while (!*over)
		;
	return NULL;
}

/* One of its threads runs meanwhile: that CPU is to be told of entries that go. */
static void be_holder(int sock, void *arg)
{
	const struct mappings *mappings = arg;
	atomic_bool over = false;
	pthread_t thread;

	map_apart(mappings->fd, mappings->count, mappings->distance);
	CHECK_EQ(pthread_create(&thread, NULL, run_on, &over), 0);
	say(sock, 0);
	hear(sock);
	over = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static struct longest measure_mappings(unsigned int count)
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct mappings mappings = { lease(&dev, RAM_BAR, 0, PAGE_SIZE), count,
				     PAGE_SIZE };
	struct kid kid = kid_start(be_holder, &mappings);
	struct longest longest;

	hear(kid.sock);
	longest.reset = time_reset(&dev);
	longest.revoke = time_revoke(&dev, mappings.fd);
	say(kid.sock, 0);
	kid_join(&kid);
	barlease_device_close(&dev);
	return longest;
}

TEST(bounds_mappings,
     "a revoke and a reset take as long as there are mappings, not longer",
     .timeout = 600)
{
	enum { RATIO = 10 * 5, TRIES = 3 };
	struct longest less, more;

	/* What a busy host adds to the one is not always added to the other. */
	for (int i = 0; i < TRIES; i++) {
		less = measure_mappings(few());
		more = measure_mappings(many());
		note("revoke: %.1f ms with %u mappings, %.1f ms with %u; "
		     "reset: %.1f ms, %.1f ms",
		     more.revoke * 1e3, many(), less.revoke * 1e3, few(),
		     more.reset * 1e3, less.reset * 1e3);
		if (more.revoke < less.revoke * RATIO &&
		    more.reset < less.reset * RATIO)
			return;
	}
	FAIL("expected less than %d times as long, saw more, %d times", RATIO, TRIES);
}

struct forker {
	atomic_bool over;
	int fd;
};

/*
 * Fork what it has mapped, so that each child may have it too, without end. A word
 * tells that it is about to begin, and one to do so.
 */
static void be_forker(int sock, void *arg)
{
	struct forker *forker = arg;
	char *block = map_often(forker->fd, few());

	CHECK_OK(madvise(block, few() * PAGE_SIZE, MADV_KEEPONFORK));
	enter_group();
	say(sock, 0);
	hear(sock);
	while (!forker->over) {
		pid_t pid = (pid_t)CHECK_OK(fork());

		if (!pid)
			_exit(0);
		CHECK_OK(waitpid(pid, NULL, 0));
	}
}

/* Another holder of the lease, which faults as often as its pages are taken. */
static void be_fellow(int sock, void *arg)
{
	char *at = map(((struct forker *)arg)->fd, 0, PAGE_SIZE, READ_WRITE);

	CHECK_STORES(at);
	say(sock, 0);
	while (!try_store(at, 1))
		;
}

/* What a revoke waits for before its zap, any call on the lease waits for too. */
static double time_info(const struct barlease_device *dev, int fd)
{
	double start = seconds();

	info(dev, fd);
	return seconds() - start;
}

TEST(bounds_forks,
     "a throttled lessee that forks many mappings holds up a revoke no longer than that",
     .timeout = 600)
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct forker *forker = CHECK_MAP(mmap(NULL, sizeof(*forker), READ_WRITE,
					       MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	struct longest longest = { 0, 0 };
	double quiet, wait = 0, other = 0, pause;
	struct kid kid, fellow;

	forker->fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	make_group();
	kid = kid_start(be_forker, forker);
	fellow = kid_start(be_fellow, forker);
	hear(kid.sock);
	hear(fellow.sock);
	quiet = time_reset(&dev);
	start_spinner();
	say(kid.sock, 0);
	for (uint32_t i = 0; i < rounds(ROUNDS); i++) {
		int fd = lease(&dev, RAM_BAR, PAGE_SIZE, PAGE_SIZE);

		stop_anywhere();
		longest.reset = longer(longest.reset, time_reset(&dev));
		stop_anywhere();
		other = longer(other, time_revoke(&dev, fd));
		stop_anywhere();
		wait = longer(wait, time_info(&dev, forker->fd));
		close(fd);
	}
	stop_anywhere();
	longest.revoke = time_revoke(&dev, forker->fd);
	pause = stop_spinner();
	forker->over = true;
	write_file(GROUP "/cpu.max", UNLIMITED);
	kid_join(&kid);
	kid_join(&fellow);
	CHECK_OK(rmdir(GROUP));
	note("revoke: %.1f ms, of another lease at most %.1f ms; longest reset: %.1f ms, "
	     "%.1f ms else; longest wait for the lease: %.1f ms; longest pause of another "
	     "throttled process: %.1f ms",
	     longest.revoke * 1e3, other * 1e3, longest.reset * 1e3, quiet * 1e3,
	     wait * 1e3, pause * 1e3);
	CHECK(longest.revoke < quiet + pause * TIMES);
	CHECK(longest.reset < quiet + pause * TIMES);
	CHECK(other < pause * TIMES);
	CHECK(wait < pause * TIMES);
}

static void map_in_group(int sock, void *arg)
{
	const struct mappings *mappings = arg;

	enter_group();
	map_apart(mappings->fd, mappings->count, mappings->distance);
	say(sock, 0);
	hear(sock);
}

/* What they take is charged: so many bytes each at the least, and nearly all that is.
 */
static void account(unsigned int count, uint64_t distance, uint64_t least)
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct mappings mappings = { lease(&dev, RAM_BAR, 0, PAGE_SIZE), count,
				     distance };
	uint64_t free_before, free_after, charged;
	struct kid kid;

	make_group();
	free_before = amount("/proc/meminfo", "MemAvailable:") * 1024;
	kid = kid_start(map_in_group, &mappings);
	hear(kid.sock);
	charged = amount(GROUP "/memory.stat", "\nkernel ");
	free_after = amount("/proc/meminfo", "MemAvailable:") * 1024;
	note("%u mappings, %llu KiB apart: %llu KiB charged, %lld KiB less available",
	     count, (unsigned long long)distance / 1024,
	     (unsigned long long)charged / 1024,
	     (long long)(free_before - free_after) / 1024);
	say(kid.sock, 0);
	kid_join(&kid);
	CHECK_OK(rmdir(GROUP));
	barlease_device_close(&dev);
	CHECK(charged >= count * least);
	/* The rest is the process itself and what else the system did. */
	CHECK(free_before < free_after + charged + MIB(6));
}

TEST(bounds_accounted, "what a lessee's mappings take is charged to its cgroup",
     .timeout = 600)
{
	enum { VMA = 128 }; /* bytes, at the very least */

	account(many(), PAGE_SIZE, VMA);
	/* Each in a page table of its own. */
	account(few(), MIB(2), PAGE_SIZE + VMA);
}
