/* SPDX-License-Identifier: MIT */
/*
 * lessee.h - one process that has leases mapped, the fuzzer itself or a child:
 * its fds, what is mapped where, and its calls.
 */
#ifndef LESSEE_H
#define LESSEE_H

#include "world.h"

/*
 * Mappings are made in here and nowhere else, at an address that is a multiple
 * of 1 GiB. What is free is reserved, so that nothing else gets in.
 */
#define ARENA_PAGES (2ULL << 18)

struct lessee {
	int fds[MAX_LEASES]; /* -1: closed, or never had */
};

extern struct lessee me;

/* A number of pages: from a table of those that matter, one of them the limit. */
uint64_t pick(uint8_t code, uint64_t limit);

void lessee_init(void);
/* Before each input, and after it: unmap and close all. */
void lessee_clear(void);
/* Try the first and the last page of all that is mapped. */
void lessee_sweep(void);

int op_mmap(const struct record *r);
int op_munmap(const struct record *r);
int op_mprotect(const struct record *r);
int op_mremap(const struct record *r);
int op_madvise(const struct record *r);
int op_load(const struct record *r);
int op_store(const struct record *r);
int op_sync(const struct record *r);
int op_dmabuf(const struct record *r);
int op_close(const struct record *r);
int op_process(const struct record *r);

#endif /* LESSEE_H */
