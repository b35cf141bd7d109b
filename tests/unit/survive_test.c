// SPDX-License-Identifier: MIT
/*
 * survive_test.c - a map with SURVIVE whose pages go away reads as ones, all of
 * it, says so, and can be had again. A memfd that is cut off stands for the lease.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "barlease.h"
#include "lossy.h"

/* As much as one replacement covers, by the library's choice. */
#define PIECE (2UL << 20)

/* The library's handler, which cmocka replaces by one of its own in every test. */
static struct sigaction handler;

static void install_handler(void)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	int fd = lossy_file(1);
	struct barlease_map *map;

	signal(SIGBUS, SIG_DFL);
	map = barlease_map(fd, &options);
	if (!map || sigaction(SIGBUS, NULL, &handler) || barlease_unmap(map))
		abort();
	close(fd);
}

static void use_handler(void)
{
	assert_int_equal(sigaction(SIGBUS, &handler, NULL), 0);
}

static struct barlease_map *map_flags(int fd, uint32_t flags)
{
	struct barlease_map *map = map_survivor(fd, flags, 0);

	assert_non_null(map);
	use_handler();
	return map;
}

static struct barlease_map *map_all(int fd)
{
	return map_flags(fd, 0);
}

static void unmap(struct barlease_map *map)
{
	assert_int_equal(barlease_unmap(map), 0);
}

static void check_live(const struct barlease_map *map)
{
	const char *addr = barlease_map_addr(map);

	for (size_t at = 0; at < barlease_map_length(map); at += page_size)
		assert_int_equal(load(addr, at), page_word(at / page_size));
	assert_int_equal(barlease_map_lost(map), 0);
}

static void check_lost(const struct barlease_map *map)
{
	const char *addr = barlease_map_addr(map);

	assert_int_equal(barlease_map_lost(map), 1);
	for (size_t at = 0; at < barlease_map_length(map); at += sizeof(uint64_t))
		assert_int_equal(load(addr, at), ONES);
	assert_int_equal(barlease_map_lost(map), 1);
}

/* What run returns, or 1000 plus the signal that it died of. */
static int in_child(int (*run)(struct barlease_map *map, int fd),
		    struct barlease_map *map, int fd)
{
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		_exit(run(map, fd));
	}
	return end_of(pid);
}

static void the_loss_of_a_page_loses_all(void **state)
{
	(void)state;
	for (int touched = 0; touched < 4; touched++) {
		int fd = lossy_file(4);
		struct barlease_map *map = map_all(fd);

		check_live(map);
		cut(fd, touched);
		/* Nobody has noticed yet, and what is there is there. */
		assert_int_equal(barlease_map_lost(map), 0);
		if (touched)
			assert_int_equal(load(barlease_map_addr(map), 0), page_word(0));
		assert_int_equal(load(barlease_map_addr(map), touched * page_size + 8),
				 ONES);
		check_lost(map);
		unmap(map);
		close(fd);
	}
}

static void a_store_can_be_the_one_that_notices(void **state)
{
	int fd = lossy_file(2);
	struct barlease_map *map = map_all(fd);
	char *addr = barlease_map_addr(map);

	(void)state;
	cut(fd, 0);
	store(addr, page_size, 5);
	assert_int_equal(barlease_map_lost(map), 1);
	/* It landed in a page of ours. */
	assert_int_equal(load(addr, page_size), 5);
	assert_int_equal(load(addr, page_size + 8), ONES);
	assert_int_equal(load(addr, 0), ONES);
	unmap(map);
	close(fd);
}

static void stores_to_a_lost_map_reach_nobody(void **state)
{
	int fd = lossy_file(2);
	struct barlease_map *map = map_all(fd), *other = map_all(fd);
	uint64_t seen;

	(void)state;
	cut(fd, 1);
	assert_int_equal(load(barlease_map_addr(map), page_size), ONES);
	store(barlease_map_addr(map), 0, 5);
	store(barlease_map_addr(map), page_size, 6);
	assert_int_equal(pread(fd, &seen, sizeof(seen), 0), sizeof(seen));
	assert_int_equal(seen, page_word(0));
	assert_int_equal(load(barlease_map_addr(other), 0), page_word(0));
	assert_int_equal(load(barlease_map_addr(other), page_size), ONES);
	check_lost(other);
	unmap(map);
	unmap(other);
	close(fd);
}

