// SPDX-License-Identifier: MIT
/*
 * lessee.c - a process that does with its leases whatever a process may, in
 * several threads, and checks what it sees against the model.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "access.h"
#include "barlease.h"
#include "held.h"
#include "lessee.h"
#include "touch.h"

static unsigned int number;
static const struct inboxes *boxes;

static _Thread_local struct random numbers;

static int errno_of(int ret)
{
	return ret ? errno : 0;
}

/* --- which lease, which piece ------------------------------------------- */

/* Mostly the lease that is about to be revoked; then all race for it. */
static int aim(const struct step *step)
{
	uint32_t aimed = world->aims[step->r[3] % LEASE_THREADS];

	return one_in(step->r[3], 6) ? -1 : (int)aimed - 1;
}

static bool is_dead(const struct terms *terms)
{
	return oracle_dead(terms->id, moment(terms));
}

/*
 * The one that is aimed at, else one that lives. Most are dead: they are used now
 * and then, as what they may answer is soon tried.
 */
static struct held *pick_held(const struct step *step)
{
	int aimed = aim(step);

	for (uint64_t i = 0; i < NR_HELD; i++) {
		struct held *h = held_enter(step->r[0] + i);

		if (h && !is_dead(&h->terms) &&
		    (aimed < 0 || (int)h->terms.index == aimed))
			return h;
		if (h)
			held_leave(h);
	}
	return one_in(step->r[2], 16) ? held_enter(step->r[0]) : NULL;
}

/*
 * Likewise; what is dead is buried. The slot itself may be read without its lock, where
 * a wrong guess is harmless.
 */
static struct slot *pick_slot(const struct step *step)
{
	int aimed = aim(step);
	uint64_t start = step->r[0] % NR_SLOTS;

	for (uint64_t i = 0; i < NR_SLOTS; i++) {
		struct slot *slot = &slots[(start + i) % NR_SLOTS];

		if (slot->view.nr_parts && !is_dead(&slot->view.terms) &&
		    (aimed < 0 || slot->view.terms.index == (uint32_t)aimed))
			return slot;
	}
	return &slots[start];
}

/* Some pages of a part: few mostly, or many, or all. */
static struct part pick_piece(const struct part *part, uint64_t r)
{
	uint64_t pages = part->length / PAGE_SIZE, nr, first;
	struct part piece = *part;

	switch (r % 4) {
	case 0:
		nr = pages;
		break;
	case 1:
		nr = 1 + (r >> 8) % pages;
		break;
	default:
		nr = 1 + (r >> 8) % (pages < 4 ? pages : 4);
		break;
	}
	first = (r >> 32) % (pages - nr + 1);
	piece.at += first * PAGE_SIZE;
	piece.length = nr * PAGE_SIZE;
	piece.page += (uint32_t)first;
	return piece;
}

/* --- what it does ------------------------------------------------------- */

static void touch(const struct step *step, bool store)
{
	enum op op = store ? OP_STORE : OP_LOAD;
	struct view view;

	if (!slot_enter(pick_slot(step), &view))
		return;
	op_begin(op, &view.terms, -1, (uint64_t)(view.slot - slots), 0);
	if (one_in(step->r[1], 3))
		touch_one(&view, step->r[2], store);
	else
		touch_some(&view, step->r[2], store);
	op_end(op, &view.terms, -1, 0);
	slot_leave(view.slot);
}

static void act_load(const struct step *step)
{
	touch(step, false);
}

static void act_store(const struct step *step)
{
	touch(step, true);
}

/* Unmap all of a slot, which is free then. */
static void unmap_slot(struct slot *slot)
{
	struct view draft;

	if (!slot_begin(slot, &draft, false))
		return;
	op_begin(OP_MUNMAP, &draft.terms, -1, (uint64_t)(slot - slots), 0);
	if (munmap(slot->base, SLOT_SIZE))
		fail((int)draft.terms.index, -1, "munmap: expected success, saw %s",
		     errno_name(errno));
	draft.nr_parts = 0;
	slot_end(&draft);
	op_end(OP_MUNMAP, &draft.terms, -1, 0);
}

/* Change a piece of a mapping: change() does it and notes it in the draft. */
static void change_slot(struct slot *slot, const struct step *step, enum op op,
			int (*change)(struct view *draft, const struct part *piece,
				      const struct step *step))
{
	struct view draft;
	struct part piece;
	int error;

	if (!slot_begin(slot, &draft, false))
		return;
	if (draft.nr_parts + MORE_PARTS > MAX_PARTS) {
		slot_end(&draft);
		unmap_slot(slot);
		return;
	}
	piece = pick_piece(
		&draft.parts[(step->r[0] >> 32) % (unsigned int)draft.nr_parts],
		step->r[1]);
	op_begin(op, &draft.terms, -1, (uint64_t)(slot - slots), piece.length);
	error = change(&draft, &piece, step);
	slot_end(&draft);
	op_end(op, &draft.terms, -1, error);
}

