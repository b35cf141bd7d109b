// SPDX-License-Identifier: MIT
/*
 * limits_test.c - losses and restores in a process that has nearly all the mappings
 * that it may have.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>

#include "limited.h"
#include "syscalls.h"

static size_t left; /* of the mappings that the process may have */
static size_t readers_at_limit;

/* A thread that comes to replace so much is not to run on. */
static _Thread_local size_t stops_at;
static atomic_bool stopped, go_on;

static bool on_syscall(long number, long args[6])
{
	if (number == SYS_mmap && stops_at && args[1] == (long)stops_at) {
		atomic_store(&stopped, true);
		while (!atomic_load(&go_on))
			usleep(1000);
	}
	return true;
}

static long count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	long count = 0;
	int c;

	assert_non_null(maps);
	while ((c = getc(maps)) != EOF)
		count += c == '\n';
	fclose(maps);
	return count;
}

/* Take mappings until the process may have but few more. */
static char *take_mappings(size_t *length, size_t leave)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long max;
	char *room;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu", &max), 1);
	fclose(file);
	*length = 2 * max * page_size;
	room = mmap(NULL, *length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(room, MAP_FAILED);
	/* Every other page is a mapping more, or two. */
	for (size_t at = page_size; at < *length; at += 2 * page_size) {
		if (mprotect(room + at, page_size, PROT_READ) == 0)
			continue;
		assert_int_equal(errno, ENOMEM);
		if (leave)
			munmap(room, leave * page_size);
		return room;
	}
	return NULL;
}

/* Not one more, of however few pages. */
static void take_all_mappings(void)
{
	while (mmap(NULL, page_size, PROT_READ, MAP_SHARED, file, 0) != MAP_FAILED)
		;
}

/* Where it is in two pieces, both must be there at once. */
static bool crossing_reads_ones(void)
{
	for (size_t at = PIECE; at < barlease_map_length(map); at += PIECE) {
		uint64_t word;

		memcpy(&word, (char *)barlease_map_addr(map) + at - 4, sizeof(word));
		if (word != ONES)
			return false;
	}
	return true;
}

static int lose_with_few_mappings(void)
{
	size_t taken;
	int ret;

	alarm(300);
	if (!take_mappings(&taken, left))
		return CAN_NOT;
	if (!left)
		take_all_mappings();
	ret = lose();
	if (ret)
		return ret;
	return crossing_reads_ones() ? 0 : 3;
}

static void a_map_is_lost_with_few_mappings_left(void **state)
{
	static const struct {
		size_t left, length, stride;
	} few[] = {
		{ 300, 1000 * PIECE, PIECE },   { 20, 300 * PIECE, PIECE },
		{ 20, 300 * PIECE, 2 * PIECE }, { 0, 300 * PIECE, 2 * PIECE },
		{ 0, 2 * PIECE, PIECE },        { 0, 1, PIECE },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(few); i++) {
		left = few[i].left;
		stride = few[i].stride;
		assert_int_equal(in_child(lose_with_few_mappings, few[i].length), 0);
	}
	stride = PIECE;
}

#define THREADS 8

static atomic_bool go, all_done;
static atomic_int begun, done;

/* Its beginning takes mappings, with ASan, and its end does. */
static void begin_together(void)
{
	atomic_fetch_add(&begun, 1);
	while (!atomic_load(&go))
		sched_yield();
}

static void await(atomic_int *count, int wanted)
{
	while (atomic_load(count) < wanted)
		usleep(1000);
}

static void end_together(void)
{
	atomic_fetch_add(&done, 1);
	while (!atomic_load(&all_done))
		usleep(1000);
}

/* Every one at pieces of its own, and small maps too. */
static void *touch_all(void *arg)
{
	struct barlease_map *small = arg;
	uint64_t seed = (uintptr_t)arg;
	bool good = true;

	begin_together();
	for (int i = 0; i < 2000 && good; i++) {
		seed = seed * 6364136223846793005 + 1442695040888963407;
		good = load(barlease_map_addr(map),
			    (seed >> 33) % (barlease_map_length(map) / 8) * 8) ==
			       ONES &&
		       load(barlease_map_addr(small), 0) == ONES;
	}
	end_together();
	return good ? NULL : small;
}

static int lose_at_once_with_few_mappings(void)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE,
						.length = page_size };
	pthread_t threads[THREADS];
	size_t length;
	char *taken;
	int ret = 0;

	alarm(300);
	for (int i = 0; i < THREADS; i++) {
		struct barlease_map *small = barlease_map(file, &options);

		if (!small || pthread_create(&threads[i], NULL, touch_all, small))
			return CAN_NOT;
	}
	await(&begun, THREADS);
	taken = take_mappings(&length, left);
	if (!taken)
		return CAN_NOT;
	if (!left)
		take_all_mappings();
	cut(file, 0);
	atomic_store(&go, true);
	await(&done, THREADS);
	munmap(taken, length);
	atomic_store(&all_done, true);
	for (int i = 0; i < THREADS; i++) {
		void *bad;

		ret |= pthread_join(threads[i], &bad) || bad;
	}
	return ret;
}

