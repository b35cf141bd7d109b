// SPDX-License-Identifier: MIT
/*
 * main.c - a stress run: phases, each with a lessor, lessees that get killed and
 * started again, and a module loaded anew.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lessee.h"
#include "lessor.h"
#include "report.h"

#define MODULE     "barlease_vfio_pci"
#define PREEMPTION "/sys/kernel/debug/sched/preempt"

enum {
	PHASE_SECONDS = 15,
	HANG_SECONDS = 60,
	MIN_OVERLAPPING = 10, /* percent */
	ENOUGH_TRIES = 10,
	ENOUGH_SECONDS = 300, /* for each operation to be tried, on a slow kernel too */
	AFTERMATH_MS = 200,   /* lessees go on, when the lessor is gone */
};

static struct inboxes boxes;
static pid_t lessor, holder, lessees[NR_LESSEES];
static uint32_t generations[NR_LESSEES];
static double started;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "stress: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* --- the module --------------------------------------------------------- */

static void load(const char *parameters)
{
	const char *path = getenv("BARLEASE_KO");
	int fd;

	if (!path) {
		fprintf(stderr, "stress: BARLEASE_KO must name the module; see "
				"tests/stress/run\n");
		exit(2);
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, parameters, 0))
		die(path);
	close(fd);
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* The rows of all files of leases in debugfs. */
static unsigned int count_leases(void)
{
	unsigned int rows = 0;
	char line[256];
	glob_t found;

	if (glob("/sys/kernel/debug/barlease/*/leases", 0, NULL, &found))
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		FILE *file = fopen(found.gl_pathv[i], "re");

		if (!file)
			continue;
		while (fgets(line, sizeof(line), file))
			rows += *line >= '0' && *line <= '9';
		fclose(file);
	}
	globfree(&found);
	return rows;
}

/* --- the processes ------------------------------------------------------ */

