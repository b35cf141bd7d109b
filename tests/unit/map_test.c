// SPDX-License-Identifier: MIT
/*
 * map_test.c - barlease_map() finds congruent addresses, makes do without, and
 * leaves nothing else mapped and no fd open. A memfd stands for the lease.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barlease.h"
#include "unit.h"

#define MIB(n) ((size_t)(n) << 20)
#define GIB(n) ((size_t)(n) << 30)

#define FILE_SIZE MIB(8)

#define KNOWN_FLAGS                                                              \
	(BARLEASE_MAP_READONLY | BARLEASE_MAP_PREFAULT | BARLEASE_MAP_DONTFORK | \
	 BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER)

static size_t page_size;
static int file;

/*
 * The linker puts this before munmap(): a thread that takes addresses as soon
 * as somebody lets go of them.
 */
int __real_munmap(void *addr, size_t length);
int __wrap_munmap(void *addr, size_t length);

static int thefts, nr_thefts;
static struct {
	void *addr;
	size_t length;
} stolen[64];
static size_t nr_stolen;

int __wrap_munmap(void *addr, size_t length)
{
	int ret = __real_munmap(addr, length);

	if (ret == 0 && thefts > 0) {
		void *map = mmap(addr, length, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
					 MAP_FIXED_NOREPLACE,
				 -1, 0);

		assert_ptr_equal(map, addr);
		assert_in_range(nr_stolen, 0, ARRAY_SIZE(stolen) - 1);
		stolen[nr_stolen].addr = addr;
		stolen[nr_stolen++].length = length;
		thefts--;
		nr_thefts++;
	}
	return ret;
}

static void give_back(void)
{
	thefts = 0;
	while (nr_stolen) {
		nr_stolen--;
		assert_int_equal(
			__real_munmap(stolen[nr_stolen].addr, stolen[nr_stolen].length),
			0);
	}
}

static int setup(void **state)
{
	(void)state;
	page_size = sysconf(_SC_PAGESIZE);
	file = memfd_create("lease", MFD_CLOEXEC);
	assert_return_code(file, errno);
	assert_int_equal(ftruncate(file, FILE_SIZE), 0);
	for (uint64_t at = 0; at < FILE_SIZE; at += page_size)
		assert_int_equal(pwrite(file, &at, sizeof(at), at), sizeof(at));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return close(file);
}

/* All that is mapped, in bytes; with MAP_NORESERVE ranges too. */
static size_t mapped(void)
{
	char text[64] = { 0 };
	int fd = open("/proc/self/statm", O_RDONLY);

	assert_return_code(fd, errno);
	assert_in_range(read(fd, text, sizeof(text) - 1), 1, sizeof(text) - 1);
	close(fd);
	return strtoull(text, NULL, 10) * page_size;
}

static void check_contents(const char *map, uint64_t offset, size_t length)
{
	for (uint64_t at = 0; at < length; at += page_size)
		assert_int_equal(*(const uint64_t *)(map + at), offset + at);
}

/* Map, look, unmap: the address. */
static uintptr_t map_once(uint64_t offset, size_t length, uint64_t va_hint)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_READONLY,
		.offset = offset,
		.length = length,
		.va_hint = va_hint,
	};
	size_t before = mapped();
	struct barlease_map *map = barlease_map(file, &options);
	uintptr_t at;

	give_back();
	assert_non_null(map);
	assert_int_equal(mapped(), before + length);
	assert_int_equal(barlease_map_length(map), length);
	at = (uintptr_t)barlease_map_addr(map);
	check_contents((const char *)at, offset, length);
	assert_int_equal(barlease_unmap(map), 0);
	assert_int_equal(mapped(), before);
	return at;
}

static void check_congruent(uintptr_t at, uint64_t target, size_t modulus)
{
	assert_int_equal(at % modulus, target % modulus & -page_size);
}

static const uint64_t hints[] = {
	0,
	4096,
	MIB(2) - 4096,
	MIB(2),
	MIB(512),
	GIB(1) - MIB(2),
	GIB(1) - 4096,
	/* more than a hint is */
	GIB(1),
	GIB(5) + MIB(6),
	UINT64_MAX - GIB(1),
};

static void an_address_is_congruent_to_the_hint(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
		check_congruent(map_once(0, FILE_SIZE, hints[i]), hints[i], MIB(2));
}

