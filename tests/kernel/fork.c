// SPDX-License-Identifier: MIT
/*
 * fork.c - a child that is born while a lease is revoked has nothing of it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define SIZE MIB(256)

struct race {
	int device;
	int lease;
	uint64_t delay;
	_Atomic uint32_t round;
	_Atomic uint32_t revoked; /* the round whose revoke has returned */
};

__attribute__((noreturn)) static void *revoke_thread(void *arg)
{
	struct race *race = arg;

	for (uint32_t round = 1;; round++) {
		while (race->round != round)
			;
		for (volatile uint64_t spin = 0; spin < race->delay; spin++)
			;
		CHECK_OK(abi_revoke(race->device, race->lease));
		race->revoked = round;
	}
}

/* In the child: each page that the parent had in its tables is gone. */
static void check_child(const struct race *race, const char *at, uint32_t round)
{
	while (race->revoked != round)
		sched_yield();
	for (uint64_t offset = 0; offset < SIZE; offset += MIB(2))
		CHECK_GONE(at + offset);
	_exit(0);
}

static uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/*
 * The delay before the revoke is drawn from twice what a fork was seen to take,
 * in turns of the same loop.
 */
static void fork_and_revoke(int advice)
{
	enum { ROUNDS = 400 };
	struct race *race = CHECK_MAP(mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
					   MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	struct barlease_device dev = open_device(RAM_DEVICE);
	uint64_t longest = 1000;
	pthread_t thread;

	race->device = dev.device_fd;
	CHECK_EQ(pthread_create(&thread, NULL, revoke_thread, race), 0);
	for (uint32_t round = 1; round <= ROUNDS; round++) {
		uint64_t began, forked, spun;
		char *at;
		int status;
		pid_t pid;

		race->lease = lease(&dev, RAM_BAR, 0, SIZE);
		at = map_at(race->lease, 0, SIZE, PROT_READ | PROT_WRITE, 0);
		if (advice)
			CHECK_OK(madvise(at, SIZE, advice));
		CHECK_OK(abi_prefault(race->lease));
		CHECK_EQ(page_entry(at).level, PTWALK_PMD);

		race->delay = random_word() % longest;
		race->round = round;
		began = nanoseconds();
		pid = (pid_t)CHECK_OK(fork());
		if (!pid)
			check_child(race, at, round);
		forked = nanoseconds() - began;
		while (race->revoked != round)
			sched_yield();
		CHECK_OK(waitpid(pid, &status, 0));
		CHECK_EQ(status, 0);
		CHECK_GONE(at);
		CHECK_OK(munmap(at, SIZE));
		close(race->lease);

		began = nanoseconds();
		for (volatile uint64_t spin = 0; spin < 1000; spin++)
			;
		spun = nanoseconds() - began;
		longest = 2 * forked * 1000 / (spun + 1) + 1;
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
