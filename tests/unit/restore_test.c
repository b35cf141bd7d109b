// SPDX-License-Identifier: MIT
/*
 * restore_test.c - restores of a map while other threads fault in it, restore it too,
 * or map where it was; and after a loss or a restore that has failed.
 */
#define _GNU_SOURCE
#include <string.h>

#include "races.h"

/* The linker puts this before what a restore does first. */
int __real_barlease_prefault(int lease_fd);
int __wrap_barlease_prefault(int lease_fd);

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

static atomic_bool over;

/* One more. */
static struct barlease_map *map_again(uint32_t flags, uint64_t length)
{
	struct barlease_map *other = map_survivor(file, flags, length);

	assert_non_null(other);
	return other;
}

/* It is lost, and can be restored. */
static void lose_for_a_while(void)
{
	cut(file, 0);
	assert_int_equal(handle(), 1);
	grow(file, 0, PAGES);
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
	handle_times = 2;
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

static pthread_t early;

static void handle_and_wait(void)
{
	int waits = nr_waits;

	early = start(handle_in_thread, NULL);
	while (nr_waits == waits)
		sched_yield();
}

/* Its access is done again when the restore is through, and not before. */
static void who_faults_during_a_restore_waits(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) {
		while (!barlease_map_lost(map))
			assert_int_equal(handle(), 1);
		after_mremap = handle_and_wait;
		nr_mremaps = 0;
		/* Nobody gives up: who is not told waits for ever. */
		wait_for_ever = true;
		assert_int_equal(barlease_map_restore(map), 0);
		assert_int_equal(nr_mremaps, 1);
		assert_int_equal(result(early), 1);
		wait_for_ever = false;
		check_live();
	}
}

static void *handle_on(void *arg)
{
	(void)arg;
	while (!atomic_load(&over))
		assert_int_equal(handle(), 1);
	return NULL;
}

/* One is in the handler all the time, alone or with others who come and go. */
static void a_restore_does_not_wait_for_all_to_be_through(void **state)
{
	pthread_t still, again;

	(void)state;
	still = start(handle_in_thread, (void *)1);
	while (!atomic_load(&stopped))
		sched_yield();
	assert_int_equal(barlease_map_restore(map), -1);
	assert_int_equal(errno, EIO);
	atomic_store(&over, false);
	again = start(handle_on, NULL);
	assert_int_equal(barlease_map_restore(map), -1);
	assert_int_equal(errno, EIO);
	atomic_store(&over, true);
	atomic_store(&go_on, true);
	result(again);
	assert_int_equal(result(still), 1);
	check_lost();
	assert_int_equal(barlease_map_restore(map), 0);
	check_live();
}

static void *handle_in_vain(void *arg)
{
	(void)arg;
	while (!atomic_load(&over))
		handle();
	return NULL;
}

/* And a restore for which others did not wait makes it no other. */
static void a_loss_that_failed_stays_one(void **state)
{
	pthread_t still, other;

	(void)state;
	fail_length = ALL;
	assert_int_equal(handle(), 0);
	still = start(handle_in_thread, (void *)1);
	while (!atomic_load(&stopped))
		sched_yield();
	atomic_store(&over, false);
	other = start(handle_in_vain, NULL);
	i_wait_for_ever = true;
	assert_int_equal(barlease_map_restore(map), -1);
	assert_int_equal(errno, EIO);
	i_wait_for_ever = false;
	atomic_store(&over, true);
	atomic_store(&go_on, true);
	result(other);
	assert_int_equal(result(still), 0);
	fail_length = 0;
	check_lost();
}

static void *handle_and_count(void *arg)
{
	(void)arg;
	nr_mmaps = 0;
	assert_int_equal(handle(), 1);
	return (void *)(intptr_t)nr_mmaps;
}

static void *lose_and_stop(void *other)
{
	stop.number = SYS_mmap;
	stop.at = 2;
	stop.until = &go_on;
	return (void *)(intptr_t)handle_at(barlease_map_addr(other));
}

/* Else all who wait for it would have to come through first, one by one. */
static void who_waits_for_its_turn_leaves_for_a_restore(void **state)
{
	struct barlease_map *other = map_again(BARLEASE_MAP_NO_HANDLER, 0);
	pthread_t has_turn, waits;
	int before;

	(void)state;
	assert_int_equal(handle(), 1);
	has_turn = start(lose_and_stop, other);
	while (!atomic_load(&stopped))
		sched_yield();
	before = nr_waits;
	waits = start(handle_and_count, NULL);
	while (nr_waits == before)
		sched_yield();
	assert_int_equal(barlease_map_restore(map), 0);
	assert_int_equal(result(waits), 0);
	atomic_store(&go_on, true);
	assert_int_equal(result(has_turn), 1);
	check_live();
	assert_int_equal(barlease_unmap(other), 0);
}

static void do_nothing(void)
{
}

/* Nor can what is there of the lease be replaced, nor is there another attempt. */
static void spoil_and_fail(void)
{
	fail_length = ALL;
	assert_int_equal(result(start(handle_in_thread, NULL)), 0);
	instead_of_prefault = do_nothing;
}

