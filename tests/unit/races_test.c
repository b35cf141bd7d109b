// SPDX-License-Identifier: MIT
/*
 * races_test.c - what a handler of SIGBUS and another thread, or a fork, do to one
 * map at the same time.
 */
#define _GNU_SOURCE
#include "races.h"

/* The linker puts this before the look of the accessors at a map. */
struct survivor;
bool __real_barlease_survivor_live(const struct survivor *s, uint32_t *moment);
bool __wrap_barlease_survivor_live(const struct survivor *s, uint32_t *moment);

/* What happens between the load of an accessor and its second look. */
static void (*before_second_look)(void);
static int looks;

bool __wrap_barlease_survivor_live(const struct survivor *s, uint32_t *moment)
{
	if (++looks == 2 && before_second_look)
		before_second_look();
	return __real_barlease_survivor_live(s, moment);
}

static int setup_dontfork(void **state)
{
	(void)state;
	return setup_flags(BARLEASE_MAP_DONTFORK);
}

/* Stops before it is counted. */
static void *ask_in_thread(void *arg)
{
	(void)arg;
	stop.number = SYS_rt_sigprocmask;
	stop.at = 1;
	stop.until = &go_on_later;
	return (void *)(intptr_t)barlease_map_lost(map);
}

static void *unmap_in_thread(void *arg)
{
	return (void *)(intptr_t)barlease_unmap(arg);
}

/* A handler that stops before its nth mmap(). */
static pthread_t start_handler(intptr_t nth)
{
	pthread_t thread = start(handle_in_thread, (void *)nth);

	while (!atomic_load(&stopped))
		sched_yield();
	return thread;
}

static bool is_running(pthread_t thread)
{
	usleep(50000);
	return pthread_tryjoin_np(thread, NULL) == EBUSY;
}

/* The file is whole all the time: what is read shows what is mapped. */
static void lost_means_that_nothing_of_the_lease_is_left(void **state)
{
	(void)state;
	/* Before it covers the map, and before it fills a piece. */
	for (intptr_t nth = 1; nth <= 2; nth++) {
		pthread_t handler = start_handler(nth);

		check_lost();
		atomic_store(&go_on, true);
		assert_int_equal(result(handler), 1);
		check_lost();
		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
	}
}

/* Who has seen that it is being lost may come to it when it is restored. */
static void who_asks_late_leaves_a_restored_map_alone(void **state)
{
	pthread_t asker, handler = start_handler(1);

	(void)state;
	atomic_store(&stopped, false);
	asker = start(ask_in_thread, NULL);
	while (!atomic_load(&stopped))
		sched_yield();
	atomic_store(&go_on, true);
	assert_int_equal(result(handler), 1);
	assert_int_equal(barlease_map_lost(map), 1);
	assert_int_equal(barlease_map_restore(map), 0);
	atomic_store(&go_on_later, true);
	assert_int_equal(result(asker), 0);
	check_live();
}

static void a_restore_waits_for_handlers(void **state)
{
	(void)state;
	/* Before it covers the map, and before it fills a piece. */
	for (intptr_t nth = 1; nth <= 2; nth++) {
		pthread_t restore, handler = start_handler(nth);

		assert_int_equal(barlease_map_lost(map), 1);
		restore = start(restore_in_thread, NULL);
		assert_true(is_running(restore));
		atomic_store(&go_on, true);
		assert_int_equal(result(handler), 1);
		assert_int_equal(result(restore), 0);
		check_live();
		/* For the next round, one that was not restored before. */
		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
	}
}

static void an_unmap_waits_for_handlers(void **state)
{
	pthread_t unmap, handler = start_handler(2);
	char *addr = barlease_map_addr(map), *own;

	(void)state;
	unmap = start(unmap_in_thread, map);
	assert_true(is_running(unmap));
	atomic_store(&go_on, true);
	assert_int_equal(result(handler), 1);
	assert_int_equal(result(unmap), 0);

	/* Nobody knows the address any more. */
	own = mmap(addr, page_size, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, file,
		   0);
	assert_ptr_equal(own, addr);
	assert_int_equal(handle_at(own), 0);
	assert_int_equal(load(own, 0), page_word(0));
	assert_int_equal(munmap(own, page_size), 0);
	assert_int_equal(setup(NULL), 0);
}

static void put_back(void)
{
	grow(file, 0, PAGES);
	assert_int_equal(barlease_map_restore(map), 0);
}

/* The load is done again into a page where a thread of the program has stored. */
static void survive_and_store(int sig, siginfo_t *info, void *context)
{
	if (!barlease_handle_sigbus(sig, info, context))
		abort();
	store(barlease_map_addr(map), 0, 0xdead);
}

static void a_read_over_a_loss_and_a_restore_is_done_again(void **state)
{
	struct sigaction action = { .sa_sigaction = survive_and_store,
				    .sa_flags = SA_SIGINFO };

	(void)state;
	assert_int_equal(sigaction(SIGBUS, &action, NULL), 0);
	cut(file, 0);
	looks = 0;
	before_second_look = put_back;
	assert_int_equal(barlease_read64(map, 0), page_word(0));
	before_second_look = NULL;
	check_live();
}

/* A forked child has no handler at it, even if the parent had one. */
static int use_as_a_child(void)
{
	alarm(10);
	grow(file, 0, PAGES);
	nr_waits = 0;
	if (!barlease_map_lost(map) || load(barlease_map_addr(map), page_size) != ONES)
		return 1;
	if (barlease_map_restore(map) || barlease_map_lost(map) ||
	    load(barlease_map_addr(map), page_size) != page_word(1))
		return 2;
	return barlease_unmap(map) ? 3 : nr_waits ? 4 : 0;
}

