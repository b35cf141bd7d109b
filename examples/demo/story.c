// SPDX-License-Identifier: MIT
/* story.c - the three slices of the demo. */
#include "story.h"

#include <fcntl.h>
#include <string.h>

#define KIB(n) (UINT64_C(n) << 10)
#define MIB(n) (UINT64_C(n) << 20)

const struct slice slices[LESSEES] = {
	{ "A", 2001, O_RDWR, 1, { { MIB(256), MIB(64) } } },
	{ "B", 2002, O_RDONLY, 1, { { MIB(256), MIB(64) } } },
	{ "C",
	  2003,
	  O_RDWR,
	  2,
	  { { MIB(512) + KIB(12), KIB(12) }, { MIB(768), KIB(64) } } },
};

const struct slice *find_slice(const char *name)
{
	for (size_t i = 0; i < LESSEES; i++)
		if (strcmp(slices[i].name, name) == 0)
			return &slices[i];
	return NULL;
}

uint64_t slice_length(const struct slice *slice)
{
	uint64_t length = 0;

	for (size_t i = 0; i < slice->nr_ranges; i++)
		length += slice->ranges[i].length;
	return length;
}

uint64_t bar_offset(const struct slice *slice, uint64_t offset)
{
	const struct barlease_range *range = slice->ranges;

	for (; offset >= range->length; range++)
		offset -= range->length;
	return range->offset + offset;
}
