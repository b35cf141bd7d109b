/* SPDX-License-Identifier: MIT */
/*
 * kids.h - lessees that were forked: each is told what to do, record by record,
 * and does it while everyone else waits.
 */
#ifndef KIDS_H
#define KIDS_H

#include "fuzz.h"

/* A lessee's call, by the process that the record says. */
int do_by_lessee(op_fn op, const struct record *r);
int op_fork(const struct record *r);
int op_exit(const struct record *r);
/* All try what they have mapped. */
void sweep_all(void);
/* After each input. */
void kids_end(void);

#endif /* KIDS_H */
