// SPDX-License-Identifier: MIT
/*
 * report.c - what a run did, and what went wrong.
 */
#define _GNU_SOURCE
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

const char *actor_name(unsigned int actor, char text[ACTOR_NAME])
{
	if (actor < ACTOR_GROUP)
		snprintf(text, ACTOR_NAME, "lessor, leases %u", actor);
	else if (actor < ACTOR_QUIET)
		snprintf(text, ACTOR_NAME, "lessor, devices %u", actor - ACTOR_GROUP);
	else if (actor == ACTOR_QUIET)
		snprintf(text, ACTOR_NAME, "lessor, quiet");
	else if (actor == ACTOR_HOLDER)
		snprintf(text, ACTOR_NAME, "quiet lessee");
	else if (actor == ACTOR_KILLER)
		snprintf(text, ACTOR_NAME, "killer");
	else if (actor < ACTOR_CHILD)
		snprintf(text, ACTOR_NAME, "lessee %u, thread %u",
			 (actor - ACTOR_LESSEE) / LESSEE_THREADS,
			 (actor - ACTOR_LESSEE) % LESSEE_THREADS);
	else
		snprintf(text, ACTOR_NAME, "child of lessee %u, thread %u",
			 (actor - ACTOR_CHILD) / LESSEE_THREADS,
			 (actor - ACTOR_CHILD) % LESSEE_THREADS);
	return text;
}

uint64_t report_count(enum op op)
{
	uint64_t sum = 0;

	for (int error = 0; error < NR_ERRNOS; error++)
		sum += world->outcomes[op][error];
	return sum;
}

uint64_t report_operations(void)
{
	uint64_t sum = 0;

	for (int op = 0; op < NR_OPS; op++)
		sum += report_count((enum op)op);
	return sum;
}

unsigned int report_overlapping(void)
{
	uint64_t sum = 0, all = report_operations();

	for (int op = 0; op < NR_OPS; op++)
		sum += world->overlapped[op];
	return all ? (unsigned int)(100 * sum / all) : 0;
}

static void print_accesses(const char *what, int store)
{
	_Atomic uint64_t *seen = world->accesses[store];

	printf("%-16s %10llu right, %llu SIGBUS, %llu SIGSEGV, %llu of a vanished device; "
	       "for %llu of them nothing else was allowed\n",
	       what, (unsigned long long)seen[RIGHT], (unsigned long long)seen[GONE],
	       (unsigned long long)seen[UNMAPPED], (unsigned long long)seen[VANISHED],
	       (unsigned long long)world->sure[store]);
}

void report_counts(void)
{
	printf("%-14s %9s %11s %8s %9s  outcomes\n", "operation", "times",
	       "overlapping", "mean us", "longest");
	for (int op = 0; op < NR_OPS; op++) {
		uint64_t sum = report_count((enum op)op);

		if (!sum)
			continue;
		printf("%-14s %9llu %9llu %% %8llu %9llu ", op_name((enum op)op),
		       (unsigned long long)sum,
		       (unsigned long long)(100 * world->overlapped[op] / sum),
		       (unsigned long long)(world->time_us[op] / sum),
		       (unsigned long long)world->longest_us[op]);
		for (int error = 0; error < NR_ERRNOS; error++)
			if (world->outcomes[op][error])
				printf(" %s %llu", errno_name(error),
				       (unsigned long long)world->outcomes[op][error]);
		printf("\n");
	}
	print_accesses("single loads", 0);
	print_accesses("single stores", 1);
}

static int by_tick(const void *left, const void *right)
{
	const struct log_entry *a = left, *b = right;

	return a->tick < b->tick ? -1 : a->tick > b->tick;
}

static void print_log(const struct log_entry *log)
{
	struct log_entry sorted[LOG_LENGTH];
	char name[ACTOR_NAME];

	memcpy(sorted, log, sizeof(sorted));
	qsort(sorted, LOG_LENGTH, sizeof(*sorted), by_tick);
	for (int i = 0; i < LOG_LENGTH; i++) {
		const struct log_entry *at = &sorted[i];

		if (!at->tick)
			continue;
		printf("  %10llu  %-28s %-14s ", (unsigned long long)at->tick,
		       actor_name(at->actor, name), op_name(at->op));
		if (at->end)
			printf("ends: %s\n", errno_name(at->outcome));
		else
			printf("begins, %#llx %#llx\n",
			       (unsigned long long)at->detail[0],
			       (unsigned long long)at->detail[1]);
	}
}

static void print_present(void)
{
	char name[ACTOR_NAME];

	for (unsigned int i = 0; i < NR_ACTORS; i++) {
		uint64_t doing = world->actors[i].doing;
		uint32_t op = world->actors[i].op;

		if (!op)
			continue;
		printf("  %-28s %s", actor_name(i, name), op_name((enum op)(op - 1)));
		if (doing)
			printf(" of lease %d", doing_lease(doing));
		printf("\n");
	}
}

void report_failure(void)
{
	printf("\nFAILED: %s\n", world->failure);
	if (world->failure_lease >= 0) {
		printf("The last operations on lease %d, by the order in which they came:\n",
		       world->failure_lease);
		print_log(world->leases[world->failure_lease].log);
	}
	if (world->failure_device >= 0) {
		printf("The last operations on device %d:\n", world->failure_device);
		print_log(world->devices[world->failure_device].log);
	}
	printf("Under way:\n");
	print_present();
}

static void print_file(const char *path)
{
	char text[4096];
	FILE *file = fopen(path, "re");
	size_t got;

	if (!file)
		return;
	got = fread(text, 1, sizeof(text) - 1, file);
	text[got] = '\0';
	printf("%s:\n%s", path, text);
	fclose(file);
}

void report_stacks(void)
{
	char pattern[64];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "/proc/[0-9]*/task/[0-9]*/stack");
	if (glob(pattern, 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		print_file(found.gl_pathv[i]);
	globfree(&found);
}
