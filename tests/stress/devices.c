// SPDX-License-Identifier: MIT
/*
 * devices.c - the lessor's threads that do to the devices what can be done to
 * them: switch decoding, reset, close and open, unbind and bind, take away.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "access.h"
#include "lessor.h"

#define PCI_DEVICES "/sys/bus/pci/devices"

struct lessor_device devices[NR_DEVICES];

/* --- the model ---------------------------------------------------------- */

void device_begin(enum device number, unsigned int flags)
{
	struct device_model *model = &world->devices[number];

	model->word =
		device_next(model->word,
			    device_flags(model->word) | flags | DEVICE_CHANGING, false);
	model->zaps++;
}

void device_end(enum device number, unsigned int flags, bool closed)
{
	struct device_model *model = &world->devices[number];

	flags |= device_flags(model->word) & DEVICE_PULLABLE;
	model->zaps++;
	model->word = device_next(model->word, flags, closed);
}

/* A reset is nothing that an access sees; it waits. */
static void reset_begin(enum device number)
{
	world->devices[number].zaps++;
}

static void reset_end(enum device number)
{
	world->devices[number].zaps++;
}

/* --- sysfs -------------------------------------------------------------- */

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error;

	if (fd < 0)
		return errno;
	error = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return error;
}

static int write_attribute(const struct lessor_device *device, const char *name,
			   const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", device->bdf, name);
	return write_file(path, text);
}

static bool read_attribute(const char *bdf, const char *name, char *text, size_t size)
{
	char path[384];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, text, size - 1);
	close(fd);
	text[got < 0 ? 0 : got] = '\0';
	return true;
}

static bool is_there(const struct lessor_device *device)
{
	char path[128];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver_override", device->bdf);
	return !access(path, F_OK);
}

/* The kernel does this in a thread of its own, and nothing tells when. */
static void await_presence(const struct lessor_device *device, bool there)
{
	while (is_there(device) != there)
		pause_us(5000);
}

static void must(const struct lessor_device *device, const char *what, int error)
{
	if (error)
		fail(-1, (int)device->number, "%s of %s: expected success, saw %s",
		     what, device->bdf, errno_name(error));
}

static int errno_of(int ret)
{
	return ret ? errno : 0;
}

/* --- open and close ----------------------------------------------------- */

/* BAR2's size, in pages; 0: the device is of another kind. */
static uint32_t ivshmem_pages(const char *bdf)
{
	unsigned long long start, end;
	char text[512], *line = text;

	if (!read_attribute(bdf, "device", text, sizeof(text)) ||
	    strncmp(text, "0x1110", 6) ||
	    !read_attribute(bdf, "resource", text, sizeof(text)))
		return 0;
	for (int i = 0; i < BAR; i++)
		line += strcspn(line, "\n") + 1;
	if (sscanf(line, "%llx %llx", &start, &end) != 2)
		return 0;
	return (uint32_t)((end - start + 1) / PAGE_SIZE);
}

