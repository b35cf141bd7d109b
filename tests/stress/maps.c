// SPDX-License-Identifier: MIT
/*
 * maps.c - the mappings of one lessee, and what each address may show.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "access.h"
#include "maps.h"

/*
 * Far below where the kernel puts what asks for no address, so that nothing
 * moves in where something was unmapped.
 */
#define ARENA 0x100000000000

struct slot slots[NR_SLOTS];

void slots_prepare(void)
{
	for (int i = 0; i < NR_SLOTS; i++) {
		slots[i].base = (char *)(ARENA + i * SLOT_SIZE);
		slots[i].view.slot = &slots[i];
		pthread_mutex_init(&slots[i].lock, NULL);
	}
}

bool slot_enter(struct slot *slot, struct view *view)
{
	bool there;

	pthread_mutex_lock(&slot->lock);
	there = slot->view.nr_parts > 0;
	if (there) {
		slot->users++;
		*view = slot->view;
	}
	pthread_mutex_unlock(&slot->lock);
	return there;
}

void slot_leave(struct slot *slot)
{
	pthread_mutex_lock(&slot->lock);
	slot->users--;
	pthread_mutex_unlock(&slot->lock);
}

void slot_refresh(struct view *view)
{
	pthread_mutex_lock(&view->slot->lock);
	*view = view->slot->view;
	pthread_mutex_unlock(&view->slot->lock);
}

bool slot_begin(struct slot *slot, struct view *draft, bool empty)
{
	bool ours;

	pthread_mutex_lock(&slot->lock);
	ours = !(slot->version & 1) &&
	       (empty ? !slot->users && !slot->view.nr_parts : slot->view.nr_parts > 0);
	if (ours) {
		slot->view.version = ++slot->version;
		*draft = slot->view;
	}
	pthread_mutex_unlock(&slot->lock);
	return ours;
}

void slot_end(const struct view *draft)
{
	struct slot *slot = draft->slot;

	pthread_mutex_lock(&slot->lock);
	slot->view = *draft;
	slot->view.version = ++slot->version;
	pthread_mutex_unlock(&slot->lock);
}

/* The piece of a part from one offset of the slot to another. */
static struct part piece(const struct part *part, uint64_t from, uint64_t to)
{
	struct part new = *part;

	new.page += (uint32_t)((from - part->at) / PAGE_SIZE);
	new.at = from;
	new.length = to - from;
	return new;
}

void view_insert(struct view *view, struct part part)
{
	view->parts[view->nr_parts++] = part;
}

void view_carve(struct view *view, uint64_t at, uint64_t length)
{
	struct view new = *view;

	new.nr_parts = 0;
	for (int i = 0; i < view->nr_parts; i++) {
		const struct part *part = &view->parts[i];
		uint64_t end = part->at + part->length;

		if (end <= at || part->at >= at + length) {
			view_insert(&new, *part);
			continue;
		}
		if (part->at < at)
			view_insert(&new, piece(part, part->at, at));
		if (end > at + length)
			view_insert(&new, piece(part, at + length, end));
	}
	*view = new;
}

const struct part *view_find(const struct view *view, uint64_t at)
{
	for (int i = 0; i < view->nr_parts; i++)
		if (at - view->parts[i].at < view->parts[i].length)
			return &view->parts[i];
	return NULL;
}

/* What an access may see, but for the page: that is the caller's. */
static unsigned int may_see(const struct view *view, const struct part *part, int prot,
			    struct moment before, bool *same)
{
	struct moment after = moment(&view->terms);
	unsigned int may = oracle_access(view->terms.id, before, after);

	*same = view->slot->version == view->version && !(view->version & 1);
	if (!*same)
		return may | UNMAPPED;
	return part && (part->prot & prot) == prot ? may : UNMAPPED;
}

static const char *set_text(unsigned int set, char text[64])
{
	static const char *const names[] = { "its page", "SIGBUS", "SIGSEGV",
					     "a vanished device" };

	text[0] = '\0';
	for (int i = 0; i < 4; i++)
		if (set & 1u << i) {
			if (text[0])
				strcat(text, " or ");
			strcat(text, names[i]);
		}
	return text;
}

