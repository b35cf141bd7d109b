// SPDX-License-Identifier: MIT
/*
 * world.c - what all processes of a stress run share.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "world.h"

struct world *world;
_Thread_local unsigned int me;

static const char *const op_names[NR_OPS] = {
	[OP_EXPORT] = "export",
	[OP_REVOKE] = "revoke",
	[OP_MEMATTR] = "memattr",
	[OP_INFO] = "info",
	[OP_WATCH] = "watch stores",
	[OP_SEARCH] = "search stores",
	[OP_DROP] = "drop",
	[OP_DECODING] = "decoding",
	[OP_RESET] = "reset",
	[OP_HOT_RESET] = "hot reset",
	[OP_SYSFS_RESET] = "sysfs reset",
	[OP_REOPEN] = "close, reopen",
	[OP_REBIND] = "unbind, rebind",
	[OP_RESCAN] = "remove, rescan",
	[OP_PULL] = "pull, put back",
	[OP_MAP] = "mmap",
	[OP_LOAD] = "load",
	[OP_STORE] = "store",
	[OP_PREFAULT] = "prefault",
	[OP_MUNMAP] = "munmap",
	[OP_MREMAP] = "mremap",
	[OP_MPROTECT] = "mprotect",
	[OP_MADVISE] = "madvise",
	[OP_FORK] = "fork",
	[OP_PASS] = "pass fd",
	[OP_RECEIVE] = "receive fd",
	[OP_CLOSE] = "close fd",
	[OP_QUIET] = "stay quiet",
	[OP_KILL] = "kill -9",
};

const char *op_name(enum op op)
{
	return op_names[op];
}

const char *errno_name(int error)
{
	const char *name = strerrorname_np(error);

	return error && name ? name : "success";
}

uint32_t terms_page(const struct terms *terms, uint32_t page)
{
	uint32_t i;

	for (i = 0; page >= terms->ranges[i].nr; i++)
		page -= terms->ranges[i].nr;
	return terms->ranges[i].first + page;
}

bool terms_have(const struct terms *terms, uint32_t bar_page)
{
	for (uint32_t i = 0; i < terms->nr_ranges; i++)
		if (bar_page - terms->ranges[i].first < terms->ranges[i].nr)
			return true;
	return false;
}

void world_create(uint64_t seed)
{
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (world == MAP_FAILED) {
		perror("stress: mmap");
		exit(2);
	}
	world->seed = seed;
	world->slowness = 1;
}

void world_reset(uint32_t phase)
{
	world->phase = phase;
	world->lessor_ready = world->lessor_ends = world->lessees_end = false;
	memset(world->aims, 0, sizeof(world->aims));
	memset(world->devices, 0, sizeof(world->devices));
	memset(world->actors, 0, sizeof(world->actors));
	for (int device = 0; device < NR_DEVICES; device++)
		world->devices[device].word =
			DEVICE_CLOSED | (device == PLUG ? DEVICE_PULLABLE : 0);
	/* Exports are counted on, as the BARs keep what was stored to them. */
	for (int lease = 0; lease < ALL_LEASES; lease++) {
		uint64_t export = world->leases[lease].word >> 8;

		memset(&world->leases[lease], 0, sizeof(world->leases[lease]));
		world->leases[lease].word = lease_word(export, LEASE_FREE);
	}
}

/* splitmix64 */
uint64_t draw(struct random *random)
{
	uint64_t word = random->state += 0x9e3779b97f4a7c15;

	word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
	word = (word ^ word >> 27) * 0x94d049bb133111eb;
	return word ^ word >> 31;
}

struct random random_of(uint64_t seed, uint32_t phase, unsigned int actor,
			uint32_t generation)
{
	struct random random = { seed };
	const uint64_t salts[] = { phase, actor, generation };

	for (int i = 0; i < 3; i++)
		random.state = draw(&random) ^ salts[i];
	return random;
}

struct step next_step(struct random *random, const unsigned int *weights,
		      unsigned int count)
{
	unsigned int sum = 0, at;
	struct step step = { 0 };

	for (unsigned int i = 0; i < count; i++)
		sum += weights[i];
	/* cppcheck-suppress zerodiv ; a table of weights has one that is not 0 */
	at = (draw(random) >> 16) % sum;
	while (at >= weights[step.choice])
		at -= weights[step.choice++];
	for (int i = 0; i < 4; i++)
		step.r[i] = draw(random);
	return step;
}

