// SPDX-License-Identifier: MIT
/*
 * vm.c - what the other tests take for granted of the VM they run in.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"

#define NAP_NS 100000

struct naps {
	atomic_bool over;
	_Atomic uint64_t count;
};

static void run_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK_OK(sched_setaffinity(0, sizeof(set), &set));
}

static void *take_naps(void *shared)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	struct naps *naps = shared;

	run_on_cpu(1);
	while (!naps->over) {
		nanosleep(&nap, NULL);
		naps->count++;
	}
	return NULL;
}

TEST(vm_timers, "a CPU's timers tick on while another CPU switches a BAR on and off")
{
	enum { TOGGLES = 100, PATIENCE = 60 };
	struct naps naps = { .count = 0 };
	uint16_t off = 0, before;
	pthread_t thread;
	char path[64];
	int config;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config",
		 device_bdf(RAM_DEVICE));
	config = (int)CHECK_OK(open(path, O_RDWR | O_CLOEXEC));
	CHECK_EQ(pread(config, &before, sizeof(before), PCI_COMMAND), sizeof(before));
	run_on_cpu(0);
	CHECK_EQ(pthread_create(&thread, NULL, take_naps, &naps), 0);
	while (!ran_for(10)) {
		uint16_t on = before | PCI_COMMAND_MEMORY;
		uint64_t count = naps.count;
		time_t start = time(NULL);

		for (int i = 0; i < TOGGLES; i++) {
			CHECK_EQ(pwrite(config, &off, sizeof(off), PCI_COMMAND),
				 sizeof(off));
			CHECK_EQ(pwrite(config, &on, sizeof(on), PCI_COMMAND),
				 sizeof(on));
		}
		while (naps.count == count)
			CHECK_THAT(
				time(NULL) - start < PATIENCE,
				"expected CPU 1 to wake from %d ns, saw it sleep %d s",
				NAP_NS, PATIENCE);
	}
	naps.over = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(pwrite(config, &before, sizeof(before), PCI_COMMAND), sizeof(before));
}