struct access {
	const struct view *view;
	const struct part *part; /* NULL: nothing is mapped there */
	uint64_t at;
	bool store;
	struct moment before;
	int number; /* of the signal */
	uint64_t value;
};

/* The page of the lease, as of the view. */
static uint32_t page_of(const struct access *access)
{
	return access->part->page +
	       (uint32_t)((access->at - access->part->at) / PAGE_SIZE);
}

static unsigned int judge(const struct access *access, bool same)
{
	const struct terms *terms = &access->view->terms;
	uint64_t value = access->value;
	bool right;

	if (access->number)
		return access->number == SIGBUS ? GONE : UNMAPPED;
	if (access->store)
		return RIGHT;
	if (same && access->part)
		right = value ==
			stamp(terms->device, terms_page(terms, page_of(access)));
	else if (value) /* The mapping changed: it is one of the lease's pages. */
		right = value == stamp(terms->device, (uint32_t)value) &&
			terms_have(terms, (uint32_t)value);
	else
		right = terms_have_plain(terms);
	if (right)
		return RIGHT;
	return value == 0 || value == UINT64_MAX ? VANISHED : WRONG;
}

static void verdict(const struct access *access)
{
	const struct view *view = access->view;
	const struct terms *terms = &view->terms;
	bool same;
	unsigned int may =
		may_see(view, access->part, access->store ? PROT_WRITE : PROT_READ,
			access->before, &same);
	unsigned int saw = judge(access, same);
	char text[64], where[96];

	/* Where the device has vanished, stores go nowhere. */
	if (saw & may || (access->store && saw == RIGHT && may & VANISHED)) {
		world->accesses[access->store][saw]++;
		world->sure[access->store] += oracle_sure(may);
		return;
	}
	if (access->part)
		snprintf(where, sizeof(where), "page %u (%#x of the BAR)",
			 page_of(access), terms_page(terms, page_of(access)));
	else
		snprintf(where, sizeof(where), "no page");
	fail((int)terms->index, (int)terms->device,
	     "%s at %#llx of slot %d, %s of lease %u, export %llu: expected %s, saw %s "
	     "%#llx; lease %#llx, then %#llx, device %#llx, then %#llx, mapping %s",
	     access->store ? "store" : "load", (unsigned long long)access->at,
	     (int)(view->slot - slots), where, terms->index,
	     (unsigned long long)terms->id.export, set_text(may, text),
	     access->number == SIGBUS ? "SIGBUS" :
	     access->number           ? "SIGSEGV" :
					"the value",
	     (unsigned long long)access->value,
	     (unsigned long long)access->before.lease,
	     (unsigned long long)moment(terms).lease,
	     (unsigned long long)access->before.device,
	     (unsigned long long)moment(terms).device,
	     same ? "unchanged" : "changed meanwhile");
}

void check_load(const struct view *view, uint64_t at)
{
	struct access access = { .view = view, .at = at, .part = view_find(view, at) };
	const char *page = view->slot->base + (at & ~(PAGE_SIZE - 1));

	access.before = moment(&view->terms);
	access.number = access_load(page + STAMP_OFFSET, &access.value);
	verdict(&access);
}

void check_store(const struct view *view, uint64_t at)
{
	const struct terms *terms = &view->terms;
	struct access access = {
		.view = view, .at = at, .part = view_find(view, at), .store = true
	};
	union mark mark = { .export = terms->id.export & EXPORT_MASK,
			    .index = terms->index,
			    .actor = me,
			    .count = world->stores++ };
	char *page = view->slot->base + (at & ~(PAGE_SIZE - 1));

	if (access.part)
		mark.page = terms_page(terms, page_of(&access));
	access.value = mark.word;
	access.before = moment(terms);
	access.number = access_store(page + MARK_OFFSET(terms->index), access.value);
	verdict(&access);
}
