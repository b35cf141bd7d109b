// SPDX-License-Identifier: MIT
/*
 * sigbus_test.c - a SIGBUS that is none of the library's ends as it would without
 * the library. Each case is played twice, by a child that has a map with SURVIVE
 * and by one that has none, and both must have seen the same.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "barlease.h"
#include "lossy.h"

#define MAX_CALLS 8

/* The linker puts this before sigaction(). */
int __real_sigaction(int sig, const struct sigaction *new, struct sigaction *old);
int __wrap_sigaction(int sig, const struct sigaction *new, struct sigaction *old);

/* Where the SIGBUS comes from. */
enum source {
	FAULT,
	MISALIGNED,
	MEMORY_ERROR,
	RAISED,
	KILLED,
	QUEUED,
	SUSPENDED,
	NR_SOURCES
};

/* What the handler does. */
enum deed { RETURNS, JUMPS, JUMPS_WITH_MASK, RAISES_AGAIN, NR_DEEDS };

struct scenario {
	enum source source;
	enum deed deed;
	bool is_handler;
	void (*fixed)(int); /* else SIG_DFL or SIG_IGN */
	int flags;          /* of the handler */
	bool with_mask;     /* the handler's mask has SIGUSR1 */
	bool chained;       /* a handler that came later calls it */
};

/* What one call of the handler has seen. */
struct call {
	int sig, code, depth;
	bool at_page, from_us, on_stack;
	long value;
	uint64_t mask, context_mask;
};

/* What a child has seen, and how it ended. */
struct outcome {
	struct call calls[MAX_CALLS];
	int nr_calls;
	uint64_t chained_mask[2]; /* of the later handler, before and after */
	uint64_t mask_after[2];
	uint64_t loaded[2];
	int status;
};

static struct outcome *seen; /* shared with the children */
static const struct scenario *scenario;
static sigjmp_buf landing;
static volatile int depth;
static int file;
static char *page;
static char stack[64 << 10];
static char directory[] = "/tmp/barlease-sigbus.XXXXXX"; /* for cores */

static uint64_t signal_mask(void)
{
	uint64_t mask = 0;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
	return mask;
}

static void note_call(int sig, siginfo_t *info, ucontext_t *context)
{
	struct call *call = &seen->calls[seen->nr_calls++ % MAX_CALLS];
	char here;

	*call = (struct call){ .sig = sig, .depth = depth, .mask = signal_mask() };
	/* The library asks for the alternate stack itself. */
	if (scenario->flags & SA_ONSTACK)
		call->on_stack = (uintptr_t)&here - (uintptr_t)stack < sizeof(stack);
	if (!info)
		return;
	call->code = info->si_code;
	if (scenario->source <= MEMORY_ERROR)
		call->at_page = info->si_addr == page + 8;
	else
		call->from_us = info->si_pid == getpid() && info->si_uid == getuid();
	if (scenario->source == QUEUED)
		call->value = (long)info->si_value.sival_ptr;
	memcpy(&call->context_mask, &context->uc_sigmask, sizeof(call->context_mask));
}

static void on_any(int sig, siginfo_t *info, void *context)
{
	note_call(sig, info, context);
	switch (scenario->deed) {
	case JUMPS:
	case JUMPS_WITH_MASK:
		siglongjmp(landing, 1);
	case RAISES_AGAIN:
		/* Once: where it is blocked meanwhile it comes after this one. */
		if (seen->nr_calls == 1) {
			depth++;
			raise(SIGBUS);
			depth--;
		}
		break;
	default:
		break;
	}
	/* So that the access succeeds when it is done again. */
	cut(file, 1);
}

static void on_plain(int sig)
{
	on_any(sig, NULL, NULL);
}

static struct sigaction earlier;

static void on_later(int sig, siginfo_t *info, void *context)
{
	seen->chained_mask[0] = signal_mask();
	if (earlier.sa_flags & SA_SIGINFO)
		earlier.sa_sigaction(sig, info, context);
	else
		earlier.sa_handler(sig);
	seen->chained_mask[1] = signal_mask();
}

static void install_later(void)
{
	struct sigaction action = { .sa_sigaction = on_later, .sa_flags = SA_SIGINFO };

	sigaddset(&action.sa_mask, SIGHUP);
	if (sigaction(SIGBUS, &action, &earlier))
		_exit(95);
}

