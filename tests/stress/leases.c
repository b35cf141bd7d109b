// SPDX-License-Identifier: MIT
/*
 * leases.c - the lessor's threads that make leases, hand them out, change them,
 * and take them back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_uapi.h"
#include "lessor.h"

static struct owned leases[NR_LEASES];
static const struct inboxes *boxes;

static int errno_of(int ret)
{
	return ret ? errno : 0;
}

void leases_prepare(const struct inboxes *inboxes)
{
	boxes = inboxes;
	for (int i = 0; i < NR_LEASES; i++) {
		leases[i].fd = -1;
		pthread_mutex_init(&leases[i].lock, NULL);
	}
}

/* --- export ------------------------------------------------------------- */

static uint32_t below(uint64_t r, uint32_t limit)
{
	return (uint32_t)((r >> 11) % limit);
}

static void one_range(struct terms *terms, uint32_t first, uint32_t nr)
{
	terms->ranges[terms->nr_ranges].first = first;
	terms->ranges[terms->nr_ranges++].nr = nr;
	terms->nr_pages += nr;
}

static void some_range(struct terms *terms, uint32_t bar_pages, uint32_t nr, uint64_t r)
{
	if (nr > bar_pages)
		nr = bar_pages;
	one_range(terms, below(r, bar_pages - nr + 1), nr);
}

/* Mostly few pages; ranges that repeat and overlap; 2 MiB; all of the BAR. */
static void choose_ranges(struct terms *terms, uint32_t bar_pages, uint32_t max_pages,
			  struct random *random)
{
	uint64_t kind = draw(random) >> 16, r = draw(random);

	uint32_t dense = bar_pages < STAMPED_PAGES ? bar_pages : STAMPED_PAGES;

	/* Only one device has room for an entry of 1 GiB. */
	if (bar_pages > dense && bar_pages <= max_pages && kind >> 16 & 1)
		return one_range(terms, 0, bar_pages);
	if (dense > max_pages)
		dense = max_pages;
	switch (kind % 16) {
	default:
		some_range(terms, dense, 1 + below(draw(random), 16), r);
		break;
	case 8 ... 9:
		/* Off by a page, so of small pages. */
		one_range(terms, 1, 1 + below(r, dense < 512 ? dense - 1 : 511));
		break;
	case 10 ... 12:
		for (uint64_t i = 0; i < 2 + r % (MAX_RANGES - 1); i++) {
			if (i && draw(random) % 2)
				one_range(terms, terms->ranges[i - 1].first,
					  terms->ranges[i - 1].nr);
			else
				some_range(terms, dense, 1 + below(draw(random), 40),
					   draw(random));
		}
		break;
	case 13:
		if (dense >= 1024)
			one_range(terms, below(r, dense / 512 - 1) * 512, 1024);
		else
			one_range(terms, 0, dense);
		break;
	case 14 ... 15:
		one_range(terms, 0, bar_pages < max_pages ? bar_pages : max_pages);
		break;
	}
}

/* One that has a stamp. */
static uint32_t some_page(const struct terms *terms, uint64_t r)
{
	uint32_t page = below(r, terms->nr_pages);

	return terms->nr_pages > STAMPED_PAGES ? page / STAMP_EVERY * STAMP_EVERY :
						 page;
}

static void choose_terms(struct terms *terms, const struct lessor_device *device,
			 uint32_t max_pages, struct random *random)
{
	choose_ranges(terms, device->nr_pages, max_pages, random);
	terms->access = draw(random) % 8 ? O_RDWR : O_RDONLY;
	terms->nr_marks = terms->nr_pages < MAX_MARKS ? terms->nr_pages : MAX_MARKS;
	for (uint32_t i = 0; i < terms->nr_marks; i++)
		terms->marks[i] = terms->nr_pages <= MAX_MARKS ?
					  i :
					  some_page(terms, draw(random));
}

static int export_lease(const struct lessor_device *device, const struct terms *terms)
{
	struct barlease_range ranges[MAX_RANGES];

	for (uint32_t i = 0; i < terms->nr_ranges; i++)
		ranges[i] = (struct barlease_range){
			.offset = terms->ranges[i].first * PAGE_SIZE,
			.length = terms->ranges[i].nr * PAGE_SIZE,
		};
	return barlease_export(device->dev.device_fd, BAR, ranges, terms->nr_ranges,
			       terms->access);
}