static void log_op(_Atomic uint32_t *next, struct log_entry *log,
		   struct log_entry entry)
{
	struct log_entry *at = &log[atomic_fetch_add(next, 1) % LOG_LENGTH];

	entry.tick = 1 + atomic_fetch_add(&world->ticks, 1);
	entry.actor = me;
	*at = entry;
}

static void log_both(const struct terms *terms, int device, struct log_entry entry)
{
	if (terms) {
		struct lease_model *lease = &world->leases[terms->index];

		log_op(&lease->log_next, lease->log, entry);
	} else if (device >= 0) {
		log_op(&world->devices[device].log_next, world->devices[device].log,
		       entry);
	}
}

/* Of a lease, which is one export of its number: not 0. */
static uint32_t key_of(const struct terms *terms)
{
	return (uint32_t)terms->id.export << 8 | (terms->index + 1);
}

/*
 * Two operations on one lease overlap: the later one finds the earlier one
 * here, and leaves word of it.
 */
static bool meet(uint32_t key)
{
	bool met = false;

	for (unsigned int i = 0; i < NR_ACTORS; i++) {
		uint64_t doing = world->actors[i].doing;

		if (i != me && (uint32_t)doing == key) {
			world->actors[i].met = doing;
			met = true;
		}
	}
	return met;
}

void op_begin(enum op op, const struct terms *terms, int device, uint64_t detail,
	      uint64_t more)
{
	struct actor_state *actor = &world->actors[me];

	actor->steps++;
	actor->op = op + 1;
	actor->began_us = now_us();
	/* Calls on a lease that is dead overlap all the time, and race with nothing. */
	if (terms && !oracle_dead(terms->id, moment(terms))) {
		uint64_t doing = actor->steps << 32 | key_of(terms);

		actor->doing = doing;
		if (meet((uint32_t)doing))
			actor->met = doing;
	}
	log_both(terms, device,
		 (struct log_entry){ .op = op, .detail = { detail, more } });
}

void op_end(enum op op, const struct terms *terms, int device, int outcome)
{
	struct actor_state *actor = &world->actors[me];
	uint64_t took = now_us() - actor->began_us;

	world->time_us[op] += took;
	/* Two that both are the longest race harmlessly. */
	if (took > world->longest_us[op])
		world->longest_us[op] = took;
	if (actor->doing && actor->met == actor->doing)
		world->overlapped[op]++;
	actor->outcome = outcome;
	actor->doing = 0;
	actor->op = 0;
	world->outcomes[op][outcome]++;
	log_both(terms, device,
		 (struct log_entry){ .op = op, .end = true, .outcome = outcome });
}

unsigned int count_rivals(const struct terms *terms)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < NR_ACTORS; i++)
		count += i != me && (uint32_t)world->actors[i].doing == key_of(terms);
	return count;
}

void actor_gone(unsigned int actor)
{
	world->actors[actor].doing = 0;
	world->actors[actor].op = 0;
}

void wait_until_told(void)
{
	for (int i = 0; i < TELL_SECONDS * 1000 && !world->failure_told; i++)
		pause_us(1000);
}

void fail(int lease, int device, const char *format, ...)
{
	va_list args;

	if (!atomic_flag_test_and_set(&world->failed)) {
		world->failure_lease = lease;
		world->failure_device = device;
		va_start(args, format);
		vsnprintf(world->failure, sizeof(world->failure), format, args);
		va_end(args);
		world->failure_told = true;
	}
	/* The first may be a thread of this process, which ends with us. */
	wait_until_told();
	_exit(1);
}

void spin(uint64_t turns)
{
	for (volatile uint64_t left = turns; left; left--)
		;
}

uint64_t now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

void pause_us(uint64_t us)
{
	struct timespec time = { .tv_sec = (time_t)(us / 1000000),
				 .tv_nsec = (long)(us % 1000000 * 1000) };

	nanosleep(&time, NULL);
}
