// SPDX-License-Identifier: MIT
/*
 * inject.c - make the kernel's allocations and user copies fail, by fail-nth,
 * which counts them for one thread.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "inject.h"
#include "system.h"

#define MODULE "barlease_vfio_pci"

enum { SLAB, PAGE, COPY, KINDS };
static const char *const kinds[KINDS] = { "failslab", "fail_page_alloc",
					  "fail_usercopy" };

/* Opened once, as that takes memory itself. */
static int fail_nth = -1, make_fail = -1;

/* From the first to before the last address. */
struct span {
	uint64_t start, end;
};

/* Below what they count. */
static struct span counted;

static void set(const char *kind, const char *name, const char *value)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", kind, name);
	write_file(path, value);
}

static void set_address(const char *kind, const char *name, uint64_t address)
{
	char text[32];

	snprintf(text, sizeof(text), "%#" PRIx64, address);
	set(kind, name, text);
}

static void count(int kind, struct span span)
{
	set_address(kinds[kind], "require-start", span.start);
	set_address(kinds[kind], "require-end", span.end);
}

/* Count what returns into one span, and into no address of the other. */
static void count_below(struct span span, struct span spared)
{
	counted = span;
	for (int i = 0; i < KINDS; i++) {
		set(kinds[i], "verbose", "0");
		set(kinds[i], "stacktrace-depth", "32");
		count(i, span);
		set_address(kinds[i], "reject-start", spared.start);
		set_address(kinds[i], "reject-end", spared.end);
		set(kinds[i], "task-filter", "Y");
	}
	/* Those that may sleep, and of single pages, too. */
	set("failslab", "ignore-gfp-wait", "N");
	set("fail_page_alloc", "ignore-gfp-wait", "N");
	set("fail_page_alloc", "ignore-gfp-highmem", "N");
	set("fail_page_alloc", "min-order", "0");
	if (fail_nth >= 0)
		return;
	fail_nth =
		(int)CHECK_OK(open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC));
	make_fail = (int)CHECK_OK(
		open("/proc/thread-self/make-it-fail", O_RDWR | O_CLOEXEC));
}

/* A function in /proc/kallsyms. */
struct symbol {
	uint64_t address;
	const char *name; /* and what follows */
	size_t length;
	bool ours;
};

/* The next one from this line on, and the line behind it; NULL: none. */
static const char *next_function(const char *line, struct symbol *symbol)
{
	static const char ours[] = "\t[" MODULE "]\n";
	char *rest;

	for (; *line; line = strchr(rest, '\n') + 1) {
		symbol->address = strtoull(line, &rest, 16);
		if (strncmp(rest, " t ", 3) && strncmp(rest, " T ", 3))
			continue;
		symbol->name = rest + 3;
		symbol->length = strcspn(symbol->name, "\t\n");
		rest = strchr(symbol->name, '\n');
		symbol->ours =
			!strncmp(symbol->name + symbol->length, ours, strlen(ours));
		return rest + 1;
	}
	return NULL;
}

/* From where it begins to where the next one does. */
static struct span find_function(const char *text, const char *name)
{
	struct span span = { 0, UINT64_MAX };
	struct symbol symbol;

	for (const char *line = text; (line = next_function(line, &symbol));)
		if (symbol.length == strlen(name) &&
		    !memcmp(symbol.name, name, symbol.length))
			span.start = symbol.address;
	CHECK_THAT(span.start, "expected the kernel to have %s, saw none", name);
	for (const char *line = text; (line = next_function(line, &symbol));)
		if (symbol.address > span.start && symbol.address < span.end)
			span.end = symbol.address;
	return span;
}

static struct span find_driver(const char *text)
{
	struct span span = { UINT64_MAX, 0 };
	struct symbol symbol;

	for (const char *line = text; (line = next_function(line, &symbol));) {
		if (!symbol.ours)
			continue;
		if (symbol.address < span.start)
			span.start = symbol.address;
		if (symbol.address > span.end)
			span.end = symbol.address;
	}
	CHECK(span.end);
	/* Where the last one ends is not said; but a guard page follows the code. */
	span.end = (span.end | 0xfff) + 1 + 0x1000;
	return span;
}

void inject_below_driver(const char *spared)
{
	char *text = read_file("/proc/kallsyms");

	count_below(find_driver(text),
		    spared ? find_function(text, spared) : (struct span){ 0 });
	free(text);
}

