/* SPDX-License-Identifier: MIT */
/*
 * barlease.h - lease slices of a PCI device's BARs, and use such leases.
 *
 * The lessor calls work on a VFIO device fd that the caller already has, of a
 * device bound to the driver barlease-vfio-pci; they take no ownership and keep
 * no state. Unless said otherwise a function returns 0, or -1 with errno set. Each of
 * the lessor's may say EBADF: device_fd is no fd; ENOTTY: the driver does not know the
 * call, being another one than barlease-vfio-pci; EIO: VFIO could not wake the device.
 * The order of the kernel's checks is in docs/abi.md of the sources.
 *
 * Threads: "any" is any thread at any time, at once with any other call of this
 * library, be it on the same fd or map, but barlease_unmap() of that map. A signal
 * handler may call what says so, and nothing else. No function is a cancellation point
 * (pthread_cancel()) but barlease_send() and barlease_recv(), as they begin and while
 * they wait; who is cancelled in the latter has taken no message.
 *
 * A struct that starts with its size may grow at its end in later releases. The
 * caller sets the size that it was compiled with. A smaller one is as good: what
 * is missing has its default. Of a larger one the library takes no byte that it
 * does not know, unless it is 0 (EINVAL), and gives 0.
 */
#ifndef BARLEASE_H
#define BARLEASE_H

#include <signal.h>
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

/* What the driver of a device can do. */
#define BARLEASE_CAN_EXPORT      (1u << 0)
#define BARLEASE_CAN_REVOKE      (1u << 1)
#define BARLEASE_CAN_SET_MEMATTR (1u << 2)
#define BARLEASE_CAN_GET_INFO    (1u << 3)

/*
 * Ask which of the calls below a device takes: BARLEASE_CAN_* in *mask. With
 * barlease-vfio-pci all, with vfio-pci EXPORT from Linux 6.19 on, where what is
 * exported need not be one that can be mapped; other calls are ENOTTY there. What
 * is no VFIO device can do nothing: 0; or it takes the question for one of its own,
 * as VFIO's container does: EINVAL. Threads: any.
 */
int barlease_features(int device_fd, uint32_t *mask);

/*
 * Export ranges of a BAR (index 0 to 5) as one lease, end to end in the order
 * given. access is O_RDONLY or O_RDWR. Returns a DMABUF fd, close-on-exec, that
 * the caller owns. Make one export for each lessee and keep the fd: it is the
 * handle by which that lease can be revoked. Threads: any.
 *
 * E2BIG: more than BARLEASE_MAX_RANGES (65,536) ranges, before all else, also before
 * ENOTTY; EINVAL: no range, or one that is empty, unaligned or past the BAR's end; all
 * of them overflow; access is neither; ENODEV: no memory
 * BAR that VFIO itself would map; EPERM: a range meets a page of the MSI-X table or its
 * pending bits; EBUSY: another driver had claimed the BAR when the device was opened;
 * ENOSPC: too many ranges or bytes are leased of the device; EINTR: a fatal signal;
 * ENOMEM: no memory; EMFILE, ENFILE: no fd is free.
 */
int barlease_export(int device_fd, uint32_t bar, const struct barlease_range *ranges,
		    size_t nr_ranges, int access);

/*
 * Take a lease back, from every process, for good. EBADF: lease_fd is no fd; EINVAL:
 * it is no DMABUF; ENODEV: it is no lease of this device, or one from before the device
 * was last closed; EBADFD: it is revoked already. Threads: any; of two that revoke it
 * one gets EBADFD.
 */
int barlease_revoke(int device_fd, int lease_fd);

/*
 * Set the memory attribute of mappings made from now on, BARLEASE_MEMATTR_*. Errors
 * are those of barlease_revoke(), and ENOENT: the attribute is unknown. Threads: any.
 */
int barlease_set_memattr(int device_fd, int lease_fd, uint32_t memattr);

/*
 * Read what the kernel knows of a lease, also of a revoked one. EINVAL: info->size is
 * below 8, above 4096 or no multiple of 8; so too in the calls below. Else errors are
 * those of barlease_revoke() without EBADFD. Threads: any.
 */
int barlease_get_info(int device_fd, int lease_fd, struct barlease_info *info);

