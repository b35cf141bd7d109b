// SPDX-License-Identifier: MIT
/*
 * ranges_fuzz.c - libFuzzer's target for kernel/ranges.c: makes a table of
 * ranges and lookups out of the input, and wants each answer to be that of a
 * reference which knows the ranges as they were appended, merges none, searches
 * from the first on and counts in 128 bits.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "ranges.h"

typedef unsigned __int128 u128;

#define MAX_RANGES 48

/* All bytes fit 64 bits, so pages and page frames have 52. */
#define END (1ULL << 52)

struct range {
	u64 bar_page;
	u64 nr;
};

static struct range ranges[MAX_RANGES];
static u32 nr_ranges;
static u64 nr_pages;
static u64 bar_pfn;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define WANT(condition)                                                      \
	do {                                                                 \
		if (!(condition)) {                                          \
			fprintf(stderr, "FAILED: %s, line %d\n", #condition, \
				__LINE__);                                   \
			abort();                                             \
		}                                                            \
	} while (0)

/*
 * The input
 */

static const uint8_t *input, *input_end;

static uint8_t byte(void)
{
	return input < input_end ? *input++ : 0;
}

/* Below limit, which is not 0: small, near a power of two, near the limit, or any. */
static u64 number(u64 limit)
{
	uint8_t kind = byte();
	u64 value = byte();

	if (kind & 0x80)
		value |= (u64)byte() << 8;
	if ((kind & 0x7f) < 53)
		value += (1ULL << (kind & 0x7f)) - 128;
	else if ((kind & 0x7f) < 60)
		value = limit - 1 - value;
	else if ((kind & 0x7f) >= 64)
		for (int i = 0; i < 6; i++)
			value = value << 8 | byte();
	return value % limit;
}

/*
 * The reference
 */

/* The range that holds a page, and where in the lease it starts. */
static u32 range_of(u64 page, u64 *start)
{
	u32 i = 0;

	*start = 0;
	while (page - *start >= ranges[i].nr)
		*start += ranges[i++].nr;
	return i;
}

static bool joined(u32 i)
{
	return ranges[i].bar_page + ranges[i].nr == ranges[i + 1].bar_page;
}

static u32 count_spans(void)
{
	u32 spans = nr_ranges > 0;

	for (u32 i = 0; i + 1 < nr_ranges; i++)
		spans += !joined(i);
	return spans;
}

static u64 want_pfn(u64 page)
{
	u64 start;
	u32 i = range_of(page, &start);

	return bar_pfn + ranges[i].bar_page + (page - start);
}

static bool want_meet(u64 first, u64 last)
{
	for (u32 i = 0; i < nr_ranges; i++)
		if (ranges[i].bar_page <= last &&
		    (u128)ranges[i].bar_page + ranges[i].nr > first)
			return true;
	return false;
}

/* The pages [*first, *end) of the lease that are contiguous with page. */
static void want_span(u64 page, u64 *first, u64 *end)
{
	u32 i = range_of(page, first), k = i;

	*end = *first + ranges[i].nr;
	while (i > 0 && joined(i - 1))
		*first -= ranges[--i].nr;
	while (k + 1 < nr_ranges && joined(k))
		*end += ranges[++k].nr;
}

static u128 most(u128 a, u128 b)
{
	return a > b ? a : b;
}

static u128 least(u128 a, u128 b)
{
	return a < b ? a : b;
}

static struct barlease_run want_run(const struct barlease_view *view, u64 vpn,
				    unsigned int order)
{
	u64 page = view->page + (vpn - view->start), span_first, span_end;
	u128 block = (u128)vpn >> order << order;
	u128 first, end;

	want_span(page, &span_first, &span_end);
	/* A span that starts before the mapping does may start before VPN 0. */
	first = page - span_first <= vpn ? vpn - (page - span_first) : 0;
	first = most(first, most(block, view->start));
	end = least((u128)vpn + (span_end - page), block + ((u128)1 << order));
	end = least(end, view->end);
	return (struct barlease_run){
		.vpn = (u64)first,
		.pfn = want_pfn(page - (vpn - (u64)first)),
		.nr = (u64)(end - first),
	};
}

/*
 * Tables and lookups
 */

static void make_table(struct barlease_ranges *r)
{
	u32 nr = byte() % MAX_RANGES + 1;
	u64 next = 0;

	nr_ranges = 0;
	nr_pages = 0;
	bar_pfn = number(END);
	*r = (struct barlease_ranges){ .bar_pfn = bar_pfn };
	/* No room to spare, so that ASan sees what goes beyond. */
	r->spans = malloc(nr * sizeof(*r->spans));
	WANT(r->spans);
	while (nr_ranges < nr && nr_pages < END) {
		struct range *range = &ranges[nr_ranges];
		bool go_on = byte() & 1 && next < END;

		range->bar_page = go_on ? next : number(END);
		range->nr = number(END - (range->bar_page > nr_pages ? range->bar_page :
								       nr_pages)) +
			    1;
		barlease_ranges_append(r, range->bar_page, range->nr);
		next = range->bar_page + range->nr;
		nr_pages += range->nr;
		nr_ranges++;
	}
	WANT(r->nr_ranges == nr_ranges);
	WANT(r->nr_pages == nr_pages);
	WANT(r->nr_spans == count_spans());
}

static void check_pfn(const struct barlease_ranges *r)
{
	u64 page = number(nr_pages);

	WANT(barlease_ranges_pfn(r, page) == want_pfn(page));
}

static void check_meet(const struct barlease_ranges *r)
{
	u64 first = number(END);
	u64 last = byte() & 1 ? UINT64_MAX : first + number(END - first);

	WANT(barlease_ranges_meet(r, first, last) == want_meet(first, last));
}

static void check_run(const struct barlease_ranges *r)
{
	struct barlease_view view = { .page = number(nr_pages) };
	u64 nr = number(nr_pages - view.page) + 1;
	unsigned int order = byte() % 64;
	struct barlease_run run, want;
	u64 vpn;

	view.start = number(END - nr + 1);
	/* Often as congruent as a good mapping is. */
	if (byte() & 1 && want_pfn(view.page) % (1 << 18) + nr <= END)
		view.start = want_pfn(view.page) % (1 << 18);
	view.end = view.start + nr;
	vpn = view.start + number(nr);

	run = barlease_ranges_run(r, &view, vpn, order);
	want = want_run(&view, vpn, order);
	WANT(run.vpn == want.vpn);
	WANT(run.pfn == want.pfn);
	WANT(run.nr == want.nr);
	/* Of the order asked for, or of another. */
	order = byte() & 1 ? byte() % 64 : order;
	WANT(barlease_run_is_leaf(&run, order) ==
	     ((u128)want.nr == (u128)1 << order && want.pfn % (1ULL << order) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct barlease_ranges r;

	input = data;
	input_end = data + size;
	make_table(&r);
	do {
		uint8_t kind = byte();

		if (kind % 4 == 0)
			check_pfn(&r);
		else if (kind % 4 == 1)
			check_meet(&r);
		else
			check_run(&r);
	} while (input < input_end);
	free(r.spans);
	return 0;
}
