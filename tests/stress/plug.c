// SPDX-License-Identifier: MIT
/*
 * plug.c - pull a device out of its slot, and put another one in, as vm/run
 * --hotplug allows it: the port's Slot Control register and QEMU's monitor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lessor.h"

#define MONITOR "/dev/virtio-ports/monitor"
#define SLOTS   "/barlease/slots"

static int config = -1;     /* of the port above the slot */
static off_t express;       /* its PCI Express capability */
static uint16_t slot_plain; /* its Slot Control, as the kernel left it */
static unsigned int slot;   /* its number */
static int monitor = -1;
static FILE *answers; /* the monitor's */
#define NR_HANDLERS 8
static int handlers[NR_HANDLERS]; /* the kernel's threads for ports, 0 behind */

static void check(bool good, const char *what)
{
	if (!good)
		fail(-1, PLUG, "%s: expected success, saw %s", what, errno_name(errno));
}

static uint16_t read_port(off_t at)
{
	uint16_t value;

	check(pread(config, &value, sizeof(value), at) == sizeof(value),
	      "reading the port's config space");
	return value;
}

static void write_slot_control(uint16_t value)
{
	check(pwrite(config, &value, sizeof(value), express + PCI_EXP_SLTCTL) ==
		      sizeof(value),
	      "writing the slot's control");
}

static void find_port(const char *bdf)
{
	char link[PATH_MAX], path[PATH_MAX + 16];
	off_t at;

	snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s", bdf);
	check(realpath(link, path), link);
	strcpy(strrchr(path, '/'), "/config");
	config = open(path, O_RDWR | O_CLOEXEC);
	check(config >= 0, path);
	at = read_port(PCI_CAPABILITY_LIST) & 0xff;
	while (at && (read_port(at) & 0xff) != PCI_CAP_ID_EXP)
		at = read_port(at) >> 8;
	express = at;
	slot = (read_port(express + PCI_EXP_SLTCAP + 2) & PCI_EXP_SLTCAP_PSN >> 16) >>
	       3;
	slot_plain = read_port(express + PCI_EXP_SLTCTL);
}

/* Commands for the monitor. */
struct batch {
	FILE *file;
	char *text;
	size_t size;
	unsigned int commands;
};

static void add(struct batch *batch, const char *command, const char *what,
		const char *end)
{
	fprintf(batch->file,
		"{\"execute\": \"human-monitor-command\", \"id\": \"stress\", "
		"\"arguments\": {\"command-line\": \"%s%s%s\"}}\n",
		command, what, end);
	batch->commands++;
}

/* Send all at once, and wait until they are done. */
static void tell(struct batch *batch)
{
	char *line = NULL;
	size_t room = 0;

	check(!fclose(batch->file), "composing commands for QEMU");
	check(write(monitor, batch->text, batch->size) == (ssize_t)batch->size,
	      "writing to QEMU's monitor");
	/* Between the answers QEMU tells what else happens. */
	while (batch->commands) {
		check(getline(&line, &room, answers) > 0, "reading QEMU's answer");
		if (!strstr(line, "\"id\": \"stress\""))
			continue;
		if (!strstr(line, "\"return\": \"\""))
			fail(-1, PLUG, "putting a device back: QEMU says %s", line);
		batch->commands--;
	}
	free(line);
	free(batch->text);
}

/* What the kernel does about a port's events a thread of its own does. */
static void find_handlers(void)
{
	size_t count = 0;
	glob_t found;

	check(!glob("/proc/[0-9]*/comm", 0, NULL, &found), "listing /proc");
	for (size_t i = 0; i < found.gl_pathc; i++) {
		FILE *comm = fopen(found.gl_pathv[i], "re");
		char name[32] = "";
		int number, end = 0;

		/* Processes come and go. */
		if (!comm)
			continue;
		if (fgets(name, sizeof(name), comm) &&
		    sscanf(name, "irq/%d-pciehp%n", &number, &end) == 1 && end) {
			check(count < NR_HANDLERS - 1,
			      "knowing all threads for hotplug");
			handlers[count++] = atoi(found.gl_pathv[i] + strlen("/proc/"));
		}
		fclose(comm);
	}
	globfree(&found);
	check(count, "finding the kernel's threads for hotplug");
}

static void read_thread(int pid, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0, path);
	got = read(fd, text, size - 1);
	check(got >= 0, path);
	close(fd);
	text[got] = '\0';
}

/* The stack of one that runs is not to be relied on. */
static bool port_is_handled(void)
{
	char stat[64], stack[4096];

	for (const int *handler = handlers; *handler; handler++) {
		read_thread(*handler, "stack", stack, sizeof(stack));
		read_thread(*handler, "stat", stat, sizeof(stat));
		if (!strstr(stat, ") S ") || !*stack || strstr(stack, "pciehp_ist"))
			return true;
	}
	return false;
}

void plug_prepare(const char *bdf)
{
	find_port(bdf);
	find_handlers();
	monitor = open(MONITOR, O_RDWR | O_CLOEXEC);
	check(monitor >= 0, "opening " MONITOR " (vm/run --hotplug)");
	answers = fdopen(monitor, "r");
	check(answers, "fdopen");
	/* Where this was said before it does no harm. */
	dprintf(monitor, "{\"execute\": \"qmp_capabilities\"}\n");
}

/*
 * QEMU drops what is in a slot when its power goes. With the power on again the
 * slot is as if somebody had pulled the card; a port with an attention button
 * tells the kernel only if it is asked to.
 */
void plug_pull(void)
{
	uint16_t off = slot_plain | PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF;

	write_slot_control(off & ~PCI_EXP_SLTCTL_HPIE);
	write_slot_control(slot_plain | PCI_EXP_SLTCTL_PDCE);
}

/* What was put in first has a plain name, those that came later a number. */
static const char *suffix(unsigned int time, char text[16])
{
	text[0] = '\0';
	if (time)
		snprintf(text, 16, "-%u", time);
	return text;
}

/* One of the commands that made what was in the slot; @ makes a name new. */
static void renew(struct batch *batch, char *command)
{
	char *at = strchr(command, '@'), *id = strstr(command, "id="), number[16];

	check(at, "finding an @ in " SLOTS);
	*at = '\0';
	if (!strncmp(command, "object_add", strlen("object_add")) && id)
		add(batch, "object_del ", id + strlen("id="),
		    suffix(world->renewed - 1, number));
	add(batch, command, suffix(world->renewed, number), at + 1);
}

void plug_put_back(void)
{
	const uint16_t off = PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF;
	FILE *slots = fopen(SLOTS, "re");
	struct batch batch = { 0 };
	char line[512];

	/*
	 * Until the kernel has switched the slot off it would drop a new card; and
	 * one that it finds before it is through, it powers on by itself, and off
	 * again when it hears of the button that was pressed for it.
	 */
	while ((read_port(express + PCI_EXP_SLTCTL) & off) != off || port_is_handled())
		pause_us(5000);
	check(slots, SLOTS);
	batch.file = open_memstream(&batch.text, &batch.size);
	check(batch.file, "open_memstream");
	world->renewed++;
	while (fgets(line, sizeof(line), slots)) {
		char *command = strchr(line, ' ');

		line[strcspn(line, "\n")] = '\0';
		if (command && (unsigned int)atoi(line) == slot)
			renew(&batch, command + 1);
	}
	fclose(slots);
	tell(&batch);
}
