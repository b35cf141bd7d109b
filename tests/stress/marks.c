// SPDX-License-Identifier: MIT
/*
 * marks.c - what the holders of a lease have stored, as the lessor sees it through a
 * mapping of its own: whether it is where it belongs, and in time.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "access.h"
#include "lessor.h"

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
			  uint32_t i)
{
	return device->bar + terms_page(terms, terms->marks[i]) * PAGE_SIZE +
	       MARK_OFFSET(terms->index);
}

/* false: not just now. */
static bool read_mark(const struct lessor_device *device, const struct terms *terms,
		      uint32_t i, uint64_t *value)
{
	struct calm calm = calm_begin(device);
	int number = access_load(mark_address(device, terms, i), value);

	return calm_end(device, calm) && !number;
}

bool marks_clear(const struct lessor_device *device, const struct terms *terms)
{
	for (uint32_t i = 0; i < terms->nr_marks; i++) {
		struct calm calm = calm_begin(device);

		if (access_store(mark_address(device, terms, i), 0) ||
		    !calm_end(device, calm))
			return false;
	}
	return true;
}

void owned_watch(struct owned *owned, struct lessor_device *device)
{
	const struct terms *terms = &owned->terms;
	uint64_t marks[MAX_MARKS] = { 0 };
	bool read = true;

	op_begin(OP_WATCH, terms, -1, terms->nr_marks, owned->seen);
	for (uint32_t i = 0; i < terms->nr_marks && read; i++)
		read = read_mark(device, terms, i, &marks[i]);
	pthread_mutex_lock(&owned->lock);
	for (uint32_t i = 0; i < terms->nr_marks && read; i++) {
		uint64_t export = marks[i] >> 48;

		if (marks[i] && export != (terms->id.export & 0xffff))
			fail((int)terms->index, terms->device,
			     "a store through an earlier lease of number %u, export %llu, "
			     "arrived in page %u after its REVOKE returned: %#llx",
			     terms->index, (unsigned long long)export, terms->marks[i],
			     (unsigned long long)marks[i]);
		if (owned->seen && owned->renewed == device->renewed &&
		    owned->marks[i] != marks[i])
			fail((int)terms->index, terms->device,
			     "a store arrived in page %u of lease %u after it was dead: "
			     "it had %#llx, now %#llx",
			     terms->marks[i], terms->index,
			     (unsigned long long)owned->marks[i],
			     (unsigned long long)marks[i]);
		owned->marks[i] = marks[i];
	}
	if (read) {
		owned->seen = true;
		owned->renewed = device->renewed;
	}
	pthread_mutex_unlock(&owned->lock);
	op_end(OP_WATCH, terms, -1, read ? 0 : EAGAIN);
}