/* Blocked while it comes, and taken while others are. */
static void raise_and_suspend(void)
{
	sigset_t blocked, waiting;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGBUS);
	sigaddset(&blocked, SIGHUP);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	raise(SIGBUS);
	sigemptyset(&waiting);
	sigaddset(&waiting, SIGTERM);
	sigsuspend(&waiting);
}

static void send_as(int code)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = code };

	info.si_addr = page + 8;
	syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info);
}

static uint64_t cause(void)
{
	switch (scenario->source) {
	case FAULT:
		cut(file, 0);
		return load(page, 8);
	case MISALIGNED:
		send_as(BUS_ADRALN);
		break;
	case MEMORY_ERROR: /* found while nobody accessed it */
		send_as(BUS_MCEERR_AO);
		break;
	case RAISED:
		raise(SIGBUS);
		break;
	case KILLED:
		kill(getpid(), SIGBUS);
		break;
	case SUSPENDED:
		raise_and_suspend();
		break;
	default:
		sigqueue(getpid(), SIGBUS, (union sigval){ .sival_ptr = page });
	}
	return 1;
}

static void install(void)
{
	struct sigaction action = { .sa_flags = scenario->flags };
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };

	if (scenario->flags & SA_ONSTACK)
		sigaltstack(&alternate, NULL);
	if (scenario->with_mask)
		sigaddset(&action.sa_mask, SIGUSR1);
	if (!scenario->is_handler)
		action.sa_handler = scenario->fixed;
	else if (scenario->flags & SA_SIGINFO)
		action.sa_sigaction = on_any;
	else
		action.sa_handler = on_plain;
	if (sigaction(SIGBUS, &action, NULL))
		_exit(90);
}

static void play_once(int i, const sigset_t *mask)
{
	if (!sigsetjmp(landing, scenario->deed == JUMPS_WITH_MASK))
		seen->loaded[i] = cause();
	seen->mask_after[i] = signal_mask();
	/* A jump out of a handler may have left SIGBUS blocked. */
	sigprocmask(SIG_SETMASK, mask, NULL);
	depth = 0;
}

/* Twice, as the second may be another thing than the first. */
static void play(void)
{
	struct rlimit core = { RLIM_INFINITY, RLIM_INFINITY };
	sigset_t mask;

	alarm(10);
	/* Whether a core was written is told by the status. */
	if (!scenario->is_handler)
		setrlimit(RLIMIT_CORE, &core);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	play_once(0, &mask);
	play_once(1, &mask);
	_exit(0);
}

/* Have a map with SURVIVE, and see that it does. */
static void take_a_map(void)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	int fd = lossy_file(1);
	struct barlease_map *map = barlease_map(fd, &options);

	if (!map || load(barlease_map_addr(map), 0) != page_word(0))
		_exit(91);
	cut(fd, 0);
	if (load(barlease_map_addr(map), 0) != ONES || !barlease_map_lost(map))
		_exit(92);
}

static struct outcome outcome(bool with_library)
{
	pid_t pid;

	memset(seen, 0, sizeof(*seen));
	pid = fork();
	assert_return_code(pid, errno);
	if (!pid) {
		file = lossy_file(1);
		page = mmap(NULL, page_size, PROT_READ, MAP_SHARED, file, 0);
		if (page == MAP_FAILED)
			_exit(93);
		install();
		if (with_library)
			take_a_map();
		if (scenario->chained)
			install_later();
		if (chdir(directory))
			_exit(94);
		play();
	}
	assert_int_equal(waitpid(pid, &seen->status, 0), pid);
	return *seen;
}

/* Each child has its own page somewhere else. */
static void same_values(struct outcome *one)
{
	for (int i = 0; i < MAX_CALLS; i++)
		one->calls[i].value = one->calls[i].value != 0;
}

/*
 * A handler of the library's that was called in sigsuspend() can't know what was
 * blocked there: the one it calls has blocked what is so after it.
 */
static void same_masks(struct outcome *one, const struct scenario *what)
{
	static const int differs[] = { SIGTERM, SIGHUP, SIGUSR2 };
	uint64_t known = UINT64_MAX;

	if (what->source != SUSPENDED || what->chained)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(differs); i++)
		known &= ~(1ULL << (differs[i] - 1));
	for (int i = 0; i < MAX_CALLS; i++) {
		one->calls[i].mask &= known;
		if (one->calls[i].depth)
			one->calls[i].context_mask &= known;
	}
	one->mask_after[0] &= known;
	one->mask_after[1] &= known;
}

