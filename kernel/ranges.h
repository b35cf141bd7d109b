/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a page of a lease to a page frame: the arithmetic, and no kernel state.
 *
 * All quantities are pages. "Page" is an offset in the lease, "VPN" a virtual
 * page number (address >> PAGE_SHIFT), "PFN" a page frame number. A table is
 * filled once, before anyone else sees it, and never changes after.
 */
#ifndef BARLEASE_RANGES_H
#define BARLEASE_RANGES_H

#include <linux/types.h>

#ifndef __KERNEL__
#include <stdbool.h>
typedef __u32 u32;
typedef __u64 u64;
#endif

/* A range after adjacent ones were merged; it ends where the next one starts. */
struct barlease_span {
	u64 page;	/* where it starts in the lease */
	u64 bar_page;	/* where it starts in the BAR */
};

struct barlease_ranges {
	u64 bar_pfn;	/* of the BAR's first page */
	u64 nr_pages;
	u32 nr_ranges;
	u32 nr_spans;
	struct barlease_span *spans;	/* room for nr_ranges, sorted by page */
};

/* Pages that are contiguous in the lease, in one span and in virtual memory. */
struct barlease_run {
	u64 vpn;
	u64 pfn;
	u64 nr;
};

/* A mapping: the VPNs [start, end), the first of which shows @page. */
struct barlease_view {
	u64 start;
	u64 end;
	u64 page;
};

void barlease_ranges_append(struct barlease_ranges *r, u64 bar_page, u64 nr);
u64 barlease_ranges_pfn(const struct barlease_ranges *r, u64 page);
bool barlease_ranges_meet(const struct barlease_ranges *r, u64 first, u64 last);
struct barlease_run barlease_ranges_run(const struct barlease_ranges *r,
					const struct barlease_view *view,
					u64 vpn, unsigned int order);
bool barlease_run_is_leaf(const struct barlease_run *run, unsigned int order);

#endif