static int store_to_first(struct barlease_map *map, int fd)
{
	(void)fd;
	store(barlease_map_addr(map), 0, 1);
	return 0;
}

static void a_lost_map_stays_read_only(void **state)
{
	int fd = lossy_file(1);
	struct barlease_map *map = map_flags(fd, BARLEASE_MAP_READONLY);

	(void)state;
	assert_int_equal(in_child(store_to_first, map, fd), 1000 + SIGSEGV);
	cut(fd, 0);
	assert_int_equal(load(barlease_map_addr(map), 0), ONES);
	assert_int_equal(in_child(store_to_first, map, fd), 1000 + SIGSEGV);
	check_lost(map);
	unmap(map);
	close(fd);
}

static void a_map_without_survive_is_never_lost(void **state)
{
	int fd = lossy_file(1);
	struct barlease_map *map = barlease_map(fd, NULL);

	(void)state;
	assert_non_null(map);
	assert_int_equal(barlease_map_lost(map), 0);
	assert_int_equal(barlease_map_restore(map), -1);
	assert_int_equal(errno, EINVAL);
	unmap(map);
	close(fd);
}

/* Large maps are filled by pieces, in whatever order they are touched. */
static void a_map_of_many_pieces_reads_as_ones(void **state)
{
	uint64_t pages = (7 * PIECE) / page_size + 3;
	int fd = lossy_file(pages);
	struct barlease_map *map = map_all(fd);
	const char *addr = barlease_map_addr(map);

	(void)state;
	random_seed();
	check_live(map);
	cut(fd, 0);
	for (int i = 0; i < 1000; i++) {
		uint64_t at = random_below(pages * page_size / 8) * 8;

		assert_int_equal(load(addr, at), ONES);
		assert_int_equal(barlease_map_lost(map), 1);
	}
	check_lost(map);
	/* Where one piece meets the next, a word may be in both. */
	for (uint64_t at = PIECE - 4; at < 7 * PIECE; at += PIECE) {
		uint64_t word;

		memcpy(&word, addr + at, sizeof(word));
		assert_int_equal(word, ONES);
	}
	unmap(map);
	close(fd);
}

static void a_restored_map_is_live_again(void **state)
{
	int fd = lossy_file(3);
	struct barlease_map *map = map_all(fd);
	char *addr = barlease_map_addr(map);
	uint64_t seen;

	(void)state;
	assert_int_equal(barlease_map_restore(map), 0);
	check_live(map);
	for (int round = 0; round < 100; round++) {
		cut(fd, round % 3);
		assert_int_equal(load(addr, 2 * page_size), ONES);
		store(addr, 0, 5);
		assert_int_equal(barlease_map_lost(map), 1);
		grow(fd, 0, 3);
		assert_int_equal(load(addr, 2 * page_size), ONES);
		assert_int_equal(barlease_map_restore(map), 0);
		check_live(map);
		assert_ptr_equal(barlease_map_addr(map), addr);
		/* Stores arrive again. */
		store(addr, 8, round);
		assert_int_equal(pread(fd, &seen, sizeof(seen), 8), sizeof(seen));
		assert_int_equal(seen, round);
	}
	unmap(map);
	close(fd);
}

static void a_large_map_is_restored_whole(void **state)
{
	uint64_t pages = 3 * PIECE / page_size;
	int fd = lossy_file(pages);
	struct barlease_map *map = map_all(fd);

	(void)state;
	for (int round = 0; round < 3; round++) {
		cut(fd, round);
		assert_int_equal(
			load(barlease_map_addr(map), round * PIECE + PIECE - 8), ONES);
		check_lost(map);
		grow(fd, round, pages);
		assert_int_equal(barlease_map_restore(map), 0);
		check_live(map);
	}
	unmap(map);
	close(fd);
}

