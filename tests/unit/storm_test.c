// SPDX-License-Identifier: MIT
/*
 * storm_test.c - maps are lost and restored, made and destroyed, while threads
 * read them: every value and every lost flag is right, every thread lives, and
 * foreign handlers of SIGBUS, from before and from after ours, get what is theirs.
 *
 * LOSSES=100000 in the environment has that many losses instead of a few.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>

#include "barlease.h"
#include "lossy.h"

#define READERS    8
#define MAPS       16
#define FEW_LOSSES 3000

/* A thread's own: a page that is not there, and where its SIGBUS comes to. */
static _Thread_local sigjmp_buf landing;
static _Thread_local volatile sig_atomic_t armed;

static atomic_bool stop;
static _Atomic(const char *) failure;

/* The first is shown; all threads end. */
static void bad(const char *what)
{
	const char *none = NULL;

	atomic_compare_exchange_strong(&failure, &none, what);
	atomic_store(&stop, true);
}

static void check_no_failure(void)
{
	const char *what = atomic_load(&failure);

	if (what)
		print_error("%s\n", what);
	assert_null(what);
}

static uint64_t losses_wanted(void)
{
	const char *text = getenv("LOSSES");

	return text ? strtoull(text, NULL, 0) : FEW_LOSSES;
}

/*
 * Handlers of the program itself
 */

enum { BEFORE, AFTER_ASKS, AFTER_CHAINS, NR_HANDLERS };
static atomic_ulong calls[NR_HANDLERS];
static struct sigaction ours; /* the library's handler */

static void land(int which)
{
	atomic_fetch_add(&calls[which], 1);
	if (!armed)
		bad("a SIGBUS that no thread waits for reached a foreign handler");
	siglongjmp(landing, 1);
}

static void on_before(int sig)
{
	(void)sig;
	land(BEFORE);
}

static void on_after_asks(int sig, siginfo_t *info, void *context)
{
	if (!barlease_handle_sigbus(sig, info, context))
		land(AFTER_ASKS);
}

static void on_after_chains(int sig, siginfo_t *info, void *context)
{
	atomic_fetch_add(&calls[AFTER_CHAINS], 1);
	ours.sa_sigaction(sig, info, context);
}

/* An access that must end in a foreign handler. */
static bool fault(const char *page)
{
	bool landed = false;

	if (sigsetjmp(landing, 1) == 0) {
		armed = 1;
		load(page, 0);
	} else {
		landed = true;
	}
	armed = 0;
	return landed;
}

static char *foreign_page(void)
{
	int fd = lossy_file(0);
	char *page = mmap(NULL, page_size, PROT_READ, MAP_SHARED, fd, 0);

	assert_ptr_not_equal(page, MAP_FAILED);
	close(fd);
	return page;
}

/*
 * Readers
 */

/* What the one who cuts the files off is about, as phase plus 4 for each round. */
enum { WHOLE, LOSING, RESTORING };

static struct victim {
	int fd;
	uint64_t pages;
	struct barlease_map *map;
	atomic_ulong round;
	atomic_uint seen; /* by how many readers, in this round */
} victims[MAPS];

static struct reader {
	pthread_t thread;
	char *foreign;
	uint64_t seed;
	unsigned long seen[MAPS]; /* the last round whose loss it has seen */
	unsigned long loads, ones, faults;
} readers[READERS];

static void read_once(struct reader *reader, struct victim *victim, uint64_t random)
{
	uint64_t last = victim->pages < 4 ? victim->pages : 4;
	/* Often where the file is cut. */
	uint64_t page = random >> 31 & 1 ? random % victim->pages :
					   victim->pages - 1 - random % last;
	uint64_t at = page * page_size + (random >> 32) % (page_size / 8) * 8;
	char *addr = barlease_map_addr(victim->map);
	unsigned long before = atomic_load(&victim->round);
	bool known = reader->seen[victim - victims] == before;
	uint64_t word = load(addr, at);
	bool lost = barlease_map_lost(victim->map);
	unsigned long after = atomic_load(&victim->round);

	reader->loads++;
	reader->ones += word == ONES;
	if (word != ONES && word != page_word(page))
		bad(word ? "a word that was nowhere" : "a zero");
	if (before != after || before % 4 == RESTORING)
		return;
	if (before % 4 == WHOLE && (word == ONES || lost))
		bad(lost ? "a map is lost and nothing was cut off" : "ones of nothing");
	if (before % 4 != LOSING)
		return;
	if (word == ONES && !lost)
		bad("ones of a map that is not lost");
	if (known && word != ONES)
		bad("something of the lease in a map that was lost before");
	if (lost && reader->seen[victim - victims] != before) {
		/* In the file it would be ones of a map that is not lost. */
		store(addr, at, ONES);
		reader->seen[victim - victims] = before;
		atomic_fetch_add(&victim->seen, 1);
	}
}

