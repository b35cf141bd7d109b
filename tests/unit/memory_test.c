// SPDX-License-Identifier: MIT
/*
 * memory_test.c - what the loss of a map needs of a process besides mappings: little of
 * the memory that it may have, and that it takes SIGBUS.
 */
#define _GNU_SOURCE
#include <sys/resource.h>

#include "limited.h"

/* What a process may have locked that loses a map of three. */
#define LOCKED (3 * PIECE + PIECE / 2)

/* Little more than there is already. */
static int lose_with_little_data(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	struct rlimit limit;
	char line[100];
	long kib = 0;

	while (status && fgets(line, sizeof(line), status))
		sscanf(line, "VmData: %ld kB", &kib);
	limit.rlim_cur = limit.rlim_max = (kib << 10) + PIECE / 2;
	if (!kib || setrlimit(RLIMIT_DATA, &limit))
		return CAN_NOT;
	return lose();
}

static void a_large_map_takes_little_of_the_data(void **state)
{
	(void)state;
	assert_int_equal(in_child(lose_with_little_data, 20 * PIECE), 0);
}

static int lose_where_all_is_locked(void)
{
	/* Who is privileged has no limit. */
	if ((geteuid() == 0 && setuid(65534)) || mlockall(MCL_FUTURE))
		return CAN_NOT;
	return lose();
}

/* Beyond it each write is SIGXFSZ, which ends who does not expect it. */
static void a_limit_to_files_below_the_ones_is_efbig(void **state)
{
	int fd = lossy_file(1);
	pid_t pid = fork();

	(void)state;
	assert_return_code(pid, errno);
	if (!pid) {
		struct rlimit little = { PIECE - 1, PIECE - 1 };

		if (setrlimit(RLIMIT_FSIZE, &little) || map_survivor(fd, 0, 0))
			_exit(1);
		_exit(errno == EFBIG ? 0 : 2);
	}
	assert_int_equal(end_of(pid), 0);
	close(fd);
}

/* It may have locked as much as the map is long, and little more. */
static void a_lost_map_is_not_locked(void **state)
{
	struct rlimit old, locked;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &old), 0);
	locked = (struct rlimit){ LOCKED, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &locked), 0);
	assert_int_equal(in_child(lose_where_all_is_locked, 3 * PIECE), 0);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &old), 0);
}

static int restore_where_all_is_locked(void)
{
	struct rlimit little = { page_size, page_size };

	cut(file, 0);
	if (load(barlease_map_addr(map), 0) != ONES)
		return 1;
	grow(file, 0, 2);
	if (setrlimit(RLIMIT_MEMLOCK, &little) || (geteuid() == 0 && setuid(65534)) ||
	    mlockall(MCL_FUTURE))
		return CAN_NOT;
	if (barlease_map_restore(map) == 0)
		return 2;
	if (errno != EAGAIN)
		return 3;
	return load(barlease_map_addr(map), 0) == ONES && barlease_map_lost(map) ? 0 :
										   4;
}

/* As mmap() says; that a thread has faulted meanwhile would be another matter. */
static void a_restore_without_room_to_lock_is_eagain(void **state)
{
	(void)state;
	assert_int_equal(in_child(restore_where_all_is_locked, 2 * page_size), 0);
}

/* The kernel ends who faults and can't take the signal; no handler is asked. */
static int lose_with_sigbus_blocked(void)
{
	sigset_t bus;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &bus, NULL);
	return lose();
}

static void read_in_handler(int sig)
{
	(void)sig;
	barlease_read32(map, 0);
}

static int lose_in_handler(void)
{
	struct sigaction action = { .sa_handler = read_in_handler };

	sigaction(SIGUSR1, &action, NULL);
	cut(file, 0);
	raise(SIGUSR1);
	return lose();
}

static int lose_in_handler_with_mask(void)
{
	struct sigaction action = { .sa_handler = read_in_handler };

	sigfillset(&action.sa_mask);
	sigaction(SIGUSR1, &action, NULL);
	cut(file, 0);
	raise(SIGUSR1);
	return 0;
}

/* Once it is lost, a small map is memory. */
static int block_sigbus_when_it_is_lost(void)
{
	return lose() + lose_with_sigbus_blocked();
}

static void a_thread_survives_that_takes_sigbus(void **state)
{
	(void)state;
	assert_int_equal(in_child(lose_with_sigbus_blocked, page_size), 1000 + SIGBUS);
	assert_int_equal(in_child(block_sigbus_when_it_is_lost, page_size), 0);
}

static void a_handler_survives_that_takes_sigbus(void **state)
{
	(void)state;
	assert_int_equal(in_child(lose_in_handler_with_mask, page_size), 1000 + SIGBUS);
	assert_int_equal(in_child(lose_in_handler, page_size), 0);
}

/* An administrator may allow less. */
static const char *locks_less_than(size_t length)
{
	struct rlimit now;

	return getrlimit(RLIMIT_MEMLOCK, &now) || now.rlim_max < length ?
		       "the hard limit of locked memory is lower" :
		       NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNLESS_TSAN(a_large_map_takes_little_of_the_data),
		unless(locks_less_than(LOCKED),
		       (struct CMUnitTest)UNLESS_SANITIZED(a_lost_map_is_not_locked)),
		unless(locks_less_than(page_size),
		       (struct CMUnitTest)UNLESS_SANITIZED(
			       a_restore_without_room_to_lock_is_eagain)),
		cmocka_unit_test(a_limit_to_files_below_the_ones_is_efbig),
		cmocka_unit_test(a_thread_survives_that_takes_sigbus),
		UNLESS_TSAN(a_handler_survives_that_takes_sigbus),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
