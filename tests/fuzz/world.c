// SPDX-License-Identifier: MIT
/*
 * world.c - the model of devices and leases, and the devices themselves.
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
#include <unistd.h>

#include "world.h"

#define PCI_DEVICES "/sys/bus/pci/devices"
#define DEBUGFS     "/sys/kernel/debug/barlease"

struct world *world;
struct barlease_device devices[NR_DEVICES];

static char addresses[NR_DEVICES][16];
static uint64_t power_control; /* of BLK, in config space */
static int nr_fds;             /* without leases */

/*
 * Sysfs and config space
 */

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		wrong("cannot open %s: %m", path);
	if (write(fd, text, strlen(text)) < 0)
		error = errno;
	close(fd);
	return -error;
}

static bool has_id(const char *bdf, const char *id)
{
	char path[300], text[8] = "";
	FILE *file;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/device", bdf);
	file = fopen(path, "r");
	if (!file || !fgets(text, sizeof(text), file))
		wrong("cannot read %s", path);
	fclose(file);
	return strncmp(text, id, strlen(id)) == 0;
}

static void find_device(enum device_name name, const char *id, int nth)
{
	struct dirent **entries;
	int count = scandir(PCI_DEVICES, &entries, NULL, alphasort);

	for (int i = 0; i < count; i++) {
		const char *bdf = entries[i]->d_name;

		if (*bdf != '.' && has_id(bdf, id) && nth-- == 0)
			snprintf(addresses[name], sizeof(*addresses), "%.15s", bdf);
		free(entries[i]);
	}
	free(entries);
	if (!*addresses[name])
		wrong("there is no device %d; the VM must have those of tests/fuzz/fuzz",
		      name);
}

