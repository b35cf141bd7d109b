// SPDX-License-Identifier: MIT
/*
 * resets_storm.c - every kind of reset on every device, all devices at once,
 * while a lessee of each faults without pause. ROUNDS=N in the environment is
 * how often each function is reset in each way that it can be.
 */
#define _GNU_SOURCE
#include <linux/vfio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define DEFAULT_ROUNDS 3

/* With a register that keeps its value over a reset, and is not all ones. */
static const struct function {
	enum device_kind kind;
	uint32_t bar;
	uint64_t offset;
	enum { ALONE, FIRST, SECOND } in_slot;
} functions[] = {
	{ RAM_DEVICE, RAM_BAR, 0x10, ALONE },
	{ BLK_DEVICE, 4, 0x10, ALONE },  /* msix_config, num_queues */
	{ NVME_DEVICE, 0, 0x08, ALONE }, /* VS */
	{ EDU_DEVICE, 0, 0x00, FIRST },  /* identification */
	{ EDU_SIBLING, 0, 0x00, SECOND },
	{ SMALL_DEVICE, RAM_BAR, 0x10, FIRST },
	{ SMALL_SIBLING, RAM_BAR, 0x10, SECOND },
};

#define FUNCTIONS (sizeof(functions) / sizeof(*functions))

/* Resets of a slot: more have begun than ended while one is under way. */
struct resets {
	_Atomic uint64_t begun, ended;
};

/* Shared with the lessees. */
static struct shared {
	struct resets resets[FUNCTIONS]; /* by its first function */
	_Atomic uint64_t loads[FUNCTIONS];
	_Atomic uint64_t in_reset;
	_Atomic bool stop;
} * shared;

static struct resets *resets_of(const struct function *function)
{
	return &shared->resets[function - functions - (function->in_slot == SECOND)];
}

/* Each access is to a mapping of its own, so that each faults. */
static void load_on(int sock, void *arg)
{
	const struct function *function = arg;
	struct resets *resets = resets_of(function);
	size_t n = (size_t)(function - functions);
	uint32_t first = 0, value;
	int lease = receive_fd(sock);

	/* It has its lease and nothing else: no device in particular. */
	sock = (int)CHECK_OK(dup2(sock, STDERR_FILENO + 1));
	lease = (int)CHECK_OK(dup2(lease, STDERR_FILENO + 2));
	CHECK_OK(close_range(STDERR_FILENO + 3, ~0u, 0));
	for (uint64_t loads = 0; !shared->stop; loads++) {
		/* Read in this order, equal ones mean that none is under way. */
		uint64_t ended = resets->ended, begun = resets->begun;
		char *at = map(lease, 0, PAGE_SIZE, PROT_READ);

		CHECK_EQ(try_load(at + function->offset, &value), 0);
		shared->in_reset += ended != begun || resets->begun != begun;
		if (!loads)
			first = value;
		CHECK_EQ(value, first);
		CHECK_OK(munmap(at, PAGE_SIZE));
		shared->loads[n]++;
	}
}

enum { BY_VFIO, BY_HOT, BY_SYSFS }; /* BY_SYSFS + n: the nth method it lists */

struct storm {
	const struct function *function;
	struct barlease_device dev;
	struct kid lessee;
	pthread_t thread;
	unsigned int rounds;
	char methods[8][16];
	unsigned int nr_methods;
	unsigned int done[BY_SYSFS + 8]; /* BY_... */
};

static void write_attribute(const struct storm *storm, const char *name,
			    const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", storm->dev.bdf,
		 name);
	write_file(path, text);
}

/*
 * A function that shares its slot has none: it can only be reset with the other.
 * The first one's file names one all the same, from when it was found alone.
 */
static void read_methods(struct storm *storm)
{
	char path[128], *text, *rest, *method;

	if (storm->function->in_slot != ALONE)
		return;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset_method",
		 storm->dev.bdf);
	write_attribute(storm, "reset_method", "default");
	rest = text = read_file(path);
	while ((method = strsep(&rest, " \n")))
		if (*method)
			snprintf(storm->methods[storm->nr_methods++],
				 sizeof(*storm->methods), "%s", method);
	free(text);
}

static bool vfio_can_reset(const struct storm *storm)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	CHECK_OK(ioctl(storm->dev.device_fd, VFIO_DEVICE_GET_INFO, &info));
	return info.flags & VFIO_DEVICE_FLAGS_RESET;
}

