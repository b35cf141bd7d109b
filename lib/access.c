// SPDX-License-Identifier: MIT
/*
 * access.c - loads and stores at an offset of a map, which look whether it is
 * there: a lost map reads as ones, and nothing is stored in it.
 */
#include "barlease.h"
#include "barlease_mmio.h"
#include "map.h"
#include "survive.h"

/* One access, to an address that is a multiple of its width, inside the map. */
static bool fits(const struct barlease_map *map, uint64_t offset, size_t width)
{
	return offset % width == 0 && offset < map->length &&
	       map->length - offset >= width;
}

static bool live(const struct barlease_map *map, uint32_t *moment)
{
	*moment = 0;
	return !map->survivor || barlease_survivor_live(map->survivor, moment);
}

/*
 * A load that loses the map comes back with ones, or, when another thread has
 * stored to our page of ones, with that: so look once more, and load again what was
 * lost and restored meanwhile.
 */
#define ACCESSORS(width)                                                       \
	uint##width##_t barlease_read##width(const struct barlease_map *map,   \
					     uint64_t offset)                  \
	{                                                                      \
		uint##width##_t value;                                         \
		uint32_t before, after;                                        \
                                                                               \
		if (!fits(map, offset, width / 8) || !live(map, &after))       \
			return UINT##width##_MAX;                              \
		do {                                                           \
			before = after;                                        \
			value = barlease_mmio_read##width(map->addr + offset); \
			barlease_dma_rmb();                                    \
			if (!live(map, &after))                                \
				return UINT##width##_MAX;                      \
		} while (before != after);                                     \
		return value;                                                  \
	}                                                                      \
                                                                               \
	void barlease_write##width(struct barlease_map *map, uint64_t offset,  \
				   uint##width##_t value)                      \
	{                                                                      \
		uint32_t moment;                                               \
                                                                               \
		if (fits(map, offset, width / 8) && live(map, &moment) &&      \
		    !(map->flags & BARLEASE_MAP_READONLY))                     \
			barlease_mmio_write##width(map->addr + offset, value); \
	}

ACCESSORS(8)
ACCESSORS(16)
ACCESSORS(32)
ACCESSORS(64)
