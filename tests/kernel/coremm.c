// SPDX-License-Identifier: MIT
/*
 * coremm.c - what a lessee can have the core mm do to its own entries
 * (clear_refs, forbidden huge pages, userfaultfd) neither hangs an access for
 * good nor outlives a revoke nor harms another.
 */
#define _GNU_SOURCE
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "lessees.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

/* Since 6.7; older headers lack it. */
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
/* In 7.3; it takes what UFFDIO_WRITEPROTECT takes. */
#ifndef UFFDIO_RWPROTECT
#define UFFD_FEATURE_RWP         (1 << 17)
#define UFFD_FEATURE_RWP_ASYNC   (1 << 18)
#define UFFDIO_REGISTER_MODE_RWP ((uint64_t)1 << 3)
#define UFFDIO_RWPROTECT         _IOWR(UFFDIO, 0x09, struct uffdio_writeprotect)
#endif

/* 1: referenced, 3: of files, 4: soft-dirty, which makes entries read-only. */
static void clear_refs_then_store(uint64_t hint, uint64_t size, uint32_t level)
{
	static const char *const kinds[] = { "4", "1", "3", "4", "4" };
	struct barlease_device dev =
		open_device(size > RAM_SIZE ? BIG_DEVICE : RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, size);
	char *at = map_at(fd, 0, size, READ_WRITE, hint);
	char *fresh = map_at(fd, 0, size, READ_WRITE, hint);
	volatile uint32_t *word = map_bar(&dev, RAM_BAR, 0, PAGE_SIZE, PROT_READ);

	stamp_pages(&dev);
	CHECK_STORES(at);
	CHECK_EQ(page_entry(at).level, level);
	for (uint32_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		write_file("/proc/self/clear_refs", kinds[i]);
		CHECK_EQ(try_store(at, 100 + i), 0);
		CHECK_EQ(*word, 100 + i);
		CHECK_PAGE(at, 0);
		CHECK_PAGE(at + size - PAGE_SIZE, size / PAGE_SIZE - 1);
	}
	/* Read first, so that the store finds an entry that was never written. */
	CHECK_LOADS(fresh);
	write_file("/proc/self/clear_refs", "4");
	CHECK_LOADS(fresh);
	CHECK_EQ(try_store(fresh, 200), 0);
	CHECK_EQ(*word, 200);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_GONE(at);
	CHECK_GONE(fresh);
}

TEST(clear_refs_4k, "after clear_refs a store to a small page goes through")
{
	clear_refs_then_store(PAGE_SIZE, MIB(4), PTWALK_PTE);
}

TEST(clear_refs_2m, "after clear_refs a store to a 2 MiB entry goes through")
{
	clear_refs_then_store(0, MIB(4), PTWALK_PMD);
}

TEST(clear_refs_1g, "after clear_refs a store to a 1 GiB entry goes through",
     .params = "huge_pud=1")
{
	clear_refs_then_store(0, BIG_SIZE, PTWALK_PUD);
}

/* Maps, touches every block of, and unmaps the lease until told to stop. */
struct toucher {
	int lease;
	uint64_t size;
	_Atomic bool stop;
	_Atomic uint32_t rounds;
};

static void *touch_rounds(void *arg)
{
	struct toucher *toucher = arg;

	while (!toucher->stop) {
		uint64_t off = toucher->rounds % 2 * PAGE_SIZE;
		char *at = map_at(toucher->lease, 0, toucher->size, READ_WRITE, off);

		for (uint64_t next = 0; next < toucher->size; next += MIB(1))
			CHECK_PAGE(at + next, next / PAGE_SIZE);
		CHECK_PAGE(at + PAGE_SIZE, 1);
		CHECK_OK(munmap(at, toucher->size));
		toucher->rounds++;
	}
	return NULL;
}

/* The kernel's complaint, if there is one, fails the whole run. */
static void toggle_thp(void)
{
	enum { ROUNDS = 400, TOUCHERS = 2 };
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct toucher toucher = { .size = MIB(64) };
	pthread_t threads[TOUCHERS];
	uint32_t toggles = 0;

	stamp_pages(&dev);
	toucher.lease = lease(&dev, RAM_BAR, 0, toucher.size);
	for (int i = 0; i < TOUCHERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, touch_rounds, &toucher), 0);
	while (toucher.rounds < rounds(ROUNDS)) {
		CHECK_OK(prctl(PR_SET_THP_DISABLE, toggles++ % 2, 0, 0, 0));
		sched_yield();
	}
	CHECK(toggles > rounds(ROUNDS) / 4);
	toucher.stop = true;
	for (int i = 0; i < TOUCHERS; i++)
		pthread_join(threads[i], NULL);
}

