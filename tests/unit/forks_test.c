// SPDX-License-Identifier: MIT
/*
 * forks_test.c - what a child has of a map that its parent is just making or
 * restoring. The calls between which there is one more mapping than there is to be
 * are stopped in the middle of it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>

#include "barlease.h"
#include "lossy.h"

#define PAGES 3

/* What the library keeps open once there was a map with SURVIVE. */
#define NR_ONES 2

/*
 * The linker puts these before madvise(), which keeps a map from children, and before
 * the prefault.
 */
int __real_madvise(void *addr, size_t length, int advice);
int __wrap_madvise(void *addr, size_t length, int advice);
int __real_barlease_prefault(int lease_fd);
int __wrap_barlease_prefault(int lease_fd);

/* A thread that is to stop in madvise() until told. */
static _Thread_local bool stops;
static atomic_bool stopped, go_on;
static void (*before_prefault)(void);

int __wrap_madvise(void *addr, size_t length, int advice)
{
	if (stops) {
		atomic_store(&stopped, true);
		while (!atomic_load(&go_on))
			sched_yield();
	}
	return __real_madvise(addr, length, advice);
}

int __wrap_barlease_prefault(int lease_fd)
{
	if (before_prefault)
		before_prefault();
	return __real_barlease_prefault(lease_fd);
}

static struct barlease_map *map;
static int file;

static struct barlease_map *map_with(uint32_t flags)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = flags,
		.va_hint = BARLEASE_VA_HINT_UNKNOWN,
	};

	return barlease_map(file, &options);
}

static int setup(void **state)
{
	(void)state;
	file = lossy_file(PAGES);
	map = NULL;
	before_prefault = NULL;
	atomic_store(&stopped, false);
	atomic_store(&go_on, false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(file);
	return barlease_unmap(map);
}

static int count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	int count = 0;

	while (fgets(line, sizeof(line), maps))
		count += strstr(line, "memfd:lossy") != NULL;
	fclose(maps);
	return count;
}

/* How many mappings of the file a child has that is forked now. */
static int mappings_of_a_child(void)
{
	pid_t pid = fork();
	int status;

	assert_return_code(pid, errno);
	if (!pid)
		_exit(count_mappings());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void *fork_in_thread(void *count)
{
	*(int *)count = mappings_of_a_child();
	return NULL;
}

static void *map_in_thread(void *flags)
{
	stops = true;
	map = map_with((uint32_t)(uintptr_t)flags);
	return NULL;
}

static void *restore_in_thread(void *arg)
{
	(void)arg;
	stops = true;
	assert_int_equal(barlease_map_restore(map), 0);
	return NULL;
}

/* What a child has that is forked while another thread is in madvise(). */
static int fork_during(void *(*run)(void *), void *arg)
{
	pthread_t thread, forker;
	int count = -1;

	assert_int_equal(pthread_create(&thread, NULL, run, arg), 0);
	while (!atomic_load(&stopped))
		sched_yield();
	assert_int_equal(pthread_create(&forker, NULL, fork_in_thread, &count), 0);
	/* It waits, so that there is nothing to wait for; or it is through by then. */
	usleep(50000);
	atomic_store(&go_on, true);
	assert_int_equal(pthread_join(forker, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	return count;
}

static void a_child_has_none_while_it_is_mapped(void **state)
{
	(void)state;
	assert_int_equal(
		fork_during(map_in_thread, (void *)(uintptr_t)BARLEASE_MAP_DONTFORK),
		0);
	assert_non_null(map);
	assert_int_equal(count_mappings(), 1);
}

static void lose(void)
{
	survive_only();
	cut(file, 0);
	assert_int_equal(load(barlease_map_addr(map), 0), ONES);
	assert_int_equal(barlease_map_lost(map), 1);
	grow(file, 0, PAGES);
}

static void a_child_has_none_while_it_is_restored(void **state)
{
	(void)state;
	map = map_with(BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER |
		       BARLEASE_MAP_DONTFORK);
	assert_non_null(map);
	lose();
	assert_int_equal(fork_during(restore_in_thread, NULL), 0);
	assert_int_equal(barlease_map_lost(map), 0);
	assert_int_equal(count_mappings(), 1);
}

static int seen = -1;

static void see_a_child(void)
{
	before_prefault = NULL;
	seen = mappings_of_a_child();
}

/* Of one that it may have it has its own, and that is lost. */
static void a_child_has_nothing_of_a_restore_under_way(void **state)
{
	(void)state;
	map = map_with(BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER);
	assert_non_null(map);
	lose();
	before_prefault = see_a_child;
	assert_int_equal(barlease_map_restore(map), 0);
	assert_int_equal(seen, 0);
	assert_int_equal(load(barlease_map_addr(map), 0), page_word(0));
	/* Nothing is left that a later child would be rid of. */
	assert_int_equal(mappings_of_a_child(), 1);
}

static void *map_and_unmap_cancelled(void *arg)
{
	(void)arg;
	pthread_cancel(pthread_self());
	map = map_with(BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER);
	barlease_unmap(map);
	map = NULL;
	pthread_testcancel();
	return NULL;
}

/*
 * The first such map of a process, which this test's must be, takes calls at which a
 * thread ends that was cancelled: with a lock that each fork takes, too.
 */
static void a_cancelled_thread_leaves_nothing_taken(void **state)
{
	int fds = count_fds();
	pthread_t thread;
	void *ret;
	pid_t pid;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, map_and_unmap_cancelled, NULL),
			 0);
	assert_int_equal(pthread_join(thread, &ret), 0);
	assert_ptr_equal(ret, PTHREAD_CANCELED);
	/* Where that lock is taken it would wait for ever. */
	alarm(60);
	pid = fork();
	if (!pid)
		_exit(0);
	alarm(0);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(count_fds(), fds + NR_ONES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNLESS_ASAN(a_cancelled_thread_leaves_nothing_taken, setup, teardown),
		TEST(a_child_has_none_while_it_is_mapped),
		TEST(a_child_has_none_while_it_is_restored),
		TEST(a_child_has_nothing_of_a_restore_under_way),
	};

	return cmocka_run_group_tests_name("forks", tests, NULL, NULL);
}
