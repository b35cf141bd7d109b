// SPDX-License-Identifier: MIT
/*
 * ranges_test.c - the driver's arithmetic from a page of a lease to a page
 * frame: by hand where an edge is, and at random against a reference that goes
 * page by page.
 */
#include <stdbool.h>
#include <string.h>

#include "ranges.h"
#include "unit.h"

#define PMD_ORDER 9
#define PUD_ORDER 18
#define PMD_PAGES (1ULL << PMD_ORDER)
#define PUD_PAGES (1ULL << PUD_ORDER)

/* As BARLEASE_MAX_RANGES of the ABI. */
#define MANY 65536

/* Of a BAR that lies at 1 GiB times 64. */
#define BAR_PFN (64 * PUD_PAGES)

struct range {
	u64 bar_page;
	u64 nr;
};

static struct barlease_ranges table_new(u32 room)
{
	struct barlease_ranges r = { .bar_pfn = BAR_PFN };

	r.spans = calloc(room, sizeof(*r.spans));
	assert_non_null(r.spans);
	return r;
}

static struct barlease_ranges table_of(const struct range *ranges, u32 nr)
{
	struct barlease_ranges r = table_new(nr);

	for (u32 i = 0; i < nr; i++)
		barlease_ranges_append(&r, ranges[i].bar_page, ranges[i].nr);
	return r;
}

#define TABLE(...)                                      \
	table_of((const struct range[]){ __VA_ARGS__ }, \
		 ARRAY_SIZE(((const struct range[]){ __VA_ARGS__ })))

static void check_counts(const struct barlease_ranges *r, u64 pages, u32 ranges,
			 u32 spans)
{
	assert_int_equal(r->nr_pages, pages);
	assert_int_equal(r->nr_ranges, ranges);
	assert_int_equal(r->nr_spans, spans);
}

static u64 bar_page(const struct barlease_ranges *r, u64 page)
{
	return barlease_ranges_pfn(r, page) - BAR_PFN;
}

/*
 * Append
 */

static void one_range(void **state)
{
	struct barlease_ranges r = TABLE({ 7, 3 });

	(void)state;
	check_counts(&r, 3, 1, 1);
	assert_int_equal(bar_page(&r, 0), 7);
	assert_int_equal(bar_page(&r, 2), 9);
	free(r.spans);
}

static void adjacent_ranges_are_merged(void **state)
{
	struct barlease_ranges r = TABLE({ 10, 2 }, { 12, 1 }, { 13, 5 });

	(void)state;
	check_counts(&r, 8, 3, 1);
	for (u64 page = 0; page < 8; page++)
		assert_int_equal(bar_page(&r, page), 10 + page);
	free(r.spans);
}

static void other_ranges_are_not_merged(void **state)
{
	static const struct range second[] = {
		{ 10, 2 }, /* the same again */
		{ 8, 2 },  /* the one before it */
		{ 11, 2 }, /* the last page again */
		{ 13, 2 }, /* one page left out */
		{ 0, 12 }, /* up to the first's end */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(second); i++) {
		struct barlease_ranges r = TABLE({ 10, 2 }, second[i]);

		check_counts(&r, 2 + second[i].nr, 2, 2);
		assert_int_equal(bar_page(&r, 1), 11);
		assert_int_equal(bar_page(&r, 2), second[i].bar_page);
		free(r.spans);
	}
}

static void only_neighbours_in_order_are_merged(void **state)
{
	/* The third goes on where the first ended, but not where the lease did. */
	struct barlease_ranges r = TABLE({ 10, 2 }, { 20, 2 }, { 12, 2 }, { 14, 2 });

	(void)state;
	check_counts(&r, 8, 4, 3);
	assert_int_equal(bar_page(&r, 3), 21);
	assert_int_equal(bar_page(&r, 4), 12);
	assert_int_equal(bar_page(&r, 7), 15);
	free(r.spans);
}

