/* SPDX-License-Identifier: MIT */
/*
 * world.h - what all processes of a stress run share: the model of devices and
 * leases, who is doing what, what was done and seen, and the verdict.
 */
#ifndef WORLD_H
#define WORLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "oracle.h"

#define PAGE_SIZE 4096ull
#define MIB(n)    ((uint64_t)(n) << 20)
#define GIB(n)    ((uint64_t)(n) << 30)

/* The devices, each an ivshmem whose BAR 2 is RAM. */
enum device {
	RAM, /* 1 GiB */
	PAIR,
	SIBLING, /* 1 MiB each, two functions of one slot */
	PLUG,    /* 16 MiB, in a slot from which it gets pulled */
	NR_DEVICES,
};
#define BAR 2

enum {
	LEASES_EACH = 3,
	NR_LEASES = NR_DEVICES * LEASES_EACH,
	QUIET_LEASE = NR_LEASES, /* these of any device, see quiet.c */
	DECOY_LEASE,
	ALL_LEASES,
	MAX_RANGES = 8,
	/* Leases of more are never mapped by small pages: that takes too long. */
	MANY_PAGES = 1024,
	MAX_MARKS = 32,

	NR_LESSEES = 3,
	LESSEE_THREADS = 3,
	LEASE_THREADS = 3, /* of the lessor */
	GROUP_THREADS = 3, /* of the lessor: RAM, PAIR with SIBLING, PLUG */
};

/* Whoever acts, each with random numbers of its own. */
enum {
	ACTOR_LEASE = 0,
	ACTOR_GROUP = ACTOR_LEASE + LEASE_THREADS,
	ACTOR_QUIET = ACTOR_GROUP + GROUP_THREADS, /* the lessor's side */
	ACTOR_HOLDER,                              /* and the lessee's */
	ACTOR_KILLER,
	ACTOR_LESSEE,
	/* Children that lessees fork, one a thread. */
	ACTOR_CHILD = ACTOR_LESSEE + NR_LESSEES * LESSEE_THREADS,
	NR_ACTORS = ACTOR_CHILD + NR_LESSEES * LESSEE_THREADS,
};

enum op {
	/* the lessor's, on a lease */
	OP_EXPORT,
	OP_REVOKE,
	OP_MEMATTR,
	OP_INFO,
	OP_WATCH,  /* compare what revoked leases had stored */
	OP_SEARCH, /* look for stores where none of a lease belongs */
	OP_DROP,   /* close the lessor's copy of the fd */
	/* on a device */
	OP_DECODING,
	OP_RESET,
	OP_HOT_RESET,
	OP_SYSFS_RESET,
	OP_REOPEN,
	OP_REBIND,
	OP_RESCAN,
	OP_PULL,
	/* a lessee's */
	OP_MAP,
	OP_LOAD,
	OP_STORE,
	OP_PREFAULT,
	OP_MUNMAP,
	OP_MREMAP,
	OP_MPROTECT,
	OP_MADVISE,
	OP_FORK,
	OP_PASS,
	OP_RECEIVE,
	OP_CLOSE,
	/* others' */
	OP_QUIET, /* see that nobody else's doing costs this lease a fault */
	OP_KILL,
	NR_OPS,
};
const char *op_name(enum op op);

/* What holders are told of a lease; it never changes. */
struct terms {
	struct identity id;
	uint32_t index; /* into world->leases */
	uint32_t device;
	int access; /* O_RDONLY or O_RDWR */
	uint32_t nr_pages;
	uint64_t va_hint;
	uint32_t nr_ranges;
	struct {
		uint32_t first, nr; /* pages of the BAR */
	} ranges[MAX_RANGES];
	/* The pages of the lease that are stored to. */
	uint32_t nr_marks;
	uint32_t marks[MAX_MARKS];
};

/* The page of the BAR behind a page of the lease; and whether it has that page. */
uint32_t terms_page(const struct terms *terms, uint32_t page);
bool terms_have(const struct terms *terms, uint32_t bar_page);

/*
 * The layout of each page of a BAR: its stamp, which nobody changes, and for
 * each lease a word that only its holders store to. A large BAR is not stamped
 * all over, as that takes long: what has no stamp is 0.
 */
#define STAMP_OFFSET       0
#define MARK_OFFSET(lease) (1024 + 8 * (uint64_t)(lease))
enum { STAMPED_PAGES = 16384, STAMP_EVERY = 64 };
static inline uint64_t stamp(uint32_t device, uint32_t page)
{
	if (page >= STAMPED_PAGES && page % STAMP_EVERY)
		return 0;
	return 0x5747a30000000000 | (uint64_t)device << 32 | page;
}
/* Whether there is a page without a stamp: only leases of a whole BAR have some. */
static inline bool terms_have_plain(const struct terms *terms)
{
	return terms->nr_pages > STAMPED_PAGES;
}
/*
 * What is stored there: who did it, through which export of the lease, and for which
 * page of the BAR; the count tells each store from the one before.
 */
union mark {
	struct {
		uint64_t count : 19, page : 18, actor : 5, index : 4, export : 18;
	};
	uint64_t word;
};
enum { COUNT_MASK = (1 << 19) - 1, EXPORT_MASK = (1 << 18) - 1 };
_Static_assert(sizeof(union mark) == sizeof(uint64_t), "a mark is one word");
_Static_assert(ALL_LEASES <= 1 << 4 && NR_ACTORS <= 1 << 5 &&
		       GIB(1) / PAGE_SIZE <= 1 << 18,
	       "a mark has room for any lease, actor and page");