static void check_same(const struct scenario *what)
{
	struct outcome without, with;

	scenario = what;
	without = outcome(false);
	with = outcome(true);
	same_values(&without);
	same_values(&with);
	same_masks(&without, what);
	same_masks(&with, what);
	if (!memcmp(&without, &with, sizeof(with)))
		return;
	print_error("source %d, deed %d, flags %#x, mask %d, handler %d %p: "
		    "status %#x, with library %#x; %d calls, with library %d\n",
		    what->source, what->deed, what->flags, what->with_mask,
		    what->is_handler, (void *)what->fixed, without.status, with.status,
		    without.nr_calls, with.nr_calls);
	fail();
}

/* Into files, as of a program that takes them nobody knows, and of any size. */
static bool cores_are_written(void)
{
	int pattern = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);
	struct rlimit core;
	char first = '\n';

	assert_return_code(pattern, errno);
	assert_return_code(read(pattern, &first, 1), errno);
	close(pattern);
	assert_int_equal(getrlimit(RLIMIT_CORE, &core), 0);
	return first != '\n' && first != '|' &&
	       (core.rlim_max == RLIM_INFINITY || (core.rlim_max && geteuid() == 0));
}

static void default_actions_are_taken(void **state)
{
	static void (*const fixed[])(int) = { SIG_DFL, SIG_IGN };

	(void)state;
	for (int source = 0; source < NR_SOURCES; source++) {
		for (int i = 0; i < 2; i++) {
			struct scenario what = { .source = source, .fixed = fixed[i] };

			/*
			 * The one only the kernel has, and does not ignore it; the
			 * other waits for good without the library.
			 */
			if ((source == MISALIGNED || source == SUSPENDED) &&
			    fixed[i] == SIG_IGN)
				continue;
			check_same(&what);
			assert_true(WIFSIGNALED(seen->status) || fixed[i] == SIG_IGN);
			if (!WIFSIGNALED(seen->status))
				continue;
			assert_int_equal(WTERMSIG(seen->status), SIGBUS);
			assert_true(WCOREDUMP(seen->status) || !cores_are_written());
		}
	}
}

static void handlers_see_no_difference(void **state)
{
	static const int flags[] = { SA_SIGINFO, SA_NODEFER, SA_RESETHAND, SA_ONSTACK };
	int handled = 0, died = 0;

	(void)state;
	for (int bits = 0; bits < 1 << ARRAY_SIZE(flags); bits++) {
		struct scenario what = { .is_handler = true };

		for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
			what.flags |= bits & 1 << i ? flags[i] : 0;
		for (int source = 0; source < NR_SOURCES; source++) {
			for (int deed = 0; deed < NR_DEEDS; deed++) {
				what.source = source;
				what.deed = deed;
				what.with_mask = (bits + source + deed) % 2;
				check_same(&what);
				handled += seen->nr_calls;
				died += WIFSIGNALED(seen->status);
			}
		}
	}
	/* All 448 were called, and SA_RESETHAND ended in SIG_DFL. */
	assert_in_range(handled, 448, 10000);
	assert_in_range(died, 100, 350);
}

static void handlers_are_called_by_later_ones_as_before(void **state)
{
	(void)state;
	for (int source = 0; source < NR_SOURCES; source++) {
		for (int deed = 0; deed < NR_DEEDS; deed++) {
			struct scenario what = { .is_handler = true, .chained = true };

			what.source = source;
			what.deed = deed;
			what.flags = (source + deed) % 2 ? SA_SIGINFO : 0;
			what.with_mask = deed % 2;
			check_same(&what);
			assert_int_not_equal(seen->nr_calls, 0);
		}
	}
}

/* Nothing is in it when the process has gone. */
static void read_proc(pid_t pid, const char *name, char text[4096])
{
	char path[64];
	ssize_t length = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = read(fd, text, 4095);
		close(fd);
	}
	text[length < 0 ? 0 : length] = '\0';
}

static bool is_asleep(pid_t pid)
{
	char text[4096], *state;

	read_proc(pid, "stat", text);
	state = strrchr(text, ')');
	return !state || state[2] == 'S';
}

/* Once it is not, a system call that it met has ended, or will begin anew. */
static bool is_pending(pid_t pid, int sig)
{
	char text[4096], *pending;

	read_proc(pid, "status", text);
	pending = strstr(text, "ShdPnd:");
	return pending && strtoull(pending + 7, NULL, 16) >> (sig - 1) & 1;
}

