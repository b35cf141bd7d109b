// SPDX-License-Identifier: MIT
/*
 * fork.c - a child that is born while a lease is revoked has nothing of it.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

/* Each lease is one huge entry, in memory side by side. */
#define LEASES 64
#define SIZE   (LEASES * MIB(2))

struct race {
	int device;
	int leases[LEASES];
	uint64_t delay;
	_Atomic uint32_t round;
	_Atomic uint32_t revoked; /* the round whose revoke has returned */
};

__attribute__((noreturn)) static void revoke_on(struct race *race)
{
	for (uint32_t round = 1;; round++) {
		while (race->round != round)
			sched_yield();
		for (volatile uint64_t spin = 0; spin < race->delay; spin++)
			;
		for (int i = 0; i < LEASES; i++)
			CHECK_OK(abi_revoke(race->device, race->leases[i]));
		race->revoked = round;
	}
}

/* In the child: each page that the parent had in its tables is gone. */
static void check_child(const struct race *race, const char *at, uint32_t round)
{
	while (race->revoked != round)
		sched_yield();
	for (uint64_t offset = 0; offset < SIZE; offset += MIB(2))
		CHECK_EQ(page_entry(at + offset).level, PTWALK_NONE);
	CHECK_GONE(at);
	_exit(0);
}

static uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/*
 * The race is lost while fork copies the very entry that is being revoked. It
 * copies in order of address, and the leases are revoked in that order too, so
 * that the one overtakes the other. The delay before the first revoke is drawn
 * from what the last fork took, in turns of the same loop.
 */
static void fork_and_revoke(int advice)
{
	enum { ROUNDS = 400, FEWEST = 10 };
	struct race *race = CHECK_MAP(mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
					   MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	struct barlease_device dev = open_device(BIG_DEVICE);
	char *at = map_at(dev.device_fd, dev.bars[RAM_BAR].offset, SIZE, PROT_NONE, 0);
	uint64_t longest = 1000;

	race->device = dev.device_fd;
	/* A process, as fork holds up threads, but one with this one's fds. */
	if (!CHECK_OK(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0)))
		revoke_on(race);
	for (uint32_t round = 1; round <= ROUNDS && !(round > FEWEST && ran_for(20));
	     round++) {
		uint64_t began, forked, spun;
		int status;
		pid_t pid;

		for (uint64_t i = 0; i < LEASES; i++) {
			race->leases[i] = lease(&dev, RAM_BAR, i * MIB(2), MIB(2));
			CHECK_MAP(mmap(at + i * MIB(2), MIB(2), PROT_READ,
				       MAP_SHARED | MAP_FIXED, race->leases[i], 0));
			CHECK_LOADS(at + i * MIB(2));
			CHECK_EQ(page_entry(at + i * MIB(2)).level, PTWALK_PMD);
		}
		if (advice)
			CHECK_OK(madvise(at, SIZE, advice));

		race->delay = random_word() % longest;
		race->round = round;
		began = nanoseconds();
		pid = (pid_t)CHECK_OK(fork());
		if (!pid)
			check_child(race, at, round);
		forked = nanoseconds() - began;
		CHECK_OK(waitpid(pid, &status, 0));
		CHECK_EQ(status, 0);
		CHECK_GONE(at);
		for (int i = 0; i < LEASES; i++)
			close(race->leases[i]);

		began = nanoseconds();
		for (volatile uint64_t spin = 0; spin < 1000; spin++)
			;
		spun = nanoseconds() - began;
		longest = forked * 1000 / (spun + 1) + 1;
	}
}

TEST(fork_races_revoke, "a child forked while a lease is revoked has no page of it")
{
	fork_and_revoke(0);
}

TEST(fork_races_revoke_kept,
     "likewise where the lessee asked fork to keep the pages (MADV_KEEPONFORK)")
{
	fork_and_revoke(MADV_KEEPONFORK);
}

static void check_none(int sock, void *at)
{
	(void)sock;
	for (uint64_t offset = 0; offset < MIB(8); offset += KIB(64))
		CHECK_EQ(page_entry((char *)at + offset).level, PTWALK_NONE);
	CHECK_PAGE(at, 0);
}

TEST(fork_copies_none, "fork copies no entry, so that a revoke cannot miss the copy")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(8));

	stamp_pages(&dev);
	/* As the driver has it and as a lessee may; in huge entries and small. */
	for (int kept = 0; kept < 2; kept++) {
		for (uint64_t off = 0; off < 2; off++) {
			char *at = map_at(fd, 0, MIB(8), PROT_READ, off * PAGE_SIZE);
			struct kid kid;

			if (kept)
				CHECK_OK(madvise(at, MIB(8), MADV_KEEPONFORK));
			CHECK_OK(abi_prefault(fd));
			CHECK_EQ(page_entry(at).level, off ? PTWALK_PTE : PTWALK_PMD);
			kid = kid_start(check_none, at);
			kid_join(&kid);
			CHECK_PAGE(at, 0);
		}
	}
}

static void hold_entry(int sock, void *arg)
{
	char *at = map_at(*(int *)arg, 0, MIB(2), PROT_READ, 0);

	CHECK_LOADS(at);
	say(sock, 0);
	hear(sock);
	CHECK_EQ(page_entry(at).level, PTWALK_PMD);
}

static void do_nothing(int sock, void *arg)
{
	(void)sock;
	(void)arg;
}

TEST(fork_spares_others,
     "fork with MADV_KEEPONFORK takes no entry from another process")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(2));
	struct kid other = kid_start(hold_entry, &fd), kid;
	char *at = map_at(fd, 0, MIB(2), PROT_READ, 0);

	hear(other.sock);
	CHECK_OK(madvise(at, MIB(2), MADV_KEEPONFORK));
	CHECK_LOADS(at);
	kid = kid_start(do_nothing, NULL);
	kid_join(&kid);
	CHECK_EQ(page_entry(at).level, PTWALK_NONE);
	say(other.sock, 0);
	kid_join(&other);
}

static void check_kept(int sock, void *at)
{
	for (uint64_t page = 0; page < 2048; page += 3)
		CHECK_PAGE((char *)at + page * PAGE_SIZE, page);
	say(sock, 0);
	hear(sock);
	for (uint64_t offset = 0; offset < MIB(8); offset += KIB(64))
		CHECK_GONE((char *)at + offset);
}

TEST(fork_kept, "with MADV_KEEPONFORK parent and child go on, and both lose the lease")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(8));
	/* In huge entries, and in small ones. */
	for (uint64_t off = 0; off < 2; off++) {
		char *at = map_at(fd, 0, MIB(8), PROT_READ, off * PAGE_SIZE);
		struct kid kid;

		stamp_pages(&dev);
		CHECK_OK(madvise(at, MIB(8), MADV_KEEPONFORK));
		CHECK_OK(abi_prefault(fd));
		kid = kid_start(check_kept, at);
		hear(kid.sock);
		for (uint64_t page = 0; page < 2048; page += 3)
			CHECK_PAGE(at + page * PAGE_SIZE, page);
		CHECK_OK(abi_revoke(dev.device_fd, fd));
		CHECK_GONE(at);
		say(kid.sock, 0);
		kid_join(&kid);
		close(fd);
		fd = lease(&dev, RAM_BAR, 0, MIB(8));
	}
}