static void a_child_of_a_busy_parent_is_free(void **state)
{
	(void)state;
	survive_only();
	for (intptr_t nth = 1; nth <= 2; nth++) {
		pthread_t handler;
		int ended;
		pid_t pid;

		cut(file, 0);
		handler = start_handler(nth);
		pid = fork();
		assert_return_code(pid, errno);
		if (!pid)
			_exit(use_as_a_child());
		ended = end_of(pid);
		atomic_store(&go_on, true);
		assert_int_equal(result(handler), 1);
		assert_int_equal(ended, 0);
		check_lost();
		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
	}
}

/* Nor has one that did not get the map: what is there is its own. */
static void a_child_without_the_map_is_left_alone(void **state)
{
	pthread_t handler = start_handler(1);
	char *addr = barlease_map_addr(map);
	int ended;
	pid_t pid = fork();

	(void)state;
	assert_return_code(pid, errno);
	if (!pid) {
		if (mmap(addr, page_size, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE,
			 file, 0) != addr)
			_exit(1);
		barlease_map_lost(map);
		_exit(load(addr, 0) == page_word(0) ? 0 : 2);
	}
	ended = end_of(pid);
	atomic_store(&go_on, true);
	assert_int_equal(result(handler), 1);
	assert_int_equal(ended, 0);
	check_lost();
}

/* A lock of the program's, under which it maps, and which it takes at a fork. */
static pthread_mutex_t program_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool mapping;

static void lock_program(void)
{
	pthread_mutex_lock(&program_lock);
}

static void unlock_program(void)
{
	pthread_mutex_unlock(&program_lock);
}

static void map_and_unmap(void)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER,
	};

	barlease_unmap(barlease_map(file, &options));
}

static void *map_under_lock(void *arg)
{
	(void)arg;
	lock_program();
	atomic_store(&mapping, true);
	/* Until the fork has got as far as it gets. */
	usleep(100000);
	map_and_unmap();
	unlock_program();
	return NULL;
}

/*
 * In a child, as what is registered is for good, and a deadlock too; and before
 * all other tests, as a process has its first map but once.
 */
static void a_fork_takes_locks_in_the_order_of_the_program(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_return_code(pid, errno);
	if (!pid) {
		pthread_t thread;

		alarm(10);
		file = lossy_file(1);
		pthread_atfork(lock_program, unlock_program, unlock_program);
		map_and_unmap();
		thread = start(map_under_lock, NULL);
		while (!atomic_load(&mapping))
			sched_yield();
		pid = fork();
		if (!pid)
			_exit(0);
		result(thread);
		_exit(waitpid(pid, &status, 0) == pid ? 0 : 1);
	}
	assert_int_equal(end_of(pid), 0);
}

static char *also_lost;
static atomic_bool signal_came;

static void read_the_other(int sig)
{
	(void)sig;
	if (load(also_lost, 0) != ONES)
		_exit(6);
	atomic_store(&signal_came, true);
}

static void *fault_in_thread(void *arg)
{
	stop.number = SYS_mmap;
	stop.at = 1;
	stop.until = &go_on;
	return (void *)(intptr_t)(load(arg, 0) != ONES);
}

/* A loss of one map, and a signal in its midst whose handler loses another. */
static int lose_in_a_loss(void)
{
	struct sigaction action = { .sa_handler = read_the_other };
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	int other = lossy_file(1);
	struct barlease_map *second;
	pthread_t thread;

	alarm(10);
	signal(SIGBUS, SIG_DFL);
	second = barlease_map(other, &options);
	if (setup(NULL) || !second || sigaction(SIGUSR1, &action, NULL))
		return 90;
	also_lost = barlease_map_addr(second);
	cut(file, 0);
	cut(other, 0);
	thread = start(fault_in_thread, barlease_map_addr(map));
	while (!atomic_load(&stopped))
		sched_yield();
	pthread_kill(thread, SIGUSR1);
	atomic_store(&go_on, true);
	if (result(thread))
		return 1;
	if (!atomic_load(&signal_came))
		return 2;
	return barlease_map_lost(map) && barlease_map_lost(second) ? 0 : 3;
}

/* The kernel ends who faults while it has SIGBUS blocked, as our handler has. */
static void a_signal_in_a_loss_can_lose_another_map(void **state)
{
	pid_t pid = fork();

	(void)state;
	assert_return_code(pid, errno);
	if (!pid)
		_exit(lose_in_a_loss());
	assert_int_equal(end_of(pid), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fork_takes_locks_in_the_order_of_the_program),
		TEST(lost_means_that_nothing_of_the_lease_is_left),
		TEST(who_asks_late_leaves_a_restored_map_alone),
		TEST(a_restore_waits_for_handlers),
		TEST(an_unmap_waits_for_handlers),
		TEST(a_read_over_a_loss_and_a_restore_is_done_again),
		UNLESS_TSAN(a_signal_in_a_loss_can_lose_another_map),
		TEST(a_child_of_a_busy_parent_is_free),
		cmocka_unit_test_setup_teardown(a_child_without_the_map_is_left_alone,
						setup_dontfork, teardown),
	};

	return cmocka_run_group_tests_name("races", tests, NULL, NULL);
}
