/* SPDX-License-Identifier: MIT */
/*
 * access.h - loads and stores that may end in a signal.
 */
#ifndef ACCESS_H
#define ACCESS_H

#include <stdint.h>

/* Once a process; its threads and children keep it. */
void access_prepare(void);

/* 0, SIGBUS or SIGSEGV. A signal for any other address kills the process. */
int access_load(const void *at, uint64_t *value);
int access_store(void *at, uint64_t value);

#endif /* ACCESS_H */
