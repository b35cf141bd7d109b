// SPDX-License-Identifier: MIT
/*
 * main.c - libFuzzer's target for the driver: carries out an input, a sequence
 * of calls, and wants nothing to be left of it. And how inputs are varied.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kids.h"
#include "lessee.h"
#include "owner.h"

/* The last inputs are kept, as the last one may fail for what another did. */
#define KEPT 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1,
				 const uint8_t *data2, size_t size2, uint8_t *out,
				 size_t max_out_size, unsigned int seed);
/* libFuzzer's own. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* What is here twice is done twice as often. */
static const struct {
	op_fn op;
	bool by_lessee;
} ops[] = {
	{ op_range, false },    { op_range, false },   { op_range, false },
	{ op_export, false },   { op_export, false },  { op_export, false },
	{ op_mmap, true },      { op_mmap, true },     { op_mmap, true },
	{ op_mmap, true },      { op_load, true },     { op_load, true },
	{ op_load, true },      { op_store, true },    { op_store, true },
	{ op_sync, true },      { op_sync, true },     { op_munmap, true },
	{ op_mprotect, true },  { op_mprotect, true }, { op_mremap, true },
	{ op_mremap, true },    { op_madvise, true },  { op_process, true },
	{ op_dmabuf, true },    { op_close, true },    { op_revoke, false },
	{ op_revoke, false },   { op_memattr, false }, { op_memattr, false },
	{ op_info, false },     { op_unknown, false }, { op_decoding, false },
	{ op_decoding, false }, { op_sleep, false },   { op_reset, false },
	{ op_reopen, false },   { op_fork, false },    { op_exit, false },
};

static pid_t fuzzer;
static bool verbose;
static int kernel_log;

/*
 * What is said
 */

