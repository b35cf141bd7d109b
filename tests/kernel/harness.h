/* SPDX-License-Identifier: MIT */
/*
 * harness.h - what a kernel test is, and how it fails.
 *
 * A test runs in a process of its own with the module loaded as it asks for.
 * It passes by returning. The checks below end it, from any of its threads or
 * processes, with the first failure as the one that is shown.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What not every kernel has. A test that needs it is none of those without. */
enum need {
	NO_NEED,
	FAULT_INJECTION, /* by /proc/self/fail-nth */
};

struct test {
	const char *name;
	const char *promise;
	const char *file;
	int line;
	void (*run)(void);
	const char *params; /* module parameters; NULL: the defaults */
	int timeout;        /* seconds; 0: 300 */
	enum need needs;
};

/*
 * TEST(name, "the promise it holds") { ... }
 * TEST(name, "the promise it holds", .params = "huge_pud=1", .timeout = 90) ...
 */
#define TEST(id, text, ...)                                                           \
	static void id(void);                                                         \
	__attribute__((                                                               \
		section("tests"), used,                                               \
		aligned(8))) static const struct test test_##id = { .name = #id,      \
								    .promise = text,  \
								    .file = __FILE__, \
								    .line = __LINE__, \
								    .run = id,        \
								    __VA_ARGS__ };    \
	static void id(void)

/* End the test as failed. */
__attribute__((noreturn, format(printf, 3, 4))) void fail_at(const char *file, int line,
							     const char *format, ...);

/* A line of its own in the output, which fails nothing. */
__attribute__((format(printf, 1, 2))) void note(const char *format, ...);

#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)

#define CHECK(cond)                                               \
	do {                                                      \
		if (!(cond))                                      \
			FAIL("expected %s, saw it false", #cond); \
	} while (0)

/* With words of one's own on what was expected and what was seen. */
#define CHECK_THAT(cond, ...)              \
	do {                               \
		if (!(cond))               \
			FAIL(__VA_ARGS__); \
	} while (0)

#define CHECK_EQ(seen, want) \
	check_eq(__FILE__, __LINE__, #seen, (uint64_t)(seen), (uint64_t)(want))

/* A call that returns -1 on error must not: its value. */
#define CHECK_OK(call)  check_ok(__FILE__, __LINE__, #call, (long)(call))
#define CHECK_MAP(call) check_map(__FILE__, __LINE__, #call, call)

/* A call must return -1 with this errno. */
#define CHECK_ERRNO(call, want) \
	check_errno(__FILE__, __LINE__, #call, (long)(call), want)

const char *errno_name(int error);

void check_eq(const char *file, int line, const char *what, uint64_t seen,
	      uint64_t want);
long check_ok(const char *file, int line, const char *what, long seen);
void *check_map(const char *file, int line, const char *what, void *seen);
void check_errno(const char *file, int line, const char *what, long seen, int want);

/*
 * Another process of the test. The socket (seqpacket) leads to the other side;
 * kid_start()'s run gets the kid's end. To join is to require that it returned;
 * one that is left alone may be killed as the test ends, but not end badly itself.
 */
struct kid {
	pid_t pid;
	int sock;
};

struct kid kid_start(void (*run)(int sock, void *arg), void *arg);
void kid_join(struct kid *kid);

/* A word over a socket; to hear from a side that has gone fails the test. */
void say(int sock, uint64_t word);
uint64_t hear(int sock);
void send_fd(int sock, int fd);
int receive_fd(int sock);

/* For loops of many rounds, so that a slow host ends them in time as well. */
bool ran_for(int seconds);
/* How many of them to do: fewer under a kernel that is slow. */
uint32_t rounds(uint32_t count);

/* Seeded once a run; the seed is printed, and --seed N repeats it. */
uint64_t random_word(void);

#endif /* HARNESS_H */
