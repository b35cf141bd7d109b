/* SPDX-License-Identifier: MIT */
/*
 * fuzz.h - what the parts of the driver's fuzzer share: the records that an
 * input is made of, how a failure is told, and the coverage.
 *
 * An input is a sequence of records, each a call. Whatever the bytes are, they
 * mean something: each is taken modulo what there is to choose from.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define PAGE_SIZE         4096ULL

/* Records of an input that are carried out. */
#define MAX_RECORDS 64

struct record {
	uint8_t op;  /* index of ops[] in main.c */
	uint8_t who; /* which process: lessee's calls alone */
	uint8_t arg[6];
};

/* Returns what is remembered of the outcome: 0 or more, or a negative errno. */
typedef int (*op_fn)(const struct record *r);

/* The device is, or answers, what the model says it can't: ends the run. */
_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Said when FUZZ_VERBOSE is set: each call and what came of it. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A system call's result as a number: -errno. */
long outcome(long result);
/* It must be this one; returns it. */
int expect(const char *call, long seen, long want);

/* Before each input that is made up: the time for those begins with the first. */
void making_up(void);

/*
 * coverage.c
 */

/* Once, before the first child. */
void coverage_init(void);
/* In each process: from now on its calls are counted. */
void coverage_start(void);
/* Count what this process did since the last time. */
void coverage_collect(void);
/* Something else that is new to have seen, by a number that tells it apart. */
void coverage_state(uint32_t what);
/* Give libFuzzer what was counted in this input. */
void coverage_report(void);
/* Write which points were reached, if there is somewhere to write to. */
void coverage_save(void);

#endif /* FUZZ_H */