static void a_page_may_be_repeated(void **state)
{
	enum { TIMES = 1000 };
	struct barlease_ranges r = table_new(TIMES);

	(void)state;
	for (int i = 0; i < TIMES; i++)
		barlease_ranges_append(&r, 42, 1);
	check_counts(&r, TIMES, TIMES, TIMES);
	for (u64 page = 0; page < TIMES; page++)
		assert_int_equal(bar_page(&r, page), 42);
	free(r.spans);
}

static void many_ranges_that_never_meet(void **state)
{
	struct barlease_ranges r = table_new(MANY);

	(void)state;
	for (u64 i = 0; i < MANY; i++)
		barlease_ranges_append(&r, 2 * (MANY - i), 2);
	check_counts(&r, 2 * MANY, MANY, MANY);
	for (u64 page = 0; page < 2 * MANY; page++)
		assert_int_equal(bar_page(&r, page), 2 * (MANY - page / 2) + page % 2);
	free(r.spans);
}

static void many_ranges_that_make_one(void **state)
{
	struct barlease_ranges r = table_new(MANY);

	(void)state;
	for (u64 i = 0; i < MANY; i++)
		barlease_ranges_append(&r, 5 + 3 * i, 3);
	check_counts(&r, 3 * MANY, MANY, 1);
	for (u64 page = 0; page < 3 * MANY; page++)
		assert_int_equal(bar_page(&r, page), 5 + page);
	free(r.spans);
}

/*
 * Lookup
 */

static void each_page_is_found_among_any_number_of_spans(void **state)
{
	(void)state;
	for (u32 nr = 1; nr <= 130; nr++) {
		struct barlease_ranges r = table_new(nr);
		u64 page = 0;

		/* Span i has i % 3 + 1 pages and lies at 1000 * (i + 1). */
		for (u32 i = 0; i < nr; i++)
			barlease_ranges_append(&r, 1000 * (i + 1), i % 3 + 1);
		for (u32 i = 0; i < nr; i++)
			for (u64 k = 0; k < i % 3 + 1; k++)
				assert_int_equal(bar_page(&r, page++),
						 1000 * (i + 1) + k);
		assert_int_equal(page, r.nr_pages);
		free(r.spans);
	}
}

static void pages_at_the_top_of_the_address_space(void **state)
{
	/* 64 bits of bytes have 52 of pages. */
	const u64 last = (1ULL << 52) - 1;
	struct barlease_ranges r = TABLE({ 0, 1ULL << 51 }, { last, 1 });

	(void)state;
	r.bar_pfn = 0;
	assert_int_equal(barlease_ranges_pfn(&r, (1ULL << 51) - 1), (1ULL << 51) - 1);
	assert_int_equal(barlease_ranges_pfn(&r, 1ULL << 51), last);
	assert_true(barlease_ranges_meet(&r, last, last));
	assert_false(barlease_ranges_meet(&r, 1ULL << 51, last - 1));
	free(r.spans);
}

static void meet_knows_the_edges_of_each_span(void **state)
{
	struct barlease_ranges r = TABLE({ 30, 5 }, { 10, 5 }, { 20, 5 });

	(void)state;
	for (u64 start = 10; start <= 30; start += 10) {
		assert_false(barlease_ranges_meet(&r, start - 1, start - 1));
		assert_true(barlease_ranges_meet(&r, start - 1, start));
		assert_true(barlease_ranges_meet(&r, start, start));
		assert_true(barlease_ranges_meet(&r, start + 2, start + 2));
		assert_true(barlease_ranges_meet(&r, start + 4, start + 4));
		assert_true(barlease_ranges_meet(&r, start + 4, start + 5));
		assert_false(barlease_ranges_meet(&r, start + 5, start + 9));
	}
	assert_true(barlease_ranges_meet(&r, 0, 100));
	assert_true(barlease_ranges_meet(&r, 0, UINT64_MAX));
	assert_false(barlease_ranges_meet(&r, 0, 9));
	assert_false(barlease_ranges_meet(&r, 35, UINT64_MAX));
	free(r.spans);
}