TEST(thp_toggled, "forbidding huge pages while others fault gives nobody a wrong page")
{
	toggle_thp();
}

TEST(thp_toggled_1g, "likewise with 1 GiB entries allowed", .params = "huge_pud=1")
{
	toggle_thp();
}

/* Who reads these goes through the entries, and splits a 1 GiB one. */
static const char *const maps_of_sizes[] = { "/proc/self/smaps",
					     "/proc/self/smaps_rollup" };

/* A mapping that two threads store to while others do what this is about. */
static struct storers {
	char *_Atomic at;
	pthread_barrier_t begin, end;
	_Atomic bool stop;
	_Atomic uint32_t reads, toggles;
} storers;

static void *store_to_blocks(void *arg)
{
	bool clears = arg;

	for (;;) {
		pthread_barrier_wait(&storers.begin);
		if (storers.stop)
			return NULL;
		for (int i = 0; i < 4; i++) {
			CHECK_STORES(storers.at + MIB(200) * (uint64_t)i);
			if (clears)
				write_file("/proc/self/clear_refs", "4");
		}
		pthread_barrier_wait(&storers.end);
	}
}

static void *read_sizes(void *arg)
{
	(void)arg;
	for (; !storers.stop; storers.reads++)
		free(read_file(maps_of_sizes[storers.reads % 2]));
	return NULL;
}

static void *toggle_huge(void *arg)
{
	(void)arg;
	for (; !storers.stop; storers.toggles++) {
		CHECK_OK(prctl(PR_SET_THP_DISABLE, storers.toggles % 2, 0, 0, 0));
		sched_yield();
	}
	return NULL;
}

TEST(smaps_1g, "reading smaps splits a 1 GiB entry beside stores and harms nobody",
     .params = "huge_pud=1")
{
	enum { ROUNDS = 200, THREADS = 4 };
	static void *(*const runs[THREADS])(
		void *) = { store_to_blocks, store_to_blocks, read_sizes, toggle_huge };
	struct barlease_device dev = open_device(BIG_DEVICE);
	pthread_t threads[THREADS];
	int fd;

	stamp_pages(&dev);
	fd = lease(&dev, RAM_BAR, 0, BIG_SIZE);
	for (int i = 0; i < 2; i++) {
		char *at = map_at(fd, 0, BIG_SIZE, READ_WRITE, 0);

		CHECK_PAGE(at, 0);
		CHECK_EQ(page_entry(at).level, PTWALK_PUD);
		free(read_file(maps_of_sizes[i]));
		CHECK(page_entry(at).level != PTWALK_PUD);
		CHECK_PAGE(at, 0);
		CHECK_OK(munmap(at, BIG_SIZE));
	}
	CHECK_EQ(pthread_barrier_init(&storers.begin, NULL, 3), 0);
	CHECK_EQ(pthread_barrier_init(&storers.end, NULL, 3), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, runs[i],
					(void *)(uintptr_t)!i),
			 0);
	for (uint32_t round = 0; round < rounds(ROUNDS); round++) {
		storers.at = map_at(fd, 0, BIG_SIZE, READ_WRITE, 0);
		pthread_barrier_wait(&storers.begin);
		pthread_barrier_wait(&storers.end);
		CHECK_OK(munmap(storers.at, BIG_SIZE));
	}
	CHECK(storers.reads && storers.toggles);
	storers.stop = true;
	pthread_barrier_wait(&storers.begin);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* Touches a page of each huge block, as fast as told. */
struct racer {
	char *_Atomic at;
	uint64_t size;
	_Atomic uint32_t wanted, done;
};

__attribute__((noreturn)) static void *race_blocks(void *arg)
{
	struct racer *racer = arg;

	for (;;) {
		while (racer->done == racer->wanted)
			sched_yield();
		for (uint64_t next = 0; next < racer->size; next += MIB(2))
			CHECK_PAGE(racer->at + next, next / PAGE_SIZE);
		racer->done++;
	}
}

/* Who comes second finds a huge entry, on the way to making small ones. */
TEST(thp_disabled_race,
     "of two threads that fault one block, huge pages forbidden, none fails")
{
	enum { ROUNDS = 500 };
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct racer racer = { .size = MIB(64) };
	pthread_t thread;
	int fd;

	stamp_pages(&dev);
	fd = lease(&dev, RAM_BAR, 0, racer.size);
	CHECK_OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	CHECK_EQ(pthread_create(&thread, NULL, race_blocks, &racer), 0);
	for (uint32_t round = 1; round <= rounds(ROUNDS); round++) {
		racer.at = map_at(fd, 0, racer.size, READ_WRITE, 0);
		racer.wanted = round;
		CHECK_OK(abi_prefault(fd));
		while (racer.done != round)
			sched_yield();
		CHECK_OK(munmap(racer.at, racer.size));
	}
}