/* In the order in which the VM was told of them. */
void devices_prepare(void)
{
	static const uint64_t sizes[] = { GIB(1), MIB(1), MIB(1), MIB(16) };
	struct dirent **entries;
	int count = scandir(PCI_DEVICES, &entries, NULL, alphasort), next = 0;

	for (int i = 0; i < count; i++) {
		uint32_t pages = ivshmem_pages(entries[i]->d_name);

		if (next < NR_DEVICES && pages && pages == sizes[next] / PAGE_SIZE) {
			struct lessor_device *device = &devices[next];

			device->number = (enum device)next++;
			device->nr_pages = pages;
			device->dev.device_fd = -1;
			snprintf(device->bdf, sizeof(device->bdf), "%.15s",
				 entries[i]->d_name);
		}
		free(entries[i]);
	}
	free(entries);
	if (next != NR_DEVICES)
		fail(-1, -1,
		     "expected a VM with the devices ivshmem "
		     "ivshmem:1M+ivshmem:1M ivshmem:16M, saw another");
	for (int i = 0; i < NR_DEVICES; i++) {
		pthread_rwlockattr_t attribute;

		pthread_rwlockattr_init(&attribute);
		/* Else those who only use the device would keep it open. */
		pthread_rwlockattr_setkind_np(
			&attribute, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
		pthread_rwlock_init(&devices[i].lock, &attribute);
	}
	plug_prepare(devices[PLUG].bdf);
}

/* Only what was put in anew has to get its stamps. */
static void stamp_pages(const struct lessor_device *device)
{
	for (uint32_t page = 0; page < device->nr_pages; page++) {
		volatile uint64_t *at =
			(void *)(device->bar + page * PAGE_SIZE + STAMP_OFFSET);

		if (page == 0 && *at)
			return;
		if (page < STAMPED_PAGES || page % STAMP_EVERY == 0)
			*at = stamp(device->number, page);
	}
}

/* The functions of one slot are reset together, so they are opened together. */
static int open_fds(struct lessor_device *device)
{
	const struct lessor_device *other =
		&devices[device->number == PAIR ? SIBLING : PAIR];
	bool paired = device->number == PAIR || device->number == SIBLING;

	if (paired && other->dev.device_fd >= 0)
		return errno_of(barlease_device_open_beside(&device->dev, device->bdf,
							    &other->dev));
	return errno_of(barlease_device_open(&device->dev, device->bdf));
}

/*
 * With a device that is new to the kernel, this races the kernel's own search
 * for a driver, ours or another, which holds the device's lock: so try again.
 */
static void bind_and_open(struct lessor_device *device)
{
	int error, tries = 0;

	do {
		if (tries)
			pause_us(5000);
		error = errno_of(barlease_device_bind(device->bdf, BARLEASE_DRIVER));
		if (!error)
			error = open_fds(device);
	} while ((error == ENODEV || error == ENOENT || error == EAGAIN) &&
		 tries++ < 2000 * (int)world->slowness);
	must(device, "bind and open", error);
}

/* With the lock held for writing, or before anyone is there. */
static void device_open(struct lessor_device *device)
{
	device_begin(device->number, 0);
	bind_and_open(device);
	device->bar = mmap(NULL, device->nr_pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_SHARED, device->dev.device_fd,
			   (off_t)device->dev.bars[BAR].offset);
	must(device, "mmap", device->bar == MAP_FAILED ? errno : 0);
	stamp_pages(device);
	device_end(device->number, 0, false);
}

static void device_close(struct lessor_device *device)
{
	device_begin(device->number, 0);
	munmap(device->bar, device->nr_pages * PAGE_SIZE);
	barlease_device_close(&device->dev);
	device_end(device->number, DEVICE_CLOSED, true);
}

void devices_open(void)
{
	for (int i = 0; i < NR_DEVICES; i++)
		device_open(&devices[i]);
}

/* --- what is done to them ----------------------------------------------- */

/* Off, for a time that is often shorter than a fault. */
static void act_decoding(struct lessor_device *device, const struct step *step)
{
	int number = (int)device->number, error;

	op_begin(OP_DECODING, NULL, number, 0, 0);
	device_begin(device->number, 0);
	error = errno_of(barlease_device_command(&device->dev, 0, PCI_COMMAND_MEMORY));
	must(device, "switching decoding off", error);
	device_end(device->number, DEVICE_OFF, false);
	if (one_in(step->r[1], 2))
		pause_us(step->r[2] % 3000);
	else
		spin(step->r[2] % 30000);
	device_begin(device->number, 0);
	error = errno_of(barlease_device_command(&device->dev, PCI_COMMAND_MEMORY, 0));
	must(device, "switching decoding on", error);
	device_end(device->number, 0, false);
	op_end(OP_DECODING, NULL, number, 0);
}

/* The kernel takes locks by trylock, so a reset may be put off for too long. */
static void must_reset(const struct lessor_device *device, enum op op, int error)
{
	if (error != EBUSY && error != EAGAIN)
		must(device, op_name(op), error);
}

static void check_reset(const struct lessor_device *device, enum op op, int error)
{
	must_reset(device, op, error);
	op_end(op, NULL, (int)device->number, error);
}

static void act_reset(struct lessor_device *device, const struct step *step)
{
	int error;

	(void)step;
	op_begin(OP_RESET, NULL, (int)device->number, 0, 0);
	reset_begin(device->number);
	error = errno_of(barlease_device_reset(&device->dev));
	reset_end(device->number);
	check_reset(device, OP_RESET, error);
}

static void act_sysfs_reset(struct lessor_device *device, const struct step *step)
{
	int error;

	(void)step;
	op_begin(OP_SYSFS_RESET, NULL, (int)device->number, 0, 0);
	reset_begin(device->number);
	error = write_attribute(device, "reset", "1");
	reset_end(device->number);
	check_reset(device, OP_SYSFS_RESET, error);
}

static int hot_reset(struct lessor_device *device)
{
	bool both = device->number == PAIR || device->number == SIBLING;
	int error;

	reset_begin(both ? PAIR : device->number);
	if (both)
		reset_begin(SIBLING);
	error = errno_of(barlease_device_hot_reset(&device->dev));
	reset_end(both ? PAIR : device->number);
	if (both)
		reset_end(SIBLING);
	return error;
}

static void act_hot_reset(struct lessor_device *device, const struct step *step)
{
	(void)step;
	op_begin(OP_HOT_RESET, NULL, (int)device->number, 0, 0);
	check_reset(device, OP_HOT_RESET, hot_reset(device));
}

static void act_reopen(struct lessor_device *device, const struct step *step)
{
	pthread_rwlock_wrlock(&device->lock);
	op_begin(OP_REOPEN, NULL, (int)device->number, 0, 0);
	device_close(device);
	pause_us(step->r[2] % 3000);
	device_open(device);
	op_end(OP_REOPEN, NULL, (int)device->number, 0);
	pthread_rwlock_unlock(&device->lock);
}

static void act_rebind(struct lessor_device *device, const struct step *step)
{
	(void)step;
	pthread_rwlock_wrlock(&device->lock);
	op_begin(OP_REBIND, NULL, (int)device->number, 0, 0);
	device_close(device);
	must(device, "unbind", write_attribute(device, "driver/unbind", device->bdf));
	device_open(device);
	op_end(OP_REBIND, NULL, (int)device->number, 0);
	pthread_rwlock_unlock(&device->lock);
}

/*
 * Its bus alone. To look everywhere, the kernel would write each bridge's control
 * register back as it had read it: where another bus is just being reset, that
 * makes a second reset, which nobody knows of.
 */
static int rescan(const struct lessor_device *device)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/class/pci_bus/%.7s/rescan", device->bdf);
	return write_file(path, "1");
}

