/* SPDX-License-Identifier: MIT */
/*
 * lessee.h - a process that does with its leases whatever a process may.
 */
#ifndef LESSEE_H
#define LESSEE_H

#include "parcel.h"

/* The process; it ends with the phase, or is killed. */
__attribute__((noreturn)) void lessee_main(unsigned int number, uint32_t generation,
					   const struct inboxes *boxes);

/* The first of its user ids: it has no privileges. */
#define LESSEE_UID 2001

#endif /* LESSEE_H */