/*
 * Runs
 */

static void check_run(const struct barlease_ranges *r, struct barlease_view view,
		      u64 vpn, unsigned int order, struct barlease_run want)
{
	struct barlease_run run = barlease_ranges_run(r, &view, vpn, order);

	assert_int_equal(run.vpn, want.vpn);
	assert_int_equal(run.pfn, want.pfn);
	assert_int_equal(run.nr, want.nr);
}

#define VIEW(...) ((struct barlease_view){ __VA_ARGS__ })
#define RUN(...)  ((struct barlease_run){ __VA_ARGS__ })

static void a_run_stays_in_its_block(void **state)
{
	struct barlease_ranges r = TABLE({ 0, 256 });
	struct barlease_view all = VIEW(0x1000, 0x1100, 0);

	(void)state;
	check_run(&r, all, 0x1010, 4, RUN(0x1010, BAR_PFN + 0x10, 16));
	check_run(&r, all, 0x101f, 4, RUN(0x1010, BAR_PFN + 0x10, 16));
	check_run(&r, all, 0x1020, 4, RUN(0x1020, BAR_PFN + 0x20, 16));
	check_run(&r, all, 0x1013, 0, RUN(0x1013, BAR_PFN + 0x13, 1));
	check_run(&r, all, 0x1013, 63, RUN(0x1000, BAR_PFN, 256));
	free(r.spans);

	/* More pages than 32 bits count. */
	r = TABLE({ 0, 1ULL << 40 });
	check_run(&r, VIEW(0, 1ULL << 40, 0), 1ULL << 35, 34,
		  RUN(1ULL << 35, BAR_PFN + (1ULL << 35), 1ULL << 34));
	free(r.spans);
}

static void a_run_stays_in_its_mapping(void **state)
{
	struct barlease_ranges r = TABLE({ 0, 256 });

	(void)state;
	/* All of it: below, above and within a block. */
	check_run(&r, VIEW(0x1004, 0x1020, 32), 0x1004, 4,
		  RUN(0x1004, BAR_PFN + 32, 12));
	check_run(&r, VIEW(0x1004, 0x1020, 32), 0x100f, 4,
		  RUN(0x1004, BAR_PFN + 32, 12));
	check_run(&r, VIEW(0x1000, 0x100b, 32), 0x100a, 4,
		  RUN(0x1000, BAR_PFN + 32, 11));
	check_run(&r, VIEW(0x1004, 0x100b, 32), 0x1006, 4,
		  RUN(0x1004, BAR_PFN + 32, 7));
	check_run(&r, VIEW(0x1004, 0x1005, 32), 0x1004, 4,
		  RUN(0x1004, BAR_PFN + 32, 1));
	free(r.spans);
}

static void a_run_stays_in_its_span(void **state)
{
	struct barlease_ranges r = TABLE({ 100, 4 }, { 50, 8 }, { 200, 20 });
	struct barlease_view all = VIEW(0x1000, 0x1020, 0);

	(void)state;
	check_run(&r, all, 0x1003, 4, RUN(0x1000, BAR_PFN + 100, 4));
	check_run(&r, all, 0x1004, 4, RUN(0x1004, BAR_PFN + 50, 8));
	check_run(&r, all, 0x100b, 4, RUN(0x1004, BAR_PFN + 50, 8));
	check_run(&r, all, 0x100c, 4, RUN(0x100c, BAR_PFN + 200, 4));
	check_run(&r, all, 0x1010, 4, RUN(0x1010, BAR_PFN + 204, 16));
	check_run(&r, all, 0x101f, 4, RUN(0x1010, BAR_PFN + 204, 16));
	free(r.spans);
}

