// SPDX-License-Identifier: MIT
/*
 * harness.c - run the tests, each in a process of its own.
 */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define DEFAULT_TIMEOUT 300

extern const struct test __start_tests[], __stop_tests[];

/* Shared by all processes of a test; the first failure is the one to show. */
static struct {
	atomic_flag taken;
	char text[1024];
} * verdict;

static uint64_t seed;
static int slowness = 1;      /* of the kernel, against a stock one */
static struct timespec began; /* the test under way */

void fail_at(const char *file, int line, const char *format, ...)
{
	const char *base = strrchr(file, '/');
	va_list args;
	int length;

	if (!atomic_flag_test_and_set(&verdict->taken)) {
		length = snprintf(verdict->text, sizeof(verdict->text),
				  "%s:%d: ", base ? base + 1 : file, line);
		va_start(args, format);
		vsnprintf(verdict->text + length,
			  sizeof(verdict->text) - (size_t)length, format, args);
		va_end(args);
	}
	_exit(1);
}

void note(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("       %s\n", text);
	fflush(stdout);
}

void check_eq(const char *file, int line, const char *what, uint64_t seen,
	      uint64_t want)
{
	if (seen != want)
		fail_at(file, line, "%s: expected %lld (%#llx), saw %lld (%#llx)", what,
			(long long)want, (long long)want, (long long)seen,
			(long long)seen);
}

const char *errno_name(int error)
{
	const char *name = strerrorname_np(error);

	return name ? name : "an unknown errno";
}

long check_ok(const char *file, int line, const char *what, long seen)
{
	if (seen == -1)
		fail_at(file, line, "%s: expected success, saw %s", what,
			errno_name(errno));
	return seen;
}

void *check_map(const char *file, int line, const char *what, void *seen)
{
	check_ok(file, line, what, (long)seen);
	return seen;
}

void check_errno(const char *file, int line, const char *what, long seen, int want)
{
	int error = errno;

	if (seen != -1)
		fail_at(file, line, "%s: expected %s, saw success (%ld)", what,
			errno_name(want), seen);
	if (error != want)
		fail_at(file, line, "%s: expected %s, saw %s", what, errno_name(want),
			errno_name(error));
}

struct kid kid_start(void (*run)(int sock, void *arg), void *arg)
{
	int pair[2];
	pid_t pid;

	CHECK_OK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	pid = (pid_t)CHECK_OK(fork());
	if (!pid) {
		close(pair[0]);
		run(pair[1], arg);
		_exit(0);
	}
	close(pair[1]);
	return (struct kid){ .pid = pid, .sock = pair[0] };
}

void kid_join(struct kid *kid)
{
	int status;

	CHECK_OK(waitpid(kid->pid, &status, 0));
	CHECK_THAT(!WIFSIGNALED(status),
		   "expected a child to return, saw it die of SIG%s",
		   sigabbrev_np(WTERMSIG(status)));
	CHECK_EQ(WEXITSTATUS(status), 0);
	close(kid->sock);
}

void say(int sock, uint64_t word)
{
	CHECK_EQ(send(sock, &word, sizeof(word), MSG_NOSIGNAL), sizeof(word));
}

uint64_t hear(int sock)
{
	uint64_t word;

	CHECK_EQ(recv(sock, &word, sizeof(word), 0), sizeof(word));
	return word;
}