static void a_part_of_a_lease_is_restored_as_that(void **state)
{
	int fd = lossy_file(6);
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_SURVIVE,
		.offset = 2 * page_size,
		.length = page_size + 8,
	};
	struct barlease_map *map = barlease_map(fd, &options);
	const char *addr;

	(void)state;
	assert_non_null(map);
	use_handler();
	addr = barlease_map_addr(map);
	cut(fd, 3);
	assert_int_equal(load(addr, page_size), ONES);
	check_lost(map);
	grow(fd, 3, 6);
	assert_int_equal(barlease_map_restore(map), 0);
	assert_int_equal(load(addr, 0), page_word(2));
	assert_int_equal(load(addr, page_size), page_word(3));
	unmap(map);
	close(fd);
}

static void what_can_not_be_restored_stays_lost(void **state)
{
	int fd = lossy_file(2);
	struct barlease_map *map = map_all(fd);
	struct rlimit old, none;

	(void)state;
	cut(fd, 0);
	assert_int_equal(load(barlease_map_addr(map), 0), ONES);
	grow(fd, 0, 2);
	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	none = (struct rlimit){ page_size, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	assert_int_equal(barlease_map_restore(map), -1);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	check_lost(map);
	assert_int_equal(barlease_map_restore(map), 0);
	check_live(map);
	unmap(map);
	close(fd);
}

static void errno_is_kept(void **state)
{
	int fd = lossy_file(2);
	struct barlease_map *map = map_all(fd);

	(void)state;
	cut(fd, 0);
	errno = 4711;
	assert_int_equal(load(barlease_map_addr(map), 0), ONES);
	assert_int_equal(errno, 4711);
	unmap(map);
	close(fd);
}

static void a_system_call_gets_efault(void **state)
{
	int fd = lossy_file(1), ends[2];
	struct barlease_map *map = map_all(fd);

	(void)state;
	assert_return_code(pipe(ends), errno);
	cut(fd, 0);
	assert_int_equal(write(ends[1], barlease_map_addr(map), 8), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(barlease_map_lost(map), 0);
	close(ends[0]);
	close(ends[1]);
	unmap(map);
	close(fd);
}

static void thousands_of_maps_are_told_apart(void **state)
{
	enum { MAPS = 3000 };
	static struct barlease_map *maps[MAPS];
	int fds[2] = { lossy_file(1), lossy_file(1) };
	struct rlimit old, files;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	files = (struct rlimit){ old.rlim_max, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < MAPS; i++)
			maps[i] = map_all(fds[i % 2]);
		cut(fds[round % 2], 0);
		for (int i = 0; i < MAPS; i++) {
			bool gone = i % 2 == round % 2;

			assert_int_equal(load(barlease_map_addr(maps[i]), 0),
					 gone ? ONES : page_word(0));
			assert_int_equal(barlease_map_lost(maps[i]), gone);
		}
		grow(fds[round % 2], 0, 1);
		/* In an order of their own, so that slots change owners. */
		for (int i = 0; i < MAPS; i++)
			unmap(maps[i * 7 % MAPS]);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	close(fds[0]);
	close(fds[1]);
}

/*
 * Children
 */

static int lose_and_restore(struct barlease_map *map, int fd)
{
	char *addr = barlease_map_addr(map);

	if (load(addr, 0) != page_word(0))
		return 1;
	cut(fd, 0);
	if (load(addr, 0) != ONES || load(addr, page_size) != ONES ||
	    !barlease_map_lost(map))
		return 2;
	grow(fd, 0, 2);
	if (barlease_map_restore(map) || barlease_map_lost(map))
		return 3;
	if (load(addr, page_size) != page_word(1))
		return 4;
	return barlease_unmap(map) ? 5 : 0;
}

static void a_child_loses_and_restores_its_own(void **state)
{
	int fd = lossy_file(2);
	struct barlease_map *map = map_all(fd);

	(void)state;
	assert_int_equal(in_child(lose_and_restore, map, fd), 0);
	/* Here nobody has touched it while it was gone. */
	check_live(map);
	unmap(map);
	close(fd);
}

static int restore_lost(struct barlease_map *map, int fd)
{
	if (!barlease_map_lost(map) || load(barlease_map_addr(map), 0) != ONES)
		return 1;
	if (barlease_map_restore(map))
		return 2;
	return lose_and_restore(map, fd);
}

static void a_child_has_a_lost_map_lost(void **state)
{
	int fd = lossy_file(2);
	struct barlease_map *map = map_all(fd);

	(void)state;
	cut(fd, 0);
	assert_int_equal(load(barlease_map_addr(map), 0), ONES);
	grow(fd, 0, 2);
	assert_int_equal(in_child(restore_lost, map, fd), 0);
	check_lost(map);
	assert_int_equal(barlease_map_restore(map), 0);
	check_live(map);
	unmap(map);
	close(fd);
}

/* The child maps something of its own there, which the library leaves alone. */
static int use_address(struct barlease_map *map, int fd)
{
	int own = lossy_file(2);
	char *addr = barlease_map_addr(map);

	(void)fd;
	if (mmap(addr, 2 * page_size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED_NOREPLACE, own, 0) != addr)
		return 1;
	if (barlease_map_restore(map) == 0 || errno != EINVAL)
		return 2;
	cut(own, 1);
	if (load(addr, 0) != page_word(0))
		return 3;
	return (int)load(addr, page_size) | 4;
}

static int unmap_nothing(struct barlease_map *map, int fd)
{
	char *addr = barlease_map_addr(map);
	int own = lossy_file(2);

	(void)fd;
	if (mmap(addr, 2 * page_size, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, own,
		 0) != addr)
		return 1;
	if (barlease_unmap(map))
		return 2;
	return load(addr, page_size) == page_word(1) ? 0 : 3;
}

static void a_child_has_none_with_dontfork(void **state)
{
	int fd = lossy_file(2);
	struct barlease_map *map = map_flags(fd, BARLEASE_MAP_DONTFORK);

	(void)state;
	/* Live, lost, restored, and lost in a page alone */
	for (int round = 0; round < 4; round++) {
		assert_int_equal(in_child(store_to_first, map, fd), 1000 + SIGSEGV);
		assert_int_equal(in_child(use_address, map, fd), 1000 + SIGBUS);
		assert_int_equal(in_child(unmap_nothing, map, fd), 0);
		if (round % 2) {
			grow(fd, 0, 2);
			assert_int_equal(barlease_map_restore(map), 0);
			check_live(map);
		} else {
			cut(fd, round / 2);
			assert_int_equal(load(barlease_map_addr(map), page_size), ONES);
			check_lost(map);
		}
	}
	unmap(map);
	close(fd);
}

/* Of a child whose parent could not have it be what the test needs. */
#define CAN_NOT 99

/* What the map of a process that is number 1 has beside DONTFORK. */
static uint32_t flags_of_first;

/* Have the next child be number 1, as root or as root of a namespace of users. */
static bool leave_pids(void)
{
	return unshare(CLONE_NEWPID) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWPID) == 0;
}

/* in_child(), such that a child can return it. */
static int in_first(int (*run)(struct barlease_map *map, int fd),
		    struct barlease_map *map, int fd)
{
	int status;

	if (!leave_pids())
		return CAN_NOT;
	status = in_child(run, map, fd);
	return status < 1000 ? status : 100 + status - 1000;
}

static int leave_it_alone(struct barlease_map *map, int fd)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_ADRERR };

	if (getpid() != 1)
		return 4;
	info.si_addr = barlease_map_addr(map);
	if (barlease_handle_sigbus(SIGBUS, &info, NULL))
		return 5;
	if (barlease_map_restore(map) == 0 || errno != EINVAL)
		return 6;
	return unmap_nothing(map, fd);
}