static int change_munmap(struct view *draft, const struct part *piece,
			 const struct step *step)
{
	(void)step;
	view_carve(draft, piece->at, piece->length);
	if (munmap(draft->slot->base + piece->at, piece->length))
		fail((int)draft->terms.index, -1, "munmap: expected success, saw %s",
		     errno_name(errno));
	return 0;
}

static void act_munmap(const struct step *step)
{
	if (one_in(step->r[2], 2))
		unmap_slot(pick_slot(step));
	else
		change_slot(pick_slot(step), step, OP_MUNMAP, change_munmap);
}

/* To the other half of the slot, where the same, smaller, or no huge entry fits. */
static int change_mremap(struct view *draft, const struct part *piece,
			 const struct step *step)
{
	static const uint64_t offs[] = { 0, MIB(2), PAGE_SIZE, 37 * PAGE_SIZE };
	bool many = draft->terms.nr_pages > MANY_PAGES;
	uint64_t half = SLOT_SIZE / 2;
	uint64_t to = piece->at % half % GIB(1) + offs[step->r[2] % (many ? 2 : 4)] +
		      (piece->at < half ? half : 0);
	struct view new = *draft;
	struct part moved = *piece;
	char *base = draft->slot->base;
	void *at;

	if (one_in(step->r[3], 8)) {
		at = mremap(base + piece->at, piece->length, piece->length + PAGE_SIZE,
			    MREMAP_MAYMOVE);
		if (at != MAP_FAILED || errno != EFAULT)
			fail((int)draft->terms.index, -1,
			     "mremap that grows: expected EFAULT, saw %s",
			     at == MAP_FAILED ? errno_name(errno) : "success");
		return EFAULT;
	}
	/*
	 * The first goes to the half of the slot where nothing has been; what comes
	 * after may put a page where a store to another one is under way.
	 */
	if (draft->moved)
		world->leases[draft->terms.index].shuffled = draft->terms.id.export;
	new.moved = true;
	moved.at = to;
	view_carve(&new, piece->at, piece->length);
	view_carve(&new, to, piece->length);
	view_insert(&new, moved);
	at = mremap(base + piece->at, piece->length, piece->length,
		    MREMAP_MAYMOVE | MREMAP_FIXED, base + to);
	if (at == MAP_FAILED)
		fail((int)draft->terms.index, -1, "mremap: expected success, saw %s",
		     errno_name(errno));
	*draft = new;
	return 0;
}

static void act_mremap(const struct step *step)
{
	change_slot(pick_slot(step), step, OP_MREMAP, change_mremap);
}

static int change_mprotect(struct view *draft, const struct part *piece,
			   const struct step *step)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
				     PROT_READ | PROT_EXEC };
	int prot = prots[step->r[2] % 16 ? step->r[2] % 3 : 3];
	bool refused = prot & PROT_EXEC ||
		       (prot & PROT_WRITE && draft->terms.access == O_RDONLY);
	struct view new = *draft;
	struct part changed = *piece;
	int error;

	changed.prot = prot;
	view_carve(&new, piece->at, piece->length);
	view_insert(&new, changed);
	error = errno_of(mprotect(draft->slot->base + piece->at, piece->length, prot));
	if (error != (refused ? EACCES : 0))
		fail((int)draft->terms.index, -1, "mprotect(%#x): expected %s, saw %s",
		     (unsigned int)prot, refused ? "EACCES" : "success",
		     errno_name(error));
	if (!refused)
		*draft = new;
	return error;
}

static void act_mprotect(const struct step *step)
{
	change_slot(pick_slot(step), step, OP_MPROTECT, change_mprotect);
}

/* What decides about children; DONTFORK is for good on such mappings. */
static int change_madvise(struct view *draft, const struct part *piece,
			  const struct step *step)
{
	bool leave_out = one_in(step->r[2], 8);
	struct view new = *draft;
	struct part changed = *piece;

	changed.left_out |= leave_out;
	view_carve(&new, piece->at, piece->length);
	view_insert(&new, changed);
	if (madvise(draft->slot->base + piece->at, piece->length,
		    leave_out ? MADV_DONTFORK : MADV_KEEPONFORK))
		fail((int)draft->terms.index, -1, "madvise: expected success, saw %s",
		     errno_name(errno));
	*draft = new;
	return 0;
}