static void a_run_crosses_the_seam_of_merged_ranges(void **state)
{
	struct barlease_ranges r = TABLE({ 0, 100 }, { 100, 412 });
	struct barlease_run run = barlease_ranges_run(
		&r, &VIEW(PMD_PAGES, 2 * PMD_PAGES, 0), PMD_PAGES + 99, PMD_ORDER);

	(void)state;
	assert_int_equal(run.vpn, PMD_PAGES);
	assert_int_equal(run.nr, PMD_PAGES);
	assert_true(barlease_run_is_leaf(&run, PMD_ORDER));
	free(r.spans);
}

static void a_run_at_the_top_of_the_address_space(void **state)
{
	const u64 end = 1ULL << 52;
	struct barlease_ranges r = TABLE({ 0, PUD_PAGES });

	(void)state;
	check_run(&r, VIEW(end - PUD_PAGES, end, 0), end - 1, PUD_ORDER,
		  RUN(end - PUD_PAGES, BAR_PFN, PUD_PAGES));
	check_run(&r, VIEW(end - 1, end, PUD_PAGES - 1), end - 1, PUD_ORDER,
		  RUN(end - 1, BAR_PFN + PUD_PAGES - 1, 1));
	check_run(&r, VIEW(0, PUD_PAGES, 0), 0, PUD_ORDER, RUN(0, BAR_PFN, PUD_PAGES));
	free(r.spans);
}

/*
 * Leaf entries: whether one of @order fits at the first, a middle and the last
 * page of the second block of a mapping that starts a block in. @shift moves
 * virtual addresses against frames, @first is where the lease starts in the BAR.
 */
static bool leaf_fits(unsigned int order, u64 first, u64 shift)
{
	const u64 block = 1ULL << order;
	struct barlease_ranges r = TABLE({ first, 4 * block });
	struct barlease_view view = VIEW(block + shift, 5 * block + shift, 0);
	const u64 probes[] = { 2 * block, 2 * block + block / 2, 3 * block - 1 };
	struct barlease_run run;
	bool fits;

	run = barlease_ranges_run(&r, &view, probes[0], order);
	fits = barlease_run_is_leaf(&run, order);
	for (size_t i = 0; i < ARRAY_SIZE(probes); i++) {
		run = barlease_ranges_run(&r, &view, probes[i], order);
		assert_int_equal(barlease_run_is_leaf(&run, order), fits);
		assert_int_equal(run.vpn, 2 * block);
		assert_int_equal(run.nr, block);
	}
	free(r.spans);
	return fits;
}

static void a_leaf_needs_aligned_frames(void **state)
{
	static const unsigned int orders[] = { 1, PMD_ORDER, PUD_ORDER };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		const u64 block = 1ULL << orders[i];

		assert_true(leaf_fits(orders[i], 0, 0));
		assert_true(leaf_fits(orders[i], 3 * block, 0));
		assert_false(leaf_fits(orders[i], 1, 0));
		assert_false(leaf_fits(orders[i], block / 2, 0));
		assert_false(leaf_fits(orders[i], block - 1, 0));
		/* Addresses off by as much as the frames: congruent again. */
		assert_true(leaf_fits(orders[i], 1, 1));
		assert_true(leaf_fits(orders[i], block - 1, block - 1));
		assert_false(leaf_fits(orders[i], 0, 1));
	}
}

static void a_leaf_needs_a_whole_block(void **state)
{
	static const unsigned int orders[] = { PMD_ORDER, PUD_ORDER };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		const unsigned int order = orders[i];
		const u64 block = 1ULL << order;
		const struct barlease_run runs[] = {
			{ block, BAR_PFN, block - 1 },
			{ block, BAR_PFN, block / 2 },
			{ block, BAR_PFN, 1 },
		};
		const struct barlease_run whole = { block, BAR_PFN, block };

		assert_true(barlease_run_is_leaf(&whole, order));
		for (size_t k = 0; k < ARRAY_SIZE(runs); k++)
			assert_false(barlease_run_is_leaf(&runs[k], order));
	}
}

