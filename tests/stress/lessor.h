/* SPDX-License-Identifier: MIT */
/*
 * lessor.h - the process that has the devices: threads that make, change and
 * revoke leases, and threads that do to the devices what can be done to them.
 */
#ifndef LESSOR_H
#define LESSOR_H

#include <pthread.h>

#include "barlease_device.h"
#include "parcel.h"

/* One device, as the lessor has it. */
struct lessor_device {
	enum device number;
	char bdf[16];
	uint32_t nr_pages;
	/*
	 * Whoever uses the fd or the mapping reads, whoever closes it writes. With
	 * it held the model's opening does not change.
	 */
	pthread_rwlock_t lock;
	struct barlease_device dev; /* device_fd -1: closed */
	char *bar;                  /* the whole BAR, through VFIO */
	unsigned int renewed;       /* times that another one took its place */
};
extern struct lessor_device devices[NR_DEVICES];

/* The process; it ends with the phase. */
__attribute__((noreturn)) void lessor_main(const struct inboxes *boxes);

/*
 * A lease as the lessor has it. The lock is for fd, users, terms and what was
 * seen; the fd is not closed while there are users.
 */
struct owned {
	pthread_mutex_t lock;
	int fd; /* -1: none */
	unsigned int users;
	struct terms terms;
	unsigned int revoked; /* times that REVOKE returned 0 */
	/* world->stores at its export, and when that REVOKE had returned. */
	uint32_t stores_before, stores_then;
	bool seen;            /* its marks, when it was dead ... */
	unsigned int renewed; /* ... in what was the device then */
	uint64_t marks[MAX_MARKS];
};

/* leases.c */
void *lease_thread(void *arg);
/* Export random ranges: all of a lease but handing it out. */
bool owned_export(struct owned *owned, struct lessor_device *device, int index,
		  struct random *random, uint32_t max_pages);
void owned_revoke(struct owned *owned, struct lessor_device *device);
void leases_prepare(const struct inboxes *boxes);
/* With all threads gone: the last look at everything that is dead. */
void leases_finish(void);

/* marks.c: what the holders of a lease have stored, as the BAR has it */
/* What an earlier lease of this number has left; false: not just now. */
bool marks_clear(const struct lessor_device *device, const struct terms *terms);
/* So that the lessor's next look at them takes no faults. */
void marks_touch(const struct lessor_device *device, const struct terms *terms);
/* false: the device did not come to rest, or is gone. */
bool marks_read(const struct lessor_device *device, const struct terms *terms,
		uint64_t marks[MAX_MARKS]);
/* Of a dead lease, with its lock held: nothing arrives any more, or elsewhere. */
void marks_compare(struct owned *owned, const struct lessor_device *device,
		   const uint64_t marks[MAX_MARKS]);
/* Both of these. */
void owned_watch(struct owned *owned, const struct lessor_device *device);
/* See that nothing has arrived in pages that the lease does not have. */
void owned_search(const struct owned *owned, const struct lessor_device *device,
		  uint64_t r);

/* devices.c */
void devices_prepare(void);
void devices_open(void);
void *group_thread(void *arg);

/* The device's word, while something is done to it, and after. */
void device_begin(enum device device, unsigned int flags);
void device_end(enum device device, unsigned int flags, bool closed);

/* quiet.c */
void *quiet_thread(void *arg);
__attribute__((noreturn)) void quiet_main(const struct inboxes *boxes);

/* plug.c */
void plug_prepare(const char *bdf);
/* The device is gone without a word; its driver hears of it. */
void plug_pull(void);
/* Once the kernel is through with it: another one is there. */
void plug_put_back(void);

#endif /* LESSOR_H */
