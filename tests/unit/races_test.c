// SPDX-License-Identifier: MIT
/*
 * races_test.c - what a handler of SIGBUS and another thread do to one map at the
 * same time. Such moments are too short to be met by chance, so the system calls
 * that replace pages are stopped in the middle of it.
 */
#define _GNU_SOURCE
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

/*
 * The linker puts these before mremap(), by which a restore maps, the look of the
 * accessors at a map, and what a restore does first.
 */
struct survivor;
bool __real_barlease_survivor_live(const struct survivor *s, uint32_t *moment);
bool __wrap_barlease_survivor_live(const struct survivor *s, uint32_t *moment);
void *__real_mremap(void *from, size_t old, size_t new, int flags, ...);
void *__wrap_mremap(void *from, size_t old, size_t new, int flags, ...);
int __real_barlease_prefault(int lease_fd);
int __wrap_barlease_prefault(int lease_fd);

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

static int nr_waits; /* for a futex */

static bool on_syscall(long number, const long args[6])
{
	if (number == SYS_futex && args[1] == FUTEX_WAIT_PRIVATE)
		nr_waits++;
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

/* Another thread's restore, while ours is interrupted in its prefault. */
static void (*instead_of_prefault)(void);

int __wrap_barlease_prefault(int lease_fd)
{
	void (*instead)(void) = instead_of_prefault;

	if (!instead)
		return __real_barlease_prefault(lease_fd);
	instead_of_prefault = NULL;
	instead();
	errno = EINTR;
	return -1;
}

/* What happens between the load of an accessor and its second look. */
static void (*before_second_look)(void);
static int looks;

bool __wrap_barlease_survivor_live(const struct survivor *s, uint32_t *moment)
{
	if (++looks == 2 && before_second_look)
		before_second_look();
	return __real_barlease_survivor_live(s, moment);
}

static struct barlease_map *map;
static int file;

static int setup_flags(uint32_t flags)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER | flags,
		.va_hint = BARLEASE_VA_HINT_UNKNOWN,
	};

	file = lossy_file(PAGES);
	map = barlease_map(file, &options);
	atomic_store(&stopped, false);
	atomic_store(&go_on, false);
	atomic_store(&go_on_later, false);
	return map ? 0 : -1;
}

static int setup(void **state)
{
	(void)state;
	return setup_flags(0);
}

static int setup_dontfork(void **state)
{
	(void)state;
	return setup_flags(BARLEASE_MAP_DONTFORK);
}

static int teardown(void **state)
{
	(void)state;
	after_mremap = NULL;
	fail_length = 0;
	fail_mremap = false;
	close(file);
	return barlease_unmap(map);
}

/* What a thread gets that has faulted there, now or earlier. */
static int handle_at(void *addr)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_ADRERR };

	info.si_addr = addr;
	return barlease_handle_sigbus(SIGBUS, &info, NULL);
}

static int handle(void)
{
	return handle_at(barlease_map_addr(map));
}

static void *handle_in_thread(void *arg)
{
	stop.number = SYS_mmap;
	stop.at = (int)(intptr_t)arg;
	stop.until = &go_on;
	return (void *)(intptr_t)handle();
}

static void *restore_in_thread(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)barlease_map_restore(map);
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

static pthread_t start(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, run, arg), 0);
	return thread;
}

