// SPDX-License-Identifier: MIT
/*
 * lessee.c - an unprivileged process that asks for its lease and tries out what
 * it can do with it, and what it cannot.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "access.h"
#include "barlease.h"
#include "script.h"
#include "story.h"

#define MANY 1000

static const struct slice *slice;
static int lease = -1;
static struct barlease_info info = { .size = sizeof(info) };
static char *map; /* the whole lease */

static volatile uint64_t *word(uint64_t offset)
{
	return (volatile uint64_t *)(map + offset);
}

static void tell_who(char *args)
{
	unsigned long long capabilities = -1;
	uid_t real, effective, saved;
	char line[256];
	FILE *status = fopen("/proc/self/status", "re");

	(void)args;
	if (!status) {
		answer_errno();
		return;
	}
	while (fgets(line, sizeof(line), status))
		sscanf(line, "CapPrm: %llx", &capabilities);
	fclose(status);
	getresuid(&real, &effective, &saved);
	if (real != effective || real != saved)
		answer("several uids");
	else
		answer("uid %d, %s", (int)real,
		       capabilities ? "capabilities" : "no capability");
}

static void open_path(char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	answer_result(fd < 0 ? -1 : 0, "opened");
	if (fd >= 0)
		close(fd);
}

/* To open an fd anew is a way to ask for more rights than it has. */
static void reopen(char *args)
{
	char path[32];

	(void)args;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", lease);
	open_path(path);
}

static void ask(char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	char size[32];

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
		answer_errno();
		return;
	}
	lease = barlease_recv(sock, &info);
	if (lease < 0) {
		answer_errno();
	} else {
		format_size(size, sizeof(size), info.length);
		answer("%s, %s", size,
		       info.access == O_RDWR ? "read-write" : "read-only");
	}
	close(sock);
}

static void map_lease(char *args)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = info.access == O_RDWR ? 0 : BARLEASE_MAP_READONLY,
		.va_hint = info.va_hint,
	};
	struct barlease_map *whole = barlease_map(lease, &options);

	(void)args;
	answer_result(whole ? 0 : -1, "mapped");
	if (whole)
		map = barlease_map_addr(whole);
}

static int parse_prot(const char *text)
{
	return (strchr(text, 'r') ? PROT_READ : 0) |
	       (strchr(text, 'w') ? PROT_WRITE : 0) |
	       (strchr(text, 'x') ? PROT_EXEC : 0);
}

/* "rw OFFSET": one page; nothing stays mapped. */
static void try_mmap(char *args)
{
	const char *prot = strsep(&args, " ");
	void *page = mmap(NULL, PAGE_SIZE, parse_prot(prot), MAP_SHARED, lease,
			  strtoull(args, NULL, 0));

	answer_result(page == MAP_FAILED ? -1 : 0, "mapped");
	if (page != MAP_FAILED)
		munmap(page, PAGE_SIZE);
}

static void try_mprotect(char *prot)
{
	answer_result(mprotect(map, PAGE_SIZE, parse_prot(prot)), "changed");
}

/* "OFFSET VALUE" */
static void store(char *args)
{
	uint64_t offset = strtoull(args, &args, 0);

	answer(try_store(word(offset), strtoull(args, NULL, 0)) ? "stored" : "SIGBUS");
}

static void load(char *offset)
{
	uint64_t value;

	if (try_load(word(strtoull(offset, NULL, 0)), &value))
		answer("0x%" PRIx64, value);
	else
		answer("SIGBUS");
}

static enum outcome load_label(uint64_t page)
{
	uint64_t value;

	if (!try_load(word(page * PAGE_SIZE), &value))
		return GOT_SIGBUS;
	return value == bar_offset(slice, page * PAGE_SIZE) ? WENT_THROUGH : WENT_WRONG;
}

static void load_labels(char *args)
{
	uint64_t pages = info.length / PAGE_SIZE, wrong = 0;

	(void)args;
	for (uint64_t page = 0; page < pages; page++)
		wrong += load_label(page) != WENT_THROUGH;
	if (wrong)
		answer("%" PRIu64 " of %" PRIu64 " pages wrong", wrong, pages);
	else
		answer("%" PRIu64 " right pages", pages);
}