bool owned_export(struct owned *owned, struct lessor_device *device, int index,
		  struct random *random, uint32_t max_pages)
{
	struct barlease_info info = { .size = sizeof(info) };
	_Atomic uint64_t *word = &world->leases[index].word;
	struct terms terms = { .index = (uint32_t)index, .device = device->number };
	int fd;

	terms.id.export = (*word >> 8) + 1;
	terms.id.opening = device_opening(world->devices[device->number].word);
	choose_terms(&terms, device, max_pages, random);
	if (!marks_clear(device, &terms))
		return false;

	op_begin(OP_EXPORT, &terms, -1, terms.nr_pages, terms.nr_ranges);
	fd = export_lease(device, &terms);
	if (fd < 0)
		fail(index, device->number, "export: expected success, saw %s",
		     errno_name(errno));
	if (barlease_get_info(device->dev.device_fd, fd, &info) ||
	    info.length != terms.nr_pages * PAGE_SIZE)
		fail(index, device->number, "info of a new lease: expected its size");
	terms.va_hint = info.va_hint;
	pthread_mutex_lock(&owned->lock);
	owned->fd = fd;
	owned->terms = terms;
	owned->revoked = 0;
	owned->stores_before = world->stores;
	owned->seen = false;
	*word = lease_word(terms.id.export, LEASE_LIVE);
	pthread_mutex_unlock(&owned->lock);
	op_end(OP_EXPORT, &terms, -1, 0);
	return true;
}

/* --- the calls on a lease ----------------------------------------------- */

static struct owned *owned_enter(unsigned int index)
{
	struct owned *owned = &leases[index];

	pthread_mutex_lock(&owned->lock);
	if (owned->fd < 0)
		owned = NULL;
	else
		owned->users++;
	pthread_mutex_unlock(&leases[index].lock);
	return owned;
}

static void owned_leave(struct owned *owned)
{
	pthread_mutex_lock(&owned->lock);
	owned->users--;
	pthread_mutex_unlock(&owned->lock);
}

/* To some of the lessees, not always to any. */
static void hand_out(unsigned int index, uint64_t r)
{
	/* By now another thread may have dropped it, and given its fd's number away. */
	struct owned *owned = owned_enter(index);

	if (!owned)
		return;
	for (unsigned int i = 0; i < r % 4; i++)
		(void)parcel_send(boxes->in[((r >> 8) + i) % NR_LESSEES], owned->fd,
				  &owned->terms);
	owned_leave(owned);
}

static bool is_dead(const struct owned *owned)
{
	return oracle_dead(owned->terms.id, moment(&owned->terms));
}

/* Whether the device was closed since: only the lock's holder may ask. */
static bool is_closed(const struct owned *owned)
{
	return device_opening(moment(&owned->terms).device) != owned->terms.id.opening;
}

void owned_revoke(struct owned *owned, struct lessor_device *device)
{
	const struct terms *terms = &owned->terms;
	_Atomic uint64_t *word = &world->leases[terms->index].word;
	uint64_t live = lease_word(terms->id.export, LEASE_LIVE);
	uint64_t revoking = lease_word(terms->id.export, LEASE_REVOKING);
	bool was_dead = is_dead(owned), first = false, read;
	uint64_t marks[MAX_MARKS];
	uint32_t stores;
	int error;

	if (!was_dead)
		marks_touch(device, terms);
	op_begin(OP_REVOKE, terms, -1, terms->id.export, 0);
	if (!was_dead)
		atomic_compare_exchange_strong(word, &live, revoking);
	error = errno_of(barlease_revoke(device->dev.device_fd, owned->fd));
	stores = world->stores;
	if (!is_closed(owned))
		first = atomic_compare_exchange_strong(
			word, &revoking, lease_word(terms->id.export, LEASE_REVOKED));
	/* Before all else: what is not in the BAR by now came too late. */
	read = (first || !error) && marks_read(device, terms, marks);
	pthread_mutex_lock(&owned->lock);
	if (!error) {
		owned->revoked++;
		owned->stores_then = stores;
	}
	if (is_closed(owned) ? error != ENODEV :
	    was_dead         ? error != EBADFD :
			       (error && error != EBADFD) || owned->revoked > 1)
		fail((int)terms->index, (int)terms->device,
		     "revoke of a lease that %s: saw %s, the %uth success",
		     is_closed(owned) ? "closed with its device" :
		     was_dead         ? "is revoked" :
					"is live",
		     errno_name(error), owned->revoked);
	if (read)
		marks_compare(owned, device, marks);
	pthread_mutex_unlock(&owned->lock);
	op_end(OP_REVOKE, terms, -1, error);
	if (first)
		owned_watch(owned, device);
}