static int result(pthread_t thread)
{
	void *ret;

	assert_int_equal(pthread_join(thread, &ret), 0);
	return (int)(intptr_t)ret;
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

static void check_live(void)
{
	survive_only();
	assert_int_equal(barlease_map_lost(map), 0);
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(load(barlease_map_addr(map), i * page_size),
				 page_word(i));
}

static void check_lost(void)
{
	survive_only();
	assert_int_equal(barlease_map_lost(map), 1);
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(load(barlease_map_addr(map), i * page_size), ONES);
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

static int nr_handled, handle_times;

static void handle_some(void)
{
	if (nr_handled < handle_times) {
		nr_handled++;
		assert_int_equal(result(start(handle_in_thread, NULL)), 1);
	}
}

static void a_fault_during_a_restore_leaves_no_ones(void **state)
{
	(void)state;
	assert_int_equal(handle(), 1);
	check_lost();
	nr_handled = 0;
	handle_times = 5;
	after_mremap = handle_some;
	assert_int_equal(barlease_map_restore(map), 0);
	assert_int_equal(nr_handled, handle_times);
	check_live();
}

static void a_restore_that_never_comes_through_is_eio(void **state)
{
	(void)state;
	assert_int_equal(handle(), 1);
	nr_handled = 0;
	handle_times = 100000;
	after_mremap = handle_some;
	assert_int_equal(barlease_map_restore(map), -1);
	assert_int_equal(errno, EIO);
	check_lost();
	after_mremap = NULL;
	assert_int_equal(barlease_map_restore(map), 0);
	check_live();
}

/* A thread may have faulted before the restore and come to the handler after. */
static void a_fault_of_yesterday_loses_nothing(void **state)
{
	(void)state;
	for (int round = 0; round < 3; round++) {
		assert_int_equal(handle(), 1);
		if (round)
			assert_int_equal(handle(), 1);
		check_lost();
		assert_int_equal(barlease_map_restore(map), 0);
		assert_int_equal(handle(), 1);
		check_live();
		/* Others may have, too. */
		for (int i = 0; i < 3; i++)
			assert_int_equal(result(start(handle_in_thread, NULL)), 1);
		check_live();
		/* What this thread does again, and it fails again, is a loss. */
		assert_int_equal(handle(), 1);
		check_live();
		assert_int_equal(handle(), 1);
		check_lost();
		assert_int_equal(barlease_map_restore(map), 0);
	}
}

/* Page tables of whole huge pages can be moved by those alone. */
static void a_restored_map_may_have_huge_pages(void **state)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER,
	};

	(void)state;
	for (uint64_t page = 0; page < 4; page++) {
		assert_int_equal(teardown(NULL), 0);
		file = lossy_file(0);
		cut(file, 3 * HUGE_SIZE / page_size);
		options.offset = page * page_size;
		options.va_hint = 5 * page * page_size;
		map = barlease_map(file, &options);
		assert_non_null(map);
		assert_int_equal((uintptr_t)barlease_map_addr(map) % HUGE_SIZE,
				 6 * page * page_size);
		assert_int_equal(handle(), 1);
		assert_int_equal(barlease_map_restore(map), 0);
		assert_int_equal(moved_by % HUGE_SIZE, 0);
	}
}

/* Nobody could cover it: it is lost all the same, and can be had again. */
static void a_loss_that_failed_is_one_to_restore(void **state)
{
	(void)state;
	fail_length = ALL;
	assert_int_equal(handle(), 0);
	errno = 4711;
	assert_int_equal(barlease_map_lost(map), 1);
	assert_int_equal(errno, 4711);
	assert_int_equal(barlease_read64(map, 0), ONES);
	assert_int_equal(barlease_map_restore(map), 0);
	assert_int_equal(barlease_map_lost(map), 0);
	fail_length = 0;
	check_live();
}

static struct barlease_map *map_a_page(void)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER,
		.length = page_size,
	};
	struct barlease_map *page = barlease_map(file, &options);

	assert_non_null(page);
	return page;
}

/* Its pieces could not be given back; then another map has no room. */
static void a_restored_map_does_not_start_over(void **state)
{
	struct barlease_map *other = map_a_page();

	(void)state;
	assert_int_equal(handle(), 1);
	fail_length = ALL;
	assert_int_equal(barlease_map_restore(map), 0);
	fail_length = page_size;
	assert_int_equal(handle_at(barlease_map_addr(other)), 0);
	fail_length = 0;
	check_live();
	assert_int_equal(barlease_unmap(other), 0);
}

#define READERS 3

static atomic_bool over;