static void threads_lose_maps_with_few_mappings_left(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		left = i % 2 ? 0 : 40;
		assert_int_equal(in_child(lose_at_once_with_few_mappings, 100 * PIECE),
				 0);
	}
}

/* What one has filled is room for the other. */
static int lose_two_by_turns(void)
{
	struct barlease_map *maps[] = { map, map_survivor(file, 0, 0) };
	size_t length;

	alarm(300);
	if (!maps[1] || !take_mappings(&length, 0))
		return CAN_NOT;
	take_all_mappings();
	for (int i = 0; i < 4; i++) {
		map = maps[i % 2];
		if (lose())
			return 1;
	}
	return 0;
}

static void two_maps_are_lost_with_no_mapping_left(void **state)
{
	(void)state;
	stride = 2 * PIECE;
	assert_int_equal(in_child(lose_two_by_turns, 20 * PIECE), 0);
	stride = PIECE;
}

/* As many pieces as there are spares for. */
static bool touch_some(struct barlease_map *which)
{
	bool good = true;

	for (int i = 0; i < 3; i++)
		good &= load(barlease_map_addr(which), (2 * i + 1) * PIECE) == ONES;
	return good && barlease_map_lost(which);
}

/* At the limit, one of two maps is lost and goes, or comes back; then the other is
 * lost. */
static int lose_after_another(bool restore)
{
	int other = lossy_file(0);
	struct barlease_map *second;
	size_t length;
	char *taken;

	alarm(300);
	cut(other, 20 * PIECE / page_size);
	second = map_survivor(other, 0, 0);
	taken = second ? take_mappings(&length, 0) : NULL;
	if (!taken)
		return CAN_NOT;
	take_all_mappings();
	cut(file, 0);
	if (!touch_some(map))
		return 1;
	if (restore) {
		grow(file, 0, 1);
		cut(file, 20 * PIECE / page_size);
		munmap(taken, 16 * page_size);
		if (barlease_map_restore(map))
			return 2;
	} else if (barlease_unmap(map)) {
		return 3;
	}
	take_all_mappings();
	cut(other, 0);
	if (!touch_some(second) || !touch_some(second))
		return 4;
	if (!restore)
		return 0;
	return load(barlease_map_addr(map), 0) == page_word(0) &&
			       !barlease_map_lost(map) ?
		       0 :
		       5;
}

static int lose_after_an_unmap(void)
{
	return lose_after_another(false);
}

static int lose_after_a_restore(void)
{
	return lose_after_another(true);
}

static void what_a_map_gives_back_is_room_for_others(void **state)
{
	(void)state;
	assert_int_equal(in_child(lose_after_an_unmap, 20 * PIECE), 0);
	assert_int_equal(in_child(lose_after_a_restore, 20 * PIECE), 0);
}

static atomic_bool over;

/* It may be restored between: zeroes are the lease's. */
static void *read_on(void *arg)
{
	while (!atomic_load(&over)) {
		uint64_t word = load(barlease_map_addr(map), (uintptr_t)arg);

		if (word != ONES && word != 0)
			return NULL;
	}
	return arg;
}

/*
 * It has what it lacks itself, and the spares are there. With readers those take it
 * again.
 */
static int restore_with_few_mappings(void)
{
	pthread_t readers[THREADS];
	size_t length, nr = 0;
	char *taken;

	alarm(300);
	cut(file, 0);
	for (size_t at = PIECE; at < barlease_map_length(map); at += 2 * PIECE)
		load(barlease_map_addr(map), at);
	for (; nr < readers_at_limit; nr++) {
		if (pthread_create(&readers[nr], NULL, read_on,
				   (void *)((2 * nr + 1) * PIECE)))
			return CAN_NOT;
	}
	taken = take_mappings(&length, 0);
	if (!taken)
		return CAN_NOT;
	take_all_mappings();
	munmap(taken, left * page_size);
	for (int i = 0; i < 50; i++) {
		cut(file, barlease_map_length(map) / page_size);
		if (barlease_map_restore(map))
			return errno;
		if (load(barlease_map_addr(map), PIECE) != 0)
			return 2;
		cut(file, 0);
		for (size_t at = PIECE; at < barlease_map_length(map); at += 2 * PIECE)
			load(barlease_map_addr(map), at);
	}
	atomic_store(&over, true);
	/* Else it is the C library that lacks mappings as they end. */
	munmap(taken, length);
	while (nr > 0) {
		void *arg;

		if (pthread_join(readers[--nr], &arg) || !arg)
			return 3;
	}
	return 0;
}

