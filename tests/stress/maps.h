/* SPDX-License-Identifier: MIT */
/*
 * maps.h - the mappings of one lessee, and what each address of them may show.
 *
 * Every mapping has a slot of addresses of its own, where nothing else ever
 * lands: what was unmapped stays so until the slot is used anew, and that waits
 * until no thread accesses it. All threads of a process share the slots; a
 * forked child has its copy, as of the address space.
 */
#ifndef MAPS_H
#define MAPS_H

#include <pthread.h>

#include "world.h"

enum { NR_SLOTS = 10, MAX_PARTS = 12, MORE_PARTS = 3 };

/* A piece of a slot that shows pages of the lease. Offsets are in bytes. */
struct part {
	uint64_t at, length;
	uint32_t page; /* of the lease */
	int prot;
	bool left_out; /* MADV_DONTFORK: children have no such piece */
};

/* What a slot has at one moment. */
struct view {
	struct slot *slot;
	uint64_t version; /* odd: it is about to change */
	struct terms terms;
	int nr_parts;
	struct part parts[MAX_PARTS];
	bool moved; /* a part was, to where nothing had been */
};

struct slot {
	pthread_mutex_t lock; /* for what follows */
	unsigned int users;
	struct view view;

	_Atomic uint64_t version; /* view.version, for those without the lock */
	char *base;
};

extern struct slot slots[NR_SLOTS];

/* Half a slot has room for any lease at any alignment. */
#define SLOT_SIZE GIB(8)

void slots_prepare(void);

/* To access: what is there, or false where there is nothing. */
bool slot_enter(struct slot *slot, struct view *view);
void slot_leave(struct slot *slot);
/* Look again. */
void slot_refresh(struct view *view);

/*
 * To change, with what is there as a draft of what will be. false: another
 * thread is at it. With empty it must be unused and empty.
 */
bool slot_begin(struct slot *slot, struct view *draft, bool empty);
void slot_end(const struct view *draft);

/*
 * Take a piece out of the draft, put one in. Each adds one part at most, and no
 * change takes more than MORE_PARTS of them.
 */
void view_carve(struct view *view, uint64_t at, uint64_t length);
void view_insert(struct view *view, struct part part);
const struct part *view_find(const struct view *view, uint64_t at);

/* One load or store, and whether it saw what it may; if not, the run fails. */
void check_load(const struct view *view, uint64_t at);
void check_store(const struct view *view, uint64_t at);

#endif /* MAPS_H */