static pid_t start(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void start_lessee(unsigned int i)
{
	lessees[i] = start();
	if (!lessees[i])
		lessee_main(i, generations[i], &boxes);
	setpgid(lessees[i], lessees[i]);
}

static void end_all(void)
{
	if (lessor)
		kill(lessor, SIGKILL);
	if (holder)
		kill(holder, SIGKILL);
	for (int i = 0; i < NR_LESSEES; i++)
		if (lessees[i])
			kill(-lessees[i], SIGKILL);
}

__attribute__((noreturn)) static void give_up(void)
{
	/* Who is the first to fail may still be writing why. */
	wait_until_told();
	if (!world->failure_told)
		snprintf(
			world->failure, sizeof(world->failure),
			"a process found a failure and was killed before it told which");
	report_failure();
	end_all();
	report_counts();
	printf("FAILED in phase %u, %.0f s after the start, seed %" PRIu64 ": %s\n",
	       world->phase, now() - started, world->seed, world->failure);
	fflush(stdout);
	_exit(1);
}

/* Like fail(), by the one who hears of failures. */
#define give_up_for(...)                                                               \
	do {                                                                           \
		if (!atomic_flag_test_and_set(&world->failed)) {                       \
			world->failure_lease = -1;                                     \
			world->failure_device = -1;                                    \
			snprintf(world->failure, sizeof(world->failure), __VA_ARGS__); \
			world->failure_told = true;                                    \
		}                                                                      \
		give_up();                                                             \
	} while (0)

/* Whether it has ended; it must have ended well. */
static bool ended(pid_t *pid, const char *who)
{
	int status;

	if (!*pid)
		return true;
	if (waitpid(*pid, &status, WNOHANG) != *pid)
		return false;
	*pid = 0;
	if (status)
		give_up_for("%s ended with status %#x", who, (unsigned int)status);
	return true;
}

/* Whose steps are more than operations is at work always. */
static bool is_at_work(unsigned int actor)
{
	return world->actors[actor].op || (actor == ACTOR_HOLDER && holder);
}

/* An actor that does nothing for so long hangs. */
static void check_progress(void)
{
	static uint64_t last[NR_ACTORS];
	static double since[NR_ACTORS];
	double time = now();
	char name[ACTOR_NAME];

	for (unsigned int i = 0; i < NR_ACTORS; i++) {
		uint64_t steps = world->actors[i].steps;

		if (steps != last[i] || !since[i] || !is_at_work(i)) {
			last[i] = steps;
			since[i] = time;
		} else if (time - since[i] > HANG_SECONDS * world->slowness) {
			uint32_t op = world->actors[i].op;

			report_stacks();
			give_up_for("%s hangs in %s", actor_name(i, name),
				    op_name(op ? (enum op)(op - 1) : OP_LOAD));
		}
	}
}

/* Who found something wrong just before it was killed is heard. */
static void reap_group(unsigned int i)
{
	double deadline = now() + HANG_SECONDS * world->slowness;
	int status;
	pid_t pid;

	while ((pid = waitpid(-lessees[i], &status, WNOHANG)) >= 0) {
		if (!pid && now() > deadline) {
			report_stacks();
			give_up_for("a lessee that was killed does not end");
		}
		if (!pid)
			pause_us(1000);
		else if (status &&
			 !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
			give_up_for(
				"a lessee ended with status %#x before it was killed",
				(unsigned int)status);
	}
	for (unsigned int thread = 0; thread < LESSEE_THREADS; thread++) {
		actor_gone(ACTOR_LESSEE + i * LESSEE_THREADS + thread);
		actor_gone(ACTOR_CHILD + i * LESSEE_THREADS + thread);
	}
}

/* With its children, who are our own once it is dead. */
static void kill_lessee(unsigned int i)
{
	me = ACTOR_KILLER;
	op_begin(OP_KILL, NULL, -1, i, 0);
	kill(-lessees[i], SIGKILL);
	reap_group(i);
	op_end(OP_KILL, NULL, -1, 0);
	generations[i]++;
	start_lessee(i);
}

static void watch(void)
{
	bool dead = false;

	if (world->failure_told)
		give_up();
	check_progress();
	dead |= !world->lessor_ends && lessor && ended(&lessor, "the lessor");
	if (!world->lessees_end) {
		dead |= holder && ended(&holder, "the quiet lessee");
		for (int i = 0; i < NR_LESSEES; i++)
			dead |= lessees[i] && ended(&lessees[i], "a lessee");
	}
	if (dead)
		give_up_for("a process ended before its time");
}

/* --- a phase ------------------------------------------------------------ */

static void start_all(void)
{
	inboxes_open(&boxes);
	lessor = start();
	if (!lessor)
		lessor_main(&boxes);
	holder = start();
	if (!holder)
		quiet_main(&boxes);
	for (unsigned int i = 0; i < NR_LESSEES; i++) {
		generations[i] = 0;
		start_lessee(i);
	}
}

static void await_end(pid_t *pid, const char *who)
{
	while (!ended(pid, who)) {
		watch();
		pause_us(1000);
	}
}

/* The lessor goes first: so its devices close with leases in use. */
static void end_phase(void)
{
	world->lessor_ends = true;
	await_end(&lessor, "the lessor");
	for (int i = 0; i < NR_DEVICES; i++)
		device_end((enum device)i, DEVICE_CLOSED, true);
	for (int ms = 0; ms < AFTERMATH_MS; ms += 10) {
		watch();
		pause_us(10000);
	}
	world->lessees_end = true;
	await_end(&holder, "the quiet lessee");
	for (int i = 0; i < NR_LESSEES; i++)
		await_end(&lessees[i], "a lessee");
	inboxes_close(&boxes);
}

/* With nobody left, nothing is; a worker of the kernel may be the last to let go. */
static void unload(void)
{
	double deadline = now() + 20 * world->slowness;
	unsigned int leases;

	while ((leases = count_leases()) && now() < deadline)
		pause_us(10000);
	if (leases)
		give_up_for("expected no lease after everybody's end, saw %u", leases);
	while (syscall(SYS_delete_module, MODULE, O_NONBLOCK))
		if (now() < deadline)
			pause_us(10000);
		else
			give_up_for("unloading the module: expected success, saw %s",
				    errno_name(errno));
}

static void run_phase(uint32_t phase, double seconds)
{
	struct random random = random_of(world->seed, phase, ACTOR_KILLER, 0);
	unsigned int around = draw(&random) % 3 ? 4 : 64;
	double deadline, next_kill, next_line;
	char parameters[64];

	snprintf(parameters, sizeof(parameters), "huge_pud=%u fault_around_kb=%u",
		 phase % 4 != 0, around);
	printf("phase %u: %s\n", phase, parameters);
	world_reset(phase);
	load(parameters);
	start_all();
	/* The first time each page of the devices gets its stamp. */
	while (!world->lessor_ready) {
		watch();
		pause_us(1000);
	}
	next_kill = now();
	next_line = now() + 5;
	deadline = now() + seconds;
	while (now() < deadline) {
		pause_us(5000);
		watch();
		if (now() > next_kill) {
			uint64_t r = draw(&random);

			kill_lessee(r % NR_LESSEES);
			next_kill = now() + (double)(100 + (r >> 20) % 1500) / 1000 *
						    world->slowness;
		}
		if (now() > next_line) {
			printf("  %3.0f s: %" PRIu64 " operations, %u %% overlapping\n",
			       now() - started, report_operations(),
			       report_overlapping());
			fflush(stdout);
			next_line += 5;
		}
	}
	end_phase();
	unload();
}

/* What never works proves nothing, nor what is never tried. */
static void check_successes(uint64_t duration)
{
	/* These come first, so even the shortest run has them; see devices.c. */
	static const enum op always[] = { OP_PULL, OP_RESCAN, OP_HOT_RESET,
					  OP_SYSFS_RESET };

	for (size_t i = 0; i < sizeof(always) / sizeof(*always); i++)
		if (!world->outcomes[always[i]][0])
			give_up_for("%s: expected a success in any run, saw none",
				    op_name(always[i]));
	for (enum op op = 0; op < NR_OPS; op++) {
		if (!report_count(op) && duration >= ENOUGH_SECONDS)
			give_up_for("%s: expected it to be tried, saw it never",
				    op_name(op));
		if (report_count(op) >= ENOUGH_TRIES && !world->outcomes[op][0])
			give_up_for("%s: expected a success, saw none in %" PRIu64
				    " tries",
				    op_name(op), report_count(op));
	}
}

static uint64_t number(const char *text, const char *what)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*end || !*text) {
		fprintf(stderr, "stress: %s is a number, not \"%s\"\n", what, text);
		exit(2);
	}
	return value;
}