static void reset_once(struct storm *storm, unsigned int way)
{
	struct resets *resets = resets_of(storm->function);

	resets->begun++;
	if (way == BY_VFIO) {
		CHECK_OK(barlease_device_reset(&storm->dev));
	} else if (way == BY_HOT) {
		CHECK_OK(barlease_device_hot_reset(&storm->dev));
	} else {
		write_attribute(storm, "reset_method", storm->methods[way - BY_SYSFS]);
		write_attribute(storm, "reset", "1");
	}
	resets->ended++;
	storm->done[way]++;
}

static void wait_for_loads(size_t n, struct kid *lessee)
{
	uint64_t start = shared->loads[n];
	siginfo_t ended = { 0 };

	/* The first may have been under way before. */
	while (shared->loads[n] < start + 2) {
		sched_yield();
		CHECK_OK(waitid(P_PID, (id_t)lessee->pid, &ended,
				WEXITED | WNOHANG | WNOWAIT));
		CHECK(!ended.si_pid);
	}
}

static void *reset_on(void *arg)
{
	struct storm *storm = arg;
	unsigned int ways = BY_SYSFS + storm->nr_methods;
	unsigned int first = vfio_can_reset(storm) ? BY_VFIO : BY_HOT;

	for (unsigned int round = 0; round < storm->rounds; round++) {
		for (unsigned int way = first; way < ways; way++) {
			reset_once(storm, way);
			wait_for_loads((size_t)(storm->function - functions),
				       &storm->lessee);
		}
	}
	if (storm->nr_methods)
		write_attribute(storm, "reset_method", "default");
	return NULL;
}

static void start_storm(struct storm *storm, const struct function *function)
{
	storm->function = function;
	storm->dev = function->in_slot == SECOND ?
			     open_beside(&storm[-1].dev, function->kind) :
			     open_device(function->kind);
	read_methods(storm);
	storm->lessee = kid_start(load_on, (void *)(uintptr_t)function);
	send_fd(storm->lessee.sock, lease(&storm->dev, function->bar, 0, PAGE_SIZE));
	wait_for_loads((size_t)(function - functions), &storm->lessee);
}

/*
 * How often each method was taken, such as "flr" and "bus". VFIO has the first that
 * sysfs lists.
 */
static void note_methods(const struct storm *storms)
{
	for (const struct storm *storm = storms; storm < storms + FUNCTIONS; storm++) {
		if (storm->nr_methods)
			note("%s: %u by VFIO, method %s", storm->dev.bdf,
			     storm->done[BY_VFIO], storm->methods[0]);
		for (unsigned int i = 0; i < storm->nr_methods; i++)
			note("%s: %u by sysfs, method %s", storm->dev.bdf,
			     storm->done[BY_SYSFS + i], storm->methods[i]);
	}
}

TEST(resets_storm, "all kinds of resets of all devices at once show no lessee a SIGBUS",
     .timeout = 7200)
{
	const char *rounds = getenv("ROUNDS");
	struct storm storms[FUNCTIONS] = { 0 };
	unsigned int resets = 0, hot = 0;
	struct counter waits;
	uint64_t loads = 0, waited;

	shared = CHECK_MAP(mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	for (size_t i = 0; i < FUNCTIONS; i++)
		start_storm(&storms[i], &functions[i]);
	waits = counter_start("barlease", "lease_wait");
	for (size_t i = 0; i < FUNCTIONS; i++) {
		storms[i].rounds = rounds ? (unsigned int)atoi(rounds) : DEFAULT_ROUNDS;
		CHECK_EQ(pthread_create(&storms[i].thread, NULL, reset_on, &storms[i]),
			 0);
	}
	for (size_t i = 0; i < FUNCTIONS; i++) {
		CHECK_EQ(pthread_join(storms[i].thread, NULL), 0);
		resets += storms[i].done[BY_VFIO];
		hot += storms[i].done[BY_HOT];
	}
	waited = counter_stop(&waits);
	shared->stop = true;
	for (size_t i = 0; i < FUNCTIONS; i++) {
		kid_join(&storms[i].lessee);
		loads += shared->loads[i];
	}
	note("%u resets by VFIO, %u hot resets; %llu faults, of which %llu met a reset of "
	     "their own device and %llu waited",
	     resets, hot, (unsigned long long)loads,
	     (unsigned long long)shared->in_reset, (unsigned long long)waited);
	note_methods(storms);
	/* In those from sysfs alone, and not in each when there is little CPU. */
	CHECK(waited);
}
