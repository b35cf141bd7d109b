// SPDX-License-Identifier: MIT
/*
 * touch.c - orders in which a lessee accesses what it has mapped.
 */
#include "touch.h"

/* Where a page of the lease is mapped, if it is. */
static bool find_page(const struct view *view, uint32_t page, uint64_t *at)
{
	for (int i = 0; i < view->nr_parts; i++) {
		const struct part *part = &view->parts[i];

		if ((page - part->page) * PAGE_SIZE < part->length) {
			*at = part->at + (page - part->page) * PAGE_SIZE;
			return true;
		}
	}
	return false;
}

static void load_or_store(const struct view *view, uint64_t at, bool store)
{
	if (store)
		check_store(view, at);
	else
		check_load(view, at);
}

void touch_one(const struct view *view, uint64_t r, bool store)
{
	uint64_t at = view->parts[0].at;
	uint32_t nr = view->terms.nr_marks, tried = 0;

	while (tried < nr && !find_page(view, view->terms.marks[(r + tried) % nr], &at))
		tried++;
	/* Nobody would look where else it might store. */
	store &= tried < nr;
	for (uint64_t i = 0; i < 16; i++)
		load_or_store(view, at, store);
}

void touch_all(const struct view *view)
{
	for (int i = 0; i < view->nr_parts; i++) {
		const struct part *part = &view->parts[i];
		uint32_t pages = (uint32_t)(part->length / PAGE_SIZE);
		uint32_t step = (pages / STAMP_EVERY + 63) / 64 * STAMP_EVERY;
		uint32_t page = 0;

		if (pages <= 256)
			step = 1;
		else
			page = -part->page % STAMP_EVERY;
		for (; page < pages; page += step)
			load_or_store(view, part->at + page * PAGE_SIZE, false);
	}
}

void touch_some(const struct view *view, uint64_t r, bool store)
{
	struct random more = { r };

	for (int i = 0; i < 6; i++) {
		uint64_t at;

		if (find_page(view,
			      view->terms.marks[draw(&more) % view->terms.nr_marks],
			      &at))
			load_or_store(view, at, store);
		/* And beside, where there may be nothing. */
		if (!store) {
			const struct part *part =
				&view->parts[draw(&more) %
					     (unsigned int)view->nr_parts];

			load_or_store(view,
				      part->at +
					      draw(&more) % (part->length + PAGE_SIZE),
				      false);
		}
	}
}
