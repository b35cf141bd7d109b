// SPDX-License-Identifier: MIT
/*
 * cover.c - what a lost map has in place of the lease.
 *
 * The memory of ones is far smaller than a map may be. To repeat it over all of a
 * large one would take many system calls and, as the kernel can't merge repetitions,
 * many of the mappings that a process may have (vm.max_map_count, 65,530); and each
 * counts as memory that may be written, of which a process may have only so much
 * (RLIMIT_DATA, vm.overcommit_memory). So a large one is covered by nothing, in one
 * mapping: an access there is SIGBUS again, upon which the piece around it, of
 * ONES_SIZE, is filled with ones. After MAX_PIECES, or when the kernel allows no
 * more, all lost maps start over, with nothing: what was stored there was to be
 * dropped anyway. A sparse file would read as zeroes.
 *
 * At the limit of mappings even starting over would be refused, so there are spares
 * to give up, see spares.h. The last of them is not for pieces. Pieces are put by one
 * thread at a time, in its turn, and so is what has to give up spares: with these and
 * the pieces of all maps to take from it finds room, unless the program itself takes
 * what was given up before it is used. A cover takes no room, and no turn but there.
 * Also where the turn was taken from a thread in the midst of something no piece is
 * forgotten, so its room is found by the next to start over.
 */
#define _GNU_SOURCE
#include "cover.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ones.h"
#include "spares.h"
#include "turn.h"

/*
 * Each takes two mappings, where those around it are not filled, and memory once it is
 * stored to; and those of a map are given back in one system call.
 */
#define MAX_PIECES 256

#define NR_TRIES 64 /* while the program takes what there is of mappings */

/* How many were filled since all maps started over, be their maps gone or not. */
static _Atomic uint32_t pieces;

static bool is_large(const struct survivor *s)
{
	return atomic_load(&s->length) > ONES_SIZE;
}

typedef bool (*map_function)(char *addr, size_t length, int prot, int flags);

/* kept: how many spares are not for this. */
static bool put(struct survivor *s, map_function map, size_t from, size_t length,
		int flags, int kept)
{
	char *addr = (char *)atomic_load(&s->start) + from;

	while (!map(addr, length, s->prot, flags)) {
		if (errno != ENOMEM || !barlease_spares_give_up(kept))
			return false;
	}
	/* A child that sees ones where it should see nothing does no harm. */
	if (s->dontfork)
		syscall(SYS_madvise, addr, length, MADV_DONTFORK);
	return true;
}

/*
 * Pieces are counted in begun before they are put and in ended afterwards; covered is
 * what ended was before the last cover was put. So one that has come after it counts as
 * begun alone, whoever stops wherever; and one that has not counts at most for nothing.
 */
static bool has_pieces(const struct survivor *s)
{
	return atomic_load(&s->begun) != atomic_load(&s->covered);
}

static bool put_cover_keeping(struct survivor *s, int flags, int kept)
{
	uint32_t ended = atomic_load(&s->ended);

	if (!put(s, is_large(s) ? barlease_nothing_map : barlease_ones_map, 0,
		 atomic_load(&s->length), flags, kept))
		return false;
	atomic_store(&s->covered, ended);
	return true;
}

static bool put_cover(struct survivor *s, uintptr_t addr, int flags)
{
	(void)addr;
	return put_cover_keeping(s, flags, 0);
}

static bool put_piece(struct survivor *s, uintptr_t addr, int flags)
{
	size_t at = (addr - atomic_load(&s->start)) / ONES_SIZE * ONES_SIZE;
	size_t rest = atomic_load(&s->length) - at;
	bool done;

	/* A restore waits for who is here, and its access for the restore. */
	if ((atomic_load(&s->state) & PHASE) == RESTORING)
		return true;
	/* Else there might be no way to give the room back that it takes. */
	if (!barlease_spares_fill() && errno == ENOMEM)
		return false;
	atomic_fetch_add(&pieces, 1);
	atomic_fetch_add(&s->begun, 1);
	done = put(s, barlease_ones_map, at, rest < ONES_SIZE ? rest : ONES_SIZE, flags,
		   LAST_SPARE);
	atomic_fetch_add(&s->ended, 1);
	return done;
}

/* Covered or about to be. */
static bool is_lost(const struct survivor *s)
{
	uint32_t phase = atomic_load(&s->state) & PHASE;

	return phase == LOSING || phase == LOST;
}

static void start_all_over(void)
{
	struct cursor at = { 0 };
	struct survivor *s;

	atomic_store(&pieces, 0);
	while ((s = barlease_slots_next(&at))) {
		if (!has_pieces(s))
			continue;
		if (barlease_slot_enter(s) && barlease_slot_is_ours(s) && is_lost(s))
			put_cover(s, 0, MAP_FIXED);
		barlease_slot_leave(s);
	}
	barlease_spares_fill();
}

typedef bool (*put_function)(struct survivor *s, uintptr_t addr, int flags);

static bool put_with_room(put_function put_it, struct survivor *s, uintptr_t addr,
			  int flags)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	struct signals old;
	uint32_t turn;
	bool done;

	barlease_signals_block(&old);
	turn = barlease_turn_take();
	if (atomic_load(&pieces) >= MAX_PIECES)
		start_all_over();
	for (int i = 0; !(done = put_it(s, addr, flags)) && errno == ENOMEM; i++) {
		if (i == NR_TRIES)
			break;
		start_all_over();
		if (i == 0)
			continue;
		/* Others may have what this lacks, and give it back in their turn. */
		barlease_turn_end(turn);
		syscall(SYS_nanosleep, &moment, NULL);
		turn = barlease_turn_take();
	}
	barlease_spares_fill();
	barlease_turn_end(turn);
	barlease_signals_restore(&old);
	return done;
}

void barlease_make_spares(void)
{
	struct signals old;
	uint32_t turn;

	if (barlease_spares_are_whole())
		return;
	barlease_signals_block(&old);
	turn = barlease_turn_take();
	barlease_spares_fill();
	barlease_turn_end(turn);
	barlease_signals_restore(&old);
}

bool barlease_cover(struct survivor *s, int flags)
{
	if (put_cover_keeping(s, flags, NR_SPARES)) {
		barlease_make_spares();
		return true;
	}
	return errno == ENOMEM && put_with_room(put_cover, s, 0, flags);
}

bool barlease_fill(struct survivor *s, uintptr_t addr)
{
	if (!is_large(s))
		return barlease_cover(s, MAP_FIXED);
	return put_with_room(put_piece, s, addr, MAP_FIXED);
}

bool barlease_unfill(struct survivor *s)
{
	return has_pieces(s) && barlease_cover(s, MAP_FIXED);
}

void barlease_forget_pieces(struct survivor *s)
{
	atomic_store(&s->covered, atomic_load(&s->begun));
}
