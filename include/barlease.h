/* SPDX-License-Identifier: MIT */
/*
 * barlease.h - lease slices of a PCI device's BARs, and use such leases.
 *
 * The lessor calls work on a VFIO device fd that the caller already has, of a
 * device bound to the driver barlease-vfio-pci; they take no ownership and keep
 * no state. Unless said otherwise a function returns 0, or -1 with errno set as
 * docs/abi.md has it, and may be called from any thread at any time.
 */
#ifndef BARLEASE_H
#define BARLEASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A piece of a BAR, in bytes; both are multiples of the page size. */
struct barlease_range {
	uint64_t offset;
	uint64_t length;
};

/* What INFO tells of a lease; see struct barlease_feature_info. */
struct barlease_info {
	uint32_t size;  /* set by the caller: sizeof(struct barlease_info) */
	uint32_t state; /* BARLEASE_STATE_* of barlease_uapi.h */
	uint64_t id;
	uint64_t length; /* of the lease, in bytes */
	uint32_t nr_ranges;
	uint32_t nr_spans;
	uint32_t memattr; /* BARLEASE_MEMATTR_* */
	uint32_t access;  /* O_RDONLY or O_RDWR */
	uint64_t va_hint;
	uint64_t faults;
};

#define BARLEASE_VA_HINT_UNKNOWN UINT64_MAX

/*
 * Export ranges of a BAR (index 0 to 5) as one lease, end to end in the order
 * given. access is O_RDONLY or O_RDWR. Returns a DMABUF fd, close-on-exec, that
 * the caller owns. Make one export for each lessee and keep the fd: it is the
 * handle by which that lease can be revoked.
 */
int barlease_export(int device_fd, uint32_t bar, const struct barlease_range *ranges,
		    size_t nr_ranges, int access);

/* Take a lease back, from every process, for good. */
int barlease_revoke(int device_fd, int lease_fd);

/* Set the memory attribute of mappings made from now on. */
int barlease_set_memattr(int device_fd, int lease_fd, uint32_t memattr);

/* Read what the kernel knows of a lease. EINVAL: info->size is too small. */
int barlease_get_info(int device_fd, int lease_fd, struct barlease_info *info);

/*
 * Pass a lease over a connected Unix socket (stream or seqpacket), with what
 * the lessee needs to map it well. The caller keeps its fd.
 */
int barlease_send(int sock, int lease_fd, const struct barlease_info *info);

/*
 * Receive a lease. Returns its fd, close-on-exec, and fills *info, whose size
 * the caller sets. EPROTO: the message was none of barlease_send()'s, was
 * truncated or carried no fd or more than one; all fds it carried are closed.
 * ECONNRESET: the peer has closed. The numbers in *info come from the peer.
 */
int barlease_recv(int sock, struct barlease_info *info);

/*
 * mmap() length bytes of a lease from offset on, at an address that is
 * congruent to va_hint + offset (BARLEASE_VA_HINT_UNKNOWN: anywhere) so that
 * the kernel can use its largest pages. prot is PROT_READ or PROT_READ |
 * PROT_WRITE. When no such address is to be had, any other is used. Returns
 * MAP_FAILED with errno from mmap(); undo with munmap().
 */
void *barlease_mmap(int lease_fd, uint64_t offset, size_t length, int prot,
		    uint64_t va_hint);

/* Fault in all of the caller's mappings of a lease. */
int barlease_prefault(int lease_fd);

#ifdef __cplusplus
}
#endif

#endif /* BARLEASE_H */