static void *read_all(void *arg)
{
	struct reader *reader = arg;

	while (!atomic_load(&stop)) {
		for (int i = 0; i < MAPS; i++) {
			reader->seed = reader->seed * 6364136223846793005 +
				       1442695040888963407;
			read_once(reader, &victims[i], reader->seed >> 8);
		}
		if (reader->loads % (64 * MAPS) == 0) {
			if (!fault(reader->foreign))
				bad("an access to a foreign page went through");
			reader->faults++;
		}
		/* Let the others see what this one has seen. */
		sched_yield();
	}
	return NULL;
}

/*
 * The one who takes the pages away
 */

/* A word of a lost map that nobody may see elsewhere would be in the file. */
static void check_file(struct victim *victim, uint64_t pages)
{
	uint64_t *page = malloc(page_size);

	assert_non_null(page);
	for (uint64_t i = 0; i < pages; i++) {
		assert_int_equal(pread(victim->fd, page, page_size, i * page_size),
				 page_size);
		for (size_t at = 0; at < page_size / 8; at++)
			assert_int_equal(page[at], page_word(i));
	}
	free(page);
}

static void await_readers(struct victim *victim)
{
	while (atomic_load(&victim->seen) < READERS && !atomic_load(&stop))
		sched_yield();
}

/* Cut some files off at once, and put them back when every reader has seen it. */
static uint64_t lose_some(void)
{
	uint64_t count = 1 + random_below(MAPS / 2), first = random_below(MAPS);
	uint64_t left[MAPS];

	for (uint64_t i = 0; i < count; i++) {
		struct victim *victim = &victims[(first + i) % MAPS];

		/* Of large ones only few pages, as they have to be written again. */
		left[i] = victim->pages - 1 -
			  random_below(victim->pages < 8 ? victim->pages : 4);
		atomic_store(&victim->seen, 0);
		atomic_fetch_add(&victim->round, LOSING - WHOLE);
		cut(victim->fd, left[i]);
	}
	for (uint64_t i = 0; i < count; i++)
		await_readers(&victims[(first + i) % MAPS]);
	for (uint64_t i = 0; i < count; i++) {
		struct victim *victim = &victims[(first + i) % MAPS];

		atomic_fetch_add(&victim->round, RESTORING - LOSING);
		if (victim->pages < 8)
			check_file(victim, left[i]);
		grow(victim->fd, left[i], victim->pages);
		if (barlease_map_restore(victim->map))
			bad("a map can't be restored");
		/* WHOLE, one round on. */
		atomic_fetch_add(&victim->round, 4 - RESTORING);
	}
	return count;
}

static uint64_t storm(uint64_t wanted)
{
	uint64_t losses = 0;

	while (losses < wanted && !atomic_load(&stop))
		losses += lose_some();
	return losses;
}

static void start_readers(void)
{
	/*
	 * Most leases are small; one takes three pieces of ones. It is cut in the last,
	 * so the second is neither that which was touched nor the first.
	 */
	static const uint64_t pages[] = { 1, 1, 2, 3, 7, 1, 2, 1028 };

	for (int i = 0; i < MAPS; i++) {
		struct barlease_map_options options = {
			.size = sizeof(options),
			.flags = BARLEASE_MAP_SURVIVE,
			.va_hint = BARLEASE_VA_HINT_UNKNOWN,
		};

		victims[i].pages = pages[i % ARRAY_SIZE(pages)];
		victims[i].fd = lossy_file(victims[i].pages);
		victims[i].map = barlease_map(victims[i].fd, &options);
		assert_non_null(victims[i].map);
	}
	for (int i = 0; i < READERS; i++) {
		readers[i].foreign = foreign_page();
		readers[i].seed = random_word();
		assert_int_equal(
			pthread_create(&readers[i].thread, NULL, read_all, &readers[i]),
			0);
	}
}