void inject_below(const char *function)
{
	char *text = read_file("/proc/kallsyms");

	count_below(find_function(text, function), (struct span){ 0 });
	free(text);
}

void inject_everywhere(void)
{
	count_below((struct span){ 0, UINT64_MAX }, (struct span){ 0 });
}

void inject(unsigned int nth)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%u", nth);

	CHECK_EQ(pwrite(fail_nth, text, (size_t)length, 0), length);
}

/* With all of them counted, the last one may be the copy of this very answer. */
bool injected(void)
{
	char text[16] = "";
	ssize_t got = pread(fail_nth, text, sizeof(text) - 1, 0);
	bool one_has = got > 0 && !atoi(text);

	CHECK(got > 0 || errno == EFAULT);
	while (pwrite(fail_nth, "0", 1, 0) != 1)
		CHECK_EQ(errno, EFAULT);
	return one_has;
}

/* Each that fails takes one of the times that are left. */
#define TIMES 1000000

void inject_all(void)
{
	char times[16];

	snprintf(times, sizeof(times), "%d", TIMES);
	for (int i = 0; i < KINDS; i++) {
		set(kinds[i], "times", times);
		set(kinds[i], "probability", "100");
	}
	CHECK_EQ(pwrite(make_fail, "1", 1, 0), 1);
}

unsigned int injected_all(void)
{
	unsigned int count = 0;

	CHECK_EQ(pwrite(make_fail, "0", 1, 0), 1);
	for (int i = 0; i < KINDS; i++) {
		char path[64], *text;

		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/times", kinds[i]);
		text = read_file(path);
		count += TIMES - (unsigned int)atoi(text);
		free(text);
		set(kinds[i], "probability", "0");
	}
	return count;
}

/* What a call that failed must not leave behind. */
struct traces {
	unsigned int fds, leases, users;
};

static struct traces look(void)
{
	return (struct traces){
		.fds = count_fds(),
		.leases = leases_alive(),
		.users = module_is_loaded() ? module_users() : 0,
	};
}

static void check_same(const struct traces *before)
{
	struct traces now = look();

	CHECK_EQ(now.fds, before->fds);
	CHECK_EQ(now.leases, before->leases);
	CHECK_EQ(now.users, before->users);
}

/* One that fails must be able to do so again. Whether it failed. */
static bool fails(const struct call *call, unsigned int nth, bool *one_has)
{
	struct traces before = look();
	int result, error;

	inject(nth);
	result = call->make();
	error = errno;
	*one_has = injected();
	if (result != -1)
		return false;
	CHECK_THAT(*one_has, "%s: expected success, saw %s", call->name,
		   errno_name(error));
	CHECK_THAT(error == ENOMEM || error == EFAULT || error == call->also,
		   "%s, failure %u: expected ENOMEM or EFAULT, saw %s", call->name, nth,
		   errno_name(error));
	check_same(&before);
	CHECK_THAT(call->make() != -1, "%s after failure %u: expected success, saw %s",
		   call->name, nth, errno_name(errno));
	return true;
}

/* What a call was seen to do with each of them failed. */
struct tally {
	unsigned int failures, errors;
};

/* tries: of each that the call makes do without. */
static void fail_each_counted(const struct call *call, int tries, struct tally *tally)
{
	struct traces before = look();

	for (unsigned int nth = 1;; nth++) {
		bool failed = false, one_has = false, this_has;

		for (int i = 0; i < tries && !failed; i++) {
			if (call->prepare)
				call->prepare();
			failed = fails(call, nth, &this_has);
			one_has |= this_has;
			call->undo();
			check_same(&before);
		}
		if (!one_has)
			return;
		tally->failures++;
		tally->errors += failed;
	}
}

/*
 * Pages by themselves: where a slab has run dry it takes one more, which would give
 * all that follow other numbers than in the try before, so that one is passed over.
 * Of the pages one may be passed over so, unless its number is tried again.
 */
void fail_each(const struct call *call)
{
	static const struct span none = { 1, 1 };
	struct tally tally = { 0 };

	count(PAGE, none);
	fail_each_counted(call, 1, &tally);
	count(PAGE, counted);
	count(SLAB, none);
	count(COPY, none);
	fail_each_counted(call, 2, &tally);
	count(SLAB, counted);
	count(COPY, counted);
	CHECK_THAT(tally.failures, "%s: expected it to take memory, saw none",
		   call->name);
	note("%s: %u failures, %u errors", call->name, tally.failures, tally.errors);
}
