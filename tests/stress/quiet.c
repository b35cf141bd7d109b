// SPDX-License-Identifier: MIT
/*
 * quiet.c - a lease that does nothing: what is done to others must not cost it
 * a fault.
 *
 * Its holder, a process of its own, only reads. The lessor compares the count
 * of the lease's faults at two moments between which nothing took the device's
 * pages away.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access.h"
#include "barlease.h"
#include "lessor.h"
#include "maps.h"

/* --- the holder --------------------------------------------------------- */

/* Read all of its pages, over and over, until it is dead. */
static void hold(int fd, const struct terms *terms)
{
	struct view view = { .slot = &slots[0], .terms = *terms, .nr_parts = 1 };
	uint64_t length = terms->nr_pages * PAGE_SIZE;
	bool dead = false;

	view.parts[0] = (struct part){ .length = length, .prot = PROT_READ };
	slots[0].version = view.version;
	if (mmap(slots[0].base, length, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
		 0) == MAP_FAILED) {
		if (oracle_alive(terms->id, moment(terms)))
			fail((int)terms->index, -1,
			     "mmap of a live lease: expected success, saw %s",
			     errno_name(errno));
		return;
	}
	world->sweeps = terms->id.export << 32;
	while (!dead && !world->lessees_end) {
		dead = oracle_dead(terms->id, moment(terms));
		for (uint32_t page = 0; page < terms->nr_pages; page++)
			check_load(&view, page * PAGE_SIZE);
		world->sweeps++;
		world->actors[me].steps++;
		sched_yield();
	}
	munmap(slots[0].base, length);
}

void quiet_main(const struct inboxes *boxes)
{
	me = ACTOR_HOLDER;
	access_prepare();
	slots_prepare();
	while (!world->lessees_end) {
		struct terms terms;
		int fd = parcel_receive(boxes->out[QUIET_INBOX], &terms, false);

		world->actors[me].steps++;
		if (fd < 0) {
			pause_us(1000);
			continue;
		}
		hold(fd, &terms);
		close(fd);
	}
	_exit(0);
}

/* --- the lessor --------------------------------------------------------- */

enum { MAX_QUIET_PAGES = 64 };

/* Of this lease; the holder may be busy with an earlier one still. */
static uint64_t count_sweeps(const struct owned *owned)
{
	uint64_t sweeps = world->sweeps;

	return sweeps >> 32 == owned->terms.id.export ? sweeps & UINT32_MAX : 0;
}

static bool await_sweeps(const struct owned *owned, uint64_t more)
{
	uint64_t wanted = count_sweeps(owned) + more;

	while (count_sweeps(owned) < wanted && !world->lessor_ends)
		pause_us(200);
	return !world->lessor_ends;
}

static uint64_t count_faults(const struct owned *owned,
			     const struct lessor_device *device)
{
	struct barlease_info info = { .size = sizeof(info) };

	if (barlease_get_info(device->dev.device_fd, owned->fd, &info))
		fail(QUIET_LEASE, (int)device->number, "info: expected success, saw %s",
		     errno_name(errno));
	return info.faults;
}

/* Whether nothing has taken, or takes, pages away since zaps was this. */
static bool undisturbed(const struct lessor_device *device, uint64_t zaps)
{
	const struct device_model *model = &world->devices[device->number];

	return !(zaps & 1) && model->zaps == zaps &&
	       !(device_flags(model->word) & ~(unsigned int)DEVICE_PULLABLE);
}

/* The sweep after next was begun after this, so by then all pages are there. */
static void compare(struct owned *owned, struct owned *decoy,
		    struct lessor_device *device, const struct step *step)
{
	uint64_t zaps = world->devices[device->number].zaps;
	uint64_t before, after;

	if (!await_sweeps(owned, 2))
		return;
	before = count_faults(owned, device);
	if (!undisturbed(device, zaps))
		return;
	owned_revoke(decoy, device);
	op_begin(OP_QUIET, &owned->terms, -1, before, 0);
	(void)await_sweeps(owned, 1 + step->r[1] % 16);
	after = count_faults(owned, device);
	if (undisturbed(device, zaps) && after != before)
		fail(QUIET_LEASE, (int)device->number,
		     "a lease that nobody did anything to: expected no fault, saw %llu",
		     (unsigned long long)(after - before));
	op_end(OP_QUIET, &owned->terms, -1, undisturbed(device, zaps) ? 0 : EAGAIN);
}

/* One comparison; false: that was the lease's last. */
static bool compare_open(struct owned *owned, struct owned *decoy,
			 struct lessor_device *device, const struct step *step)
{
	bool more = true;

	if (pthread_rwlock_tryrdlock(&device->lock)) {
		sched_yield();
		return true;
	}
	if (oracle_dead(owned->terms.id, moment(&owned->terms)))
		more = false;
	else
		compare(owned, decoy, device, step);
	pthread_rwlock_unlock(&device->lock);
	return more;
}

static void end(struct owned *owned, struct lessor_device *device)
{
	pthread_rwlock_rdlock(&device->lock);
	if (!oracle_dead(owned->terms.id, moment(&owned->terms)))
		owned_revoke(owned, device);
	pthread_rwlock_unlock(&device->lock);
	close(owned->fd);
	world->leases[owned->terms.index].word =
		lease_word(owned->terms.id.export, LEASE_FREE);
}

/*
 * The decoy is as long as the lease, and was revoked just before that was made:
 * what the driver gave back too early it has used again.
 */
static bool export_both(struct owned *owned, struct owned *decoy,
			struct lessor_device *device, struct random ranges)
{
	struct random same = ranges;

	if (!owned_export(decoy, device, DECOY_LEASE, &ranges, MAX_QUIET_PAGES))
		return false;
	owned_revoke(decoy, device);
	if (owned_export(owned, device, QUIET_LEASE, &same, MAX_QUIET_PAGES))
		return true;
	close(decoy->fd);
	return false;
}

/* A lease of a device, for some comparisons. */
static void keep_quiet(struct lessor_device *device, const struct inboxes *boxes,
		       const struct step *step)
{
	struct owned owned = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct owned decoy = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct random ranges = { step->r[3] };
	uint64_t rounds = 1 + step->r[2] % 16;
	bool exported;

	if (pthread_rwlock_tryrdlock(&device->lock)) {
		sched_yield();
		return;
	}
	exported = export_both(&owned, &decoy, device, ranges);
	pthread_rwlock_unlock(&device->lock);
	if (!exported)
		return;
	if (!parcel_send(boxes->in[QUIET_INBOX], owned.fd, &owned.terms))
		while (rounds-- && !world->lessor_ends &&
		       compare_open(&owned, &decoy, device, step))
			;
	end(&owned, device);
	end(&decoy, device);
}

void *quiet_thread(void *arg)
{
	static const unsigned int weights[NR_DEVICES] = { 1, 1, 1, 1 };
	struct random random;

	me = ACTOR_QUIET;
	random = random_of(world->seed, world->phase, me, 0);
	while (!world->lessor_ends) {
		struct step step = next_step(&random, weights, NR_DEVICES);

		world->actors[me].steps++;
		keep_quiet(&devices[step.choice], arg, &step);
	}
	return NULL;
}