union fd_message {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

void send_fd(int sock, int fd)
{
	char byte = 0;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	union fd_message control = {
		.header = { .cmsg_level = SOL_SOCKET,
			    .cmsg_type = SCM_RIGHTS,
			    .cmsg_len = CMSG_LEN(sizeof(int)) },
	};
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	CHECK_EQ(sendmsg(sock, &message, MSG_NOSIGNAL), 1);
}

int receive_fd(int sock)
{
	char byte;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	union fd_message control = { 0 };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	int fd;

	CHECK_EQ(recvmsg(sock, &message, MSG_CMSG_CLOEXEC), 1);
	CHECK_EQ(message.msg_controllen, sizeof(control));
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

/* splitmix64: a whole stream from one printed number. */
uint64_t random_word(void)
{
	static _Thread_local uint64_t state;
	uint64_t word;

	if (!state)
		state = seed;
	state += 0x9e3779b97f4a7c15;
	word = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
	word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
	return word ^ (word >> 31);
}

uint32_t rounds(uint32_t count)
{
	return count / (uint32_t)slowness;
}

bool ran_for(int seconds)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - began.tv_sec >= seconds;
}

/* First by the module's parameters, as to load it anew takes longer than most. */
static int by_params_and_place(const void *left, const void *right)
{
	const struct test *a = *(const struct test *const *)left;
	const struct test *b = *(const struct test *const *)right;
	int order = strcmp(a->params ? a->params : "", b->params ? b->params : "");

	if (!order)
		order = strcmp(a->file, b->file);

	return order ? order : a->line - b->line;
}

static bool wanted(const struct test *test, char **globs)
{
	if (!*globs)
		return true;
	for (; *globs; globs++)
		if (!fnmatch(*globs, test->name, 0))
			return true;
	return false;
}

static bool kernel_has(enum need need)
{
	return need == NO_NEED || !access("/proc/self/fail-nth", F_OK);
}

static bool ended_in_time(int pidfd, const struct test *test)
{
	struct pollfd end = { .fd = pidfd, .events = POLLIN };
	int seconds = test->timeout ? test->timeout : DEFAULT_TIMEOUT;

	return poll(&end, 1, seconds * slowness * 1000) == 1;
}

/* NULL: it returned. */
static const char *bad_end(const char *who, int status)
{
	static char failure[128];

	if (!status)
		return NULL;
	if (WIFSIGNALED(status))
		snprintf(failure, sizeof(failure),
			 "expected %s to return, saw it die of SIG%s", who,
			 sigabbrev_np(WTERMSIG(status)));
	else
		snprintf(failure, sizeof(failure),
			 "expected %s to return, saw it exit with %d", who,
			 WEXITSTATUS(status));
	return failure;
}

/* Nobody else asks how these ended. SIGKILL is what they were sent at the end. */
static int reap_kids(void)
{
	int status, bad = 0;

	while (waitpid(-1, &status, 0) > 0)
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			bad = bad ? bad : status;
	return bad;
}

/* The failure, or NULL, of what a fork of this process does by itself. */
static const char *run_in_fork(const struct test *test)
{
	int status, kids, pidfd;
	bool in_time;
	pid_t pid;

	atomic_flag_clear(&verdict->taken);
	verdict->text[0] = '\0';
	pid = fork();
	if (pid < 0)
		return "fork failed";
	if (!pid) {
		setpgid(0, 0);
		module_require(test->params);
		clock_gettime(CLOCK_MONOTONIC, &began);
		test->run();
		_exit(0);
	}
	setpgid(pid, pid);
	pidfd = pidfd_open(pid, 0);
	in_time = ended_in_time(pidfd, test);
	close(pidfd);
	if (!in_time)
		note("%s: timed out, killing it", test->name);

	/* Whatever it left running goes too: this process is the subreaper. */
	kill(-pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid)
		return "lost the test's process";
	kids = reap_kids();

	/* Who took it may have been killed before it wrote. */
	if (atomic_flag_test_and_set(&verdict->taken))
		return verdict->text[0] ? verdict->text :
					  "a check failed and was killed untold";
	if (!in_time)
		return "expected an end in time, saw none";
	return status ? bad_end("it", status) : bad_end("each child", kids);
}

/* With all processes of a test gone, nothing of it may be left. */
static void leave_nothing(void)
{
	/* A worker of the kernel may be the one to drop the last reference. */
	while (module_users() && !ran_for(10))
		sched_yield();
	CHECK_EQ(leases_alive(), 0);
	/* Nor one of a device that debugfs has no more. */
	CHECK_EQ(module_users(), 0);
}

static const char *run(const struct test *test)
{
	static const struct test after = { .name = "leave_nothing",
					   .run = leave_nothing };
	const char *failure = run_in_fork(test);

	if (!failure) {
		struct test check = after;

		check.params = test->params;
		failure = run_in_fork(&check);
	}
	return failure;
}

/* Seconds from which on it is told how long a test took. */
#define SLOW 10

static unsigned int passed, failed;

static void run_by(const struct test *test, uint32_t path)
{
	time_t start = time(NULL), took;
	const char *failure, *way;

	path_choose(path);
	failure = run(test);
	way = path_was_used() && path_is_cdev() ? "/cdev" : "";
	took = time(NULL) - start;
	if (failure)
		printf("FAIL %s%s  %s  [%s]", test->name, way, failure, test->promise);
	else
		printf("ok   %s%s  %s", test->name, way, test->promise);
	if (took >= SLOW)
		printf("  (%lld s)", (long long)took);
	printf("\n");
	fflush(stdout);
	failed += failure != NULL;
	passed += failure == NULL;
}

/*
 * Tests that open devices run once for each way to do it, or by turns one this way
 * and one that; the seed says who begins. Where the kernel does not have a way that
 * was asked for they fail.
 */
static struct {
	bool group, cdev, turns;
} ways = { true, true, false };

static void run_by_all(const struct test *test)
{
	static unsigned int nr;
	bool group = ways.turns ? (nr++ + seed) % 2 : ways.group;

	if (group)
		run_by(test, BARLEASE_PATH_GROUP);
	if (ways.turns ? !group : ways.cdev && (!group || path_was_used()))
		run_by(test, BARLEASE_PATH_CDEV);
}

static bool choose_ways(const char *path)
{
	ways.turns = strcmp(path, "turns") == 0;
	ways.group = strcmp(path, "cdev") != 0;
	ways.cdev = strcmp(path, "group") != 0;
	return !ways.group || !ways.cdev || ways.turns || !strcmp(path, "both");
}

/* Every Nth test from the Kth on, so that the parts take about as long. */
static unsigned int part = 1, parts = 1;

static bool choose_part(const char *text)
{
	char end;

	return sscanf(text, "%u/%u%c", &part, &parts, &end) == 2 && part >= 1 &&
	       part <= parts;
}

static void usage(FILE *to)
{
	fputs("usage: kernel-tests [--list] [--seed N] [--path group|cdev|both|turns]\n"
	      "                    [--part K/N] [GLOB...]\n"
	      "Runs the tests whose name matches a GLOB; without one, all. Of these, the Kth\n"
	      "part of N, as others may run the rest.\n"
	      "Those that open devices run by group, by cdev (as NAME/cdev), by both, or by\n"
	      "turns, each test by one of them.\n",
	      to);
}

static const struct test **sorted_tests(size_t *count)
{
	const struct test **order;

	/* cppcheck-suppress comparePointers ; a section's start and end */
	*count = (size_t)(__stop_tests - __start_tests);
	order = calloc(*count, sizeof(*order));
	CHECK(order);
	for (size_t i = 0; i < *count; i++)
		order[i] = &__start_tests[i];
	qsort(order, *count, sizeof(*order), by_params_and_place);
	return order;
}

static void prepare(void)
{
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	system_prepare();
	devices_prepare();
	printf("seed %llu\n", (unsigned long long)seed);
	/* Before a fork has it too. */
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "list", no_argument, NULL, 'l' },
		{ "seed", required_argument, NULL, 's' },
		{ "path", required_argument, NULL, 'p' },
		{ "part", required_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *slow = getenv("BARLEASE_SLOWNESS");
	const struct test **order;
	unsigned int left_out = 0, nr = 0;
	bool list = false;
	size_t count;
	int option;

	seed = (uint64_t)time(NULL);
	if (slow && (slowness = atoi(slow)) < 1) {
		fputs("kernel-tests: BARLEASE_SLOWNESS must be a number, 1 or more\n",
		      stderr);
		return 2;
	}
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'l':
			list = true;
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			if (choose_ways(optarg))
				break;
			usage(stderr);
			return 2;
		case 'n':
			if (choose_part(optarg))
				break;
			usage(stderr);
			return 2;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}

	verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (verdict == MAP_FAILED)
		return 2;
	order = sorted_tests(&count);
	if (!list)
		prepare();
	for (size_t i = 0; i < count; i++) {
		if (!wanted(order[i], argv + optind) || nr++ % parts != part - 1)
			continue;
		if (list)
			printf("%s  %s\n", order[i]->name, order[i]->promise);
		else if (kernel_has(order[i]->needs))
			run_by_all(order[i]);
		else
			left_out++;
	}
	free(order);
	if (list)
		return 0;
	if (left_out)
		printf("# left out: %u tests are for a kernel with fault injection\n",
		       left_out);
	printf("%u passed, %u failed\n", passed, failed);
	return failed || !passed;
}