static void act_madvise(const struct step *step)
{
	change_slot(pick_slot(step), step, OP_MADVISE, change_madvise);
}

/* Load from each of its pages, or from one. */
static void look(struct slot *slot, const struct step *step, bool all)
{
	struct view view;

	if (!slot_enter(slot, &view))
		return;
	op_begin(OP_LOAD, &view.terms, -1, (uint64_t)(slot - slots), 1 + all);
	if (all)
		touch_all(&view);
	else
		touch_one(&view, step->r[2], false);
	op_end(OP_LOAD, &view.terms, -1, 0);
	slot_leave(slot);
}

/*
 * Every page of a new mapping takes a fault: the race that revoke must win. And
 * while its entries are there, and the lease may still live, cut it somewhere;
 * where an entry is of 1 GiB at once, as those are few.
 */
static void use_new(struct slot *slot, const struct step *step, bool many)
{
	look(slot, step, !many);
	if (!many && !one_in(step->r[0], 3))
		return;
	if (one_in(step->r[1], 2))
		change_slot(slot, step, OP_MPROTECT, change_mprotect);
	else
		change_slot(slot, step, OP_MUNMAP, change_munmap);
	look(slot, step, true);
}

/* mmap() of a piece of a lease into a slot that is empty. */
static int map_piece(const struct held *h, struct view *draft, const struct step *step)
{
	const struct terms *terms = &h->terms;
	struct part all = { .length = terms->nr_pages * PAGE_SIZE };
	bool many = terms->nr_pages > MANY_PAGES;
	/* Of many pages mostly all: a huge entry is for a piece as large as it. */
	struct part part =
		many && !one_in(step->r[0], 4) ? all : pick_piece(&all, step->r[1]);
	uint64_t hint = (terms->va_hint + part.page * PAGE_SIZE) % GIB(1);
	struct moment before, after;
	void *at;
	int error;

	/* Where huge entries fit, or, if that does not mean too many small ones, not.
	 */
	part.at = !many && one_in(step->r[2], 3) ?
			  (step->r[2] >> 40) % 512 * PAGE_SIZE :
			  hint;
	part.prot = terms->access == O_RDWR ? PROT_READ | PROT_WRITE : PROT_READ;
	draft->terms = *terms;
	draft->nr_parts = 0;
	draft->moved = false;

	before = moment(terms);
	at = mmap(draft->slot->base + part.at, part.length, part.prot,
		  MAP_SHARED | MAP_FIXED_NOREPLACE, h->fd,
		  (off_t)(part.page * PAGE_SIZE));
	error = at == MAP_FAILED ? errno : 0;
	after = moment(terms);
	if (!error)
		view_insert(draft, part);
	if (error != 0 && error != ENODEV)
		fail((int)terms->index, -1, "mmap: expected success or ENODEV, saw %s",
		     errno_name(error));
	if (!error && oracle_dead(terms->id, before))
		fail((int)terms->index, -1,
		     "mmap of a dead lease: expected ENODEV, saw "
		     "success");
	if (error && oracle_alive(terms->id, after))
		fail((int)terms->index, -1,
		     "mmap of a live lease: expected success, saw "
		     "ENODEV");
	return error;
}

static bool map_lease(struct held *h, const struct step *step)
{
	for (uint64_t i = 0; i < NR_SLOTS; i++) {
		struct slot *slot = &slots[(step->r[2] + i) % NR_SLOTS];
		struct view draft;
		int error;

		if (!slot_begin(slot, &draft, true))
			continue;
		op_begin(OP_MAP, &h->terms, -1, (uint64_t)(slot - slots), 0);
		error = map_piece(h, &draft, step);
		slot_end(&draft);
		op_end(OP_MAP, &h->terms, -1, error);
		if (!error)
			use_new(slot, step, h->terms.nr_pages > MANY_PAGES);
		return true;
	}
	return false;
}

/* Take one from the inbox and map it at once. */
static void receive(const struct step *step)
{
	struct held *h = held_receive(boxes->out[number]);

	if (!h)
		return;
	if (!is_dead(&h->terms) || one_in(step->r[2], 16))
		map_lease(h, step);
	held_leave(h);
}

