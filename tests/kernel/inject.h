/* SPDX-License-Identifier: MIT */
/*
 * inject.h - make the kernel's allocations and user copies fail, one or all. For
 * tests with .needs = FAULT_INJECTION.
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

/* A call that is made with each of them failed in turn. */
struct call {
	const char *name;
	void (*prepare)(void);
	int (*make)(void); /* -1 and errno, or another result */
	void (*undo)(void);
	int also; /* an errno that is right besides */
};

/*
 * Prepared, made and undone each time, it fails with ENOMEM or EFAULT, or does not;
 * either way nothing stays behind, and if it has failed it works once more.
 */
void fail_each(const struct call *call);

#endif /* INJECT_H */