/* A SIGBUS for a process that waits for a byte, and the byte after it. */
static void send_both(pid_t pid, int pipe)
{
	while (!is_asleep(pid))
		usleep(1000);
	kill(pid, SIGBUS);
	while (is_pending(pid, SIGBUS))
		usleep(1000);
	_exit(write(pipe, "", 1) != 1);
}

/* A read() that waits, and a SIGBUS that somebody sends: EINTR or not? */
static int interrupted_read(int flags, void (*fixed)(int), bool with_library)
{
	struct scenario what = { .is_handler = !fixed,
				 .fixed = fixed,
				 .flags = flags,
				 .deed = RETURNS,
				 .source = KILLED };
	int status;
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid) {
		int ends[2];
		char byte;

		scenario = &what;
		file = lossy_file(1);
		install();
		if (with_library)
			take_a_map();
		if (pipe(ends))
			_exit(93);
		pid = getpid();
		if (fork() == 0)
			send_both(pid, ends[1]);
		_exit(read(ends[0], &byte, 1) == 1 ? 1 : errno == EINTR ? 2 : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void system_calls_are_interrupted_as_before(void **state)
{
	(void)state;
	for (int with_library = 0; with_library < 2; with_library++) {
		assert_int_equal(interrupted_read(0, NULL, with_library), 2);
		assert_int_equal(interrupted_read(SA_RESTART, NULL, with_library), 1);
		assert_int_equal(interrupted_read(0, SIG_IGN, with_library), 1);
	}
}

/* What another thread does when the library has looked what is installed. */
static void (*after_a_look)(void);

int __wrap_sigaction(int sig, const struct sigaction *new, struct sigaction *old)
{
	void (*then)(void) = after_a_look;
	int ret = __real_sigaction(sig, new, old);

	if (then && sig == SIGBUS) {
		after_a_look = NULL;
		then();
	}
	return ret;
}

static const struct scenario between = { .is_handler = true, .source = KILLED };

static void install_between(void)
{
	struct sigaction action = { .sa_handler = on_plain, .sa_flags = SA_RESTART };

	sigaddset(&action.sa_mask, SIGUSR1);
	if (__real_sigaction(SIGBUS, &action, NULL))
		_exit(90);
}

/* And again, as soon as the library has installed its own. */
static void install_between_and_after(void)
{
	install_between();
	after_a_look = install_between;
}

static int look_between(uint32_t also_after)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct sigaction action = { .sa_handler = SIG_DFL };

	scenario = &between;
	file = lossy_file(1);
	if (__real_sigaction(SIGBUS, &action, NULL))
		return 91;
	after_a_look = also_after ? install_between_and_after : install_between;
	if (!barlease_map(file, &options) || after_a_look ||
	    __real_sigaction(SIGBUS, NULL, &action))
		return 90;
	if (also_after)
		return action.sa_handler == on_plain ? 0 : 1;
	raise(SIGBUS);
	if (action.sa_handler == on_plain || seen->nr_calls != 1)
		return 2;
	if (!(seen->calls[0].mask & 1 << (SIGUSR1 - 1)))
		return 3;
	return action.sa_flags & SA_RESTART ? 0 : 4;
}

static void a_handler_of_the_last_moment_is_called_as_its_own(void **state)
{
	(void)state;
	for (int also_after = 0; also_after < 2; also_after++) {
		pid_t pid;

		memset(seen, 0, sizeof(*seen));
		pid = fork();
		assert_return_code(pid, errno);
		if (!pid)
			_exit(look_between(also_after));
		assert_int_equal(end_of(pid), 0);
	}
}

static int make_directory(void **state)
{
	(void)state;
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	(void)state;
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
	return rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(default_actions_are_taken),
		/* That puts handlers of its own before these. */
		UNLESS_TSAN(handlers_see_no_difference),
		UNLESS_TSAN(handlers_are_called_by_later_ones_as_before),
		cmocka_unit_test(system_calls_are_interrupted_as_before),
		UNLESS_TSAN(a_handler_of_the_last_moment_is_called_as_its_own),
	};

	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (seen == MAP_FAILED)
		return 1;
	return cmocka_run_group_tests_name("sigbus", tests, make_directory,
					   remove_directory);
}