/* One of the ways in which a lease can't be mapped. */
static void map_wrong(const struct held *h, const struct step *step)
{
	static const struct {
		int prot, flags, error;
		bool beyond;
	} wrongs[] = {
		{ PROT_READ, MAP_PRIVATE, EINVAL, false },
		{ PROT_READ, MAP_SHARED, EINVAL, true },
		{ PROT_READ | PROT_EXEC, MAP_SHARED, EPERM, false },
	};
	uint64_t size = h->terms.nr_pages * PAGE_SIZE;
	size_t i = step->r[1] % 4;
	int want = i < 3 ? wrongs[i].error : EACCES;
	void *at;

	if (i == 3 && h->terms.access == O_RDWR)
		return;
	op_begin(OP_MAP, &h->terms, -1, 0, 1);
	at = i == 3 ? mmap(NULL, size, PROT_WRITE, MAP_SHARED, h->fd, 0) :
		      mmap(NULL, size, wrongs[i].prot, wrongs[i].flags, h->fd,
			   wrongs[i].beyond ? (off_t)PAGE_SIZE : 0);
	if (at != MAP_FAILED || errno != want)
		fail((int)h->terms.index, -1, "a wrong mmap: expected %s, saw %s",
		     errno_name(want),
		     at == MAP_FAILED ? errno_name(errno) : "success");
	op_end(OP_MAP, &h->terms, -1, want);
}

static void act_map(const struct step *step)
{
	struct held *h = pick_held(step);

	if (!h)
		return;
	if (one_in(step->r[0], 8))
		map_wrong(h, step);
	else if (!map_lease(h, step)) {
		unmap_slot(&slots[step->r[2] % NR_SLOTS]);
		map_lease(h, step);
	}
	held_leave(h);
}

static void act_prefault(const struct step *step)
{
	struct held *h = pick_held(step);
	struct moment before, after;
	unsigned int flags;
	bool may_fail;
	int error;

	if (!h)
		return;
	op_begin(OP_PREFAULT, &h->terms, -1, 0, 0);
	before = moment(&h->terms);
	error = errno_of(barlease_prefault(h->fd));
	after = moment(&h->terms);
	flags = device_flags(before.device) | device_flags(after.device);
	may_fail = before.device != after.device ||
		   flags & (DEVICE_OFF | DEVICE_REMOVED | DEVICE_CHANGING);
	if ((error != 0 && error != ENODEV && error != EIO) ||
	    (oracle_dead(h->terms.id, before) && error != ENODEV) ||
	    (oracle_alive(h->terms.id, after) && error == ENODEV) ||
	    (error == EIO && !may_fail))
		fail((int)h->terms.index, (int)h->terms.device,
		     "prefault of a lease that is %s: saw %s; lease %#llx, then %#llx, "
		     "device %#llx, then %#llx",
		     oracle_dead(h->terms.id, before) ? "dead" :
		     oracle_alive(h->terms.id, after) ? "live" :
							"going",
		     errno_name(error), (unsigned long long)before.lease,
		     (unsigned long long)after.lease, (unsigned long long)before.device,
		     (unsigned long long)after.device);
	op_end(OP_PREFAULT, &h->terms, -1, error);
	held_leave(h);
}

/* --- children ----------------------------------------------------------- */

/* Of what the parent had, a child lacks what was to be left out. */
static void inherit(struct view *view)
{
	int kept = 0;

	for (int i = 0; i < view->nr_parts; i++)
		if (!view->parts[i].left_out)
			view->parts[kept++] = view->parts[i];
	view->nr_parts = kept;
}

__attribute__((noreturn)) static void be_a_child(struct view *views, int nr,
						 const struct step *step)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me = ACTOR_CHILD + (me - ACTOR_LESSEE);
	for (int i = 0; i < nr; i++) {
		struct view *view = &views[(step->r[2] + (uint64_t)i) % (uint64_t)nr];
		bool store = one_in(step->r[1], 2);
		enum op op = store ? OP_STORE : OP_LOAD;

		/* One that was changing at the fork may be this or that. */
		if (view->slot->version != view->version || view->version & 1)
			continue;
		inherit(view);
		if (!view->nr_parts)
			continue;
		op_begin(op, &view->terms, -1, (uint64_t)(view->slot - slots), 2);
		touch_one(view, step->r[1], store);
		touch_some(view, step->r[2], store);
		op_end(op, &view->terms, -1, 0);
	}
	_exit(0);
}