static off_t config(uint64_t offset)
{
	return (off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40 | offset;
}

static uint32_t read_config(enum device_name dev, uint64_t offset, size_t size)
{
	uint32_t value = 0;

	if (pread(devices[dev].device_fd, &value, size, config(offset)) !=
	    (ssize_t)size)
		wrong("cannot read config space of %s at %#lx: %m", addresses[dev],
		      offset);
	return value;
}

static uint64_t find_capability(enum device_name dev, uint8_t id)
{
	uint64_t at = read_config(dev, PCI_CAPABILITY_LIST, 1);

	while (at && read_config(dev, at + PCI_CAP_LIST_ID, 1) != id)
		at = read_config(dev, at + PCI_CAP_LIST_NEXT, 1);
	return at;
}

static void add_guard(struct modelled_device *m, uint32_t location, uint64_t size)
{
	uint64_t offset = location & PCI_MSIX_TABLE_OFFSET;

	m->guards[m->nr_guards++] = (struct guard){
		.bar = location & PCI_MSIX_TABLE_BIR,
		.first = offset / PAGE_SIZE,
		.last = (offset + size - 1) / PAGE_SIZE,
	};
}

static void note_device(enum device_name dev)
{
	struct modelled_device *m = &world->devices[dev];
	uint64_t msix = find_capability(dev, PCI_CAP_ID_MSIX);
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/resource", addresses[dev]);
	file = fopen(path, "r");
	for (int bar = 0; bar < BARLEASE_BARS; bar++)
		if (!file || fscanf(file, "%lx %*x %*x", &m->bar_start[bar]) != 1)
			wrong("cannot read %s", path);
	fclose(file);
	if (msix) {
		uint32_t vectors = (read_config(dev, msix + PCI_MSIX_FLAGS, 2) &
				    PCI_MSIX_FLAGS_QSIZE) +
				   1;

		add_guard(m, read_config(dev, msix + PCI_MSIX_TABLE, 4), vectors * 16);
		add_guard(m, read_config(dev, msix + PCI_MSIX_PBA, 4),
			  (vectors + 63) / 64 * 8);
	}
}

/*
 * The devices
 */

void set_decoding(enum device_name dev, bool on)
{
	if (barlease_device_command(&devices[dev], on ? PCI_COMMAND_MEMORY : 0,
				    on ? 0 : PCI_COMMAND_MEMORY))
		wrong("cannot write the command register of %s: %m", addresses[dev]);
	world->devices[dev].decoding = on;
}

void set_asleep(bool asleep)
{
	uint32_t value = read_config(BLK, power_control, 2);

	value = (value & ~(uint32_t)PCI_PM_CTRL_STATE_MASK) | (asleep ? 3 : 0);
	if (pwrite(devices[BLK].device_fd, &value, 2, config(power_control)) != 2)
		wrong("cannot write the power state of %s: %m", addresses[BLK]);
	world->devices[BLK].asleep = asleep;
}

static void opened(enum device_name dev)
{
	world->devices[dev].open = true;
	world->devices[dev].asleep = false;
	set_decoding(dev, true);
}

void open_spare(void)
{
	if (barlease_device_open_beside(&devices[SPARE], addresses[SPARE],
					&devices[RAM]))
		wrong("cannot open %s: %m", addresses[SPARE]);
	opened(SPARE);
}

/* Its leases die. */
void close_spare(void)
{
	barlease_device_close(&devices[SPARE]);
	world->devices[SPARE].open = false;
	for (uint32_t i = 0; i < world->nr_leases; i++)
		if (world->leases[i].dev == SPARE)
			world->leases[i].state = CLOSED;
}

/* While it is open that would wait for it to be closed. */
void rebind_spare(void)
{
	bool was_open = world->devices[SPARE].open;

	if (was_open)
		close_spare();
	if (write_file("/sys/bus/pci/drivers/" BARLEASE_DRIVER "/unbind",
		       addresses[SPARE]) ||
	    barlease_device_bind(addresses[SPARE], BARLEASE_DRIVER))
		wrong("cannot unbind and bind %s: %m", addresses[SPARE]);
	if (was_open)
		open_spare();
}

static int check_reset(int result)
{
	if (result)
		wrong("a reset failed: %m");
	return 0;
}

int reset(int way)
{
	char path[64];

	switch (way) {
	case 0:
		check_reset(barlease_device_reset(&devices[BLK]));
		world->devices[BLK].asleep = false;
		return 0;
	case 1:
		/* It wakes the device behind its owner's back. */
		if (world->devices[BLK].asleep)
			set_asleep(false);
		snprintf(path, sizeof(path), PCI_DEVICES "/%s/reset", addresses[BLK]);
		errno = -write_file(path, "1");
		return check_reset(errno);
	default:
		/* Only what is all its owner's is reset together. */
		if (!world->devices[SPARE].open)
			open_spare();
		return check_reset(barlease_device_hot_reset(&devices[RAM]));
	}
}

uint32_t peek(enum device_name dev, uint32_t region, uint64_t offset)
{
	uint32_t value;

	if (pread(devices[dev].device_fd, &value, sizeof(value),
		  devices[dev].bars[region].offset + offset) != sizeof(value))
		wrong("the owner cannot read BAR%u of %s at %#lx: %m", region,
		      addresses[dev], offset);
	return value;
}

void poke(enum device_name dev, uint64_t offset, uint32_t value)
{
	if (pwrite(devices[dev].device_fd, &value, sizeof(value),
		   devices[dev].bars[RAM_BAR].offset + offset) != sizeof(value))
		wrong("the owner cannot write BAR2 at %#lx: %m", offset);
}

/*
 * The model
 */

bool leasable(enum device_name dev, uint32_t region)
{
	return region < BARLEASE_BARS &&
	       devices[dev].bars[region].flags & VFIO_REGION_INFO_FLAG_MMAP;
}

bool reachable(const struct modelled_lease *lease)
{
	const struct modelled_device *dev = &world->devices[lease->dev];

	return lease->state == LIVE && dev->decoding && !dev->asleep;
}

uint64_t bar_offset(const struct modelled_lease *lease, uint64_t offset)
{
	uint32_t i = 0;

	if (lease->nr_ranges > MAX_RANGES)
		return lease->ranges[0].offset + offset % lease->ranges[0].length;
	while (offset >= lease->ranges[i].length)
		offset -= lease->ranges[i++].length;
	return lease->ranges[i].offset + offset;
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	if (!dir)
		wrong("cannot read /proc/self/fd: %m");
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

int count_leases(enum device_name dev)
{
	char path[64], line[160];
	int count = -1; /* but for the head */
	FILE *file;

	snprintf(path, sizeof(path), DEBUGFS "/%s/leases", addresses[dev]);
	file = fopen(path, "r");
	if (!file)
		wrong("cannot open %s: %m", path);
	while (fgets(line, sizeof(line), file))
		count++;
	fclose(file);
	return count;
}

void world_init(void)
{
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (world == MAP_FAILED)
		wrong("no memory for the model");
	find_device(RAM, "0x1110", 0);
	find_device(SPARE, "0x1110", 1);
	find_device(BLK, "0x1042", 0);
	for (int dev = 0; dev < NR_DEVICES; dev++)
		if (barlease_device_bind(addresses[dev], BARLEASE_DRIVER))
			wrong("cannot bind %s to the driver: %m", addresses[dev]);
	if (barlease_device_open(&devices[RAM], addresses[RAM]) ||
	    barlease_device_open(&devices[BLK], addresses[BLK]))
		wrong("cannot open the devices: %m");
	opened(RAM);
	opened(BLK);
	open_spare();
	for (int dev = 0; dev < NR_DEVICES; dev++)
		note_device(dev);
	power_control = find_capability(BLK, PCI_CAP_ID_PM) + PCI_PM_CTRL;
	nr_fds = count_fds();
}

void world_end(void)
{
	if (world->devices[BLK].asleep)
		set_asleep(false);
	if (!world->devices[SPARE].open)
		open_spare();
	world->nr_leases = 0;
	for (int dev = 0; dev < NR_DEVICES; dev++) {
		int count = count_leases(dev);

		if (count)
			wrong("%d leases of %s outlive all that held them", count,
			      addresses[dev]);
		if (!world->devices[dev].decoding)
			set_decoding(dev, true);
	}
	if (count_fds() != nr_fds)
		wrong("%d fds are open, and were %d before", count_fds(), nr_fds);
}