static void what_a_failed_restore_has_left_is_hidden_later(void **state)
{
	(void)state;
	lose_for_a_while();
	after_mremap = spoil_and_fail;
	assert_int_equal(barlease_map_restore(map), -1);
	assert_int_equal(errno, EINTR);
	after_mremap = NULL;
	fail_length = 0;
	check_lost();
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

/* Its pieces could not be given back; then another map has no room. */
static void a_restored_map_does_not_start_over(void **state)
{
	struct barlease_map *other = map_again(BARLEASE_MAP_NO_HANDLER, page_size);

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

#define READERS 8

/* At random, all over it. */
static void *read_on(void *arg)
{
	uint64_t seed = (uintptr_t)arg, pages = barlease_map_length(map) / page_size;

	while (!atomic_load(&over)) {
		seed = seed * 6364136223846793005 + 1442695040888963407;
		load(barlease_map_addr(map), (seed >> 33) % pages * page_size);
	}
	return NULL;
}

static void restore_while_others_read(uint64_t pages)
{
	enum { TIMES = 15 };
	pthread_t readers[READERS];

	cut(file, pages);
	assert_int_equal(barlease_unmap(map), 0);
	map = map_again(0, 0);
	survive_only();
	atomic_store(&over, false);
	for (uintptr_t i = 0; i < READERS; i++)
		readers[i] = start(read_on, (void *)i);
	nr_mremaps = 0;
	for (int i = 0; i < TIMES; i++) {
		cut(file, 0);
		while (!barlease_map_lost(map))
			sched_yield();
		cut(file, pages);
		assert_int_equal(barlease_map_restore(map), 0);
	}
	atomic_store(&over, true);
	for (int i = 0; i < READERS; i++)
		result(readers[i]);
	assert_in_range(nr_mremaps, TIMES, 2 * TIMES);
}

/* What they read, and they wait for it, or far more than may be filled. */
static void a_restore_comes_through_readers(void **state)
{
	(void)state;
	restore_while_others_read(PAGES);
	restore_while_others_read(2000 * (HUGE_SIZE / page_size));
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

/*
 * It fails without memory, and may have unmapped what it was to replace by then. Nor
 * is that room for another map, if pieces that were there could not be given back.
 */
static void what_another_has_mapped_since_stays(void **state)
{
	struct barlease_map *other = map_again(BARLEASE_MAP_NO_HANDLER, page_size);

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

static void restore_by_another(void)
{
	assert_int_equal(result(start(restore_in_thread, NULL)), 0);
}

static pid_t forked;
static char *mapped;

/* Like a signal's handler that forks; there it takes what is free, or this. */
static void fork_and_map_at(void *addr)
{
	size_t length = PAGES * page_size;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (addr ? MAP_FIXED_NOREPLACE : 0);

	forked = fork();
	if (forked)
		return;
	mapped = mmap(addr, length, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (mapped == MAP_FAILED)
		_exit(2);
	memset(mapped, 0x5a, length);
}

static void fork_and_map(void)
{
	fork_and_map_at(NULL);
}

static void fork_and_map_there(void)
{
	fork_and_map_at(barlease_map_addr(map));
}

static int check_mapped(void)
{
	for (size_t at = 0; at < PAGES * page_size; at++) {
		if (mapped[at] != 0x5a)
			return 4;
	}
	return 0;
}

static void a_child_forked_amid_a_restore_does_it_anew(void **state)
{
	int restored;

	(void)state;
	lose_for_a_while();
	instead_of_prefault = fork_and_map;
	restored = barlease_map_restore(map);
	if (!forked) {
		if (restored || barlease_map_lost(map) ||
		    load(barlease_map_addr(map), page_size) != page_word(1))
			_exit(3);
		_exit(check_mapped());
	}
	assert_return_code(forked, errno);
	assert_int_equal(restored, -1);
	assert_int_equal(errno, EINTR);
	assert_int_equal(end_of(forked), 0);
}

/* Or not, where it was not to have the map. */
static void a_child_forked_amid_a_restore_has_what_it_maps(void **state)
{
	int restored;

	assert_int_equal(teardown(state), 0);
	assert_int_equal(setup_flags(BARLEASE_MAP_DONTFORK), 0);
	lose_for_a_while();
	instead_of_prefault = fork_and_map_there;
	restored = barlease_map_restore(map);
	if (!forked)
		_exit(restored != -1 || errno != EINVAL ? 3 : check_mapped());
	assert_return_code(forked, errno);
	assert_int_equal(restored, -1);
	assert_int_equal(end_of(forked), 0);
}

static void who_is_interrupted_has_what_another_restored(void **state)
{
	(void)state;
	lose_for_a_while();
	instead_of_prefault = restore_by_another;
	assert_int_equal(barlease_map_restore(map), 0);
	check_live();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_fault_during_a_restore_leaves_no_ones),
		TEST(a_restore_that_never_comes_through_is_eio),
		TEST(who_faults_during_a_restore_waits),
		TEST(a_restore_does_not_wait_for_all_to_be_through),
		TEST(what_a_failed_restore_has_left_is_hidden_later),
		TEST(a_fault_of_yesterday_loses_nothing),
		TEST(a_restored_map_may_have_huge_pages),
		TEST(a_loss_that_failed_is_one_to_restore),
		TEST(a_loss_that_failed_stays_one),
		TEST(who_waits_for_its_turn_leaves_for_a_restore),
		TEST(a_restored_map_does_not_start_over),
		TEST(a_restore_comes_through_readers),
		TEST(two_threads_restore_it_once),
		TEST(what_another_has_mapped_since_stays),
		TEST(a_child_forked_amid_a_restore_does_it_anew),
		TEST(a_child_forked_amid_a_restore_has_what_it_maps),
		TEST(who_is_interrupted_has_what_another_restored),
	};

	return cmocka_run_group_tests_name("restore", tests, NULL, NULL);
}
