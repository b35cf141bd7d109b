/* SPDX-License-Identifier: MIT */
/*
 * lossy.h - files that lose pages, as leases do: memfds that are cut off. Each
 * page holds the same word all over, which tells what page it is. And a handler
 * for tests that have their losses survived, and no other SIGBUS.
 */
#ifndef LOSSY_H
#define LOSSY_H

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barlease.h"
#include "unit.h"

#define ONES UINT64_MAX

static size_t page_size;

__attribute__((constructor)) static void lossy_prepare(void)
{
	page_size = sysconf(_SC_PAGESIZE);
}

/* Neither 0 nor ones. */
static inline uint64_t page_word(uint64_t page)
{
	return 0xb1a5000000000001 + (page << 8);
}

/* Have it so many pages again, with the right contents from page first on. */
static inline void grow(int fd, uint64_t first, uint64_t pages)
{
	uint64_t *page = malloc(page_size);

	assert_non_null(page);
	for (uint64_t i = first; i < pages; i++) {
		for (size_t at = 0; at < page_size / sizeof(*page); at++)
			page[at] = page_word(i);
		assert_int_equal(pwrite(fd, page, page_size, i * page_size), page_size);
	}
	free(page);
}

static inline void cut(int fd, uint64_t pages)
{
	assert_int_equal(ftruncate(fd, pages * page_size), 0);
}

static inline int lossy_file(uint64_t pages)
{
	int fd = memfd_create("lossy", MFD_CLOEXEC);

	assert_return_code(fd, errno);
	grow(fd, 0, pages);
	return fd;
}

/* So many bytes of it, or 0: all, as a map that survives; NULL as barlease_map() has
 * it.
 */
static inline struct barlease_map *map_survivor(int fd, uint32_t flags, uint64_t length)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_SURVIVE | flags,
		.length = length,
		.va_hint = BARLEASE_VA_HINT_UNKNOWN,
	};

	return barlease_map(fd, &options);
}

/* The word at this byte; no compiler leaves this out. */
static inline uint64_t load(const void *map, uint64_t offset)
{
	return __atomic_load_n((const uint64_t *)((const char *)map + offset),
			       __ATOMIC_RELAXED);
}

static inline void store(void *map, uint64_t offset, uint64_t word)
{
	__atomic_store_n((uint64_t *)((char *)map + offset), word, __ATOMIC_RELAXED);
}

static inline void survive_or_abort(int sig, siginfo_t *info, void *context)
{
	if (!barlease_handle_sigbus(sig, info, context))
		abort();
}

/* In each test that needs it, as cmocka puts a handler of its own there. */
static inline void survive_only(void)
{
	struct sigaction action = { .sa_sigaction = survive_or_abort,
				    .sa_flags = SA_SIGINFO };

	assert_int_equal(sigaction(SIGBUS, &action, NULL), 0);
}

#endif /* LOSSY_H */
