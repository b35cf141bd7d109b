/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The kernel ABI of barlease: ioctls on the fd of a VFIO device that is bound
 * to the driver barlease-vfio-pci. docs/abi.md says it whole, with every errno.
 *
 * All of them go through VFIO_DEVICE_FEATURE of <linux/vfio.h>: a struct
 * vfio_device_feature whose data[] holds one of the structs below, argsz the
 * size of both together. PROBE (with GET or SET) tells whether a feature is
 * there. Errors are -1 and errno.
 */
#ifndef BARLEASE_UAPI_H
#define BARLEASE_UAPI_H

#include <linux/types.h>
#include <linux/vfio.h>

/*
 * Export: GET VFIO_DEVICE_FEATURE_DMA_BUF. The same number and layout as
 * upstream since 6.19; defined here where <linux/vfio.h> is older.
 *
 * The ioctl returns a DMABUF fd: the ranges of one BAR, end to end, in the
 * order given. They may repeat or overlap. Every offset and length is in
 * bytes and a multiple of the page size, and the last byte must lie inside the
 * BAR's length rounded up to a page.
 *
 * open_flags: O_RDONLY or O_RDWR, O_CLOEXEC allowed. flags: 0.
 */
#ifndef VFIO_DEVICE_FEATURE_DMA_BUF
#define VFIO_DEVICE_FEATURE_DMA_BUF 11

struct vfio_region_dma_range {
	__u64 offset;
	__u64 length;
};

struct vfio_device_feature_dma_buf {
	__u32	region_index;
	__u32	open_flags;
	__u32	flags;
	__u32	nr_ranges;
	struct vfio_region_dma_range dma_ranges[];
};
#endif

/* More ranges than this in one export: E2BIG. */
#define BARLEASE_MAX_RANGES	65536

/*
 * Revoke: SET. When it returns 0 no mapping of the lease, in any process,
 * reaches the device again, and stores issued before have been pushed out.
 * flags: 0.
 */
#define BARLEASE_FEATURE_REVOKE		0xBA00

struct barlease_feature_revoke {
	__s32	dmabuf_fd;
	__u32	flags;
};

/* Memory attribute: SET. It holds for mmap() calls made after it. */
#define BARLEASE_FEATURE_MEMATTR	0xBA01

#define BARLEASE_MEMATTR_UC	0	/* uncached, the default */
#define BARLEASE_MEMATTR_WC	1	/* write-combining */

struct barlease_feature_memattr {
	__s32	dmabuf_fd;
	__u32	memattr;
};

/*
 * Info: GET. dmabuf_fd is read, the rest is written; what argsz offers beyond
 * the struct is zeroed.
 */
#define BARLEASE_FEATURE_INFO		0xBA02

#define BARLEASE_STATE_LIVE	0
#define BARLEASE_STATE_REVOKED	1

struct barlease_feature_info {
	__s32	dmabuf_fd;
	__u32	state;		/* BARLEASE_STATE_* */
	__u64	id;		/* unique since the module was loaded, never 0 */
	__u64	size;		/* bytes */
	__u32	nr_ranges;	/* as exported */
	__u32	nr_spans;	/* after adjacent ranges were merged */
	__u32	memattr;	/* BARLEASE_MEMATTR_* */
	__u32	open_flags;	/* access mode: O_RDONLY or O_RDWR */
	__u64	va_hint;	/* first span's physical start modulo 1 GiB */
	__u64	faults;		/* handler calls that mapped something */
};

/*
 * Prefault needs nothing from this header: a lessee calls DMA_BUF_IOCTL_SYNC
 * of <linux/dma-buf.h> with DMA_BUF_SYNC_START and any direction.
 */

#endif /* BARLEASE_UAPI_H */