TEST(thp_disabled_revoke, "pages faulted in with huge pages forbidden are revoked too")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(8));
	char *at = map_at(fd, 0, MIB(8), READ_WRITE, 0);

	CHECK_STORES(at);
	CHECK_OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	for (uint64_t next = 0; next < MIB(8); next += KIB(64))
		CHECK_STORES(at + next);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	for (uint64_t next = 0; next < MIB(8); next += KIB(64))
		CHECK_GONE(at + next);
}

/* How userfaultfd keeps accesses out in its asynchronous modes. */
static const struct protection {
	const char *name;
	uint64_t features, mode;
	unsigned long call; /* takes the mode of itself as 1 */
} protections[] = {
	{ "write-protects", UFFD_FEATURE_WP_ASYNC, UFFDIO_REGISTER_MODE_WP,
	  UFFDIO_WRITEPROTECT },
	{ "access-protects", UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC,
	  UFFDIO_REGISTER_MODE_RWP, UFFDIO_RWPROTECT },
};

struct protected
{
	const struct protection *protection;
	char *at;
};

/* Protects its mapping so, and goes on to use it, by itself and by the kernel. */
static void protect_and_store(int sock, void *arg)
{
	struct protected *kid = arg;
	struct uffdio_api api = { .api = UFFD_API,
				  .features = kid->protection->features };
	struct uffdio_register region = { .range = { (uintptr_t)kid->at, MIB(8) },
					  .mode = kid->protection->mode };
	struct uffdio_writeprotect protect = { .range = { (uintptr_t)kid->at, MIB(8) },
					       .mode = 1 };
	int fd = (int)CHECK_OK(syscall(SYS_userfaultfd, O_CLOEXEC)), pipes[2];
	bool registered, armed = false;
	char byte;

	CHECK_OK(pipe(pipes));
	for (uint64_t next = 0; next < MIB(8); next += KIB(64))
		CHECK_LOADS(kid->at + next);
	/* Refused is fine; what is taken must do no harm. */
	registered =
		!ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &region);
	if (registered)
		armed = !ioctl(fd, kid->protection->call, &protect);
	say(sock, registered + armed);
	for (uint64_t next = 0;; next = (next + KIB(4)) % MIB(8)) {
		(void)try_store(kid->at + next, 1);
		if (write(pipes[1], kid->at + next, 1) == 1)
			CHECK_OK(read(pipes[0], &byte, 1));
	}
}

static void protect_lease(const struct protection *protection)
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int other = lease(&dev, RAM_BAR, 0, MIB(8));
	struct readers readers = readers_start(&other, 1, 0x10);
	uint64_t taken = 0;

	for (uint64_t round = 0; round < 4; round++) {
		uint64_t off = round % 2, revokes = round / 2;
		int fd = lease(&dev, RAM_BAR, MIB(8), MIB(8)), status;
		struct protected with = { protection, map_at(fd, 0, MIB(8), READ_WRITE,
							     off * PAGE_SIZE) };
		struct kid kid = kid_start(protect_and_store, &with);

		taken = hear(kid.sock);
		readers_wait_works(&readers);
		/* Whatever it hangs in, it can be killed, with its lease or without. */
		if (revokes)
			CHECK_OK(abi_revoke(dev.device_fd, fd));
		readers_wait_works(&readers);
		CHECK_OK(kill(kid.pid, SIGKILL));
		CHECK_OK(waitpid(kid.pid, &status, 0));
		CHECK(WIFSIGNALED(status));
		CHECK_EQ(WTERMSIG(status), SIGKILL);
		close(kid.sock);
		CHECK_OK(munmap(with.at, MIB(8)));
		close(fd);
	}
	note("this kernel's userfaultfd %s%s",
	     taken == 1 ? "takes it, but never " :
	     taken      ? "" :
			  "refuses it, and never ",
	     protection->name);
	CHECK_EQ(readers_count_sigbus(&readers), 0);
	readers_stop(&readers);
}

TEST(uffd_wp, "write-protecting a lease by userfaultfd harms its caller at most")
{
	protect_lease(&protections[0]);
}

TEST(uffd_rwp, "keeping loads out of a lease by userfaultfd harms its caller at most")
{
	protect_lease(&protections[1]);
}