/*
 * Leases keep what the driver has of a device, after the device itself: a hot
 * reset of the other function of its slot must not come upon it.
 */
static void act_rescan(struct lessor_device *device, const struct step *step)
{
	(void)step;
	pthread_rwlock_wrlock(&device->lock);
	op_begin(OP_RESCAN, NULL, (int)device->number, 0, 0);
	device_close(device);
	must(device, "remove", write_attribute(device, "remove", "1"));
	if (device->number == SIBLING)
		must_reset(device, OP_HOT_RESET, hot_reset(&devices[PAIR]));
	must(device, "rescan", rescan(device));
	await_presence(device, true);
	device_open(device);
	op_end(OP_RESCAN, NULL, (int)device->number, 0);
	pthread_rwlock_unlock(&device->lock);
}

static void act_pull(struct lessor_device *device, const struct step *step)
{
	op_begin(OP_PULL, NULL, (int)device->number, 0, 0);
	device_begin(device->number, DEVICE_REMOVED);
	plug_pull();
	device_end(device->number, DEVICE_REMOVED, false);
	pause_us(step->r[2] % 50000);
	pthread_rwlock_wrlock(&device->lock);
	/* The kernel waits for this before it lets go of the device. */
	device_close(device);
	await_presence(device, false);
	plug_put_back();
	device->renewed++;
	await_presence(device, true);
	device_open(device);
	op_end(OP_PULL, NULL, (int)device->number, 0);
	pthread_rwlock_unlock(&device->lock);
}