static void a_map_is_restored_with_few_mappings_left(void **state)
{
	(void)state;
	for (left = 0; left < 10; left += 3) {
		for (readers_at_limit = 0; readers_at_limit <= THREADS;
		     readers_at_limit += THREADS)
			assert_int_equal(
				in_child(restore_with_few_mappings, 60 * PIECE), 0);
	}
}

static sigjmp_buf landing;

static void survive_or_jump(int sig, siginfo_t *info, void *context)
{
	if (!barlease_handle_sigbus(sig, info, context))
		siglongjmp(landing, 1);
}

/* One can't be replaced for another reason; later, at the limit, one is lost. */
static int lose_after_a_failure(void)
{
	struct sigaction action = { .sa_sigaction = survive_or_jump,
				    .sa_flags = SA_SIGINFO };
	struct rlimit old, little;
	int other = lossy_file(1);
	struct barlease_map *second = map_survivor(other, 0, 0);
	size_t length;

	alarm(300);
	if (!second || sigaction(SIGBUS, &action, NULL) || getrlimit(RLIMIT_DATA, &old))
		return CAN_NOT;
	little = (struct rlimit){ page_size, old.rlim_max };
	if (setrlimit(RLIMIT_DATA, &little))
		return CAN_NOT;
	cut(file, 0);
	if (!sigsetjmp(landing, 1)) {
		load(barlease_map_addr(map), 0);
		return 1;
	}
	if (setrlimit(RLIMIT_DATA, &old) || !take_mappings(&length, 0))
		return CAN_NOT;
	take_all_mappings();
	cut(other, 0);
	if (sigsetjmp(landing, 1))
		return 2;
	return load(barlease_map_addr(second), 0) == ONES ? 0 : 3;
}

static void a_failure_uses_no_spares_up(void **state)
{
	(void)state;
	assert_int_equal(in_child(lose_after_a_failure, page_size), 0);
}

static void *touch_and_stop(void *arg)
{
	size_t length = barlease_map_length(map);

	begin_together();
	for (int i = 0; i < 4; i++) {
		/* At starting over: the cover is there by then. */
		stops_at = i ? length : 0;
		if (load(barlease_map_addr(map), (2 * i + 1) * PIECE) != ONES)
			return arg;
	}
	return NULL;
}

/* One thread stops as it gives the pieces of its map back, and another needs them. */
static int lose_while_one_stands_still(void)
{
	struct barlease_map *second = map_survivor(file, 0, 0);
	pthread_t thread;
	size_t length;
	char *taken;
	void *bad;

	alarm(300);
	if (!second || pthread_create(&thread, NULL, touch_and_stop, map))
		return CAN_NOT;
	await(&begun, 1);
	taken = take_mappings(&length, 0);
	if (!taken)
		return CAN_NOT;
	take_all_mappings();
	cut(file, 0);
	atomic_store(&go, true);
	while (!atomic_load(&stopped))
		usleep(1000);
	if (!touch_some(second))
		return 1;
	munmap(taken, length);
	atomic_store(&go_on, true);
	return pthread_join(thread, &bad) || bad ? 2 : 0;
}

static void a_thread_that_stands_still_keeps_no_room(void **state)
{
	(void)state;
	assert_int_equal(in_child(lose_while_one_stands_still, 20 * PIECE), 0);
}

/* As many as would take all that the process may have, with 512 for each. */
static int lose_many(void)
{
	enum { MAPS = 150, PIECES = 256, OTHERS = 100 };
	long before = count_mappings();

	cut(file, 0);
	for (int i = 0; i < MAPS; i++) {
		cut(file, 600 * PIECE / page_size);
		map = map_survivor(file, 0, 0);
		if (!map)
			return CAN_NOT;
		if (lose())
			return 1;
	}
	return count_mappings() < before + MAPS + 2 * PIECES + OTHERS ? 0 : 2;
}

static void many_large_maps_take_few_of_the_mappings(void **state)
{
	(void)state;
	stride = 2 * PIECE;
	assert_int_equal(in_child(lose_many, PIECE), 0);
	stride = PIECE;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNLESS_TSAN(a_map_is_lost_with_few_mappings_left),
		UNLESS_TSAN(threads_lose_maps_with_few_mappings_left),
		UNLESS_TSAN(two_maps_are_lost_with_no_mapping_left),
		UNLESS_TSAN(what_a_map_gives_back_is_room_for_others),
		UNLESS_TSAN(a_map_is_restored_with_few_mappings_left),
		UNLESS_TSAN(a_failure_uses_no_spares_up),
		UNLESS_TSAN(a_thread_that_stands_still_keeps_no_room),
		UNLESS_TSAN(many_large_maps_take_few_of_the_mappings),
	};

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
