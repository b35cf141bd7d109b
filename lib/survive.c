// SPDX-License-Identifier: MIT
/*
 * survive.c - mappings whose loss a program survives.
 *
 * A signal handler has to find the mapping of an address and replace its pages
 * without a lock and without allocating, while other threads map, unmap, restore
 * and are in that handler, too. So what it needs lies in slots that are never
 * freed, and it does three things only, each one atomic step or system call:
 *
 * - It counts itself in the slot's use. Who takes a mapping away or restores it
 *   changes use or state first and then waits until nobody is counted: a handler
 *   that came before is done by then, a later one sees the change.
 * - It turns state from LIVE to LOSING, covers the whole mapping with ones, and
 *   turns it to LOST. Whoever finds LOSING does the rest too, rather than wait for
 *   a thread that may not run: handlers, and who asks whether it is lost.
 * - It fills the piece around the address with ones, whoever has covered it.
 *
 * The memory of ones is far smaller than a mapping may be. To repeat it over all
 * of a large one would take many system calls and, as the kernel can't merge
 * repetitions, many of the mappings that a process may have (vm.max_map_count,
 * 65,530); and each counts as memory that may be written, of which a process may
 * have only so much (RLIMIT_DATA, vm.overcommit_memory). So behind the first piece,
 * of ONES_SIZE, nothing is put: an access there is SIGBUS again, upon which its
 * piece is filled. After MAX_PIECES of them, or ALL_PIECES of all maps, or when the
 * kernel allows no more, nothing is put everywhere and filling starts over: what was
 * stored there was to be dropped anyway. A sparse file would read as zeroes.
 *
 * At the limit of mappings even that would be refused, so there are spares to give
 * up, see spares.h: what takes a mapping gives up one of them, and starting over makes
 * them anew. There is no lock: who finds none, as other threads are at that, waits
 * a little and tries again, a number of times.
 */
#define _GNU_SOURCE
#include "survive.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "barlease.h"
#include "ones.h"
#include "owner.h"
#include "place.h"
#include "sigbus.h"
#include "spares.h"

/* use: is there a mapping, does somebody wait, and how many handlers are at it. */
#define USED     (1u << 31)
#define AWAITED  (1u << 30)
#define HANDLERS (AWAITED - 1)

/* state: one of these, and above it the generation, one more with each restore. */
enum { LIVE, LOSING, LOST, RESTORING };
#define PHASE       3u
#define GENERATION  4u
#define NR_RESTORES 64 /* attempts, while there are faults of other threads */

/* Each piece takes two mappings, where those around it are not filled. */
#define MAX_PIECES 256  /* of a map */
#define ALL_PIECES 4096 /* of all maps */
#define MIN_PIECES 4    /* of a map all the same: one access may need several */

#define NR_TRIES 64 /* while other threads take what there is of mappings */

#define SLOTS_PER_BLOCK 64

struct survivor {
	_Atomic uint32_t use;
	_Atomic uint32_t state;
	_Atomic uint32_t pieces;      /* filled since it was covered, about */
	_Atomic uint64_t first_fault; /* see is_first_fault() */
	_Atomic uintptr_t start;
	_Atomic size_t length;
	struct spares spares; /* of a large one */
	/* Constant while it is used. */
	int prot;
	bool dontfork;
	struct owner owner; /* where a child has none */
	struct survivor *next_free;
};

struct block {
	struct survivor slots[SLOTS_PER_BLOCK];
	_Atomic(struct block *) next;
};

static struct block first_block;

static _Atomic uint32_t all_pieces;

/* For small maps, of which each leaves as many as it found, and for who finds none. */
static struct spares common;

/* Orders all but handlers: who adds, removes, restores, forks. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct survivor *free_slots;
static struct block *last_block; /* NULL: nothing was prepared yet */
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

struct cursor {
	struct block *block;
	int slot;
};

