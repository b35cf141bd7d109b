// SPDX-License-Identifier: MIT
/*
 * marks.c - what the holders of a lease have stored, as the lessor sees it through a
 * mapping of its own: whether it is where it belongs, and in time.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "access.h"
#include "lessor.h"

/* How long a device may take to come to rest; resets are what takes longest. */
#define CALM_US 2000000

/* Whether the lessor's own mapping shows the BAR as it is, from then till now. */
struct calm {
	uint64_t word, zaps;
};

static struct calm calm_begin(const struct lessor_device *device)
{
	const struct device_model *model = &world->devices[device->number];

	return (struct calm){ model->word, model->zaps };
}

static bool calm_end(const struct lessor_device *device, struct calm calm)
{
	const struct device_model *model = &world->devices[device->number];

	return model->word == calm.word && model->zaps == calm.zaps &&
	       !(calm.zaps & 1) &&
	       !(device_flags(calm.word) & ~(unsigned int)DEVICE_PULLABLE);
}

static char *mark_address(const struct lessor_device *device, const struct terms *terms,
			  uint32_t bar_page)
{
	return device->bar + bar_page * PAGE_SIZE + MARK_OFFSET(terms->index);
}

/* false: not just now. */
static bool read_mark(const struct lessor_device *device, const struct terms *terms,
		      uint32_t bar_page, uint64_t *value)
{
	struct calm calm = calm_begin(device);
	int number = access_load(mark_address(device, terms, bar_page), value);

	return calm_end(device, calm) && !number;
}

static uint32_t mark_page(const struct terms *terms, uint32_t i)
{
	return terms_page(terms, terms->marks[i]);
}

bool marks_clear(const struct lessor_device *device, const struct terms *terms)
{
	for (uint32_t i = 0; i < terms->nr_marks; i++) {
		struct calm calm = calm_begin(device);

		if (access_store(mark_address(device, terms, mark_page(terms, i)), 0) ||
		    !calm_end(device, calm))
			return false;
	}
	return true;
}

void marks_touch(const struct lessor_device *device, const struct terms *terms)
{
	uint64_t value;

	for (uint32_t i = 0; i < terms->nr_marks; i++)
		(void)access_load(mark_address(device, terms, mark_page(terms, i)),
				  &value);
}

/*
 * Whoever calls this keeps the device open. So what disturbs it ends by itself, but
 * for its being pulled, which waits for the caller.
 */
bool marks_read(const struct lessor_device *device, const struct terms *terms,
		uint64_t marks[MAX_MARKS])
{
	const struct device_model *model = &world->devices[device->number];
	uint64_t deadline = 0;

	for (uint32_t i = 0; i < terms->nr_marks; i++)
		while (!read_mark(device, terms, mark_page(terms, i), &marks[i])) {
			if (!deadline)
				deadline = now_us() + CALM_US * world->slowness;
			if (device_flags(model->word) & DEVICE_REMOVED ||
			    now_us() > deadline)
				return false;
			pause_us(100);
		}
	return true;
}

/* Whether a store is where it was meant to be; the export is another matter. */
static bool belongs(const struct terms *terms, union mark mark, uint32_t bar_page)
{
	if (mark.index != terms->index)
		return false;
	/* Its address may have come to show another page of the lease meanwhile. */
	if (world->leases[terms->index].shuffled == terms->id.export)
		return terms_have(terms, mark.page);
	return mark.page == bar_page;
}

/*
 * Whether it was begun after REVOKE had returned, by its count, which is drawn before.
 * If there were more stores meanwhile than that can count, nobody can tell.
 */
static bool is_late(const struct owned *owned, union mark mark)
{
	uint32_t nr = owned->stores_then - owned->stores_before;

	return owned->revoked && nr <= COUNT_MASK &&
	       ((mark.count - owned->stores_before) & COUNT_MASK) >= nr;
}

