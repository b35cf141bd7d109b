/* SPDX-License-Identifier: MIT */
/*
 * report.h - what a run did, and what went wrong.
 */
#ifndef REPORT_H
#define REPORT_H

#include "world.h"

/* The table of operations and outcomes; then the last line. */
void report_counts(void);
uint64_t report_count(enum op op);
uint64_t report_operations(void);
/* In percent, of all operations. */
unsigned int report_overlapping(void);
void report_failure(void);
/* Where each process of ours is in the kernel, for one that hangs. */
void report_stacks(void);
#define ACTOR_NAME 64
const char *actor_name(unsigned int actor, char text[ACTOR_NAME]);

#endif /* REPORT_H */