static void act_fork(const struct step *step)
{
	struct view views[NR_SLOTS];
	const struct terms *terms;
	int nr = 0, status;
	pid_t pid;

	for (int i = 0; i < NR_SLOTS; i++) {
		if (!slot_enter(&slots[i], &views[nr]))
			continue;
		slot_leave(&slots[i]);
		nr++;
	}
	if (!nr)
		return;
	terms = &views[step->r[2] % (uint64_t)nr].terms;
	op_begin(OP_FORK, terms, -1, 0, 0);
	pid = fork();
	if (!pid)
		be_a_child(views, nr, step);
	op_end(OP_FORK, terms, -1, 0);
	if (pid < 0)
		fail(-1, -1, "fork: expected success, saw %s", errno_name(errno));
	if (waitpid(pid, &status, 0) != pid || status)
		fail((int)terms->index, -1,
		     "a child: expected it to return, saw status %#x",
		     (unsigned int)status);
}

/* --- fds ---------------------------------------------------------------- */

static void act_pass(const struct step *step)
{
	struct held *h = pick_held(step);
	int error;

	if (!h)
		return;
	/* Not too many that are dead, else there are soon no others. */
	if (is_dead(&h->terms) && !one_in(step->r[2], 4)) {
		held_leave(h);
		return;
	}
	op_begin(OP_PASS, &h->terms, -1, 0, 0);
	error = parcel_send(boxes->in[step->r[1] % NR_LESSEES], h->fd, &h->terms);
	if (error && error != EAGAIN)
		fail((int)h->terms.index, -1, "sendmsg: expected success, saw %s",
		     errno_name(error));
	op_end(OP_PASS, &h->terms, -1, error);
	held_leave(h);
}

static void act_close(const struct step *step)
{
	struct held *h = held_enter(step->r[0]);

	if (!h)
		return;
	held_leave(h);
	held_close(h);
}

/* See that nothing is left of what is dead, then unmap it. */
static void bury_slot(struct slot *slot)
{
	struct view view;
	bool dead;

	if (!slot_enter(slot, &view))
		return;
	dead = is_dead(&view.terms);
	if (dead) {
		op_begin(OP_LOAD, &view.terms, -1, (uint64_t)(slot - slots), 3);
		touch_all(&view);
		op_end(OP_LOAD, &view.terms, -1, 0);
	}
	slot_leave(slot);
	if (dead)
		unmap_slot(slot);
}

/* Some of what is dead is kept, as it keeps the lease's memory. */
static void bury(const struct step *step)
{
	struct held *h = held_enter(step->r[1]);

	for (uint64_t i = 0; i < NR_SLOTS && !one_in(step->r[2], 3); i++)
		bury_slot(&slots[(step->r[1] + i) % NR_SLOTS]);
	if (h) {
		bool dead = is_dead(&h->terms);

		if (dead && one_in(step->r[2], 16))
			map_lease(h, step);
		held_leave(h);
		if (dead && one_in(step->r[3], 2))
			held_close(h);
	}
}

/* --- the threads -------------------------------------------------------- */

static void (*const choices[])(const struct step *step) = {
	act_load,     act_store,   act_map,  act_prefault, act_munmap, act_mremap,
	act_mprotect, act_madvise, act_fork, act_pass,     act_close,
};
static const unsigned int weights[] = { 16, 16, 40, 4, 10, 6, 6, 3, 2, 3, 1 };

static void *run_thread(void *arg)
{
	uint32_t generation;

	me = ACTOR_LESSEE + number * LESSEE_THREADS + (unsigned int)(uintptr_t)arg;
	generation = world->actors[me].generation;
	numbers = random_of(world->seed, world->phase, me, generation);
	while (!world->lessees_end) {
		struct step step = next_step(&numbers, weights,
					     sizeof(weights) / sizeof(*weights));

		receive(&step);
		bury(&step);
		choices[step.choice](&step);
		/* Shows that it gets on, even with nothing to do. */
		world->actors[me].steps++;
	}
	return NULL;
}

void lessee_main(unsigned int which, uint32_t generation, const struct inboxes *inboxes)
{
	pthread_t threads[LESSEE_THREADS];

	number = which;
	boxes = inboxes;
	me = ACTOR_LESSEE + number * LESSEE_THREADS;
	setpgid(0, 0);
	if (setgid(LESSEE_UID + number) || setuid(LESSEE_UID + number))
		fail(-1, -1, "setuid: expected success, saw %s", errno_name(errno));
	access_prepare();
	slots_prepare();
	held_prepare();
	for (uintptr_t i = 0; i < LESSEE_THREADS; i++) {
		world->actors[me + i].generation = generation;
		if (pthread_create(&threads[i], NULL, run_thread, (void *)i))
			fail(-1, -1, "pthread_create: expected success");
	}
	for (int i = 0; i < LESSEE_THREADS; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}
