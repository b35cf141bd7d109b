// SPDX-License-Identifier: MIT
/*
 * revoke.c - when REVOKE has returned nothing reaches the device through that
 * lease, and nobody else has noticed.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "lessees.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

/* The lease of a round, and what storers say of it. One a process or thread. */
struct storer {
	volatile uint32_t *_Atomic at;
	_Atomic uint32_t round;   /* written by the test: go and store */
	_Atomic uint32_t revoked; /* likewise: REVOKE has returned */
	_Atomic uint32_t gone;    /* written by the storer: saw SIGBUS */
};

/*
 * Store ever new values until it is over. A store that was begun after REVOKE
 * returned and went through is the failure.
 */
static void store_round(struct storer *storer, volatile uint32_t *at, uint32_t round)
{
	uint32_t value = 0;

	for (;;) {
		bool late = storer->revoked == round;
		int number = try_store(at, ++value);

		if (number) {
			CHECK_EQ(number, SIGBUS);
			break;
		}
		CHECK_THAT(!late, "expected no store after REVOKE returned, saw one");
	}
	storer->gone = round;
}

__attribute__((noreturn)) static void *store_thread(void *arg)
{
	struct storer *storer = arg;

	for (uint32_t round = 1;; round++) {
		while (storer->round != round)
			sched_yield();
		store_round(storer, storer->at, round);
	}
}

static void store_process(int sock, void *arg)
{
	struct storer *storer = arg;
	uint32_t count = (uint32_t)hear(sock);

	for (uint32_t round = 1; round <= count; round++) {
		int fd = receive_fd(sock);
		uint64_t size = (uint64_t)lseek(fd, 0, SEEK_END);
		char *at = map(fd, 0, size, READ_WRITE);

		store_round(storer, (volatile uint32_t *)(at + 4), round);
		CHECK_OK(munmap(at, size));
		close(fd);
	}
}

/* Until the owner sees a store arrive. */
static void await_store(const volatile uint32_t *word)
{
	while (!*word)
		sched_yield();
}

/*
 * Of each lease two words are stored to, one by a thread of the owner's process
 * and one by another process; the owner sees them through its own mapping.
 */
static void revoke_under_stores(uint64_t size, uint32_t count)
{
	struct storer *storers = CHECK_MAP(
		mmap(NULL, PAGE_SIZE, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	struct kid kid = kid_start(store_process, &storers[1]);
	struct barlease_device dev = open_device(RAM_DEVICE);
	char *bar = map_bar(&dev, RAM_BAR, 0, RAM_SIZE, READ_WRITE);
	pthread_t thread;

	say(kid.sock, count);
	CHECK_EQ(pthread_create(&thread, NULL, store_thread, &storers[0]), 0);
	for (uint32_t round = 1; round <= count; round++) {
		uint64_t offset = round % 32 * size;
		volatile uint32_t *word = (volatile uint32_t *)(bar + offset);
		int fd = lease(&dev, RAM_BAR, offset, size);
		char *at = map_at(fd, 0, size, READ_WRITE, offset);
		uint32_t seen[2];

		word[0] = word[1] = 0;
		storers[0].at = (volatile uint32_t *)at;
		storers[0].round = round;
		send_fd(kid.sock, fd);
		await_store(&word[0]);
		await_store(&word[1]);

		CHECK_OK(abi_revoke(dev.device_fd, fd));
		for (int i = 0; i < 2; i++)
			seen[i] = word[i];
		for (int i = 0; i < 2; i++)
			storers[i].revoked = round;
		for (int i = 0; i < 2; i++) {
			while (storers[i].gone != round)
				sched_yield();
			CHECK_EQ(word[i], seen[i]);
		}
		CHECK_OK(munmap(at, size));
		close(fd);
	}
	kid_join(&kid);
}

TEST(revoke_stops_stores, "no store reaches a page after REVOKE returned",
     .timeout = 600)
{
	revoke_under_stores(PAGE_SIZE, rounds(2000));
}

TEST(revoke_stops_stores_2m, "no store reaches a huge page after REVOKE returned",
     .timeout = 600)
{
	revoke_under_stores(MIB(2), rounds(1000));
}

/* Touches a lease from end to end, as long as it lasts. */
__attribute__((noreturn)) static void *touch_thread(void *arg)
{
	struct storer *storer = arg;

	for (uint32_t round = 1;; round++) {
		const volatile char *at;
		uint64_t offset;
		uint32_t value;

		while (storer->round != round)
			sched_yield();
		at = (const volatile char *)storer->at;
		for (offset = 0; !try_load(at + offset, &value); offset += KIB(64))
			;
		storer->gone = round;
	}
}

TEST(revoke_races_faults, "a fault that races REVOKE leaves no page behind",
     .timeout = 600)
{
	/* Off by a page: each 64 KiB take a fault. What lies behind is a hole. */
	enum { BLOCKS = 64, ROUNDS = 1500 };
	const uint64_t size = BLOCKS * KIB(64);
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct storer storer = { .at = NULL };
	pthread_t thread;
	uint32_t value, midway = 0;

	CHECK_EQ(pthread_create(&thread, NULL, touch_thread, &storer), 0);
	for (uint32_t round = 1; round <= rounds(ROUNDS); round++) {
		int fd = lease(&dev, RAM_BAR, 0, size);
		char *at = map_at(fd, 0, size, PROT_READ, KIB(4));
		uint64_t wait = random_word() % BLOCKS, made;

		storer.at = (volatile uint32_t *)at;
		storer.round = round;
		while (faults(&dev, fd) < wait)
			;
		CHECK_OK(abi_revoke(dev.device_fd, fd));
		made = faults(&dev, fd);
		for (uint64_t offset = 0; offset < size; offset += KIB(64))
			CHECK_EQ(try_load(at + offset, &value), SIGBUS);
		while (storer.gone != round)
			sched_yield();
		midway += made < BLOCKS;
		CHECK_EQ(faults(&dev, fd), made);
		CHECK_OK(munmap(at, size));
		close(fd);
	}
	/* Or else it was no race. */
	CHECK(midway > rounds(ROUNDS) / 10);
}

TEST(revoke_spares_readers, "lessees read on while leases of the same page are revoked")
{
	enum { ROUNDS = 500 };
	struct barlease_device dev = open_device(RAM_DEVICE);
	int leases[2] = { lease(&dev, RAM_BAR, 0, PAGE_SIZE),
			  lease(&dev, RAM_BAR, 0, MIB(2)) };
	struct readers readers = readers_start(leases, 2, 0x10);
	uint64_t made[2];

	for (int i = 0; i < 2; i++)
		made[i] = faults(&dev, leases[i]);
	for (int round = 0; round < (int)rounds(ROUNDS); round++) {
		int fd = lease(&dev, RAM_BAR, 0, MIB(2));
		char *at = map(fd, 0, MIB(2), PROT_READ);

		CHECK_LOADS(at);
		CHECK_OK(abi_revoke(dev.device_fd, fd));
		CHECK_GONE(at);
		CHECK_OK(munmap(at, MIB(2)));
		close(fd);
	}
	readers_wait_works(&readers);
	CHECK_EQ(readers_count_sigbus(&readers), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(faults(&dev, leases[i]), made[i]);
	CHECK_OK(abi_revoke(dev.device_fd, leases[0]));
	CHECK_OK(abi_revoke(dev.device_fd, leases[1]));
	readers_wait_sigbus(&readers);
	readers_stop(&readers);
}
