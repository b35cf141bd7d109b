// SPDX-License-Identifier: MIT
/*
 * handler_test.c - which maps install the library's handler of SIGBUS, and a
 * program that has its own.
 */
#define _GNU_SOURCE
#include <signal.h>

#include "barlease.h"
#include "lossy.h"

static int in_child(int (*run)(uint32_t flags), uint32_t flags)
{
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid)
		_exit(run(flags));
	return end_of(pid);
}

static int handler_of(uint32_t flags)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = flags };
	struct sigaction action;
	int fd = lossy_file(1);

	signal(SIGBUS, SIG_DFL);
	if (!barlease_map(fd, &options) || sigaction(SIGBUS, NULL, &action))
		return 90;
	if (action.sa_handler == SIG_DFL)
		return 0;
	return (action.sa_flags & (SA_SIGINFO | SA_ONSTACK)) ==
			       (SA_SIGINFO | SA_ONSTACK) ?
		       1 :
		       91;
}

static void only_survive_installs_the_handler(void **state)
{
	(void)state;
	assert_int_equal(in_child(handler_of, 0), 0);
	assert_int_equal(in_child(handler_of, BARLEASE_MAP_READONLY), 0);
	assert_int_equal(in_child(handler_of, BARLEASE_MAP_NO_HANDLER), 0);
	assert_int_equal(in_child(handler_of, BARLEASE_MAP_SURVIVE), 1);
	assert_int_equal(
		in_child(handler_of, BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER),
		0);
}

static void own_handler(int sig, siginfo_t *info, void *context)
{
	if (barlease_handle_sigbus(sig, info, context))
		return;
	/* What is none of the library's leaves by this door. */
	_exit(info->si_code == BUS_ADRERR ? 7 : 8);
}

/* flags: of the map. The map survives, then the foreign page does not. */
static int handle_own(uint32_t flags)
{
	struct sigaction action = { .sa_sigaction = own_handler,
				    .sa_flags = SA_SIGINFO };
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = flags };
	int fd = lossy_file(1), other = lossy_file(1);
	struct barlease_map *map = barlease_map(fd, &options);
	char *foreign = mmap(NULL, page_size, PROT_READ, MAP_SHARED, other, 0);

	if (!map || foreign == MAP_FAILED || sigaction(SIGBUS, &action, NULL))
		return 90;
	cut(fd, 0);
	cut(other, 0);
	if (load(barlease_map_addr(map), 0) != ONES || !barlease_map_lost(map))
		return 91;
	return load(foreign, 0) ? 92 : 93;
}

static void a_program_with_its_own_handler_asks(void **state)
{
	(void)state;
	assert_int_equal(
		in_child(handle_own, BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER),
		7);
	assert_int_equal(in_child(handle_own, BARLEASE_MAP_SURVIVE), 7);
	/* Without SURVIVE its map is none of the library's, either. */
	assert_int_equal(in_child(handle_own, 0), 7);
}

/* An address inside a lost map is no reason, if the signal is another. */
static void only_bus_adrerr_is_taken(void **state)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER,
	};
	static const int codes[] = { BUS_ADRALN,    BUS_OBJERR, BUS_MCEERR_AR,
				     BUS_MCEERR_AO, SI_USER,    SI_QUEUE,
				     SI_TKILL };
	int fd = lossy_file(1);
	struct barlease_map *map = barlease_map(fd, &options);
	siginfo_t info = { .si_signo = SIGBUS };

	(void)state;
	assert_non_null(map);
	info.si_addr = barlease_map_addr(map);
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		info.si_code = codes[i];
		assert_int_equal(barlease_handle_sigbus(SIGBUS, &info, NULL), 0);
	}
	info.si_code = BUS_ADRERR;
	assert_int_equal(barlease_handle_sigbus(SIGSEGV, &info, NULL), 0);
	info.si_addr = (char *)barlease_map_addr(map) + page_size;
	assert_int_equal(barlease_handle_sigbus(SIGBUS, &info, NULL), 0);
	info.si_addr = (char *)barlease_map_addr(map) - 1;
	assert_int_equal(barlease_handle_sigbus(SIGBUS, &info, NULL), 0);
	assert_int_equal(barlease_map_lost(map), 0);

	info.si_addr = (char *)barlease_map_addr(map) + page_size - 1;
	assert_int_equal(barlease_handle_sigbus(SIGBUS, &info, NULL), 1);
	assert_int_equal(barlease_map_lost(map), 1);
	assert_int_equal(barlease_unmap(map), 0);
	assert_int_equal(barlease_handle_sigbus(SIGBUS, &info, NULL), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_survive_installs_the_handler),
		cmocka_unit_test(a_program_with_its_own_handler_asks),
		cmocka_unit_test(only_bus_adrerr_is_taken),
	};

	return cmocka_run_group_tests_name("handler", tests, NULL, NULL);
}