struct log_entry {
	uint64_t tick; /* 0: not written yet */
	uint32_t actor;
	enum op op;
	bool end;
	int outcome; /* at its end: an errno */
	uint64_t detail[2];
};
#define LOG_LENGTH 64

struct lease_model {
	_Atomic uint64_t word;
	/* The last export of which a mapped address may show two pages in turn. */
	_Atomic uint64_t shuffled;
	_Atomic uint32_t log_next;
	struct log_entry log[LOG_LENGTH];
};

struct device_model {
	_Atomic uint64_t word;
	/* Odd while something takes all of its pages away. */
	_Atomic uint64_t zaps;
	_Atomic uint32_t log_next;
	struct log_entry log[LOG_LENGTH];
};

struct actor_state {
	_Atomic uint64_t doing; /* count << 32 | key of the lease; 0: nothing on one */
	_Atomic uint64_t met;   /* the doing that another one overlapped */
	_Atomic uint32_t op;    /* op + 1 */
	uint64_t began_us;
	int outcome;            /* of its last operation: an errno */
	_Atomic uint64_t steps; /* shows that it gets on */
	_Atomic uint32_t generation;
};

enum { NR_ERRNOS = 134 };

struct world {
	uint64_t seed;
	unsigned int slowness; /* of the kernel, against a stock one */
	uint32_t phase;
	uint32_t renewed; /* times that a device was put back, see plug.c */
	_Atomic uint64_t ticks;
	_Atomic uint32_t stores; /* so that no two marks are alike */

	_Atomic bool lessor_ready;
	_Atomic bool lessor_ends; /* the phase is over for the lessor */
	_Atomic bool lessees_end; /* and for everybody */

	/* The leases that racers should go for, each + 1. */
	_Atomic uint32_t aims[LEASE_THREADS];

	struct device_model devices[NR_DEVICES];
	struct lease_model leases[ALL_LEASES];
	struct actor_state actors[NR_ACTORS];
	/* The quiet lease's export << 32 | how often its holder read all pages. */
	_Atomic uint64_t sweeps;

	_Atomic uint64_t overlapped[NR_OPS];
	_Atomic uint64_t outcomes[NR_OPS][NR_ERRNOS];
	_Atomic uint64_t time_us[NR_OPS], longest_us[NR_OPS];
	/* Accesses: loads and stores, by what they saw; of them those that only
	 * one outcome was right for. */
	_Atomic uint64_t accesses[2][WRONG], sure[2];

	atomic_flag failed;
	_Atomic bool failure_told;
	int failure_lease; /* -1: none in particular */
	int failure_device;
	char failure[1024];
};

extern struct world *world;
/* The calling thread; a child that it forks becomes another. */
extern _Thread_local unsigned int me;

void world_create(uint64_t seed);
/* The model as it is at a phase's start. */
void world_reset(uint32_t phase);

/* Random numbers: a stream for each actor of each phase, anew at each restart. */
struct random {
	uint64_t state;
};
struct random random_of(uint64_t seed, uint32_t phase, unsigned int actor,
			uint32_t generation);
uint64_t draw(struct random *random);

/*
 * A step is drawn whole, whatever will come of it, so that the seed alone decides what
 * an actor draws, and in what order. That a step is dropped, where the device is just
 * closed, draws no more and no less.
 */
struct step {
	unsigned int choice; /* an index into the weights */
	uint64_t r[4];
};
struct step next_step(struct random *random, const unsigned int *weights,
		      unsigned int count);
static inline bool one_in(uint64_t r, unsigned int n)
{
	return (r >> 20) % n == 0;
}

/*
 * Bracket what is done; the lease's or device's log gets both ends. Without a lease
 * terms is NULL, without a device it is -1.
 */
void op_begin(enum op op, const struct terms *terms, int device, uint64_t detail,
	      uint64_t more);
/* outcome is 0 or an errno. */
void op_end(enum op op, const struct terms *terms, int device, int outcome);
/* How many others are doing something with a lease just now. */
unsigned int count_rivals(const struct terms *terms);
/* Of what an actor is doing: the lease's number; -1: none. */
static inline int doing_lease(uint64_t doing)
{
	return (int)(doing & 0xff) - 1;
}
/* Whoever was killed does nothing any more. */
void actor_gone(unsigned int actor);

static inline struct moment moment(const struct terms *terms)
{
	return (struct moment){ world->leases[terms->index].word,
				world->devices[terms->device].word };
}

/* Until who is the first to fail has said why, unless it was killed meanwhile. */
#define TELL_SECONDS 10
void wait_until_told(void);

/* End this process; the first to come here is the one who is heard. */
__attribute__((noreturn, format(printf, 3, 4))) void fail(int lease, int device,
							  const char *format, ...);
const char *errno_name(int error);

/* Wait a while that no scheduler sees: about a nanosecond a turn. */
void spin(uint64_t turns);
uint64_t now_us(void);
/* Sleep. */
void pause_us(uint64_t us);

#endif /* WORLD_H */