static void usage(FILE *to)
{
	fputs("usage: stress [--duration SECONDS] [--seed N]\n"
	      "Runs inside the VM, see tests/stress/run. Exits with 0 if nothing failed.\n",
	      to);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "duration", required_argument, NULL, 'd' },
		{ "seed", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	uint64_t seed = (uint64_t)time(NULL), duration = 60, phases;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'd':
			duration = number(optarg, "--duration");
			break;
		case 's':
			seed = number(optarg, "--seed");
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc || !duration) {
		usage(stderr);
		return 2;
	}

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* So that whoever wakes up interrupts others wherever they are. */
	if (!access(PREEMPTION, F_OK))
		write_text(PREEMPTION, "full");
	world_create(seed);
	if (getenv("BARLEASE_SLOWNESS"))
		world->slowness = (unsigned int)number(getenv("BARLEASE_SLOWNESS"),
						       "BARLEASE_SLOWNESS");
	started = now();
	printf("seed %" PRIu64 ", %" PRIu64 " s\n", seed, duration);
	/* To begin and to end one takes a slow kernel longer than 15 seconds. */
	phases = duration / PHASE_SECONDS / world->slowness;
	phases = phases > 2 ? phases : 2;
	for (uint64_t phase = 0; phase < phases; phase++)
		run_phase((uint32_t)phase, (double)duration / (double)phases);

	report_counts();
	if (atomic_flag_test_and_set(&world->failed))
		give_up();
	atomic_flag_clear(&world->failed);
	check_successes(duration);
	if (report_overlapping() < MIN_OVERLAPPING)
		give_up_for(
			"expected at least %d %% of the operations to overlap, saw %u %%",
			MIN_OVERLAPPING, report_overlapping());
	printf("%" PRIu64 " operations, %u %% overlapping, seed %" PRIu64
	       ": no failure\n",
	       report_operations(), report_overlapping(), seed);
	return 0;
}
