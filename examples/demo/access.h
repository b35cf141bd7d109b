/* SPDX-License-Identifier: MIT */
/*
 * access.h - loads and stores that may end in SIGBUS, once or in a loop in a
 * thread of its own.
 */
#ifndef ACCESS_H
#define ACCESS_H

#include <stdbool.h>
#include <stdint.h>

/* Once, before all else. */
void access_prepare(void);

/* false: it got SIGBUS. */
bool try_load(const volatile uint64_t *at, uint64_t *value);
bool try_store(volatile uint64_t *at, uint64_t value);

enum outcome {
	WENT_THROUGH,
	WENT_WRONG, /* a load that gave another value than it should */
	GOT_SIGBUS,
};

/* What a loop has seen so far. */
struct tally {
	uint64_t rounds;
	uint64_t count[GOT_SIGBUS + 1]; /* of each outcome */
	uint64_t first_sigbus;          /* the step that got it */
};

/* One step of a loop. */
typedef enum outcome access_step(uint64_t step);

/* Start it: rounds of so many steps, until the process ends. */
int loop_start(access_step *step, uint64_t steps);

struct tally loop_now(void);

/*
 * Wait until the tally has so many rounds or so many SIGBUS, but only a few
 * seconds. Returns it.
 */
struct tally loop_await(uint64_t rounds, uint64_t sigbus);

#endif /* ACCESS_H */
