// SPDX-License-Identifier: MIT
/*
 * lessees.c - processes that use a lease without pause.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "lessees.h"

/* Accesses to wait for: more than one may have been under way at the time. */
#define SOME 3

struct reader {
	int lease;
	uint64_t offset;
	struct lessee *seen;
	_Atomic bool *stop;
};

static void read_on(int sock, void *arg)
{
	const struct reader *reader = arg;
	uint64_t start = reader->offset & ~(PAGE_SIZE - 1);
	char *at = map(reader->lease, start, PAGE_SIZE, PROT_READ);
	uint32_t first, value;

	/* A lessee has its lease and nothing else: no device in particular. */
	sock = (int)CHECK_OK(dup2(sock, STDERR_FILENO + 1));
	CHECK_OK(close_range(STDERR_FILENO + 2, ~0u, 0));
	at += reader->offset - start;
	CHECK_EQ(try_load(at, &first), 0);
	say(sock, 0);
	while (!*reader->stop) {
		int number = try_load(at, &value);

		if (!number) {
			CHECK_EQ(value, first);
			reader->seen->works++;
		} else {
			CHECK_EQ(number, SIGBUS);
			reader->seen->sigbus++;
		}
	}
}

struct readers readers_start(const int *leases, unsigned int count, uint64_t offset)
{
	char *shared = CHECK_MAP(mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	struct readers readers = {
		.count = count,
		.seen = (struct lessee *)shared,
		.stop = (_Atomic bool *)(shared + PAGE_SIZE - sizeof(_Atomic bool)),
	};

	CHECK(count <= MOST_LESSEES);
	for (unsigned int i = 0; i < count; i++) {
		struct reader reader = { leases[i], offset, &readers.seen[i],
					 readers.stop };

		readers.kids[i] = kid_start(read_on, &reader);
	}
	for (unsigned int i = 0; i < count; i++)
		hear(readers.kids[i].sock);
	return readers;
}

static void wait_for(const _Atomic uint64_t *count)
{
	uint64_t start = *count;

	while (*count < start + SOME)
		sched_yield();
}

void readers_wait_works(const struct readers *readers)
{
	for (unsigned int i = 0; i < readers->count; i++)
		wait_for(&readers->seen[i].works);
}

void readers_wait_sigbus(const struct readers *readers)
{
	for (unsigned int i = 0; i < readers->count; i++)
		wait_for(&readers->seen[i].sigbus);
}

uint64_t readers_count_works(const struct readers *readers)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < readers->count; i++)
		sum += readers->seen[i].works;
	return sum;
}

uint64_t readers_count_sigbus(const struct readers *readers)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < readers->count; i++)
		sum += readers->seen[i].sigbus;
	return sum;
}

void readers_stop(struct readers *readers)
{
	*readers->stop = true;
	for (unsigned int i = 0; i < readers->count; i++)
		kid_join(&readers->kids[i]);
}
