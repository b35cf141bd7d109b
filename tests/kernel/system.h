/* SPDX-License-Identifier: MIT */
/*
 * system.h - the running kernel seen from a test: the module and its
 * parameters, sysfs, debugfs, tracefs. Whatever fails here fails the test.
 */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ptwalk/ptwalk.h"

/* Once, before the first test. */
void system_prepare(void);

/* The text of a file, to be freed. */
char *read_file(const char *path);
void write_file(const char *path, const char *text);
/* The number behind a name in a file of such lines; it fails without. */
uint64_t amount(const char *path, const char *name);

/* Another test's reload is undone by the next test's requirement. */
void module_require(const char *params);
/* Load with these parameters (NULL: defaults) and bind all test devices. */
void module_load(const char *params);
/* 0, or -1 with errno, as finit_module() and delete_module() have it. */
int module_try_load(const char *params);
int module_try_unload(void);
bool module_is_loaded(void);
/* The references to the module: its open devices and its leases. */
unsigned int module_users(void);
/* /sys/module/.../parameters/NAME without its newline, to be freed. */
char *module_parameter(const char *name);

/* Rows of debugfs' leases files: of one device, of all. */
unsigned int lease_rows(const char *bdf);
unsigned int leases_alive(void);
/* The row of the lease with this id, to be freed; NULL: none. */
char *lease_row(const char *bdf, uint64_t id);

/* Start with an empty trace of barlease's events; what it has, to be freed. */
void trace_start(void);
char *trace_stop(void);

/* How often a tracepoint is passed, on any CPU, from start to stop. */
#define MOST_CPUS 16
struct counter {
	int fds[MOST_CPUS];
	int count;
};

struct counter counter_start(const char *system, const char *event);
uint64_t counter_stop(struct counter *counter);

/* The leaf entry of this process's page tables, and its memory type. */
struct ptwalk page_entry(const void *at);

/* Open fds of this process. */
unsigned int count_fds(void);
/* Minor and major faults of the calling thread. */
long thread_faults(void);

#endif /* SYSTEM_H */
