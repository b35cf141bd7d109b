// SPDX-License-Identifier: MIT
/*
 * map_test.c - barlease_mmap() finds congruent addresses, makes do without, and
 * leaves nothing else mapped. A memfd stands for the lease.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "barlease.h"
#include "unit.h"

#define MIB(n) ((size_t)(n) << 20)
#define GIB(n) ((size_t)(n) << 30)

#define FILE_SIZE MIB(8)

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
	size_t before = mapped();
	char *map = barlease_mmap(file, offset, length, PROT_READ, va_hint);

	give_back();
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mapped(), before + length);
	check_contents(map, offset, length);
	assert_int_equal(munmap(map, length), 0);
	return (uintptr_t)map;
}

static void check_congruent(uintptr_t at, uint64_t target, size_t modulus)
{
	assert_int_equal(at % modulus, target % modulus & -page_size);
}

static void an_address_is_congruent_to_the_hint(void **state)
{
	const uint64_t hints[] = { 0, page_size, MIB(2) - page_size, MIB(2), MIB(512),
				   GIB(1) - MIB(2), GIB(1) - page_size,
				   /* more than a hint is */
				   GIB(1), GIB(5) + MIB(6), UINT64_MAX - GIB(1) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
		check_congruent(map_once(0, FILE_SIZE, hints[i]), hints[i], GIB(1));
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

		check_congruent(map_once(offset, length, hint), hint + offset, GIB(1));
	}
}

static void a_hint_in_mid_page_is_rounded(void **state)
{
	(void)state;
	check_congruent(map_once(0, FILE_SIZE, MIB(4) + 1), MIB(4), GIB(1));
	check_congruent(map_once(0, FILE_SIZE, MIB(4) - 1), MIB(4) - page_size, GIB(1));
}

static void without_a_hint_the_kernel_chooses(void **state)
{
	uintptr_t plain;
	void *map;

	(void)state;
	/* The same place as mmap() itself finds, as nothing else happens. */
	map = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, file, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(munmap(map, FILE_SIZE), 0);
	plain = map_once(0, FILE_SIZE, BARLEASE_VA_HINT_UNKNOWN);
	assert_int_equal(plain, (uintptr_t)map);
}

static void what_is_mapped_can_be_written(void **state)
{
	uint64_t *map = barlease_mmap(file, page_size, page_size,
				      PROT_READ | PROT_WRITE, MIB(3));
	uint64_t seen;

	(void)state;
	assert_ptr_not_equal(map, MAP_FAILED);
	*map = 77;
	assert_int_equal(pread(file, &seen, sizeof(seen), page_size), sizeof(seen));
	assert_int_equal(seen, 77);
	*map = page_size;
	assert_int_equal(munmap(map, page_size), 0);
}

static void an_address_that_is_taken_is_not_the_last(void **state)
{
	(void)state;
	for (int tries = 1; tries <= 3; tries++) {
		thefts = tries;
		nr_thefts = 0;
		check_congruent(map_once(0, FILE_SIZE, MIB(700)), MIB(700), GIB(1));
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
	check_room(GIB(1) + MIB(1), GIB(1));
	check_room(MIB(512), MIB(2));
	check_room(MIB(1), page_size);
}

static void check_fails(int fd, uint64_t offset, size_t length, int prot, int error)
{
	static const uint64_t hints[] = { 0, MIB(2), BARLEASE_VA_HINT_UNKNOWN };
	size_t before = mapped();

	for (size_t i = 0; i < ARRAY_SIZE(hints); i++) {
		errno = 0;
		assert_ptr_equal(barlease_mmap(fd, offset, length, prot, hints[i]),
				 MAP_FAILED);
		assert_int_equal(errno, error);
	}
	assert_int_equal(mapped(), before);
}

static void errors_are_those_of_mmap(void **state)
{
	char path[64];
	int read_only;

	(void)state;
	check_fails(-1, 0, page_size, PROT_READ, EBADF);
	check_fails(file, 0, 0, PROT_READ, EINVAL);
	check_fails(file, 1, page_size, PROT_READ, EINVAL);
	check_fails(file, 0, SIZE_MAX, PROT_READ, ENOMEM);
	check_fails(file, 0, SIZE_MAX / 2, PROT_READ, ENOMEM);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	assert_return_code(read_only, errno);
	check_fails(read_only, 0, page_size, PROT_READ | PROT_WRITE, EACCES);
	close(read_only);
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
		cmocka_unit_test(the_offset_counts_too),
		cmocka_unit_test(a_hint_in_mid_page_is_rounded),
		cmocka_unit_test(without_a_hint_the_kernel_chooses),
		cmocka_unit_test(what_is_mapped_can_be_written),
		cmocka_unit_test(an_address_that_is_taken_is_not_the_last),
		cmocka_unit_test(with_every_address_taken_any_will_do),
		cmocka_unit_test(little_room_makes_do_with_less),
		cmocka_unit_test(errors_are_those_of_mmap),
		cmocka_unit_test(prefault_of_no_lease_is_enotty),
	};

	return cmocka_run_group_tests_name("map", tests, setup, teardown);
}