/* --- the threads -------------------------------------------------------- */

static void (*const choices[])(struct lessor_device *device,
			       const struct step *step) = {
	act_decoding, act_reset,  act_sysfs_reset, act_hot_reset,
	act_reopen,   act_rebind, act_rescan,      act_pull,
};
enum { NR_CHOICES = sizeof(choices) / sizeof(*choices) };

static const struct {
	enum device first, last;
	unsigned int weights[NR_CHOICES];
} groups[GROUP_THREADS] = {
	{ RAM, RAM, { 40, 2, 2, 2, 8, 3, 2, 0 } },
	/* Two functions of one slot have hot reset alone. */
	{ PAIR, SIBLING, { 40, 0, 0, 4, 8, 3, 5, 0 } },
	{ PLUG, PLUG, { 40, 2, 2, 2, 8, 3, 2, 5 } },
};

/*
 * What takes a device away or resets it is rare by its weight, and a short run on a
 * slow kernel has few steps: so each of these comes first in a phase, however long it
 * takes.
 */
static void (*const firsts[][GROUP_THREADS])(struct lessor_device *device,
					     const struct step *step) = {
	{ act_sysfs_reset, act_rescan, act_pull },
	{ act_hot_reset, act_hot_reset, act_sysfs_reset },
};
enum {
	NR_FIRSTS = sizeof(firsts) / sizeof(*firsts),
	FIRST_TRIES = 100, /* at a reset that is put off */
	AWAIT_LEASE_US = 3000000,
};

/* With nobody there it proves little; but it is done in any case. */
static void await_lease(const struct lessor_device *device)
{
	uint64_t deadline = now_us() + AWAIT_LEASE_US * world->slowness;
	const struct lease_model *leases = &world->leases[device->number * LEASES_EACH];

	while (now_us() < deadline && !world->lessor_ends) {
		for (int i = 0; i < LEASES_EACH; i++)
			if (lease_state(leases[i].word) == LEASE_LIVE)
				return;
		pause_us(1000);
	}
}

static struct lessor_device *pick_device(uintptr_t group, const struct step *step)
{
	unsigned int nr = groups[group].last - groups[group].first + 1;

	return &devices[groups[group].first + step->r[0] % nr];
}

static void first_step(uintptr_t group, const struct step *step)
{
	struct lessor_device *device = pick_device(group, step);

	if (world->phase >= NR_FIRSTS)
		return;
	await_lease(device);
	pause_us((step->r[3] >> 20) % 300000);
	for (int i = 0; i < FIRST_TRIES; i++) {
		firsts[world->phase][group](device, step);
		if (!world->actors[me].outcome)
			break;
		pause_us(10000);
	}
}

void *group_thread(void *arg)
{
	uintptr_t group = (uintptr_t)arg;
	struct random random;
	struct step step;

	me = ACTOR_GROUP + (unsigned int)group;
	setpriority(PRIO_PROCESS, (id_t)gettid(), -10);
	random = random_of(world->seed, world->phase, me, 0);
	step = next_step(&random, groups[group].weights, NR_CHOICES);
	first_step(group, &step);
	while (!world->lessor_ends) {
		step = next_step(&random, groups[group].weights, NR_CHOICES);
		pause_us((step.r[3] >> 20) % 300000);
		choices[step.choice](pick_device(group, &step), &step);
	}
	return NULL;
}