/* A sparse file, and 1 GiB of it can have an entry of its own. */
static void a_gigabyte_is_congruent_modulo_a_gigabyte(void **state)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_READONLY,
	};
	int big = memfd_create("big lease", MFD_CLOEXEC);

	(void)state;
	assert_return_code(big, errno);
	assert_int_equal(ftruncate(big, GIB(2) - page_size), 0);
	for (size_t i = 0; i < ARRAY_SIZE(hints); i++) {
		struct barlease_map *map;
		uintptr_t at;

		options.va_hint = hints[i];
		map = barlease_map(big, &options);
		assert_non_null(map);
		at = (uintptr_t)barlease_map_addr(map);
		check_congruent(at, hints[i], MIB(2));
		/* From the hint's next whole GiB on, is there another? */
		if ((-hints[i] & (GIB(1) - 1)) + GIB(1) <= GIB(2) - page_size)
			check_congruent(at, hints[i], GIB(1));
		assert_int_equal(barlease_unmap(map), 0);
	}
	close(big);
}

static void the_offset_counts_too(void **state)
{
	(void)state;
	random_seed();
	for (int i = 0; i < 500; i++) {
		uint64_t pages = FILE_SIZE / page_size;
		uint64_t offset = random_below(pages) * page_size;
		size_t length =
			(1 + random_below(pages - offset / page_size)) * page_size;
		uint64_t hint = random_below(GIB(1) / page_size) * page_size;
		uintptr_t at = map_once(offset, length, hint);

		/* A block of 2 MiB, whole and at its place? */
		if ((-(hint + offset) & (MIB(2) - 1)) + MIB(2) <= length)
			check_congruent(at, hint + offset, MIB(2));
	}
}

static void a_hint_in_mid_page_is_rounded(void **state)
{
	(void)state;
	check_congruent(map_once(0, FILE_SIZE, MIB(4) + 1), MIB(4), MIB(2));
	check_congruent(map_once(0, FILE_SIZE, MIB(4) - 1), MIB(4) - page_size, MIB(2));
}

/* The place that mmap() itself finds, as nothing else happens. */
static uintptr_t plain_address(size_t length)
{
	void *map = mmap(NULL, length, PROT_READ, MAP_SHARED, file, 0);

	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(munmap(map, length), 0);
	return (uintptr_t)map;
}

static void without_a_hint_the_kernel_chooses(void **state)
{
	(void)state;
	assert_int_equal(map_once(0, FILE_SIZE, BARLEASE_VA_HINT_UNKNOWN),
			 plain_address(FILE_SIZE));
}

/* Nothing is reserved for huge pages that can't come: a limit has no say. */
static void what_holds_no_huge_page_is_not_aligned(void **state)
{
	const struct {
		size_t length;
		uint64_t hint;
	} small[] = {
		{ page_size, 0 },
		{ MIB(2) - page_size, 0 },
		{ MIB(2), page_size },
		{ MIB(4) - 2 * page_size, page_size },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(small); i++)
		assert_int_equal(map_once(0, small[i].length, small[i].hint),
				 plain_address(small[i].length));
	check_congruent(map_once(0, MIB(4) - page_size, page_size), page_size, MIB(2));
}

static void all_of_it_is_the_default(void **state)
{
	struct barlease_map *map = barlease_map(file, NULL);
	struct barlease_map_options options = { .size = sizeof(options),
						.offset = page_size };
	uint64_t *first, seen;

	(void)state;
	assert_non_null(map);
	assert_int_equal(barlease_map_length(map), FILE_SIZE);
	first = barlease_map_addr(map);
	check_contents((const char *)first, 0, FILE_SIZE);
	*first = 77;
	assert_int_equal(pread(file, &seen, sizeof(seen), 0), sizeof(seen));
	assert_int_equal(seen, 77);
	*first = 0;
	assert_int_equal(barlease_unmap(map), 0);

	map = barlease_map(file, &options);
	assert_non_null(map);
	assert_int_equal(barlease_map_length(map), FILE_SIZE - page_size);
	check_contents(barlease_map_addr(map), page_size, FILE_SIZE - page_size);
	assert_int_equal(barlease_unmap(map), 0);
	assert_int_equal(barlease_unmap(NULL), 0);
}