static void stop_readers(void)
{
	unsigned long loads = 0, ones = 0, faults = 0;

	atomic_store(&stop, true);
	for (int i = 0; i < READERS; i++) {
		assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
		loads += readers[i].loads;
		ones += readers[i].ones;
		faults += readers[i].faults;
		munmap(readers[i].foreign, page_size);
	}
	for (int i = 0; i < MAPS; i++) {
		assert_int_equal(barlease_unmap(victims[i].map), 0);
		close(victims[i].fd);
	}
	printf("# %lu loads, %lu of ones, %lu foreign faults: handlers before %lu, "
	       "after %lu; %lu signals chained\n",
	       loads, ones, faults, calls[BEFORE], calls[AFTER_ASKS],
	       calls[AFTER_CHAINS]);
	assert_int_equal(calls[BEFORE] + calls[AFTER_ASKS], faults);
}

static void set_handler(void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	assert_int_equal(sigaction(SIGBUS, &action, NULL), 0);
}

static void all_readers_live_through_losses(void **state)
{
	struct sigaction before = { .sa_handler = on_before };
	uint64_t losses = 0, wanted = losses_wanted();
	struct timespec start, end;

	(void)state;
	random_seed();
	/* One from before, which the library finds. */
	assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	start_readers();
	assert_int_equal(sigaction(SIGBUS, NULL, &ours), 0);
	losses += storm(wanted / 3);
	/* One from after, which asks the library; and one that calls its handler. */
	set_handler(on_after_asks);
	losses += storm(wanted / 3);
	set_handler(on_after_chains);
	if (losses < wanted)
		losses += storm(wanted - losses);
	stop_readers();
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("# %lu losses in %ld s\n", (unsigned long)losses,
	       (long)(end.tv_sec - start.tv_sec));
	check_no_failure();
	assert_in_range(losses, wanted, wanted + 3 * MAPS);
	assert_int_not_equal(calls[BEFORE], 0);
	assert_int_not_equal(calls[AFTER_ASKS], 0);
	assert_int_not_equal(calls[AFTER_CHAINS], 0);
}

/*
 * Threads with maps of their own, each of which ends soon
 */

/* Where a map was, something else may be now: it must stay what it is. */
static bool is_left_alone(char *addr, size_t length)
{
	bool alone = true;
	char *own = mmap(addr, length, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	/* Another thread took it. */
	if (own == MAP_FAILED)
		return true;
	memset(own, 0x42, length);
	sched_yield();
	for (size_t at = 0; at < length; at++)
		alone = alone && own[at] == 0x42;
	munmap(own, length);
	return alone;
}

static void churn_once(uint64_t pages, bool restore)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	int fd = memfd_create("churn", MFD_CLOEXEC);
	struct barlease_map *map;
	char *addr;

	if (ftruncate(fd, pages * page_size) || !(map = barlease_map(fd, &options))) {
		bad("no map");
		return;
	}
	addr = barlease_map_addr(map);
	store(addr, 0, 11);
	if (load(addr, 0) != 11 || barlease_map_lost(map))
		bad("a new map is not live");
	if (ftruncate(fd, 0))
		bad("a file can't be cut off");
	if (load(addr, (pages - 1) * page_size) != ONES || !barlease_map_lost(map))
		bad("a map was not lost");
	if (restore) {
		if (ftruncate(fd, pages * page_size) || barlease_map_restore(map))
			bad("a map can't be restored");
		if (load(addr, 0) != 0 || barlease_map_lost(map))
			bad("a restored map is not live");
		if (ftruncate(fd, 0))
			bad("a file can't be cut off");
		if (load(addr, 0) != ONES || !barlease_map_lost(map))
			bad("a map was not lost again");
	}
	if (barlease_unmap(map))
		bad("a map can't be unmapped");
	if (!is_left_alone(addr, pages * page_size))
		bad("memory that is no map was overwritten");
	close(fd);
}

static atomic_long rounds_left;

static void *churn(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	while (atomic_fetch_sub(&rounds_left, 1) > 0 && !atomic_load(&stop)) {
		seed = seed * 6364136223846793005 + 1442695040888963407;
		churn_once(1 + (seed >> 40) % 3, (seed >> 50) % 2);
	}
	return NULL;
}

static void maps_come_and_go_while_others_fault(void **state)
{
	pthread_t threads[READERS];

	(void)state;
	random_seed();
	atomic_store(&stop, false);
	assert_int_equal(sigaction(SIGBUS, &ours, NULL), 0);
	atomic_store(&rounds_left, (long)losses_wanted());
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, churn,
						(void *)(uintptr_t)random_word()),
				 0);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	check_no_failure();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_readers_live_through_losses),
		cmocka_unit_test(maps_come_and_go_while_others_fault),
	};

	return cmocka_run_group_tests_name("storm", tests, NULL, NULL);
}