/*
 * Wait until some are busy with it, and a little longer. Under a slow kernel that takes
 * more than its share: what they do to get there is slow as well.
 */
static void await_rivals(const struct owned *owned, uint64_t r)
{
	unsigned int wanted = r % 4, tries = 40 * world->slowness * world->slowness;

	for (unsigned int i = 0; i < tries && count_rivals(&owned->terms) < wanted; i++)
		pause_us(100);
	spin((r >> 8) % 30000);
}

static void act_revoke(struct owned *owned, struct lessor_device *device,
		       const struct step *step)
{
	_Atomic uint32_t *aim = &world->aims[me - ACTOR_LEASE];

	if (!is_dead(owned)) {
		*aim = owned->terms.index + 1;
		await_rivals(owned, step->r[2]);
	}
	owned_revoke(owned, device);
	*aim = 0;
}

static void act_memattr(struct owned *owned, struct lessor_device *device,
			const struct step *step)
{
	bool many = owned->terms.nr_pages > MANY_PAGES;
	uint32_t attribute = step->r[2] % 8 ? step->r[2] % 2 && !many : 2;
	struct moment before = moment(&owned->terms), after;
	int error, good = attribute < 2 ? 0 : ENOENT;
	bool right;

	op_begin(OP_MEMATTR, &owned->terms, -1, attribute, 0);
	error = errno_of(
		barlease_set_memattr(device->dev.device_fd, owned->fd, attribute));
	after = moment(&owned->terms);
	if (is_closed(owned))
		right = error == ENODEV;
	else if (oracle_dead(owned->terms.id, before))
		right = error == EBADFD;
	else if (lease_state(after.lease) == LEASE_LIVE)
		right = error == good;
	else
		right = error == good || error == EBADFD;
	if (!right)
		fail((int)owned->terms.index, (int)owned->terms.device,
		     "memattr %u: saw %s; lease %#llx, then %#llx", attribute,
		     errno_name(error), (unsigned long long)before.lease,
		     (unsigned long long)after.lease);
	op_end(OP_MEMATTR, &owned->terms, -1, error);
}

static void act_info(struct owned *owned, struct lessor_device *device,
		     const struct step *step)
{
	struct barlease_info info = { .size = sizeof(info) };
	const struct terms *terms = &owned->terms;
	struct moment before = moment(terms), after;
	bool right;
	int error;

	(void)step;
	op_begin(OP_INFO, terms, -1, 0, 0);
	error = errno_of(barlease_get_info(device->dev.device_fd, owned->fd, &info));
	after = moment(terms);
	if (is_closed(owned))
		right = error == ENODEV;
	else
		right = !error && info.length == terms->nr_pages * PAGE_SIZE &&
			info.nr_ranges == terms->nr_ranges &&
			info.access == (uint32_t)terms->access &&
			!(oracle_dead(terms->id, before) &&
			  info.state == BARLEASE_STATE_LIVE) &&
			!(lease_state(after.lease) == LEASE_LIVE &&
			  info.state == BARLEASE_STATE_REVOKED);
	if (!right)
		fail((int)terms->index, (int)terms->device,
		     "info: saw %s, state %u, %llu bytes; lease %#llx, then %#llx",
		     errno_name(error), info.state, (unsigned long long)info.length,
		     (unsigned long long)before.lease, (unsigned long long)after.lease);
	op_end(OP_INFO, terms, -1, error);
}

static void act_watch(struct owned *owned, struct lessor_device *device,
		      const struct step *step)
{
	if (is_dead(owned))
		owned_watch(owned, device);
	owned_search(owned, device, step->r[2]);
}

