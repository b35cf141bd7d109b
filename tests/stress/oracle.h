/* SPDX-License-Identifier: MIT */
/*
 * oracle.h - what an access may see, told from the model of its lease and its
 * device just before and just after it. Pure functions of numbers.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>
#include <stdint.h>

/* What one access saw; as a set of bits, what it may see. */
enum {
	RIGHT = 1,    /* the page that belongs there */
	GONE = 2,     /* SIGBUS */
	UNMAPPED = 4, /* SIGSEGV */
	VANISHED = 8, /* 0 or all ones: the device is not there any more */
	WRONG = 16,   /* anything else */
};

/* A lease's word: the number of its export, and its state. */
enum lease_state {
	LEASE_FREE, /* revoked, and the lessor has let go of it */
	LEASE_LIVE,
	LEASE_REVOKING, /* REVOKE was called */
	LEASE_REVOKED,  /* and has returned */
};

static inline uint64_t lease_word(uint64_t export, enum lease_state state)
{
	return export << 8 | state;
}

static inline enum lease_state lease_state(uint64_t word)
{
	return (enum lease_state)(word & 0xff);
}

/*
 * A device's word: what is so now, how often it was opened, and how often the
 * word was changed, so that one that is the same again is still the same.
 */
enum {
	DEVICE_CHANGING = 1, /* one of the things below, or closing, is under way */
	DEVICE_OFF = 2,      /* memory decoding is off */
	DEVICE_CLOSED = 4,
	DEVICE_REMOVED = 8,   /* pulled out; nothing zaps until the lessor closes */
	DEVICE_PULLABLE = 16, /* it is one that can be */
};

static inline uint64_t device_next(uint64_t word, unsigned int flags, bool opening)
{
	uint64_t count = (word >> 32) + 1, openings = (word >> 8 & 0xffffff) + opening;

	return count << 32 | (openings & 0xffffff) << 8 | flags;
}

static inline unsigned int device_flags(uint64_t word)
{
	return word & 0xff;
}

static inline uint32_t device_opening(uint64_t word)
{
	return word >> 8 & 0xffffff;
}

/* Both words at one moment, and which lease they are looked at for. */
struct moment {
	uint64_t lease;
	uint64_t device;
};

struct identity {
	uint64_t export;
	uint32_t opening;
};

/* Dead for good: revoked, or its device was closed. */
bool oracle_dead(struct identity id, struct moment at);
/* Not dead, nor about to be. */
bool oracle_alive(struct identity id, struct moment at);
/* What an access to a page that is mapped may see. */
unsigned int oracle_access(struct identity id, struct moment before,
			   struct moment after);
/* Whether nothing happened that could have made a difference. */
bool oracle_sure(unsigned int may);

#endif /* ORACLE_H */