/*
 * Pass a lease over a connected Unix socket (stream or seqpacket), with what
 * the lessee needs to map it well. The caller keeps its fd. EINVAL: *info has what no
 * lease has, or bytes that the library does not know; EPROTO: the socket took only a
 * part; else what sendmsg() said: EPIPE, without SIGPIPE: the peer has closed; EAGAIN;
 * EBADF: lease_fd is none. Threads: any, but at one stream socket one at a time; so too
 * for barlease_recv().
 */
int barlease_send(int sock, int lease_fd, const struct barlease_info *info);

/*
 * Receive a lease. Returns its fd, close-on-exec, and fills *info, whose size
 * the caller sets. EPROTO: the message was none of barlease_send()'s, was
 * truncated or carried no fd or more than one; all fds it carried are closed.
 * ECONNRESET: the peer has closed, or sent an empty packet. EMFILE: no fd is free
 * to take the lease's; the message is gone. EAGAIN: there is none on a socket that does
 * not block, or in the time of SO_RCVTIMEO, which a signal or another thread that takes
 * a message begins anew. Else what recvmsg() said. A later library's peer may say more;
 * that is left. The numbers in *info come from the peer.
 */
int barlease_recv(int sock, struct barlease_info *info);

/*
 * The lessee's side: a map of a lease
 */

struct barlease_map; /* opaque */

/* Flags of barlease_map(). */
#define BARLEASE_MAP_READONLY \
	(1u << 0) /* to load from; all that a read-only lease allows */
#define BARLEASE_MAP_PREFAULT   (1u << 1) /* with all pages faulted in */
#define BARLEASE_MAP_DONTFORK   (1u << 2) /* a forked child does not get it */
#define BARLEASE_MAP_SURVIVE    (1u << 3) /* the program survives its loss, see below */
#define BARLEASE_MAP_NO_HANDLER (1u << 4) /* SURVIVE without the library's handler */

struct barlease_map_options {
	uint32_t size;    /* set by the caller: sizeof(struct barlease_map_options) */
	uint32_t flags;   /* BARLEASE_MAP_* */
	uint64_t offset;  /* in the lease, whole pages */
	uint64_t length;  /* 0: to the lease's end */
	uint64_t va_hint; /* the lease's, of barlease_info, or BARLEASE_VA_HINT_UNKNOWN
			   */
};

/*
 * Map a lease, or the part of it that options name (NULL: all of it, for loads
 * and stores), where the kernel can use the largest pages that va_hint and
 * length allow; without such an address anywhere. The map has its own copy of
 * the fd.
 *
 * Returns NULL with errno: EINVAL: a size, flag or byte of options that the
 * library does not know, an offset within a page, or out of the lease's bounds;
 * EACCES: a read-only lease without READONLY; ENODEV: the lease is revoked, or
 * its device was closed; EOPNOTSUPP: the kernel can export such a DMABUF but not
 * map it, as vfio-pci does from Linux 6.19 on; with PREFAULT what barlease_prefault()
 * says: EIO, ENOTTY, EINTR, ENOMEM; EFBIG: with SURVIVE, the process may write no
 * file of 2 MiB (RLIMIT_FSIZE); else what lseek(), fcntl(), mmap(), madvise() or, for
 * SURVIVE, memfd_create() and sigaction() said. Threads: any, and the handle is for
 * all of them.
 */
struct barlease_map *barlease_map(int lease_fd,
				  const struct barlease_map_options *options);

/*
 * Undo it. NULL is no map and no error. On an error, munmap()'s, the map is still
 * there. Threads: one, when no other is in a call or an access to this map, or will
 * be; calls on other maps may be under way.
 */
int barlease_unmap(struct barlease_map *map);

/*
 * Where it begins, and how long it is: the length that was asked for. Neither ever
 * changes. Threads: any; signal handlers too.
 */
void *barlease_map_addr(const struct barlease_map *map);
size_t barlease_map_length(const struct barlease_map *map);

