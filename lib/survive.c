// SPDX-License-Identifier: MIT
/*
 * survive.c - mappings whose loss a program survives.
 *
 * A signal handler has to find the mapping of an address and replace its pages
 * without a lock that anybody could hold for long and without allocating, while other
 * threads map, unmap, restore and are in that handler, too. So it does three things
 * only:
 *
 * - It enters the mapping's slot, see slots.h.
 * - It turns state from LIVE to LOSING, covers the whole mapping, and turns it to
 *   LOST. Whoever finds LOSING does the rest too, rather than wait for a thread that
 *   may not run: handlers, and who asks whether it is lost.
 * - It fills the piece around the address with ones, whoever has covered it.
 *
 * While it is restored there is nothing to do but to let the access be done again
 * later. Not for ever: who has waited for as long as a thread may not run turns it to
 * LOSING, and the restore is to begin anew, with a generation of its own.
 */
#define _GNU_SOURCE
#include "survive.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "barlease.h"
#include "cover.h"
#include "futex.h"
#include "ones.h"
#include "owner.h"
#include "place.h"
#include "sigbus.h"
#include "slots.h"
#include "turn.h"

#define NR_RESTORES 4 /* attempts, while other threads have no patience */

/* Orders all but handlers: who adds, removes, restores, forks. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int atfork_error;

/*
 * A lease that a restore has mapped and not yet moved to its place. A child that is
 * forked meanwhile has no use for it and, as nobody there knows of it, no end.
 */
struct fresh {
	void *addr;
	size_t length;
	bool dontfork;
	struct fresh *next, **link;
};
static struct fresh *all_fresh;

static void forget(struct fresh *fresh)
{
	*fresh->link = fresh->next;
	if (fresh->next)
		fresh->next->link = fresh->link;
}

/*
 * In the handler
 */

static bool holds(struct survivor *s, uintptr_t addr)
{
	uintptr_t start = atomic_load_explicit(&s->start, memory_order_relaxed);
	size_t length = atomic_load_explicit(&s->length, memory_order_relaxed);

	return addr - start < length;
}

/*
 * A thread may have faulted before a restore and get its signal after it: no loss
 * of what is there now. Nobody can tell such a fault from others, but if the
 * access is done again it won't be repeated. So after a restore a thread's first
 * fault is answered by doing nothing; should two threads keep taking the place of
 * each other's mark, each try is also a chance to have two of one in a row.
 */
static bool is_first_fault(struct survivor *s, uint32_t state)
{
	uint64_t mark = (uint64_t)state << 32 | (uint32_t)syscall(SYS_gettid);

	if (state / GENERATION == 0)
		return false;
	return atomic_exchange(&s->first_fault, mark) != mark;
}

/*
 * false: there is no way. Otherwise the access can be done again, but where *restore
 * is set: when that state has ended. given_up: one that did not end in time, if it is
 * not 0.
 */
static bool lose(struct survivor *s, uintptr_t addr, uint32_t given_up,
		 uint32_t *restore)
{
	uint32_t phase, state = atomic_load(&s->state);

	/* It has ended since. */
	if (given_up && state != given_up)
		return true;
	for (;;) {
		switch (state & PHASE) {
		case LIVE:
			if (is_first_fault(s, state))
				return true;
			phase = LOSING;
			break;
		case LOSING:
			if (!barlease_cover(s, MAP_FIXED))
				return false;
			phase = LOST;
			break;
		case RESTORING:
			if (state != given_up) {
				*restore = state;
				return true;
			}
			phase = LOSING;
			break;
		default:
			return barlease_fill(s, addr);
		}
		if (!atomic_compare_exchange_strong(&s->state, &state,
						    (state & ~PHASE) | phase))
			continue;
		/* Others wait for it, too. */
		if ((state & PHASE) == RESTORING)
			barlease_futex_wake(&s->state, INT_MAX);
		state = (state & ~PHASE) | phase;
	}
}