static void *read_on(void *arg)
{
	while (!atomic_load(&over))
		load(barlease_map_addr(map), (uintptr_t)arg * page_size);
	return NULL;
}

/* What threads read all the time they need not fault in again for each restore. */
static void a_restore_comes_through_readers(void **state)
{
	enum { TIMES = 15 };
	pthread_t readers[READERS];

	(void)state;
	survive_only();
	atomic_store(&over, false);
	for (uintptr_t i = 0; i < READERS; i++)
		readers[i] = start(read_on, (void *)i);
	nr_mremaps = 0;
	for (int i = 0; i < TIMES; i++) {
		cut(file, 0);
		while (!barlease_map_lost(map))
			sched_yield();
		grow(file, 0, PAGES);
		assert_int_equal(barlease_map_restore(map), 0);
	}
	atomic_store(&over, true);
	for (int i = 0; i < READERS; i++)
		result(readers[i]);
	assert_in_range(nr_mremaps, TIMES, 3 * TIMES);
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

static void two_threads_restore_it_once(void **state)
{
	(void)state;
	for (int i = 0; i < 200; i++) {
		pthread_t one, other;

		while (!barlease_map_lost(map))
			assert_int_equal(handle(), 1);
		one = start(restore_in_thread, NULL);
		other = start(restore_in_thread, NULL);
		assert_int_equal(result(one), 0);
		assert_int_equal(result(other), 0);
		check_live();
	}
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

/* It is lost, and can be restored. */
static void lose_for_a_while(void)
{
	cut(file, 0);
	assert_int_equal(handle(), 1);
	grow(file, 0, PAGES);
}

/*
 * It fails without memory, and may have unmapped what it was to replace by then. Nor
 * is that room for another map, if pieces that were there could not be given back.
 */
static void what_another_has_mapped_since_stays(void **state)
{
	struct barlease_map *other = map_a_page();

	(void)state;
	lose_for_a_while();
	fail_length = PAGES * page_size;
	fail_mremap = true;
	assert_int_equal(barlease_map_restore(map), -1);
	assert_int_equal(errno, ENOMEM);
	assert_ptr_equal(foreign, barlease_map_addr(map));
	fail_length = page_size;
	assert_int_equal(handle_at(barlease_map_addr(other)), 0);
	fail_length = 0;
	assert_int_equal(barlease_unmap(other), 0);
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(foreign[i * page_size], 0);
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

static void restore_by_another(void)
{
	assert_int_equal(result(start(restore_in_thread, NULL)), 0);
}

static void who_is_interrupted_has_what_another_restored(void **state)
{
	(void)state;
	lose_for_a_while();
	instead_of_prefault = restore_by_another;
	assert_int_equal(barlease_map_restore(map), 0);
	check_live();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fork_takes_locks_in_the_order_of_the_program),
		TEST(lost_means_that_nothing_of_the_lease_is_left),
		TEST(who_asks_late_leaves_a_restored_map_alone),
		TEST(a_restore_waits_for_handlers),
		TEST(an_unmap_waits_for_handlers),
		TEST(a_fault_during_a_restore_leaves_no_ones),
		TEST(a_restore_that_never_comes_through_is_eio),
		TEST(a_fault_of_yesterday_loses_nothing),
		TEST(a_restored_map_may_have_huge_pages),
		TEST(a_loss_that_failed_is_one_to_restore),
		TEST(a_restored_map_does_not_start_over),
		TEST(a_restore_comes_through_readers),
		TEST(a_read_over_a_loss_and_a_restore_is_done_again),
		TEST(two_threads_restore_it_once),
		TEST(what_another_has_mapped_since_stays),
		TEST(who_is_interrupted_has_what_another_restored),
		UNLESS_TSAN(a_signal_in_a_loss_can_lose_another_map),
		TEST(a_child_of_a_busy_parent_is_free),
		cmocka_unit_test_setup_teardown(a_child_without_the_map_is_left_alone,
						setup_dontfork, teardown),
	};

	return cmocka_run_group_tests_name("races", tests, NULL, NULL);
}
