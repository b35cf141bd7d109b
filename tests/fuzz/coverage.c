// SPDX-License-Identifier: MIT
/*
 * coverage.c - which points of the driver an input reached, from KCOV, as
 * counters that libFuzzer looks at like at its own.
 *
 * A driver that was built without KCOV leaves the fuzzer with what calls
 * returned.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kcov.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

#define TEXT_START "/sys/module/barlease_vfio_pci/sections/.text"

/* Longs of KCOV's buffer; what a record reaches beyond is not counted. */
#define BUFFER (1UL << 13)

/* A point is a call instruction, of 5 bytes: no two share a counter. */
#define TEXT_MAX  (128 << 10)
#define PER_POINT 4
#define POINTS    (TEXT_MAX / PER_POINT)
#define STATES    2048

/* Used: it is libFuzzer that reads them. */
__attribute__((used, section("__libfuzzer_extra_counters"))) static uint8_t
	counters[POINTS + STATES];

/* Of all processes of this input. */
static uint8_t *shared;

/* In the whole run. */
static uint8_t reached[POINTS];

static uint64_t text;
static int kcov = -1;
static uint64_t *buffer;

void coverage_init(void)
{
	FILE *file = fopen(TEXT_START, "r");

	if (!file || fscanf(file, "%lx", &text) != 1)
		wrong("cannot read %s", TEXT_START);
	fclose(file);
	shared = mmap(NULL, sizeof(counters), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		wrong("no memory for the counters");
}

void coverage_start(void)
{
	if (buffer) {
		/* A child: these are its parent's. */
		munmap(buffer, BUFFER * sizeof(*buffer));
		close(kcov);
	}
	buffer = NULL;
	kcov = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
	if (kcov < 0) {
		if (errno != ENOENT)
			wrong("cannot open KCOV: %m");
		return;
	}
	if (ioctl(kcov, KCOV_INIT_TRACE, BUFFER))
		wrong("KCOV_INIT_TRACE: %m");
	buffer = mmap(NULL, BUFFER * sizeof(*buffer), PROT_READ | PROT_WRITE,
		      MAP_SHARED, kcov, 0);
	if (buffer == MAP_FAILED)
		wrong("cannot map KCOV's buffer: %m");
	if (ioctl(kcov, KCOV_ENABLE, KCOV_TRACE_PC))
		wrong("KCOV_ENABLE: %m");
	__atomic_store_n(&buffer[0], 0, __ATOMIC_RELAXED);
}

static void count(uint8_t *counter)
{
	if (*counter < UINT8_MAX)
		++*counter;
}

void coverage_collect(void)
{
	uint64_t nr = buffer ? __atomic_load_n(&buffer[0], __ATOMIC_RELAXED) : 0;

	for (uint64_t i = 1; i <= nr; i++)
		if (buffer[i] - text < TEXT_MAX)
			count(&shared[(buffer[i] - text) / PER_POINT]);
	if (buffer)
		__atomic_store_n(&buffer[0], 0, __ATOMIC_RELAXED);
}

void coverage_state(uint32_t what)
{
	/* The upper bits of the product are those that all of it has a part in. */
	count(&shared[POINTS + what * 2654435761u / (UINT32_MAX / STATES + 1)]);
}

void coverage_report(void)
{
	memcpy(counters, shared, sizeof(counters));
	/* What libFuzzer is not told does not count. */
	for (size_t i = 0; i < POINTS; i++)
		reached[i] |= counters[i];
	/* A small corpus is one that sees each of them, however often. */
	if (getenv("FUZZ_MERGE"))
		for (size_t i = 0; i < sizeof(counters); i++)
			counters[i] = counters[i] > 0;
	memset(shared, 0, sizeof(counters));
}

/* By their place in .text divided by PER_POINT, one a line. */
void coverage_save(void)
{
	const char *dir = getenv("BARLEASE_RESULTS");
	char path[256];
	FILE *file;

	if (!dir)
		return;
	snprintf(path, sizeof(path), "%s/reached", dir);
	file = fopen(path, "w");
	if (!file)
		wrong("cannot write %s: %m", path);
	for (size_t i = 0; i < POINTS; i++)
		if (reached[i])
			fprintf(file, "%zu\n", i);
	if (fclose(file))
		wrong("cannot write %s: %m", path);
}
