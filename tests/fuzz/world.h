/* SPDX-License-Identifier: MIT */
/*
 * world.h - the model: what the devices and leases are, as far as the calls so
 * far have made them so. It is shared with the lessees, which are processes of
 * their own.
 */
#ifndef WORLD_H
#define WORLD_H

#include <stdbool.h>

#include "barlease_device.h"
#include "barlease_uapi.h"
#include "fuzz.h"

/* vm/run's --device ivshmem+ivshmem:16M virtio-blk:16M, see tests/fuzz/fuzz. */
enum device_name {
	RAM,   /* BAR2 is 1 GiB of RAM; open all the time */
	SPARE, /* in the same slot, BAR2 is 16 MiB; opened and closed, unbound */
	BLK,   /* MSI-X in BAR1, FLR, D3; open all the time */
	NR_DEVICES,
};

#define RAM_BAR 2

#define MAX_LEASES 24 /* that an input exports */
#define MAX_RANGES 40 /* that are told one by one */

struct guard {
	uint32_t bar;
	uint64_t first, last; /* pages */
};

struct modelled_device {
	bool open;
	bool decoding;
	bool asleep; /* in D3 */
	uint64_t bar_start[BARLEASE_BARS];
	struct guard guards[2];
	int nr_guards;
};

struct modelled_lease {
	enum device_name dev;
	uint32_t region;
	enum { LIVE, REVOKED, CLOSED } state;
	uint32_t memattr;
	uint32_t access; /* O_RDONLY or O_RDWR */
	uint64_t id;
	uint64_t size;
	uint64_t faults; /* that info told of last */
	uint32_t nr_ranges;
	uint32_t nr_spans;
	/* The first is repeated where there are more than fit. */
	struct vfio_region_dma_range ranges[MAX_RANGES];
};

struct world {
	struct modelled_device devices[NR_DEVICES];
	struct modelled_lease leases[MAX_LEASES];
	uint32_t nr_leases;
	uint64_t last_id;
};

extern struct world *world;

/* The devices as this process has them open; lessees have none. */
extern struct barlease_device devices[NR_DEVICES];

/* Once: bind the devices and open them, note what they have. */
void world_init(void);
/* After each input, when all leases were let go: nothing is left of it. */
void world_end(void);

bool leasable(enum device_name dev, uint32_t region);
/* Whether an access to this lease reaches the device now. */
bool reachable(const struct modelled_lease *lease);
/* Leases of this device that the driver lists in debugfs. */
int count_leases(enum device_name dev);
/* Where in its BAR an offset of a lease is. */
uint64_t bar_offset(const struct modelled_lease *lease, uint64_t offset);

void open_spare(void);
void close_spare(void);
void rebind_spare(void);
void set_decoding(enum device_name dev, bool on);
void set_asleep(bool asleep); /* BLK */
/* By 0: VFIO's reset, 1: sysfs, of BLK; 2: hot reset, of RAM and SPARE. */
int reset(int way);

/* Read a word of a BAR, and write one of RAM's or SPARE's BAR2, as the owner. */
uint32_t peek(enum device_name dev, uint32_t region, uint64_t offset);
void poke(enum device_name dev, uint64_t offset, uint32_t value);

#endif /* WORLD_H */
