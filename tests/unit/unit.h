/* SPDX-License-Identifier: MIT */
/*
 * unit.h - what all unit tests share: cmocka, and random numbers that can be
 * had again.
 */
#ifndef UNIT_H
#define UNIT_H

/* cmocka.h wants these before it. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

/*
 * For the list of tests: one that is left out under TSan, whose runtime stands between
 * a program and its signals, and needs mappings. By skip() it would be "not ok", which
 * meson takes for a failure; what has no name cmocka passes over.
 */
#define LEFT_OUT(test)                       \
	{                                    \
		NULL, test, NULL, NULL, NULL \
	}
#ifdef __SANITIZE_THREAD__
#define UNLESS_TSAN(test) LEFT_OUT(test)
#else
#define UNLESS_TSAN(test) cmocka_unit_test(test)
#endif

/* One that is left out under any sanitizer: they have mlockall() do nothing. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define UNLESS_SANITIZED(test) LEFT_OUT(test)
#else
#define UNLESS_SANITIZED(test) cmocka_unit_test(test)
#endif

/* One that cancels threads: ASan takes the stack of such a one for in use still. */
#ifdef __SANITIZE_ADDRESS__
#define UNLESS_ASAN(test, setup, teardown) LEFT_OUT(test)
#else
#define UNLESS_ASAN cmocka_unit_test_setup_teardown
#endif

/*
 * One that is left out, with a line that says why, where the kernel or who runs it does
 * not let it do what it needs. Only in a list that is no constant.
 */
static inline struct CMUnitTest unless(const char *reason, struct CMUnitTest test)
{
	if (!reason || !test.name)
		return test;
	printf("# left out: %s: %s\n", test.name, reason);
	return (struct CMUnitTest)LEFT_OUT(test.test_func);
}

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t random_state;

/* Call it first in a test, so that SEED=N repeats it alone too. */
static inline void random_seed(void)
{
	const char *wanted = getenv("SEED");

	random_state = wanted ? strtoull(wanted, NULL, 0) : (uint64_t)time(NULL);
	printf("# SEED=%llu\n", (unsigned long long)random_state);
}

/* splitmix64 */
static inline uint64_t random_word(void)
{
	uint64_t word = random_state += 0x9e3779b97f4a7c15;

	word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
	word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
	return word ^ (word >> 31);
}

static inline uint64_t random_below(uint64_t limit)
{
	return random_word() % limit;
}

/* The open ones, and some more that are always there. */
static inline int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* How a child has ended: what it has returned, or 1000 plus the signal it died of. */
static inline int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

#endif /* UNIT_H */