static bool survive_in(struct survivor *s, uintptr_t addr)
{
	uint32_t given_up, restore = 0;
	bool survived = false;

	do {
		given_up = restore;
		restore = 0;
		/* Again, as the slot may have become another mapping's. */
		if (barlease_slot_enter(s) && holds(s, addr) &&
		    barlease_slot_is_ours(s))
			survived = lose(s, addr, given_up, &restore);
		barlease_slot_leave(s);
		/* In no slot, as it waits until all have left. */
	} while (restore && !barlease_futex_wait(&s->state, restore, PATIENCE_MS));
	return survived;
}

bool barlease_survive(const void *addr)
{
	struct cursor at = { 0 };
	bool survived = false;
	struct signals old;
	struct survivor *s;

	barlease_signals_block(&old);
	while (!survived && (s = barlease_slots_next(&at))) {
		if (holds(s, (uintptr_t)addr))
			survived = survive_in(s, (uintptr_t)addr);
	}
	barlease_signals_restore(&old);
	return survived;
}

/*
 * All others
 */

/*
 * Do the rest of what a handler has begun, as it would. Only who is counted may
 * look: before, the map may have been lost and restored since.
 */
static uint32_t finish_loss(struct survivor *s)
{
	struct signals old;
	int saved = errno;
	uint32_t state;

	barlease_signals_block(&old);
	barlease_slot_enter(s);
	state = atomic_load(&s->state);
	if ((state & PHASE) == LOSING && barlease_slot_is_ours(s) &&
	    barlease_cover(s, MAP_FIXED) &&
	    atomic_compare_exchange_strong(&s->state, &state, (state & ~PHASE) | LOST))
		state = (state & ~PHASE) | LOST;
	barlease_slot_leave(s);
	barlease_signals_restore(&old);
	errno = saved;
	return state;
}

bool barlease_survivor_lost(struct survivor *s)
{
	uint32_t state = atomic_load(&s->state);

	if ((state & PHASE) == LOSING)
		state = finish_loss(s);
	return (state & PHASE) != LIVE;
}

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

static void after_fork_child(void)
{
	barlease_slots_forget_others();
	barlease_turn_forget_others();
	while (all_fresh) {
		struct fresh *fresh = all_fresh;

		forget(fresh);
		if (!fresh->dontfork)
			munmap(fresh->addr, fresh->length);
		/* For who goes on with it, as a signal's handler has forked. */
		fresh->addr = NULL;
	}
	pthread_mutex_unlock(&lock);
}

void barlease_forks_hold(void)
{
	pthread_mutex_lock(&lock);
}

void barlease_forks_let_go(void)
{
	pthread_mutex_unlock(&lock);
}

/*
 * Before the program registers its own, so that its locks are taken before ours at
 * a fork as they are where it maps with one of them held.
 */
