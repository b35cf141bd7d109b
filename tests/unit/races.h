/* SPDX-License-Identifier: MIT */
/*
 * races.h - a map, and a handler of SIGBUS that stops in the midst of it. Such moments
 * are too short to be met by chance, so the system calls that replace pages are
 * stopped.
 */
#ifndef RACES_H
#define RACES_H

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>

#include "barlease.h"
#include "lossy.h"
#include "syscalls.h"

/* More than one replacement covers. */
#define PAGES 520

#define ALL SIZE_MAX

#define HUGE_SIZE (page_size * page_size / 8)

/* The linker puts this before mremap(), by which a restore maps. */
void *__real_mremap(void *from, size_t old, size_t new, int flags, ...);
void *__wrap_mremap(void *from, size_t old, size_t new, int flags, ...);

/* At which system call of its own, counted from 1, a thread stops, until told. */
static _Thread_local struct {
	long number;
	int at;
	atomic_bool *until;
} stop;
static atomic_bool stopped, go_on, go_on_later;
static void (*after_mremap)(void);
static uintptr_t moved_by; /* the last mremap() */
static size_t fail_length; /* of what mmap() has no room for; or ALL of it */
static char *foreign; /* what another thread maps where a failing mremap() unmapped */
static bool fail_mremap;
static int nr_mremaps;

static atomic_int nr_waits; /* for a futex */

/* Whatever the timeout is, all or this thread wait. */
static atomic_bool wait_for_ever;
static _Thread_local bool i_wait_for_ever;

/* By this thread. */
static _Thread_local int nr_mmaps;

static inline bool on_syscall(long number, long args[6])
{
	if (number == SYS_futex && args[1] == FUTEX_WAIT_PRIVATE) {
		nr_waits++;
		if (wait_for_ever || i_wait_for_ever)
			args[3] = 0;
	}
	nr_mmaps += number == SYS_mmap;
	if (number == stop.number && stop.at && --stop.at == 0) {
		atomic_store(&stopped, true);
		while (!atomic_load(stop.until))
			sched_yield();
	}
	errno = ENOMEM;
	return number != SYS_mmap || !fail_length ||
	       (fail_length != ALL && args[1] != (long)fail_length);
}

void *__wrap_mremap(void *from, size_t old, size_t new, int flags, ...)
{
	va_list args;
	void *to, *ret;

	va_start(args, flags);
	to = va_arg(args, void *);
	va_end(args);
	if (fail_mremap) {
		munmap(to, new);
		foreign =
			mmap(to, new, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		errno = ENOMEM;
		return MAP_FAILED;
	}
	nr_mremaps++;
	ret = __real_mremap(from, old, new, flags, to);
	moved_by = (uintptr_t)ret - (uintptr_t)from;
	if (after_mremap)
		after_mremap();
	return ret;
}

static struct barlease_map *map;
static int file;

static inline int setup_flags(uint32_t flags)
{
	file = lossy_file(PAGES);
	map = map_survivor(file, BARLEASE_MAP_NO_HANDLER | flags, 0);
	atomic_store(&stopped, false);
	atomic_store(&go_on, false);
	atomic_store(&go_on_later, false);
	return map ? 0 : -1;
}

static inline int setup(void **state)
{
	(void)state;
	return setup_flags(0);
}

static inline int teardown(void **state)
{
	(void)state;
	after_mremap = NULL;
	fail_length = 0;
	fail_mremap = false;
	close(file);
	return barlease_unmap(map);
}

/* What a thread gets that has faulted there, now or earlier. */
static inline int handle_at(void *addr)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_ADRERR };

	info.si_addr = addr;
	return barlease_handle_sigbus(SIGBUS, &info, NULL);
}

static inline int handle(void)
{
	return handle_at(barlease_map_addr(map));
}

static inline void *handle_in_thread(void *arg)
{
	stop.number = SYS_mmap;
	stop.at = (int)(intptr_t)arg;
	stop.until = &go_on;
	return (void *)(intptr_t)handle();
}

static inline void *restore_in_thread(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)barlease_map_restore(map);
}

static inline pthread_t start(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, run, arg), 0);
	return thread;
}

static inline int result(pthread_t thread)
{
	void *ret;

	assert_int_equal(pthread_join(thread, &ret), 0);
	return (int)(intptr_t)ret;
}

static inline void check_live(void)
{
	survive_only();
	assert_int_equal(barlease_map_lost(map), 0);
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(load(barlease_map_addr(map), i * page_size),
				 page_word(i));
}

static inline void check_lost(void)
{
	survive_only();
	assert_int_equal(barlease_map_lost(map), 1);
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(load(barlease_map_addr(map), i * page_size), ONES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif /* RACES_H */