void marks_compare(struct owned *owned, const struct lessor_device *device,
		   const uint64_t marks[MAX_MARKS])
{
	const struct terms *terms = &owned->terms;

	for (uint32_t i = 0; i < terms->nr_marks; i++) {
		union mark mark = { .word = marks[i] };

		if (mark.word && mark.export != (terms->id.export & EXPORT_MASK))
			fail((int)terms->index, terms->device,
			     "a store through an earlier lease of number %u, export %u, "
			     "arrived in page %u after its REVOKE returned: %#llx",
			     terms->index, (unsigned int)mark.export, terms->marks[i],
			     (unsigned long long)mark.word);
		if (mark.word && is_late(owned, mark))
			fail((int)terms->index, terms->device,
			     "a store that was begun after its REVOKE had returned "
			     "arrived in page %u of lease %u: %#llx",
			     terms->marks[i], terms->index,
			     (unsigned long long)mark.word);
		if (mark.word && !belongs(terms, mark, mark_page(terms, i)))
			fail((int)terms->index, terms->device,
			     "a store for page %#x of the BAR, through lease %u, arrived "
			     "in page %#x: %#llx",
			     (unsigned int)mark.page, (unsigned int)mark.index,
			     mark_page(terms, i), (unsigned long long)mark.word);
		if (owned->seen && owned->renewed == device->renewed &&
		    owned->marks[i] != mark.word)
			fail((int)terms->index, terms->device,
			     "a store arrived in page %u of lease %u after it was dead: "
			     "seen there were %#llx and %#llx",
			     terms->marks[i], terms->index,
			     (unsigned long long)owned->marks[i],
			     (unsigned long long)mark.word);
		owned->marks[i] = mark.word;
	}
	owned->seen = true;
	owned->renewed = device->renewed;
}

void owned_watch(struct owned *owned, const struct lessor_device *device)
{
	const struct terms *terms = &owned->terms;
	uint64_t marks[MAX_MARKS];
	bool read;

	op_begin(OP_WATCH, terms, -1, terms->nr_marks, owned->seen);
	read = marks_read(device, terms, marks);
	pthread_mutex_lock(&owned->lock);
	if (read)
		marks_compare(owned, device, marks);
	pthread_mutex_unlock(&owned->lock);
	op_end(OP_WATCH, terms, -1, read ? 0 : EAGAIN);
}

/* Pages that are looked at for a store gone astray. */
#define SEARCHED 8

/* Where it goes: beside its range, to a wrong start, or anywhere. */
static uint32_t elsewhere(const struct terms *terms, uint32_t bar_pages, uint32_t i,
			  uint64_t r)
{
	uint32_t range = (uint32_t)r % terms->nr_ranges, nr = terms->ranges[range].nr;
	uint32_t first = terms->ranges[range].first;
	const uint32_t pages[] = { first - 1, first + nr, (uint32_t)(r >> 32) % nr,
				   (uint32_t)(r >> 32) };

	/* Which is a power of two. */
	return pages[i % 4] % bar_pages;
}

void owned_search(const struct owned *owned, const struct lessor_device *device,
		  uint64_t r)
{
	const struct terms *terms = &owned->terms;
	struct random random = { r };

	op_begin(OP_SEARCH, NULL, -1, 0, 0);
	for (uint32_t i = 0; i < SEARCHED; i++) {
		uint32_t page = elsewhere(terms, device->nr_pages, i, draw(&random));
		union mark mark;

		if (terms_have(terms, page) ||
		    !read_mark(device, terms, page, &mark.word))
			continue;
		if (mark.index == terms->index &&
		    mark.export == (terms->id.export & EXPORT_MASK))
			fail((int)terms->index, (int)terms->device,
			     "a store through lease %u arrived in page %#x of the BAR, "
			     "which the lease does not have: %#llx",
			     terms->index, page, (unsigned long long)mark.word);
	}
	op_end(OP_SEARCH, NULL, -1, 0);
}
