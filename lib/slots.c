// SPDX-License-Identifier: MIT
/* slots.c - the slots of maps that survive, in blocks that are never freed. */
#define _GNU_SOURCE
#include "slots.h"

#include <limits.h>
#include <sys/mman.h>

#include "futex.h"

/* use: is there a map, does somebody wait, and how many are at it. */
#define USED    (1u << 31)
#define AWAITED (1u << 30)
#define AT_IT   (AWAITED - 1)

#define SLOTS_PER_BLOCK 64

struct block {
	struct survivor slots[SLOTS_PER_BLOCK];
	_Atomic(struct block *) next;
};

static struct block first_block;
static struct block *last_block; /* NULL: nothing was taken yet */
static struct survivor *free_slots;

struct survivor *barlease_slots_next(struct cursor *at)
{
	if (!at->block)
		at->block = &first_block;
	if (at->slot == SLOTS_PER_BLOCK) {
		struct block *next =
			atomic_load_explicit(&at->block->next, memory_order_acquire);

		if (!next)
			return NULL;
		*at = (struct cursor){ next, 0 };
	}
	return &at->block->slots[at->slot++];
}

bool barlease_slot_enter(struct survivor *s)
{
	return atomic_fetch_add(&s->use, 1) & USED;
}

void barlease_slot_leave(struct survivor *s)
{
	/* Not only the last: there may always be one more who has come meanwhile. */
	if (atomic_fetch_sub(&s->use, 1) & AWAITED)
		barlease_futex_wake(&s->use, INT_MAX);
}

bool barlease_slot_is_ours(const struct survivor *s)
{
	return !s->dontfork || barlease_owner_is_us(&s->owner);
}

static void free_block(struct block *block)
{
	for (int i = 0; i < SLOTS_PER_BLOCK; i++)
		barlease_slot_put_back(&block->slots[i]);
	last_block = block;
}

struct survivor *barlease_slot_take(void)
{
	struct survivor *s;
	struct block *block;

	if (!last_block)
		free_block(&first_block);
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

void barlease_slot_use(struct survivor *s)
{
	atomic_fetch_or(&s->use, USED);
}

void barlease_slot_put_back(struct survivor *s)
{
	s->next_free = free_slots;
	free_slots = s;
}

void barlease_slot_end_use(struct survivor *s)
{
	atomic_fetch_and(&s->use, ~USED);
}

/* Wait until somebody leaves, so many ms at most. Was somebody at it? */
static bool await_leave(struct survivor *s, long ms)
{
	uint32_t use = atomic_fetch_or(&s->use, AWAITED) | AWAITED;

	if (use & AT_IT)
		barlease_futex_wait(&s->use, use, ms);
	atomic_fetch_and(&s->use, ~AWAITED);
	return use & AT_IT;
}

void barlease_slot_drain(struct survivor *s)
{
	while (await_leave(s, DRAIN_MS))
		;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool barlease_slot_try_drain(struct survivor *s, uint32_t state)
{
	int64_t end = now_ms() + DRAIN_MS, left = DRAIN_MS;
	bool at_it = true;

	while (at_it && left > 0 && atomic_load(&s->state) == state) {
		at_it = await_leave(s, left);
		left = end - now_ms();
	}
	return !at_it && atomic_load(&s->state) == state;
}

void barlease_slots_forget_others(void)
{
	struct cursor at = { 0 };
	struct survivor *s;

	while ((s = barlease_slots_next(&at)))
		atomic_fetch_and(&s->use, USED);
}
