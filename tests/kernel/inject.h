/* SPDX-License-Identifier: MIT */
/*
 * inject.h - make one of the kernel's allocations or user copies fail. For tests
 * with .needs = FAULT_INJECTION.
 */
#ifndef INJECT_H
#define INJECT_H

#include <stdbool.h>

/*
 * Once, before the others: those alone count that are made below the driver, as it
 * is loaded now, but for those below another function (NULL: none); below a
 * function of the kernel; or all.
 */
void inject_below_driver(const char *spared);
void inject_below(const char *function);
void inject_everywhere(void);

/* Let the nth from now on fail, of the calling thread. */
void inject(unsigned int nth);
/* Let no more fail. Whether one has. */
bool injected(void);

/* Let all fail from now on, of the calling thread. */
void inject_all(void);
/* Let no more fail. How many have. */
unsigned int injected_all(void);

#endif /* INJECT_H */