static void a_length_within_a_page_is_kept(void **state)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.length = page_size + 4 };
	size_t before = mapped();
	struct barlease_map *map = barlease_map(file, &options);

	(void)state;
	assert_non_null(map);
	assert_int_equal(barlease_map_length(map), page_size + 4);
	assert_int_equal(mapped(), before + 2 * page_size);
	assert_int_equal(barlease_unmap(map), 0);
	assert_int_equal(mapped(), before);
}

static void a_map_has_its_own_fd(void **state)
{
	int other = dup(file), fds;
	struct barlease_map *map;

	(void)state;
	assert_return_code(other, errno);
	fds = count_fds();
	map = barlease_map(other, NULL);
	assert_non_null(map);
	assert_int_equal(count_fds(), fds + 1);
	close(other);
	check_contents(barlease_map_addr(map), 0, FILE_SIZE);
	assert_int_equal(barlease_unmap(map), 0);
	assert_int_equal(count_fds(), fds - 1);
}

/* Does a forked child see the map, or SIGSEGV? */
static int status_of_child(const struct barlease_map *map)
{
	int status;
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		_exit((int)*(volatile uint64_t *)barlease_map_addr(map));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void a_child_gets_it_unless_told_otherwise(void **state)
{
	struct barlease_map_options options = { .size = sizeof(options) };
	struct barlease_map *map = barlease_map(file, &options);
	int status;

	(void)state;
	assert_non_null(map);
	status = status_of_child(map);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(barlease_unmap(map), 0);

	options.flags = BARLEASE_MAP_DONTFORK;
	map = barlease_map(file, &options);
	assert_non_null(map);
	status = status_of_child(map);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	assert_int_equal(barlease_unmap(map), 0);
}

static void an_address_that_is_taken_is_not_the_last(void **state)
{
	(void)state;
	for (int tries = 1; tries <= 3; tries++) {
		thefts = tries;
		nr_thefts = 0;
		check_congruent(map_once(0, FILE_SIZE, MIB(700)), MIB(700), MIB(2));
		assert_int_equal(nr_thefts, tries);
	}
}

static void with_every_address_taken_any_will_do(void **state)
{
	(void)state;
	thefts = INT_MAX;
	nr_thefts = 0;
	map_once(0, FILE_SIZE, MIB(700));
	assert_int_not_equal(nr_thefts, 0);
}

/* With so much room left, an address is still congruent modulo this. */
static void check_room(size_t room, size_t modulus)
{
	struct rlimit old, limit;
	uintptr_t at;

	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	limit = (struct rlimit){ mapped() + FILE_SIZE + room, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
	at = map_once(0, FILE_SIZE, MIB(100) + 3 * page_size);
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	check_congruent(at, MIB(100) + 3 * page_size, modulus);
}

static void little_room_makes_do_with_less(void **state)
{
	(void)state;
	check_room(MIB(2), MIB(2));
	check_room(MIB(1), page_size);
}

static void check_fails(int fd, const struct barlease_map_options *options, int error)
{
	size_t before = mapped();
	int fds = count_fds();

	errno = 0;
	assert_null(barlease_map(fd, options));
	assert_int_equal(errno, error);
	assert_int_equal(mapped(), before);
	assert_int_equal(count_fds(), fds);
}

static void what_is_not_in_the_lease_is_einval(void **state)
{
	const struct {
		uint64_t offset, length;
	} bad[] = {
		{ 1, page_size },
		{ page_size / 2, 0 },
		{ FILE_SIZE, 0 },
		{ FILE_SIZE, page_size },
		{ FILE_SIZE + page_size, 0 },
		{ 0, FILE_SIZE + 1 },
		{ page_size, FILE_SIZE },
		{ page_size, UINT64_MAX },
		{ page_size, -(uint64_t)page_size },
		{ -(uint64_t)page_size, page_size },
		{ 1ULL << 63, 0 },
	};
	int empty = memfd_create("empty", MFD_CLOEXEC);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct barlease_map_options options = {
			.size = sizeof(options),
			.offset = bad[i].offset,
			.length = bad[i].length,
		};

		check_fails(file, &options, EINVAL);
		options.va_hint = BARLEASE_VA_HINT_UNKNOWN;
		check_fails(file, &options, EINVAL);
	}
	assert_return_code(empty, errno);
	check_fails(empty, NULL, EINVAL);
	close(empty);
}

static void what_the_library_does_not_know_is_einval(void **state)
{
	static const uint32_t sizes[] = { 0, 4, 7, 9, 12, 31, 33, 4104, UINT32_MAX };
	struct {
		struct barlease_map_options options;
		char more[8];
	} later = { .options = { .size = sizeof(later) } };
	struct barlease_map *map;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct barlease_map_options options = { .size = sizes[i] };

		check_fails(file, &options, EINVAL);
	}
	for (uint32_t bit = 0; bit < 32; bit++) {
		struct barlease_map_options options = { .size = sizeof(options),
							.flags = 1u << bit };

		if (!(options.flags & KNOWN_FLAGS))
			check_fails(file, &options, EINVAL);
	}
	for (size_t at = 0; at < sizeof(later.more); at++) {
		later.more[at] = 1;
		check_fails(file, &later.options, EINVAL);
		later.more[at] = 0;
	}
	map = barlease_map(file, &later.options);
	assert_non_null(map);
	assert_int_equal(barlease_unmap(map), 0);
}