static int map_as_first(struct barlease_map *map, int fd)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_DONTFORK | flags_of_first,
		.va_hint = BARLEASE_VA_HINT_UNKNOWN,
	};

	if (getpid() != 1)
		return 7;
	map = barlease_map(fd, &options);
	return map ? in_first(leave_it_alone, map, fd) : 8;
}

static int be_first(struct barlease_map *map, int fd)
{
	return in_first(map_as_first, map, fd);
}

/* Number 1 of a PID namespace that forks into another has a child of that number. */
static void a_child_of_the_same_pid_has_none_with_dontfork(void **state)
{
	static const uint32_t flags[] = { 0, BARLEASE_MAP_SURVIVE };
	int fd = lossy_file(2);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		flags_of_first = flags[i];
		assert_int_equal(in_child(be_first, NULL, fd), 0);
	}
	close(fd);
}

/* Of whom no handler of fork() has heard. */
static void a_child_of_a_bare_clone_has_none_with_dontfork(void **state)
{
	static const uint32_t flags[] = { 0, BARLEASE_MAP_SURVIVE };
	int fd = lossy_file(2);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		struct barlease_map_options options = {
			.size = sizeof(options),
			.flags = BARLEASE_MAP_DONTFORK | flags[i],
			.va_hint = BARLEASE_VA_HINT_UNKNOWN,
		};
		struct barlease_map *map = barlease_map(fd, &options);
		pid_t pid;

		assert_non_null(map);
		pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
		assert_return_code(pid, errno);
		if (!pid) {
			signal(SIGSEGV, SIG_DFL);
			_exit(unmap_nothing(map, fd));
		}
		assert_int_equal(end_of(pid), 0);
		unmap(map);
	}
	close(fd);
}

