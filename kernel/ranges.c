// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a page of a lease to a page frame: the arithmetic, and no kernel state.
 *
 * This file compiles unchanged in user space, where it is tested.
 */
#include "ranges.h"

/* The BAR's page behind the last span, of which there is one. */
static u64 last_span_end(const struct barlease_ranges *r)
{
	const struct barlease_span *last = &r->spans[r->nr_spans - 1];

	return last->bar_page + (r->nr_pages - last->page);
}

/**
 * barlease_ranges_append() - add the next range of a lease
 * @r: table with room for one more span
 * @bar_page: where the range starts in the BAR
 * @nr: its pages, not 0
 *
 * A range that goes on where the last one ended joins its span, so that a huge
 * entry can cross the seam. That all pages together fit 64 bits is the caller's
 * to know.
 */
void barlease_ranges_append(struct barlease_ranges *r, u64 bar_page, u64 nr)
{
	if (!r->nr_spans || last_span_end(r) != bar_page)
		r->spans[r->nr_spans++] = (struct barlease_span) {
			.page = r->nr_pages,
			.bar_page = bar_page,
		};
	r->nr_ranges++;
	r->nr_pages += nr;
}

/* The span that holds @page, which lies inside the lease. */
static u32 span_of(const struct barlease_ranges *r, u64 page)
{
	u32 low = 0, high = r->nr_spans;

	/* spans[low].page <= page, and page < spans[high].page if there is one */
	while (high - low > 1) {
		u32 mid = low + (high - low) / 2;

		if (r->spans[mid].page <= page)
			low = mid;
		else
			high = mid;
	}
	return low;
}

static u64 span_end(const struct barlease_ranges *r, u32 i)
{
	return i + 1 < r->nr_spans ? r->spans[i + 1].page : r->nr_pages;
}

/* The PFN of @page, which lies inside the lease. */
u64 barlease_ranges_pfn(const struct barlease_ranges *r, u64 page)
{
	const struct barlease_span *span = &r->spans[span_of(r, page)];

	return r->bar_pfn + span->bar_page + (page - span->page);
}

/* Whether the lease holds any of the BAR's pages @first to @last. */
bool barlease_ranges_meet(const struct barlease_ranges *r, u64 first, u64 last)
{
	u32 i;

	for (i = 0; i < r->nr_spans; i++) {
		const struct barlease_span *span = &r->spans[i];
		u64 nr = span_end(r, i) - span->page;

		if (span->bar_page <= last && span->bar_page + nr > first)
			return true;
	}
	return false;
}

/**
 * barlease_ranges_run() - what one fault may map
 * @r: table of the lease
 * @view: the mapping; all of it lies inside the lease
 * @vpn: the page that faulted, inside @view
 * @order: log2 of the pages of the naturally aligned virtual block to stay in
 *
 * Return: the longest run around @vpn that leaves neither the block nor the
 * mapping nor the span.
 */
struct barlease_run barlease_ranges_run(const struct barlease_ranges *r,
					const struct barlease_view *view,
					u64 vpn, unsigned int order)
{
	u64 block = 1ULL << order;
	u64 page = view->page + (vpn - view->start);
	u32 i = span_of(r, page);
	/* How far the run may reach to either side; @after counts vpn itself. */
	u64 before = vpn & (block - 1);
	u64 after = block - before;

	if (before > vpn - view->start)
		before = vpn - view->start;
	if (before > page - r->spans[i].page)
		before = page - r->spans[i].page;
	if (after > view->end - vpn)
		after = view->end - vpn;
	if (after > span_end(r, i) - page)
		after = span_end(r, i) - page;

	return (struct barlease_run) {
		.vpn = vpn - before,
		.pfn = barlease_ranges_pfn(r, page) - before,
		.nr = before + after,
	};
}

/* Whether a run fills one leaf entry of @order, physical alignment included. */
bool barlease_run_is_leaf(const struct barlease_run *run, unsigned int order)
{
	u64 block = 1ULL << order;

	return run->nr == block && !(run->pfn & (block - 1));
}