/* What is cut off has its default, although the memory there holds something. */
static void a_smaller_size_is_accepted(void **state)
{
	struct barlease_map_options options = {
		.flags = BARLEASE_MAP_READONLY,
		.offset = page_size,
		.length = page_size,
		.va_hint = 0,
	};
	const struct {
		uint32_t size;
		size_t length;
		uint64_t first;
	} known[] = {
		{ 8, FILE_SIZE, 0 },
		{ 16, FILE_SIZE - page_size, page_size },
		{ 24, page_size, page_size },
		{ 32, page_size, page_size },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		struct barlease_map *map;

		options.size = known[i].size;
		map = barlease_map(file, &options);
		assert_non_null(map);
		assert_int_equal(barlease_map_length(map), known[i].length);
		check_contents(barlease_map_addr(map), known[i].first, known[i].length);
		assert_int_equal(barlease_unmap(map), 0);
	}
}

static void errors_are_those_of_the_calls(void **state)
{
	struct barlease_map_options options = { .size = sizeof(options) };
	struct barlease_map *map;
	char path[64];
	int other;

	(void)state;
	check_fails(-1, NULL, EBADF);
	other = memfd_create("larger than all addresses", MFD_CLOEXEC);
	assert_return_code(other, errno);
	assert_int_equal(ftruncate(other, INT64_MAX & -page_size), 0);
	check_fails(other, NULL, ENOMEM);
	check_fails(other, &options, ENOMEM);
	close(other);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	other = open(path, O_RDONLY | O_CLOEXEC);
	assert_return_code(other, errno);
	check_fails(other, NULL, EACCES);
	options.flags = BARLEASE_MAP_READONLY;
	map = barlease_map(other, &options);
	assert_non_null(map);
	assert_int_equal(barlease_unmap(map), 0);
	close(other);

	options.flags = BARLEASE_MAP_PREFAULT;
	check_fails(file, &options, ENOTTY);
}

static void prefault_of_no_lease_is_enotty(void **state)
{
	(void)state;
	assert_int_equal(barlease_prefault(file), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(barlease_prefault(-1), -1);
	assert_int_equal(errno, EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_is_congruent_to_the_hint),
		cmocka_unit_test(a_gigabyte_is_congruent_modulo_a_gigabyte),
		cmocka_unit_test(the_offset_counts_too),
		cmocka_unit_test(a_hint_in_mid_page_is_rounded),
		cmocka_unit_test(without_a_hint_the_kernel_chooses),
		cmocka_unit_test(what_holds_no_huge_page_is_not_aligned),
		cmocka_unit_test(all_of_it_is_the_default),
		cmocka_unit_test(a_length_within_a_page_is_kept),
		cmocka_unit_test(a_map_has_its_own_fd),
		cmocka_unit_test(a_child_gets_it_unless_told_otherwise),
		cmocka_unit_test(an_address_that_is_taken_is_not_the_last),
		cmocka_unit_test(with_every_address_taken_any_will_do),
		cmocka_unit_test(little_room_makes_do_with_less),
		cmocka_unit_test(what_is_not_in_the_lease_is_einval),
		cmocka_unit_test(what_the_library_does_not_know_is_einval),
		cmocka_unit_test(a_smaller_size_is_accepted),
		cmocka_unit_test(errors_are_those_of_the_calls),
		cmocka_unit_test(prefault_of_no_lease_is_enotty),
	};

	return cmocka_run_group_tests_name("map", tests, setup, teardown);
}
