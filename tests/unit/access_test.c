// SPDX-License-Identifier: MIT
/*
 * access_test.c - accesses by offset and by pointer, of each width: they reach
 * what they should and nothing beside it, and a lost map drops them.
 */
#define _GNU_SOURCE
#include <string.h>

#include "barlease.h"
#include "barlease_mmio.h"
#include "lossy.h"

static struct barlease_map *map;
static struct barlease_map *to_read;
static int file;

static int setup(void **state)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_SURVIVE | BARLEASE_MAP_NO_HANDLER,
		.length = page_size + 12,
	};

	(void)state;
	file = lossy_file(2);
	map = barlease_map(file, &options);
	options.flags |= BARLEASE_MAP_READONLY;
	to_read = barlease_map(file, &options);
	return map && to_read ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	close(file);
	return barlease_unmap(map) || barlease_unmap(to_read);
}

/* What the accessors of a width do, widened. */
struct width {
	uint64_t bytes, ones;
	uint64_t (*read)(const struct barlease_map *map, uint64_t offset);
	void (*write)(struct barlease_map *map, uint64_t offset, uint64_t value);
	uint64_t (*mmio_read)(const void *addr);
	void (*mmio_write)(void *addr, uint64_t value);
};

#define WIDTH(n)                                                                  \
	static uint64_t read##n(const struct barlease_map *m, uint64_t offset)    \
	{                                                                         \
		return barlease_read##n(m, offset);                               \
	}                                                                         \
	static void write##n(struct barlease_map *m, uint64_t offset, uint64_t v) \
	{                                                                         \
		barlease_write##n(m, offset, (uint##n##_t)v);                     \
	}                                                                         \
	static uint64_t mmio_read##n(const void *addr)                            \
	{                                                                         \
		return barlease_mmio_read##n(addr);                               \
	}                                                                         \
	static void mmio_write##n(void *addr, uint64_t v)                         \
	{                                                                         \
		barlease_mmio_write##n(addr, (uint##n##_t)v);                     \
	}
WIDTH(8)
WIDTH(16)
WIDTH(32)
WIDTH(64)

static const struct width widths[] = {
	{ 1, UINT8_MAX, read8, write8, mmio_read8, mmio_write8 },
	{ 2, UINT16_MAX, read16, write16, mmio_read16, mmio_write16 },
	{ 4, UINT32_MAX, read32, write32, mmio_read32, mmio_write32 },
	{ 8, UINT64_MAX, read64, write64, mmio_read64, mmio_write64 },
};

#define VALUE 0x8877665544332211

/* 16 bytes of the file; the access is in the middle 8 of them. */
static void check_bytes(size_t at, uint64_t bytes)
{
	const uint64_t value = VALUE;
	unsigned char seen[16], want[16];

	memset(want, 0xa5, sizeof(want));
	memcpy(want + at, &value, bytes);
	assert_int_equal(pread(file, seen, sizeof(seen), 64), sizeof(seen));
	assert_memory_equal(seen, want, sizeof(want));
}

static void fill_bytes(void)
{
	unsigned char bytes[16];

	memset(bytes, 0xa5, sizeof(bytes));
	assert_int_equal(pwrite(file, bytes, sizeof(bytes), 64), sizeof(bytes));
}

static void each_width_reaches_its_own_bytes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
		const struct width *w = &widths[i];

		for (size_t at = 0; at < 16; at += w->bytes) {
			char *addr = (char *)barlease_map_addr(map) + 64 + at;

			fill_bytes();
			w->write(map, 64 + at, VALUE);
			check_bytes(at, w->bytes);
			assert_int_equal(w->read(map, 64 + at), VALUE & w->ones);
			assert_int_equal(w->read(to_read, 64 + at), VALUE & w->ones);
			assert_int_equal(w->mmio_read(addr), VALUE & w->ones);
			fill_bytes();
			w->mmio_write(addr, VALUE);
			check_bytes(at, w->bytes);
		}
	}
}

static void check_dropped(const struct width *w, uint64_t offset)
{
	assert_int_equal(w->read(map, offset), w->ones);
	w->write(map, offset, 0);
	assert_int_equal(w->read(map, offset), w->ones);
}

/* The map ends 12 bytes into the second page. */
static void what_is_no_place_of_the_map_is_dropped(void **state)
{
	char before[2 << 12], after[2 << 12];

	(void)state;
	assert_int_equal(pread(file, before, sizeof(before), 0), sizeof(before));
	for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
		const struct width *w = &widths[i];
		uint64_t end = (page_size + 12) / w->bytes * w->bytes;

		assert_int_not_equal(w->read(map, end - w->bytes), w->ones);
		check_dropped(w, end);
		check_dropped(w, 1ULL << 32);
		check_dropped(w, -w->bytes);
		check_dropped(w, 1ULL << 63);
		for (uint64_t off = 1; off < w->bytes; off++)
			check_dropped(w, 64 + off);
	}
	assert_int_equal(pread(file, after, sizeof(after), 0), sizeof(after));
	assert_memory_equal(before, after, sizeof(after));
}

static void a_read_only_map_drops_stores(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
		uint64_t before = widths[i].read(to_read, 0);

		widths[i].write(to_read, 0, ~before);
		assert_int_equal(widths[i].read(to_read, 0), before);
	}
}

static void a_lost_map_reads_as_ones_and_keeps_nothing(void **state)
{
	(void)state;
	survive_only();
	for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
		const struct width *w = &widths[i];

		/* A load notices, then a store does. */
		for (int by_store = 0; by_store < 2; by_store++) {
			cut(file, 1);
			assert_int_equal(barlease_map_lost(map), 0);
			if (by_store)
				w->write(map, page_size, VALUE);
			else
				assert_int_equal(w->read(map, page_size), w->ones);
			assert_int_equal(barlease_map_lost(map), 1);
			assert_int_equal(w->read(map, page_size), w->ones);
			w->write(map, 8, VALUE);
			assert_int_equal(w->read(map, 8), w->ones);
			/* What is stored by pointer the accessors do not see. */
			w->mmio_write(barlease_map_addr(map), 0);
			assert_int_equal(w->mmio_read(barlease_map_addr(map)), 0);
			assert_int_equal(w->read(map, 0), w->ones);
			grow(file, 0, 2);
			assert_int_equal(barlease_map_restore(map), 0);
			assert_int_equal(w->read(map, 8), page_word(0) & w->ones);
		}
	}
}

static void a_map_that_does_not_survive_can_be_accessed(void **state)
{
	struct barlease_map *plain = barlease_map(file, NULL);

	(void)state;
	assert_non_null(plain);
	for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
		widths[i].write(plain, 16, VALUE);
		assert_int_equal(widths[i].read(plain, 16), VALUE & widths[i].ones);
	}
	assert_int_equal(barlease_unmap(plain), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_width_reaches_its_own_bytes),
		TEST(what_is_no_place_of_the_map_is_dropped),
		TEST(a_read_only_map_drops_stores),
		TEST(a_lost_map_reads_as_ones_and_keeps_nothing),
		TEST(a_map_that_does_not_survive_can_be_accessed),
	};

	return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