/* One who revoked, and nobody else, was told that he did. */
static void check_revoked_once(const struct owned *owned)
{
	if (lease_state(world->leases[owned->terms.index].word) == LEASE_REVOKED &&
	    owned->revoked != 1)
		fail((int)owned->terms.index, -1,
		     "revoke: expected to succeed once for a lease, saw %u times",
		     owned->revoked);
}

static void act_drop(struct owned *owned, struct lessor_device *device,
		     const struct step *step)
{
	int fd = -1;

	if (!is_dead(owned))
		return;
	owned_watch(owned, device);
	owned_search(owned, device, step->r[2]);
	pthread_mutex_lock(&owned->lock);
	if (owned->users == 1 && owned->seen) {
		check_revoked_once(owned);
		fd = owned->fd;
		owned->fd = -1;
		world->leases[owned->terms.index].word =
			lease_word(owned->terms.id.export, LEASE_FREE);
	}
	pthread_mutex_unlock(&owned->lock);
	if (fd < 0)
		return;
	op_begin(OP_DROP, &owned->terms, -1, owned->terms.id.export, 0);
	close(fd);
	op_end(OP_DROP, &owned->terms, -1, 0);
}

/* --- the threads -------------------------------------------------------- */

/* Before these come exports: as many as there is room for. */
static void (*const choices[])(struct owned *owned, struct lessor_device *device,
			       const struct step *step) = {
	act_revoke, act_memattr, act_info, act_watch, act_drop,
};
static const unsigned int weights[] = { 6, 3, 3, 3, 8 };

/* Exports are one thread's for each lease, so that two don't take one place. */
static void act_export(struct lessor_device *device, struct random *random)
{
	for (unsigned int i = me - ACTOR_LEASE; i < LEASES_EACH; i += LEASE_THREADS) {
		struct owned *owned = &leases[device->number * LEASES_EACH + i];

		if (owned->fd >= 0)
			continue;
		if (owned_export(owned, device, (int)(owned - leases), random,
				 UINT32_MAX))
			hand_out(device->number * LEASES_EACH + i, draw(random));
		return;
	}
}

/* Somebody is at one of them; be at it too. */
static unsigned int pick_lease(const struct step *step, unsigned int device)
{
	uint32_t aimed = world->aims[step->r[1] % LEASE_THREADS];

	if (aimed && (aimed - 1) / LEASES_EACH == device && !one_in(step->r[1], 3))
		return aimed - 1;
	return device * LEASES_EACH + below(step->r[1], LEASES_EACH);
}

void *lease_thread(void *arg)
{
	static const int nice[LEASE_THREADS] = { -10, 0, 10 };
	struct random random;

	me = ACTOR_LEASE + (unsigned int)(uintptr_t)arg;
	/*
	 * One that interrupts whatever others are in when it wakes up to revoke, and
	 * one that is itself interrupted in the middle of it.
	 */
	setpriority(PRIO_PROCESS, (id_t)gettid(), nice[me - ACTOR_LEASE]);
	random = random_of(world->seed, world->phase, me, 0);
	while (!world->lessor_ends) {
		struct step step =
			next_step(&random, weights, sizeof(weights) / sizeof(*weights));
		struct random ranges = { step.r[3] };
		struct lessor_device *device = &devices[step.r[0] % NR_DEVICES];
		struct owned *owned;

		world->actors[me].steps++;
		if (pthread_rwlock_tryrdlock(&device->lock)) {
			/* It is being closed and opened again; drop the step. */
			sched_yield();
			continue;
		}
		act_export(device, &ranges);
		owned = owned_enter(pick_lease(&step, device->number));
		if (owned) {
			choices[step.choice](owned, device, &step);
			owned_leave(owned);
		}
		pthread_rwlock_unlock(&device->lock);
	}
	return NULL;
}

void leases_finish(void)
{
	for (unsigned int i = 0; i < NR_LEASES; i++) {
		struct owned *owned = owned_enter(i);
		struct lessor_device *device = &devices[i / LEASES_EACH];

		if (!owned)
			continue;
		if (!is_closed(owned) && one_in(draw(&(struct random){ i }), 2))
			owned_revoke(owned, device);
		if (is_dead(owned))
			owned_watch(owned, device);
		owned_search(owned, device, i);
		owned_leave(owned);
	}
}