__attribute__((constructor)) static void prepare_forks(void)
{
	atfork_error = pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

static int prepare(void)
{
	if (atfork_error) {
		errno = atfork_error;
		return -1;
	}
	return barlease_ones_prepare();
}

struct survivor *barlease_survivor_add(char *addr, size_t length,
				       const struct survivor_options *options)
{
	struct survivor *s = NULL;
	struct owner us;

	pthread_mutex_lock(&lock);
	if (prepare() || barlease_owner_set(&us) ||
	    (options->handler && barlease_sigbus_install()))
		goto out;
	s = barlease_slot_take();
	if (!s)
		goto out;
	s->prot = options->prot;
	s->dontfork = options->dontfork;
	s->owner = us;
	atomic_store(&s->state, LIVE);
	atomic_store(&s->first_fault, 0);
	atomic_store(&s->start, (uintptr_t)addr);
	atomic_store(&s->length, length);
	atomic_store(&s->begun, 0);
	atomic_store(&s->ended, 0);
	atomic_store(&s->covered, 0);
	/*
	 * As many as there are: a limit may never matter. By this and prepare() all is
	 * called that the handlers call: where a program has us linked in statically,
	 * its loader may look a function up at its first call, with locks.
	 */
	barlease_make_spares();
	barlease_slot_use(s);
out:
	pthread_mutex_unlock(&lock);
	return s;
}

int barlease_survivor_unmap(struct survivor *s)
{
	int ret;

	pthread_mutex_lock(&lock);
	barlease_slot_end_use(s);
	barlease_slot_drain(s);
	ret = barlease_slot_is_ours(s) ?
		      munmap((void *)atomic_load(&s->start), atomic_load(&s->length)) :
		      0;
	if (ret) {
		barlease_slot_use(s);
	} else {
		atomic_store(&s->length, 0);
		barlease_slot_put_back(s);
		barlease_make_spares();
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

bool barlease_survivor_live(const struct survivor *s, uint32_t *moment)
{
	*moment = atomic_load_explicit(&s->state, memory_order_acquire);
	return (*moment & PHASE) == LIVE;
}

/* Generation 0 is the one that nothing was before. */
static uint32_t next_generation(uint32_t state)
{
	uint32_t next = (state & ~PHASE) + GENERATION;

	return next ? next : GENERATION;
}

static void unmap_keeping_errno(void *addr, size_t length)
{
	int saved = errno;

	munmap(addr, length);
	errno = saved;
}

/* Map the lease elsewhere. Returns 0, or -1 with errno set. */
static int map_anew(struct survivor *s, int lease_fd, uint64_t offset,
		    struct fresh *fresh)
{
	/* Pages that are huge there must be so where they are moved to, too. */
	uint64_t va_hint = atomic_load(&s->start) - offset;

	fresh->length = atomic_load(&s->length);
	fresh->dontfork = s->dontfork;
	fresh->addr = barlease_place(lease_fd, offset, fresh->length, s->prot, va_hint);
	if (fresh->addr == MAP_FAILED)
		return -1;
	if (s->dontfork && madvise(fresh->addr, fresh->length, MADV_DONTFORK)) {
		unmap_keeping_errno(fresh->addr, fresh->length);
		return -1;
	}
	fresh->link = &all_fresh;
	fresh->next = all_fresh;
	if (fresh->next)
		fresh->next->link = &fresh->next;
	all_fresh = fresh;
	return 0;
}

/* What it lacks it may have itself, and who reads it may take that again. */
static int map_anew_with_room(struct survivor *s, int lease_fd, uint64_t offset,
			      struct fresh *fresh)
{
	for (int tries = NR_RESTORES;; tries--) {
		int ret = map_anew(s, lease_fd, offset, fresh), saved = errno;

		if (ret && saved == ENOMEM && tries && barlease_survivor_lost(s) &&
		    barlease_unfill(s))
			continue;
		errno = saved;
		return ret;
	}
}

/* See that it is there. A file that is no DMABUF has nothing to say to that. */
static bool is_there(int lease_fd)
{
	return barlease_prefault(lease_fd) == 0 || errno == ENOTTY;
}

/*
 * Move the fresh mapping to the lost one's place, which nobody touches. mmap() over
 * that could fail with the old one gone, as the lease may be revoked just then; to
 * mremap() that does not matter. Returns as move_back(). phase: whether it is covered
 * or not.
 */
static int move(struct survivor *s, void *fresh, uint32_t state, uint32_t *phase)
{
	size_t length = atomic_load(&s->length);
	int saved;

	/* To move one needs room. And if it can't be moved it is to be covered. */
	if (barlease_unfill(s) || (*phase == LOSING && barlease_cover(s, MAP_FIXED)))
		*phase = LOST;
	/* Where that took so long that somebody else has covered it. */
	if (atomic_load(&s->state) != state) {
		munmap(fresh, length);
		return 1;
	}
	if (mremap(fresh, length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
		   (void *)atomic_load(&s->start)) != MAP_FAILED)
		return 0;
	saved = errno;
	munmap(fresh, length);
	/* Where others may map, who lacks room has nothing to give back. */
	barlease_forget_pieces(s);
	/* It may have left a hole, or may not; another thread may be in it. */
	if (barlease_cover(s, MAP_FIXED_NOREPLACE))
		*phase = LOST;
	errno = saved;
	return -1;
}

/* What there is of the lease is not to be seen while the map is lost. */
static void hide_lease(struct survivor *s, uint32_t generation)
{
	/* Who is about to say that it is covered means what was there before. */
	if (!barlease_cover(s, MAP_FIXED))
		atomic_store(&s->state, next_generation(generation) | LOSING);
}

/* In one go: a signal's handler that uses the map would wait for what it stops. */
static int move_at_once(struct survivor *s, void *fresh, uint32_t was)
{
	uint32_t generation = next_generation(was), phase = was & PHASE, state;
	int ret = 1;

	state = generation | RESTORING;
	atomic_store(&s->state, state);
	if (barlease_slot_try_drain(s, state))
		ret = move(s, fresh, state, &phase);
	else
		munmap(fresh, atomic_load(&s->length));
	if (!atomic_compare_exchange_strong(&s->state, &state,
					    generation | (ret ? phase : LIVE)) &&
	    ret == 0) {
		hide_lease(s, generation);
		ret = 1;
	}
	barlease_futex_wake(&s->state, INT_MAX);
	return ret;
}

/*
 * Returns 0; 1: a thread did not wait until it was done, or not leave until it was
 * begun, and all is to be done again; or -1 with errno set. In any case fresh is not
 * there any more.
 */
static int move_back(struct survivor *s, void *fresh)
{
	uint32_t was = atomic_load(&s->state);
	struct signals old;
	int ret;

	/* Another thread has restored it, since we looked. */
	if ((was & PHASE) == LIVE) {
		munmap(fresh, atomic_load(&s->length));
		return 0;
	}
	barlease_signals_block(&old);
	ret = move_at_once(s, fresh, was);
	barlease_signals_restore(&old);
	/* Of what its pieces took. */
	if (ret == 0)
		barlease_make_spares();
	return ret;
}

/* One attempt; returns as move_back(). */
static int try_restore(struct survivor *s, int lease_fd, uint64_t offset)
{
	struct fresh fresh;
	bool there;
	int ret;

	pthread_mutex_lock(&lock);
	/* Nor any more, where it is a child that goes on with its parent's call. */
	if (barlease_slot_is_ours(s)) {
		ret = map_anew_with_room(s, lease_fd, offset, &fresh);
	} else {
		errno = EINVAL;
		ret = -1;
	}
	pthread_mutex_unlock(&lock);
	if (ret)
		return -1;
	/* Forks need not wait for the fences of others. */
	there = is_there(lease_fd);
	pthread_mutex_lock(&lock);
	if (!fresh.addr) {
		pthread_mutex_unlock(&lock);
		return 1;
	}
	forget(&fresh);
	if (there)
		ret = move_back(s, fresh.addr);
	else
		unmap_keeping_errno(fresh.addr, fresh.length);
	pthread_mutex_unlock(&lock);
	return there ? ret : -1;
}

int barlease_survivor_restore(struct survivor *s, int lease_fd, uint64_t offset)
{
	int saved, ret = 1;

	if (!barlease_slot_is_ours(s)) {
		errno = EINVAL;
		return -1;
	}
	if (!barlease_survivor_lost(s))
		return 0;
	for (int i = 0; ret > 0 && i < NR_RESTORES; i++)
		ret = try_restore(s, lease_fd, offset);
	saved = ret > 0 ? EIO : errno;
	/* Another thread may have done it meanwhile. */
	if (ret == 0 || !barlease_survivor_lost(s))
		return 0;
	errno = saved;
	return -1;
}