static int nest_again(struct barlease_map *map, int fd)
{
	(void)map;
	(void)fd;
	return !leave_pids();
}

static int nest(struct barlease_map *map, int fd)
{
	return in_first(nest_again, map, fd);
}

static const char *no_namespaces(void)
{
	return in_child(nest, NULL, -1) ? "no PID namespaces may be made" : NULL;
}

/* The fd of a file whose name in /proc begins so. */
static int find_fd(const char *name)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	while (dir && (entry = readdir(dir))) {
		char path[300], target[300] = { 0 };

		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		if (readlink(path, target, sizeof(target) - 1) > 0 &&
		    !strncmp(target, name, strlen(name)))
			found = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

static int take_the_fd(struct barlease_map *map, int fd)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_ADRERR };
	int ones = find_fd("/memfd:barlease-ones");

	cut(fd, 0);
	if (ones < 0 || dup2(lossy_file(2), ones) != ones)
		return 1;
	info.si_addr = barlease_map_addr(map);
	close(ones);
	errno = 4711;
	if (barlease_handle_sigbus(SIGBUS, &info, NULL) || errno != 4711)
		return 2;
	if (dup2(lossy_file(2), ones) != ones)
		return 3;
	return load(barlease_map_addr(map), 0) == ONES ? 4 : 5;
}

/* Then nothing can be put there, and that file least of all. */
static void another_file_is_not_taken_for_the_ones(void **state)
{
	int fd = lossy_file(2);
	struct barlease_map *map = map_all(fd);

	(void)state;
	assert_int_equal(in_child(take_the_fd, map, fd), 1000 + SIGBUS);
	unmap(map);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_loss_of_a_page_loses_all),
		cmocka_unit_test(a_store_can_be_the_one_that_notices),
		cmocka_unit_test(stores_to_a_lost_map_reach_nobody),
		cmocka_unit_test(a_lost_map_stays_read_only),
		cmocka_unit_test(a_map_without_survive_is_never_lost),
		cmocka_unit_test(a_map_of_many_pieces_reads_as_ones),
		cmocka_unit_test(a_restored_map_is_live_again),
		cmocka_unit_test(a_large_map_is_restored_whole),
		cmocka_unit_test(a_part_of_a_lease_is_restored_as_that),
		cmocka_unit_test(what_can_not_be_restored_stays_lost),
		cmocka_unit_test(errno_is_kept),
		cmocka_unit_test(a_system_call_gets_efault),
		cmocka_unit_test(thousands_of_maps_are_told_apart),
		cmocka_unit_test(a_child_loses_and_restores_its_own),
		cmocka_unit_test(a_child_has_a_lost_map_lost),
		cmocka_unit_test(a_child_has_none_with_dontfork),
		unless(no_namespaces(),
		       (struct CMUnitTest)cmocka_unit_test(
			       a_child_of_the_same_pid_has_none_with_dontfork)),
		UNLESS_TSAN(a_child_of_a_bare_clone_has_none_with_dontfork),
		cmocka_unit_test(another_file_is_not_taken_for_the_ones),
	};

	install_handler();
	return cmocka_run_group_tests_name("survive", tests, NULL, NULL);
}
