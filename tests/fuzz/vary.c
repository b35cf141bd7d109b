// SPDX-License-Identifier: MIT
/*
 * vary.c - how inputs are varied: by whole records, and by the fields of one.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1,
				 const uint8_t *data2, size_t size2, uint8_t *out,
				 size_t max_out_size, unsigned int seed);
/* libFuzzer's own. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static uint64_t random_state;

static size_t random_below(size_t limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % limit;
}

static struct record random_record(void)
{
	struct record r = { .op = (uint8_t)random_below(256),
			    .who = (uint8_t)random_below(4) };

	/* Small numbers, and the first ones, are what fits together most. */
	for (size_t i = 0; i < sizeof(r.arg); i++)
		r.arg[i] = (uint8_t)random_below(random_below(3) ? 256 : 3);
	return r;
}

static size_t insert(struct record *records, size_t nr, size_t at, struct record r)
{
	memmove(&records[at + 1], &records[at], (nr - at) * sizeof(r));
	records[at] = r;
	return nr + 1;
}

static size_t vary(struct record *records, size_t nr, size_t max)
{
	size_t at = nr ? random_below(nr) : 0;
	struct record *r = &records[at];

	switch (nr ? random_below(9) : 0) {
	case 0:
	case 1:
		return nr < max ? insert(records, nr, random_below(nr + 1),
					 random_record()) :
				  nr;
	case 2:
		return nr < max ? insert(records, nr, random_below(nr + 1), *r) : nr;
	case 3:
		memmove(r, r + 1, (nr - at - 1) * sizeof(*r));
		return nr - 1;
	case 4:
		*r = random_record();
		return nr;
	case 5:
		r->who = (uint8_t)random_below(4);
		return nr;
	case 6:
		return LLVMFuzzerMutate((uint8_t *)records, nr * sizeof(*r),
					max * sizeof(*r)) /
		       sizeof(*r);
	case 7:
		r->arg[random_below(sizeof(r->arg))] += random_below(2) ? 1 : -1;
		return nr;
	default:
		r->arg[random_below(sizeof(r->arg))] = (uint8_t)random_below(256);
		return nr;
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed)
{
	struct record records[MAX_RECORDS + 1];
	size_t nr = size / sizeof(*records), max = max_size / sizeof(*records);

	making_up();
	if (max > MAX_RECORDS)
		max = MAX_RECORDS;
	if (nr > max)
		nr = max;
	random_state = seed;
	memcpy(records, data, nr * sizeof(*records));
	for (size_t times = 1 + random_below(4); times; times--)
		nr = vary(records, nr, max);
	memcpy(data, records, nr * sizeof(*records));
	return nr * sizeof(*records);
}

/* The beginning of one, and the end of the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1,
				 const uint8_t *data2, size_t size2, uint8_t *out,
				 size_t max_out_size, unsigned int seed)
{
	const size_t one = sizeof(struct record);
	size_t head, tail;

	making_up();
	random_state = seed;
	head = random_below(size1 / one + 1) * one;
	tail = random_below(size2 / one + 1) * one;
	if (head > max_out_size)
		head = max_out_size / one * one;
	if (tail > max_out_size - head)
		tail = (max_out_size - head) / one * one;
	memcpy(out, data1, head);
	memcpy(out + head, data2 + (size2 / one * one - tail), tail);
	return head + tail;
}