/*
 * SURVIVE. Where a page of the lease can't be reached any more, because the lease
 * is revoked, its device closed or does not decode memory accesses, an access is
 * SIGBUS, which ends the program. With SURVIVE the whole map is lost at the first
 * such access, and the program goes on: all of the map reads as ones, as a PCI
 * device that was removed, and what is stored there is dropped by the accessors,
 * or, through a pointer, lands in memory that nobody else sees. A system call that
 * is given an address of such a map may fail with EFAULT, before and after.
 *
 * The first map with SURVIVE and without NO_HANDLER installs a handler of SIGBUS
 * for good. It takes what is a SURVIVE map's, and hands everything else to the
 * handler or action that was there before. That one runs on the thread's
 * alternate signal stack, if it has one. A program that installs a handler of its
 * own later calls barlease_handle_sigbus() in it, or what sigaction() gave it.
 * Nobody may close the fds of the library.
 *
 * All maps together take eight of the mappings that a process may have
 * (vm.max_map_count) in addition to their own, and those of more than 2 MiB up to 512
 * once they are lost, and 512 MiB of memory. See barlease_map_lost(3).
 */

/*
 * 1: the map is lost; 0: not that anybody noticed, or it has no SURVIVE. Keeps errno.
 * Threads: any; signal handlers too. What one thread has seen lost, each does, until it
 * is restored.
 */
int barlease_map_lost(const struct barlease_map *map);

/*
 * Map the lease again where the lost map is, for all threads at once. Returns 0,
 * also if it is not lost (any more), or -1 and it stays lost: ENODEV: gone for good;
 * EIO: the device still does not decode, or threads that use the map did not wait for
 * it: try again later; EINVAL: no SURVIVE, or the parent's alone; EIO, EINTR, ENOMEM:
 * as barlease_prefault() has them, for it faults in the lease wherever the process has
 * it, with PREFAULT or without, and so it may wait for a fence as well; else what
 * mmap(), mremap() or madvise() said.
 * Threads: any; while others use the map, who see ones or the lease until it returns.
 */
int barlease_map_restore(struct barlease_map *map);

/*
 * For a program that has its own handler of SIGBUS, with SA_SIGINFO: call this
 * first, with what the handler was given. Returns 1 if it was a SURVIVE map's: the
 * handler returns, and the access is done again. 0: it was not, or its pages could
 * not be replaced. Keeps errno. Install the handler with a full sa_mask, or have no
 * other handler access such a map: one that interrupts yours has SIGBUS blocked.
 * Threads: any, in their signal handlers. (Declared where <signal.h> has siginfo_t,
 * which plain ISO C does not let it have.)
 */
#ifdef SA_SIGINFO
int barlease_handle_sigbus(int sig, siginfo_t *info, void *context);
#endif

/*
 * Load and store at an offset of a map, which is a multiple of the width, by one
 * access of that width; a load that the map was lost and restored during is done
 * again. A lost map reads as ones, and nothing is stored in it; so does and so is
 * what is outside the map, or not aligned, and a READONLY map drops stores. That
 * ones were read because the map is lost barlease_map_lost() tells, unless another
 * thread restored it in between. Those without checks are in barlease_mmio.h. Threads:
 * any; signal handlers too, if SIGBUS is not blocked in them.
 */
uint8_t barlease_read8(const struct barlease_map *map, uint64_t offset);
uint16_t barlease_read16(const struct barlease_map *map, uint64_t offset);
uint32_t barlease_read32(const struct barlease_map *map, uint64_t offset);
uint64_t barlease_read64(const struct barlease_map *map, uint64_t offset);
void barlease_write8(struct barlease_map *map, uint64_t offset, uint8_t value);
void barlease_write16(struct barlease_map *map, uint64_t offset, uint16_t value);
void barlease_write32(struct barlease_map *map, uint64_t offset, uint32_t value);
void barlease_write64(struct barlease_map *map, uint64_t offset, uint64_t value);

/*
 * Fault in all of the caller's mappings of a lease, and then wait for the fences
 * that other holders of the lease may have put there. ENODEV: the lease is revoked,
 * or its device was closed, also where nothing is mapped; EIO: the device does not
 * decode memory accesses, or is in D3, or the thread's protection key denies a
 * mapping, or one is with userfaultfd; EINTR: a signal came in that wait, or a fatal
 * one before; ENOMEM: no memory for page tables; ENOTTY: it is no DMABUF; EBADF: no
 * fd. Threads: any.
 */
int barlease_prefault(int lease_fd);

#ifdef __cplusplus
}
#endif

#endif /* BARLEASE_H */
