/* SPDX-License-Identifier: MIT */
/*
 * device.h - the emulated devices, the raw kernel ABI, and access to a BAR
 * that may be gone.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "barlease_device.h"
#include "barlease_uapi.h"
#include "harness.h"

#define KIB(n)    ((uint64_t)(n) << 10)
#define MIB(n)    ((uint64_t)(n) << 20)
#define GIB(n)    ((uint64_t)(n) << 30)
#define PAGE_SIZE KIB(4)

enum device_kind {
	RAM_DEVICE,    /* ivshmem: BAR2 is 64 MiB of RAM */
	BIG_DEVICE,    /* the same with 1 GiB, which a debug kernel opens slowly */
	BLK_DEVICE,    /* virtio-blk: FLR, D3, a doorbell page a queue */
	NVME_DEVICE,   /* MSI-X table at 0x2000 of BAR0, FLR */
	EDU_DEVICE,    /* 1 MiB of registers in BAR0 */
	EDU_SIBLING,   /* another in the same slot */
	SMALL_DEVICE,  /* ivshmem again, BAR0 is 256 bytes */
	SMALL_SIBLING, /* another in the same slot */
	AHCI_DEVICE,   /* of the chipset: BAR4 is of I/O ports */
};

#define RAM_BAR   2
#define RAM_SIZE  MIB(64)
#define RAM_PAGES (RAM_SIZE / PAGE_SIZE)
#define BIG_SIZE  GIB(1)
#define BIG_PAGES (BIG_SIZE / PAGE_SIZE)

/* Once, before the tests are forked. */
void devices_prepare(void);
/* Its address; the test fails where there is none. */
const char *device_bdf(enum device_kind kind);
/* Bind every test device that is there to the driver. */
void bind_devices(void);
/* Take it from all of them, and none of them is for it any more. */
void unbind_devices(void);
/* Take a device out of the kernel's sight, find it again and bind it. */
void remove_and_rescan(const char *bdf);

/*
 * The way in which the functions below open devices. It is chosen before a test
 * is forked; afterwards it is known whether that test opened any.
 */
void path_choose(uint32_t path);
bool path_was_used(void);
bool path_is_cdev(void);

struct barlease_device open_device(enum device_kind kind);
struct barlease_device open_address(const char *bdf);
/* 0, or -1 with errno. */
int try_open_address(struct barlease_device *dev, const char *bdf);
/* Another one that is reset together with it. */
struct barlease_device open_beside(const struct barlease_device *dev,
				   enum device_kind kind);
/* Where a BAR lies in physical memory, as sysfs has it. */
uint64_t bar_start(const char *bdf, int bar);
/* The owner's own mapping of a BAR, through VFIO's region. */
void *map_bar(const struct barlease_device *dev, int bar, uint64_t offset,
	      uint64_t length, int prot);

/* Config space, through VFIO. */
uint32_t read_config(const struct barlease_device *dev, uint32_t offset, size_t size);
void write_config(const struct barlease_device *dev, uint32_t offset, uint32_t value,
		  size_t size);
/* The offset of a capability (PCI_CAP_ID_*); the test fails without it. */
uint32_t find_capability(const struct barlease_device *dev, uint8_t id);
void set_decoding(struct barlease_device *dev, bool on);
/* 0: D0, 3: D3hot. */
void set_power_state(const struct barlease_device *dev, unsigned int state);

/*
 * The ABI, by plain ioctls: -1 and errno as the kernel says. device and lease
 * are fds.
 */
int abi_feature(int device, uint32_t flags, void *data, size_t size);
int abi_export(int device, uint32_t bar, const struct vfio_region_dma_range *ranges,
	       uint32_t nr_ranges, uint32_t open_flags);
int abi_revoke(int device, int lease);
int abi_memattr(int device, int lease, uint32_t memattr);
int abi_info(int device, int lease, struct barlease_feature_info *info);
/* flags as of DMA_BUF_IOCTL_SYNC. */
int abi_sync(int lease, uint64_t flags);
int abi_prefault(int lease);

/* These must succeed. A lease is read-write, close-on-exec. */
int lease(const struct barlease_device *dev, uint32_t bar, uint64_t offset,
	  uint64_t length);
int lease_ranges(const struct barlease_device *dev, uint32_t bar,
		 const struct vfio_region_dma_range *ranges, uint32_t nr_ranges,
		 uint32_t open_flags);
struct barlease_feature_info info(const struct barlease_device *dev, int lease);
uint64_t faults(const struct barlease_device *dev, int lease);

/*
 * mmap() shared at an address that is hint modulo 1 GiB, with nothing near it
 * that the kernel could merge it with.
 */
void *map_at(int fd, uint64_t offset, uint64_t length, int prot, uint64_t hint);
/* mmap() shared at any address. */
void *map(int fd, uint64_t offset, uint64_t length, int prot);

/* Access that may end in a signal: 0, or SIGBUS or SIGSEGV. */
int try_load(const volatile void *at, uint32_t *value);
int try_store(volatile void *at, uint32_t value);

/* Without a signal, or with this one. */
#define CHECK_LOADS(at)  CHECK_LOAD(at, 0)
#define CHECK_STORES(at) CHECK_STORE(at, 0)
#define CHECK_GONE(at)   CHECK_LOAD(at, SIGBUS)
#define CHECK_LOAD(at, want)                            \
	check_access(__FILE__, __LINE__, "a load", #at, \
		     try_load(at, &(uint32_t){ 0 }), want)
#define CHECK_STORE(at, want) \
	check_access(__FILE__, __LINE__, "a store", #at, try_store(at, 0x5709e), want)
void check_access(const char *file, int line, const char *what, const char *where,
		  int seen, int want);

/*
 * Stamps tell the pages of the RAM BAR apart: each has its number at this
 * offset, so tests write elsewhere. Written once, through the owner's mapping.
 */
#define STAMP_OFFSET 0xff0
void stamp_pages(const struct barlease_device *dev);

/* The page at this address of a mapping is this page of the RAM BAR. */
#define CHECK_PAGE(at, page) check_page(__FILE__, __LINE__, at, page)
void check_page(const char *file, int line, const void *at, uint64_t page);

#endif /* DEVICE_H */
