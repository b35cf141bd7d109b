/* SPDX-License-Identifier: MIT */
/*
 * ptwalk.h - ask the test module what the caller's page tables hold.
 */
#ifndef PTWALK_H
#define PTWALK_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define PTWALK_DEVICE "barlease-ptwalk"

enum {
	PTWALK_NONE, /* nothing is mapped there */
	PTWALK_PTE,  /* 4 KiB */
	PTWALK_PMD,  /* 2 MiB */
	PTWALK_PUD,  /* 1 GiB */
};

/* What the entry's cache bits select in IA32_PAT, as the processor counts. */
enum {
	PTWALK_UC = 0,
	PTWALK_WC = 1,
	PTWALK_WT = 4,
	PTWALK_WP = 5,
	PTWALK_WB = 6,
	PTWALK_UC_MINUS = 7,
};

struct ptwalk {
	__u64 address; /* of the caller; the rest is the answer */
	__u64 entry;   /* raw */
	__u32 level;
	__u32 memtype;
};

#define PTWALK_IOCTL _IOWR('p', 0xba, struct ptwalk)

#endif /* PTWALK_H */