/* One mapping of the pages on both sides of OFFSET: the labels that it shows. */
static void load_seam(char *offset)
{
	struct barlease_map_options options = {
		.size = sizeof(options),
		.flags = BARLEASE_MAP_READONLY,
		.offset = strtoull(offset, NULL, 0) - PAGE_SIZE,
		.length = 2 * PAGE_SIZE,
		.va_hint = info.va_hint,
	};
	struct barlease_map *seam = barlease_map(lease, &options);
	uint64_t before, after;
	char *pages;

	if (!seam) {
		answer_errno();
		return;
	}
	pages = barlease_map_addr(seam);
	if (try_load((uint64_t *)pages, &before) &&
	    try_load((uint64_t *)(pages + PAGE_SIZE), &after))
		answer("0x%" PRIx64 ", 0x%" PRIx64, before, after);
	else
		answer("SIGBUS");
	barlease_unmap(seam);
}

/* Never the same value twice: whoever watches the word sees each store. */
static enum outcome store_next(uint64_t step)
{
	static uint64_t value;

	(void)step;
	return try_store(word(FREE_WORD), ++value) ? WENT_THROUGH : GOT_SIGBUS;
}

static void loop_store(char *args)
{
	(void)args;
	if (loop_start(store_next, 1))
		answer_errno();
	else
		answer(loop_await(MANY, 1).rounds >= MANY ? "storing" : "SIGBUS");
}

/* Read all pages over and over; one round is enough to have faulted them in. */
static void loop_load(char *args)
{
	(void)args;
	if (loop_start(load_label, info.length / PAGE_SIZE))
		answer_errno();
	else
		answer(loop_await(1, 1).rounds ? "reading" : "SIGBUS");
}

/* A few rounds more: what the loop has met since it began. */
static void keep_on(char *args)
{
	struct tally start = loop_now(), now = loop_await(start.rounds + 3, UINT64_MAX);

	(void)args;
	if (now.rounds == start.rounds)
		answer("stuck");
	else
		answer("%" PRIu64 " SIGBUS, %" PRIu64 " wrong", now.count[GOT_SIGBUS],
		       now.count[WENT_WRONG]);
}

static void await_sigbus(char *args)
{
	struct tally now = loop_await(UINT64_MAX, 1);

	(void)args;
	if (now.count[GOT_SIGBUS])
		answer("SIGBUS (first on page %" PRIu64 ")", now.first_sigbus);
	else
		answer("no SIGBUS");
}

/* The loop has met SIGBUS and goes on all the same. */
static void retry(char *args)
{
	struct tally start = loop_now(), now;
	uint64_t sigbus, through;

	(void)args;
	now = loop_await(UINT64_MAX, start.count[GOT_SIGBUS] + MANY);
	sigbus = now.count[GOT_SIGBUS] - start.count[GOT_SIGBUS];
	through = now.count[WENT_THROUGH] + now.count[WENT_WRONG] -
		  start.count[WENT_THROUGH] - start.count[WENT_WRONG];
	if (through)
		answer("%" PRIu64 " SIGBUS, but %" PRIu64 " accesses", sigbus, through);
	else
		answer("only SIGBUS (%" PRIu64 " times)", sigbus);
}

int main(int argc, char *argv[])
{
	static const struct command commands[] = {
		{ "who", tell_who },
		{ "open", open_path },
		{ "ask", ask },
		{ "map", map_lease },
		{ "mmap", try_mmap },
		{ "mprotect", try_mprotect },
		{ "reopen", reopen },
		{ "store", store },
		{ "load", load },
		{ "labels", load_labels },
		{ "seam", load_seam },
		{ "loop-store", loop_store },
		{ "loop-load", loop_load },
		{ "keep-on", keep_on },
		{ "await-sigbus", await_sigbus },
		{ "retry", retry },
		{ NULL, NULL },
	};

	if (argc != 2 || !(slice = find_slice(argv[1])))
		return 2;
	access_prepare();
	play(commands);
	return 0;
}