void wrong(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("FAILED: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	fflush(NULL);
	/* A child is missed by its parent. */
	if (fuzzer && getpid() != fuzzer)
		_exit(1);
	abort();
}

void say(const char *format, ...)
{
	va_list args;

	if (!verbose)
		return;
	va_start(args, format);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

long outcome(long result)
{
	return result == -1 ? -errno : result;
}

int expect(const char *call, long seen, long want)
{
	say("%s: %ld", call, seen);
	if (seen != want)
		wrong("%s: %ld, should be %ld", call, seen, want);
	return (int)seen;
}

/*
 * Wrong things that the kernel says of itself are found in its log: what it does
 * not say with panic. vm/run judges it by more words, after the run.
 */
static void check_log(void)
{
	static const char *const words[] = {
		"WARNING: ",    "BUG: ",      "KASAN: ",  "UBSAN: ",   "possible ",
		"refcount_t: ", "corruption", "ODEBUG: ", "INFO: task"
	};
	char line[1024];
	ssize_t length;

	while ((length = read(kernel_log, line, sizeof(line) - 1)) > 0 ||
	       (length < 0 && errno == EPIPE)) {
		line[length > 0 ? length : 0] = '\0';
		for (size_t i = 0; i < ARRAY_SIZE(words); i++)
			if (strstr(line, words[i]))
				wrong("the kernel says: %s", line);
	}
}

/*
 * Inputs
 */

/* Written to the host before it is carried out, which may be the end of us. */
static void keep_input(const uint8_t *data, size_t size)
{
	static int fds[KEPT];
	static size_t sizes[KEPT];
	static unsigned int next;
	const char *dir = getenv("BARLEASE_RESULTS");
	unsigned int i = next++ % KEPT;
	char path[256];

	if (!dir)
		return;
	if (!fds[i]) {
		snprintf(path, sizeof(path), "%s/last", dir);
		mkdir(path, 0777);
		snprintf(path, sizeof(path), "%s/last/%02u", dir, i);
		fds[i] = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (fds[i] < 0)
			wrong("cannot write %s: %m", path);
	}
	if (pwrite(fds[i], data, size, 0) != (ssize_t)size ||
	    (size < sizes[i] && ftruncate(fds[i], (off_t)size)))
		wrong("cannot keep the input: %m");
	sizes[i] = size;
}

static void start(const uint8_t *data, size_t size)
{
	fuzzer = getpid();
	verbose = getenv("FUZZ_VERBOSE");
	kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kernel_log < 0 || lseek(kernel_log, 0, SEEK_END) < 0)
		wrong("cannot read the kernel's log: %m");
	/* All of them are open before fds are counted. */
	for (int i = 0; i < KEPT; i++)
		keep_input(data, size);
	owner_init();
	lessee_init();
	coverage_init();
	coverage_start();
	world_init();
	atexit(coverage_save);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t nr = size / sizeof(struct record);

	if (!fuzzer)
		start(data, size);
	keep_input(data, size);
	/* libFuzzer gives up where the first input, which is empty, reaches nothing. */
	coverage_state(0);
	owner_begin();
	for (size_t i = 0; i < nr && i < MAX_RECORDS; i++) {
		struct record r;
		uint32_t what;
		int result;

		memcpy(&r, data + i * sizeof(r), sizeof(r));
		what = r.op % ARRAY_SIZE(ops);
		result = ops[what].by_lessee ? do_by_lessee(ops[what].op, &r) :
					       ops[what].op(&r);
		coverage_state((what + 1) << 16 | (uint32_t)-result % 256 << 8 |
			       (r.who % 3 != 0));
	}
	sweep_all();
	kids_end();
	lessee_clear();
	world_end();
	coverage_collect();
	coverage_report();
	check_log();
	return 0;
}

/*
 * How inputs are varied: by whole records, and by the fields of one
 */

static uint64_t random_state;

static size_t random_below(size_t limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % limit;
}

static struct record random_record(void)
{
	struct record r = { .op = (uint8_t)random_below(ARRAY_SIZE(ops)),
			    .who = (uint8_t)random_below(4) };

	/* Small numbers, and the first ones, are what fits together most. */
	for (size_t i = 0; i < sizeof(r.arg); i++)
		r.arg[i] = (uint8_t)random_below(random_below(3) ? 256 : 3);
	return r;
}

static size_t insert(struct record *records, size_t nr, size_t at, struct record r)
{
	memmove(&records[at + 1], &records[at], (nr - at) * sizeof(r));
	records[at] = r;
	return nr + 1;
}

static size_t vary(struct record *records, size_t nr, size_t max)
{
	size_t at = nr ? random_below(nr) : 0;
	struct record *r = &records[at];

	switch (nr ? random_below(9) : 0) {
	case 0:
	case 1:
		return nr < max ? insert(records, nr, random_below(nr + 1),
					 random_record()) :
				  nr;
	case 2:
		return nr < max ? insert(records, nr, random_below(nr + 1), *r) : nr;
	case 3:
		memmove(r, r + 1, (nr - at - 1) * sizeof(*r));
		return nr - 1;
	case 4:
		*r = random_record();
		return nr;
	case 5:
		r->who = (uint8_t)random_below(4);
		return nr;
	case 6:
		return LLVMFuzzerMutate((uint8_t *)records, nr * sizeof(*r),
					max * sizeof(*r)) /
		       sizeof(*r);
	case 7:
		r->arg[random_below(sizeof(r->arg))] += random_below(2) ? 1 : -1;
		return nr;
	default:
		r->arg[random_below(sizeof(r->arg))] = (uint8_t)random_below(256);
		return nr;
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed)
{
	struct record records[MAX_RECORDS + 1];
	size_t nr = size / sizeof(*records), max = max_size / sizeof(*records);

	if (max > MAX_RECORDS)
		max = MAX_RECORDS;
	if (nr > max)
		nr = max;
	random_state = seed;
	memcpy(records, data, nr * sizeof(*records));
	for (size_t times = 1 + random_below(4); times; times--)
		nr = vary(records, nr, max);
	memcpy(data, records, nr * sizeof(*records));
	return nr * sizeof(*records);
}

/* The beginning of one, and the end of the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1,
				 const uint8_t *data2, size_t size2, uint8_t *out,
				 size_t max_out_size, unsigned int seed)
{
	const size_t one = sizeof(struct record);
	size_t head, tail;

	random_state = seed;
	head = random_below(size1 / one + 1) * one;
	tail = random_below(size2 / one + 1) * one;
	if (head > max_out_size)
		head = max_out_size / one * one;
	if (tail > max_out_size - head)
		tail = (max_out_size - head) / one * one;
	memcpy(out, data1, head);
	memcpy(out + head, data2 + (size2 / one * one - tail), tail);
	return head + tail;
}
