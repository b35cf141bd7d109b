// SPDX-License-Identifier: MIT
/*
 * main.c - libFuzzer's target for the driver: carries out an input, a sequence
 * of calls, and wants nothing to be left of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kids.h"
#include "lessee.h"
#include "owner.h"

/* The last inputs are kept, as the last one may fail for what another did. */
#define KEPT 16

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
	{ op_list, false },
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
	/* Another process is missed by its parent. */
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
 * The executor: a process that is forked while this one is small, and that all
 * calls are made in. Once libFuzzer has made itself large each fork would take
 * long, and its handlers of signals would be in the way.
 */

struct input {
	uint32_t size;
	uint8_t data[MAX_RECORDS * sizeof(struct record)];
};

static pid_t executor;
static int channel;

/* Before the first input, as the process that merges corpora carries out none. */
static void start(void)
{
	kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kernel_log < 0 || lseek(kernel_log, 0, SEEK_END) < 0)
		wrong("cannot read the kernel's log: %m");
	owner_init();
	lessee_init();
	coverage_start();
	world_init();
}

static void carry_out(const struct input *input)
{
	owner_begin();
	for (size_t at = 0; at + sizeof(struct record) <= input->size;
	     at += sizeof(struct record)) {
		struct record r;
		uint32_t what;
		int result;

		memcpy(&r, input->data + at, sizeof(r));
		what = r.op % ARRAY_SIZE(ops);
		result = ops[what].by_lessee ? do_by_lessee(ops[what].op, &r) :
					       ops[what].op(&r);
		coverage_collect();
		coverage_state((what + 1) << 16 | (uint32_t)-result % 256 << 8 |
			       (r.who % 3 != 0));
	}
	sweep_all();
	kids_end();
	lessee_clear();
	world_end();
	coverage_collect();
	check_log();
}

static _Noreturn void execute(void)
{
	struct input input;
	bool started = false;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(channel, &input, sizeof(input)) == sizeof(input)) {
		if (!started)
			start();
		started = true;
		carry_out(&input);
		if (write(channel, "", 1) != 1)
			break;
	}
	_exit(0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int pair[2];

	(void)argc;
	(void)argv;
	fuzzer = getpid();
	verbose = getenv("FUZZ_VERBOSE");
	coverage_init();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		wrong("socketpair: %m");
	executor = fork();
	if (executor < 0)
		wrong("fork: %m");
	channel = pair[!executor];
	close(pair[!!executor]);
	if (!executor)
		execute();
	return 0;
}

/* Written to the host before it is carried out, which may be the end of us. */
static void keep_input(const struct input *input)
{
	static int fds[KEPT];
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
	}
	if (fds[i] < 0 ||
	    pwrite(fds[i], input->data, input->size, 0) != (ssize_t)input->size ||
	    ftruncate(fds[i], (off_t)input->size))
		wrong("cannot keep the input: %m");
}

/* When the first input was made up. */
static time_t made_up;

void making_up(void)
{
	if (!made_up)
		made_up = time(NULL);
}

/*
 * libFuzzer's own limit counts the replay of the corpus, too, which may take longer
 * than it. By this signal it ends before the next input, but without atexit().
 */
static void end_in_time(void)
{
	const char *seconds = getenv("FUZZ_SECONDS");

	if (!made_up || !seconds || time(NULL) - made_up < atol(seconds))
		return;
	coverage_save();
	raise(SIGUSR1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct input input;
	static unsigned int nr;
	static time_t began;
	char done;

	if (!nr++) {
		atexit(coverage_save);
		began = time(NULL);
	}
	input.size = size < sizeof(input.data) ? (uint32_t)size : sizeof(input.data);
	if (size)
		memcpy(input.data, data, input.size);
	keep_input(&input);
	/* libFuzzer gives up where the first input, which is empty, reaches nothing. */
	coverage_state(0);
	if (write(channel, &input, sizeof(input)) != sizeof(input) ||
	    /* libFuzzer has a timer. */
	    TEMP_FAILURE_RETRY(read(channel, &done, 1)) != 1) {
		int status = 0;

		waitpid(executor, &status, 0);
		wrong("in input %u, after %ld s; the executor's status: %#x", nr,
		      (long)(time(NULL) - began), status);
	}
	coverage_report();
	end_in_time();
	return 0;
}