static struct survivor *next_slot(struct cursor *at)
{
	if (at->slot == SLOTS_PER_BLOCK) {
		at->block =
			atomic_load_explicit(&at->block->next, memory_order_acquire);
		at->slot = 0;
	}
	return at->block ? &at->block->slots[at->slot++] : NULL;
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

/* Take hold of a slot: what it says is constant until it is let go. */
static bool enter(struct survivor *s)
{
	return atomic_fetch_add(&s->use, 1) & USED;
}

static void leave(struct survivor *s)
{
	uint32_t use = atomic_fetch_sub(&s->use, 1);

	if (use & AWAITED && (use & HANDLERS) == 1)
		syscall(SYS_futex, &s->use, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* A child that sees ones where it should see nothing does no harm. */
static void keep_from_children(struct survivor *s, char *addr, size_t length)
{
	if (s->dontfork)
		syscall(SYS_madvise, addr, length, MADV_DONTFORK);
}

static bool is_large(struct survivor *s)
{
	return atomic_load(&s->length) > ONES_SIZE;
}

static struct spares *spares_of(struct survivor *s)
{
	return is_large(s) ? &s->spares : &common;
}

static void refill_spares(struct survivor *s)
{
	barlease_spares_fill(spares_of(s));
	barlease_spares_fill(&common);
}

/* Who has given up the last needs that room to start over: leave it to that thread. */
static bool await_last_spare(struct survivor *s)
{
	for (int i = 0; i < NR_TRIES; i++) {
		if (barlease_spares_fill(spares_of(s)) || errno != ENOMEM)
			return true;
		syscall(SYS_sched_yield);
	}
	return false;
}

typedef bool (*map_function)(char *addr, size_t length, int prot, int flags);

/* kept: how many spares are not for this, which then waits for nobody's either. */
static bool put(struct survivor *s, map_function map, size_t from, size_t length,
		int flags, int kept)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	char *addr = (char *)atomic_load(&s->start) + from;

	for (int i = 0; !map(addr, length, s->prot, flags); i++) {
		if (errno != ENOMEM || i == NR_TRIES)
			return false;
		if (barlease_spares_give_up(spares_of(s), kept))
			continue;
		if (kept)
			return false;
		/* Long enough for a thread to run on that was interrupted at that. */
		if (!barlease_spares_give_up(&common, 0))
			syscall(SYS_nanosleep, &moment, NULL);
	}
	keep_from_children(s, addr, length);
	return true;
}

static bool put_ones(struct survivor *s, size_t from, int flags, int kept)
{
	size_t rest = atomic_load(&s->length) - from;

	return put(s, barlease_ones_map, from, rest < ONES_SIZE ? rest : ONES_SIZE,
		   flags, kept);
}

static bool put_nothing(struct survivor *s, size_t from, int flags)
{
	return put(s, barlease_nothing_map, from, atomic_load(&s->length) - from, flags,
		   0);
}

/* May it have another? Those of small maps are no mappings more. */
static bool count_piece(struct survivor *s)
{
	uint32_t all, own;

	if (!is_large(s))
		return true;
	all = atomic_fetch_add(&all_pieces, 1);
	own = atomic_fetch_add(&s->pieces, 1);
	return own < MIN_PIECES || (own < MAX_PIECES && all < ALL_PIECES);
}

static void forget_pieces(struct survivor *s)
{
	atomic_fetch_sub(&all_pieces, atomic_exchange(&s->pieces, 0));
}

static bool cover(struct survivor *s, int flags)
{
	forget_pieces(s);
	if (is_large(s) && !put_nothing(s, ONES_SIZE, flags))
		return false;
	return put_ones(s, 0, flags, 0);
}

/*
 * Put ones around an address of a mapping that is lost. A spare is kept to start over
 * with; it is made anew before anything else takes the room that this has left.
 */
static bool fill(struct survivor *s, uintptr_t addr)
{
	size_t at = (addr - atomic_load(&s->start)) / ONES_SIZE * ONES_SIZE;

	for (int i = 0; i < NR_TRIES; i++) {
		bool allowed = count_piece(s) && await_last_spare(s);

		/* What is left after starting over is other threads'. */
		if ((allowed || i > 0) && put_ones(s, at, MAP_FIXED, 1))
			return true;
		forget_pieces(s);
		if (!put_nothing(s, 0, MAP_FIXED))
			return false;
		refill_spares(s);
	}
	return false;
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

static bool lose(struct survivor *s, uintptr_t addr)
{
	uint32_t phase, state = atomic_load(&s->state);

	for (;;) {
		switch (state & PHASE) {
		case LIVE:
			if (is_first_fault(s, state))
				return true;
			phase = LOSING;
			break;
		case LOSING:
			if (!cover(s, MAP_FIXED))
				return false;
			phase = LOST;
			break;
		case RESTORING: /* It is not, then. */
			phase = LOST;
			break;
		default:
			return fill(s, addr);
		}
		if (atomic_compare_exchange_strong(&s->state, &state,
						   (state & ~PHASE) | phase))
			state = (state & ~PHASE) | phase;
	}
}

/* A child has the slots but not the mappings that it was not to have. */
static bool is_ours(struct survivor *s)
{
	return !s->dontfork || barlease_owner_is_us(&s->owner);
}

static bool lose_and_refill(struct survivor *s, uintptr_t addr)
{
	bool survived = lose(s, addr);

	refill_spares(s);
	return survived;
}

/* The kernel's own signal set, which has no room for more than it needs. */
static void set_signal_mask(const uint64_t *mask, uint64_t *old)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, mask, old, sizeof(*mask));
}

bool barlease_survive(const void *addr)
{
	uint64_t all = UINT64_MAX, mask;
	struct cursor at = { &first_block, 0 };
	bool survived = false;
	struct survivor *s;

	/* Who waits for this handler does not wait for others on top of it. */
	set_signal_mask(&all, &mask);
	while (!survived && (s = next_slot(&at))) {
		if (!holds(s, (uintptr_t)addr))
			continue;
		/* Again, as the slot may have become another mapping's. */
		if (enter(s) && holds(s, (uintptr_t)addr) && is_ours(s))
			survived = lose_and_refill(s, (uintptr_t)addr);
		leave(s);
	}
	set_signal_mask(&mask, NULL);
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
	uint64_t all = UINT64_MAX, mask;
	int saved = errno;
	uint32_t state;

	set_signal_mask(&all, &mask);
	enter(s);
	state = atomic_load(&s->state);
	if ((state & PHASE) == LOSING && is_ours(s) && cover(s, MAP_FIXED) &&
	    atomic_compare_exchange_strong(&s->state, &state, (state & ~PHASE) | LOST))
		state = (state & ~PHASE) | LOST;
	refill_spares(s);
	leave(s);
	set_signal_mask(&mask, NULL);
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

/* Wait until the handlers that are at it have left. */
static void drain(struct survivor *s)
{
	uint32_t use = atomic_fetch_or(&s->use, AWAITED) | AWAITED;

	while (use & HANDLERS) {
		syscall(SYS_futex, &s->use, FUTEX_WAIT_PRIVATE, use, NULL, NULL, 0);
		use = atomic_load(&s->use);
	}
	atomic_fetch_and(&s->use, ~AWAITED);
}

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/* Of handlers that were at it in other threads the child has only the traces. */
static void after_fork_child(void)
{
	struct cursor at = { &first_block, 0 };
	struct survivor *s;

	atomic_store(&all_pieces, 0);
	while ((s = next_slot(&at))) {
		atomic_fetch_and(&s->use, USED);
		atomic_fetch_add(&all_pieces, atomic_load(&s->pieces));
	}
	for (; all_fresh; all_fresh = all_fresh->next)
		if (!all_fresh->dontfork)
			munmap(all_fresh->addr, all_fresh->length);
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

static void free_block(struct block *block)
{
	for (int i = 0; i < SLOTS_PER_BLOCK; i++) {
		block->slots[i].next_free = free_slots;
		free_slots = &block->slots[i];
	}
	last_block = block;
}

static int prepare(void)
{
	if (atfork_error) {
		errno = atfork_error;
		return -1;
	}
	if (barlease_ones_prepare())
		return -1;
	if (last_block)
		return 0;
	/*
	 * Where a program has us linked in statically, its loader may look a function
	 * up at its first call, with locks. This one the handlers may be the first to
	 * call; what else they call was called above.
	 */
	syscall(SYS_gettid);
	free_block(&first_block);
	return 0;
}

static struct survivor *take_slot(void)
{
	struct survivor *s;
	struct block *block;

	if (!free_slots) {
		block = mmap(NULL, sizeof(*block), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (block == MAP_FAILED)
			return NULL;
		atomic_store_explicit(&last_block->next, block, memory_order_release);
		free_block(block);
	}
	s = free_slots;
	free_slots = s->next_free;
	return s;
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
	s = take_slot();
	if (!s)
		goto out;
	s->prot = options->prot;
	s->dontfork = options->dontfork;
	s->owner = us;
	atomic_store(&s->state, LIVE);
	atomic_store(&s->first_fault, 0);
	atomic_store(&s->start, (uintptr_t)addr);
	atomic_store(&s->length, length);
	/* As many as there are: a limit may never matter. */
	refill_spares(s);
	atomic_fetch_or(&s->use, USED);
out:
	pthread_mutex_unlock(&lock);
	return s;
}

int barlease_survivor_unmap(struct survivor *s)
{
	int ret;

	pthread_mutex_lock(&lock);
	atomic_fetch_and(&s->use, ~USED);
	drain(s);
	ret = is_ours(s) ?
		      munmap((void *)atomic_load(&s->start), atomic_load(&s->length)) :
		      0;
	if (ret) {
		atomic_fetch_or(&s->use, USED);
	} else {
		atomic_store(&s->length, 0);
		forget_pieces(s);
		while (barlease_spares_give_up(&s->spares, 0))
			;
		s->next_free = free_slots;
		free_slots = s;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

bool barlease_survivor_live(const struct survivor *s, uint32_t *moment)
{
	*moment = atomic_load_explicit(&s->state, memory_order_acquire);
	return (*moment & PHASE) == LIVE;
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

static void forget(struct fresh *fresh)
{
	*fresh->link = fresh->next;
	if (fresh->next)
		fresh->next->link = fresh->link;
}

/* See that it is there. A file that is no DMABUF has nothing to say to that. */
static bool is_there(int lease_fd)
{
	return barlease_prefault(lease_fd) == 0 || errno == ENOTTY;
}

/*
 * Move the fresh mapping to the lost one's place. mmap() over that could fail
 * with the old one gone, as the lease may be revoked just then; to mremap() that
 * does not matter. Returns 0; 1: a thread faulted meanwhile, and all is to be done
 * again; or -1 with errno set.
 */
static int move_back(struct survivor *s, void *fresh)
{
	size_t length = atomic_load(&s->length);
	uint32_t was = atomic_load(&s->state), state, restored;

	/* Another thread has restored it, since we looked. */
	if ((was & PHASE) == LIVE) {
		munmap(fresh, length);
		return 0;
	}
	state = (was & ~PHASE) | RESTORING;
	atomic_store(&s->state, state);
	drain(s);
	if (mremap(fresh, length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
		   (void *)atomic_load(&s->start)) == MAP_FAILED) {
		int saved = errno;

		/* Not more lost than it was, if it could not be covered then. */
		atomic_store(&s->state, was);
		munmap(fresh, length);
		/* It may have left a hole, or may not; another thread may be in it. */
		cover(s, MAP_FIXED_NOREPLACE);
		errno = saved;
		return -1;
	}
	forget_pieces(s);
	refill_spares(s);
	/* Generation 0 is the one that nothing was before. */
	restored = (state & ~PHASE) + GENERATION;
	if (restored == 0)
		restored = GENERATION;
	return atomic_compare_exchange_strong(&s->state, &state, restored | LIVE) ? 0 :
										    1;
}

/* One attempt; returns as move_back(). */
static int try_restore(struct survivor *s, int lease_fd, uint64_t offset)
{
	struct fresh fresh;
	bool there;
	int ret;

	pthread_mutex_lock(&lock);
	ret = map_anew(s, lease_fd, offset, &fresh);
	pthread_mutex_unlock(&lock);
	if (ret)
		return -1;
	/* Forks need not wait for the fences of others. */
	there = is_there(lease_fd);
	pthread_mutex_lock(&lock);
	forget(&fresh);
	if (there)
		ret = move_back(s, fresh.addr);
	else
		unmap_keeping_errno(fresh.addr, fresh.length);
	pthread_mutex_unlock(&lock);
	return there ? ret : -1;
}

/* What an attempt has left of the lease is not to be seen while the map is lost. */
static void hide_lease(struct survivor *s)
{
	pthread_mutex_lock(&lock);
	if (barlease_survivor_lost(s))
		cover(s, MAP_FIXED);
	pthread_mutex_unlock(&lock);
}

int barlease_survivor_restore(struct survivor *s, int lease_fd, uint64_t offset)
{
	int saved, ret = 1;

	if (!is_ours(s)) {
		errno = EINVAL;
		return -1;
	}
	if (!barlease_survivor_lost(s))
		return 0;
	for (int i = 0; ret > 0 && i < NR_RESTORES; i++) {
		ret = try_restore(s, lease_fd, offset);
		if (ret > 0)
			hide_lease(s);
	}
	saved = ret > 0 ? EIO : errno;
	/* Another thread may have done it meanwhile. */
	if (ret == 0 || !barlease_survivor_lost(s))
		return 0;
	errno = saved;
	return -1;
}