static void a_page_is_always_a_leaf_of_its_own(void **state)
{
	const struct barlease_run run = { 5, BAR_PFN + 3, 1 };

	(void)state;
	assert_true(barlease_run_is_leaf(&run, 0));
}

/* A block that a mapping or a span cuts into has no leaf, its neighbours do. */
static void a_cut_block_has_no_leaf(void **state)
{
	struct barlease_ranges r = TABLE({ 0, 2 * PMD_PAGES }, { 4 * PMD_PAGES, 1 },
					 { 8 * PMD_PAGES + 1, 2 * PMD_PAGES - 1 });
	const struct {
		struct barlease_view view;
		u64 vpn;
		bool leaf;
	} tries[] = {
		{ VIEW(0, 4 * PMD_PAGES, 0), 0, true },
		{ VIEW(0, 4 * PMD_PAGES, 0), PMD_PAGES, true },
		/* A span of one page, then frames that are aligned again. */
		{ VIEW(0, 4 * PMD_PAGES, 0), 2 * PMD_PAGES, false },
		{ VIEW(0, 4 * PMD_PAGES, 0), 2 * PMD_PAGES + 1, false },
		{ VIEW(0, 4 * PMD_PAGES, 0), 3 * PMD_PAGES, true },
		{ VIEW(1, 4 * PMD_PAGES, 1), 1, false },
		{ VIEW(1, 4 * PMD_PAGES, 1), PMD_PAGES, true },
		{ VIEW(0, 2 * PMD_PAGES - 1, 0), PMD_PAGES - 1, true },
		{ VIEW(0, 2 * PMD_PAGES - 1, 0), PMD_PAGES, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		struct barlease_run run = barlease_ranges_run(&r, &tries[i].view,
							      tries[i].vpn, PMD_ORDER);

		assert_int_equal(barlease_run_is_leaf(&run, PMD_ORDER), tries[i].leaf);
	}
	free(r.spans);
}

/*
 * The reference: the BAR's page of each page of a lease, one by one
 */

#define NAIVE_PAGES 6000
#define NAIVE_BAR   3000

struct naive {
	u64 bar_page[NAIVE_PAGES];
	u64 nr_pages;
	u32 nr_ranges;
};

static u32 naive_spans(const struct naive *n)
{
	u32 spans = 1;

	for (u64 page = 1; page < n->nr_pages; page++)
		spans += n->bar_page[page] != n->bar_page[page - 1] + 1;
	return spans;
}

static bool naive_meet(const struct naive *n, u64 first, u64 last)
{
	for (u64 page = 0; page < n->nr_pages; page++)
		if (n->bar_page[page] >= first && n->bar_page[page] <= last)
			return true;
	return false;
}

/* Whether pages vpn and vpn + 1 may be in one run. */
static bool naive_joined(const struct naive *n, const struct barlease_view *view,
			 u64 vpn, unsigned int order)
{
	u64 page = view->page + (vpn - view->start);

	return vpn >= view->start && vpn + 1 < view->end &&
	       vpn >> order == (vpn + 1) >> order &&
	       n->bar_page[page] + 1 == n->bar_page[page + 1];
}

static struct barlease_run naive_run(const struct naive *n,
				     const struct barlease_view *view, u64 vpn,
				     unsigned int order)
{
	u64 first = vpn, last = vpn;

	while (first > view->start && naive_joined(n, view, first - 1, order))
		first--;
	while (naive_joined(n, view, last, order))
		last++;
	return (struct barlease_run){
		.vpn = first,
		.pfn = BAR_PFN + n->bar_page[view->page + (first - view->start)],
		.nr = last - first + 1,
	};
}

/* Ranges of all kinds; short ones, and ones that go on where the last ended. */
static struct barlease_ranges random_table(struct naive *n)
{
	u32 nr = 1 + random_below(random_below(2) ? 60 : 6);
	u64 longest = random_below(2) ? 4 : 700;
	struct barlease_ranges r = table_new(nr);
	u64 next = 0;

	n->nr_pages = 0;
	n->nr_ranges = 0;
	while (n->nr_ranges < nr) {
		u64 pages = 1 + random_below(longest);
		u64 at = random_below(3) ? next : random_below(NAIVE_BAR);

		if (n->nr_pages + pages > NAIVE_PAGES)
			break;
		barlease_ranges_append(&r, at, pages);
		for (u64 i = 0; i < pages; i++)
			n->bar_page[n->nr_pages++] = at + i;
		n->nr_ranges++;
		next = at + pages;
	}
	return r;
}

static struct barlease_view random_view(const struct naive *n)
{
	struct barlease_view view;

	view.page = random_below(n->nr_pages);
	view.start = random_below(1ULL << random_below(36));
	/* Often as congruent as a good mapping is. */
	if (random_below(2))
		view.start = (view.start << PMD_ORDER) + n->bar_page[view.page];
	view.end = view.start + 1 + random_below(n->nr_pages - view.page);
	return view;
}

static void check_random_runs(const struct barlease_ranges *r, const struct naive *n)
{
	for (int i = 0; i < 8; i++) {
		struct barlease_view view = random_view(n);
		u64 nr = view.end - view.start;

		for (int k = 0; k < 12; k++) {
			/* The first and the last page each time. */
			u64 vpn = k == 0 ? view.start :
				  k == 1 ? view.end - 1 :
					   view.start + random_below(nr);
			unsigned int order = random_below(12);
			struct barlease_run want = naive_run(n, &view, vpn, order);
			bool leaf = want.nr == 1ULL << order &&
				    want.pfn % (1ULL << order) == 0;

			check_run(r, view, vpn, order, want);
			assert_int_equal(barlease_run_is_leaf(&want, order), leaf);
		}
	}
}

static void random_tables_are_as_the_reference_has_them(void **state)
{
	static struct naive n;

	(void)state;
	random_seed();
	for (int i = 0; i < 2000; i++) {
		struct barlease_ranges r = random_table(&n);

		check_counts(&r, n.nr_pages, n.nr_ranges, naive_spans(&n));
		for (u64 page = 0; page < n.nr_pages; page++)
			assert_int_equal(bar_page(&r, page), n.bar_page[page]);
		for (int k = 0; k < 20; k++) {
			u64 first = random_below(NAIVE_BAR);
			u64 last = first + random_below(random_below(2) ? 3 : 500);

			assert_int_equal(barlease_ranges_meet(&r, first, last),
					 naive_meet(&n, first, last));
		}
		check_random_runs(&r, &n);
		free(r.spans);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_range),
		cmocka_unit_test(adjacent_ranges_are_merged),
		cmocka_unit_test(other_ranges_are_not_merged),
		cmocka_unit_test(only_neighbours_in_order_are_merged),
		cmocka_unit_test(a_page_may_be_repeated),
		cmocka_unit_test(many_ranges_that_never_meet),
		cmocka_unit_test(many_ranges_that_make_one),
		cmocka_unit_test(each_page_is_found_among_any_number_of_spans),
		cmocka_unit_test(pages_at_the_top_of_the_address_space),
		cmocka_unit_test(meet_knows_the_edges_of_each_span),
		cmocka_unit_test(a_run_stays_in_its_block),
		cmocka_unit_test(a_run_stays_in_its_mapping),
		cmocka_unit_test(a_run_stays_in_its_span),
		cmocka_unit_test(a_run_crosses_the_seam_of_merged_ranges),
		cmocka_unit_test(a_run_at_the_top_of_the_address_space),
		cmocka_unit_test(a_leaf_needs_aligned_frames),
		cmocka_unit_test(a_leaf_needs_a_whole_block),
		cmocka_unit_test(a_page_is_always_a_leaf_of_its_own),
		cmocka_unit_test(a_cut_block_has_no_leaf),
		cmocka_unit_test(random_tables_are_as_the_reference_has_them),
	};

	return cmocka_run_group_tests_name("ranges", tests, NULL, NULL);
}
