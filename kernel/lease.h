/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One lease, from export to release, and the device it is a slice of.
 *
 * Lock order, outermost first; nobody holds all of them (docs/locking.md has
 * the rules and who keeps them):
 *
 *   mmap_lock (or the VMA's lock)
 *     memory_lock       of vfio-pci-core: decoding, power, the core's resets
 *       reset_sem       a reset from anywhere: written from prepare to done
 *         lease->rwsem  the lease's state
 *           i_mmap_rwsem of the VFIO inode, inside unmap_mapping_range()
 *
 *   dev_set->lock of VFIO, at open, close and hot reset, comes before
 *   memory_lock and before dev->lock (the list of leases), which comes before
 *   lease->rwsem and is never taken under mmap_lock. dev_set->lock is also
 *   taken by the last release of a removed device's leases, which holds no
 *   lock. The PCI core's device lock comes before reset_sem; who has written
 *   reset_sem waits for none of memory_lock, dev_set->lock and mmap_lock.
 *
 * No lock at or below memory_lock is held across a user copy or a prefault.
 */
#ifndef BARLEASE_LEASE_H
#define BARLEASE_LEASE_H

#include <linux/atomic.h>
#include <linux/dma-buf.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/maple_tree.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/vfio_pci_core.h>

#include "ranges.h"

/* The page offsets of BAR0 to BAR5 on the VFIO inode: what the core zaps. */
#define BARLEASE_OFFSETS_END \
	VFIO_PCI_INDEX_TO_OFFSET(VFIO_PCI_ROM_REGION_INDEX)

/* Ranges alive on one device, room for a span each: 16 bytes. */
#define BARLEASE_MAX_ALIVE	1048576U

/* Pages of the MSI-X table or of its pending bits. */
struct barlease_guard {
	u32 bar;
	u64 first;
	u64 last;
};

struct barlease_device {
	struct vfio_pci_core_device core;	/* first: vfio_alloc_device() */

	/*
	 * Written from reset_prepare to reset_done. A bus reset prepares
	 * several devices in one task, hence a lock class for each.
	 */
	struct rw_semaphore reset_sem;
	struct lock_class_key reset_key;

	struct mutex lock;		/* leases, nr_ranges */
	struct list_head leases;
	u32 nr_ranges;			/* of all leases */

	bool had_wc;	/* some lease was write-combining once */

	/* Which page offsets below BARLEASE_OFFSETS_END are taken. */
	struct maple_tree windows;

	/* Set at open, read while open. */
	struct barlease_guard guards[2];
	u32 nr_guards;

	struct dentry *debugfs;
	char bdf[16];	/* outlives the pci_dev */
};

enum barlease_state {
	BARLEASE_LIVE,
	BARLEASE_REVOKED,	/* by the lessor's call */
	BARLEASE_CLOSED,	/* with the device, also when it is opened again */
};

/*
 * Made by barlease_lease_export(), freed by the dma-buf's release. It holds a
 * reference on the vfio_device: the device's memory, its locks and its inode
 * are there as long as any mapping is. The pci_dev and vconfig are not: who
 * uses them tests for BARLEASE_LIVE under rwsem first and keeps it held.
 */
struct barlease_lease {
	struct barlease_device *dev;
	struct list_head node;		/* in dev->leases */
	struct rw_semaphore rwsem;
	enum barlease_state state;	/* rwsem; leaves LIVE once */
	u32 memattr;			/* rwsem */

	/* Never change after export. */
	u64 id;
	u32 access;			/* O_RDONLY or O_RDWR */
	u64 window;			/* first of its page offsets */
	struct barlease_ranges ranges;

	atomic64_t faults;		/* handler calls that mapped something */
};

static inline struct barlease_device *
barlease_from_vdev(struct vfio_device *vdev)
{
	return container_of(vdev, struct barlease_device, core.vdev);
}

int barlease_leases_init(struct barlease_device *dev);
void barlease_leases_destroy(struct barlease_device *dev);
void barlease_leases_close(struct barlease_device *dev);
void barlease_leases_zap(struct barlease_device *dev);
void barlease_lease_zap(struct barlease_lease *lease);

int barlease_lease_export(struct barlease_device *dev, u32 flags,
			  void __user *arg, size_t argsz);
int barlease_lease_revoke(struct barlease_device *dev, u32 flags,
			  void __user *arg, size_t argsz);
int barlease_lease_memattr(struct barlease_device *dev, u32 flags,
			   void __user *arg, size_t argsz);
int barlease_lease_info(struct barlease_device *dev, u32 flags,
			void __user *arg, size_t argsz);

/* mmap.c */
int barlease_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma);
int barlease_prefault(struct dma_buf *dmabuf, enum dma_data_direction dir);

/* debugfs.c */
void barlease_debugfs_init(void);
void barlease_debugfs_exit(void);
void barlease_debugfs_add(struct barlease_device *dev);
void barlease_debugfs_remove(struct barlease_device *dev);

#endif
