// SPDX-License-Identifier: MIT
/*
 * lease_errno.c - what revoke, memattr, info, prefault and DMA attach refuse,
 * how, and in which order; PROBE; bad pointers.
 */
#define _GNU_SOURCE
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define GET   VFIO_DEVICE_FEATURE_GET
#define SET   VFIO_DEVICE_FEATURE_SET
#define PROBE VFIO_DEVICE_FEATURE_PROBE

/* Each of the three calls that name a lease says the same of this fd. */
static void check_all(int device, int fd, int error)
{
	struct barlease_feature_info info;

	CHECK_ERRNO(abi_revoke(device, fd), error);
	CHECK_ERRNO(abi_memattr(device, fd, BARLEASE_MEMATTR_WC), error);
	CHECK_ERRNO(abi_info(device, fd, &info), error);
}

TEST(lease_ebadf, "revoke, memattr and info of no open fd are EBADF")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);

	close(fd);
	check_all(dev.device_fd, fd, EBADF);
	check_all(dev.device_fd, -1, EBADF);
	check_all(dev.device_fd, INT32_MIN, EBADF);
	check_all(dev.device_fd, INT32_MAX, EBADF);
	/* O_PATH gives a number and no file. */
	fd = (int)CHECK_OK(open("/dev/null", O_PATH));
	check_all(dev.device_fd, fd, EBADF);
}

TEST(lease_einval_no_dmabuf, "revoke, memattr and info of what is no DMABUF are EINVAL")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int pair[2];

	CHECK_OK(pipe(pair));
	check_all(dev.device_fd, pair[0], EINVAL);
	check_all(dev.device_fd, dev.device_fd, EINVAL);
	check_all(dev.device_fd, path_is_cdev() ? dev.iommu_fd : dev.group_fd, EINVAL);
	check_all(dev.device_fd, (int)CHECK_OK(memfd_create("x", 0)), EINVAL);
	check_all(dev.device_fd, (int)CHECK_OK(open("/", O_RDONLY)), EINVAL);
}

/* A DMABUF that is none of ours. */
static int foreign_dmabuf(void)
{
	int memory =
		(int)CHECK_OK(memfd_create("pages", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	int maker = (int)CHECK_OK(open("/dev/udmabuf", O_RDWR | O_CLOEXEC));
	struct udmabuf_create create = { .memfd = (uint32_t)memory, .size = PAGE_SIZE };

	CHECK_OK(ftruncate(memory, PAGE_SIZE));
	CHECK_OK(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK));
	return (int)CHECK_OK(ioctl(maker, UDMABUF_CREATE, &create));
}

TEST(lease_enodev, "revoke, memattr and info of another's DMABUF or lease are ENODEV")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct barlease_device other = open_device(EDU_DEVICE);
	int fd = lease(&other, 0, 0, PAGE_SIZE);

	check_all(dev.device_fd, foreign_dmabuf(), ENODEV);
	check_all(dev.device_fd, fd, ENODEV);
	/* It was not touched by that. */
	CHECK_EQ(info(&other, fd).state, BARLEASE_STATE_LIVE);
	CHECK_LOADS(map(fd, 0, PAGE_SIZE, PROT_READ));
}

TEST(lease_enodev_reopened,
     "a lease of a device that was closed since is ENODEV, reopened or not")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	int revoked = lease(&dev, RAM_BAR, 0, PAGE_SIZE);

	CHECK_OK(abi_revoke(dev.device_fd, revoked));
	barlease_device_close(&dev);
	dev = open_device(RAM_DEVICE);
	check_all(dev.device_fd, fd, ENODEV);
	check_all(dev.device_fd, revoked, ENODEV);
	CHECK_ERRNO(mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0), ENODEV);
	CHECK_ERRNO(abi_prefault(fd), ENODEV);
}

TEST(lease_ebadfd, "revoke and memattr of a revoked lease are EBADFD")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);

	CHECK_OK(abi_revoke(dev.device_fd, fd));
	for (int i = 0; i < 3; i++) {
		CHECK_ERRNO(abi_revoke(dev.device_fd, fd), EBADFD);
		CHECK_ERRNO(abi_memattr(dev.device_fd, fd, BARLEASE_MEMATTR_UC),
			    EBADFD);
		CHECK_EQ(info(&dev, fd).state, BARLEASE_STATE_REVOKED);
	}
}

TEST(memattr_enoent, "an unknown memory attribute is ENOENT")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);

	CHECK_ERRNO(abi_memattr(dev.device_fd, fd, 2), ENOENT);
	for (int bit = 1; bit < 32; bit++)
		CHECK_ERRNO(abi_memattr(dev.device_fd, fd, 1u << bit), ENOENT);
	CHECK_ERRNO(abi_memattr(dev.device_fd, fd, UINT32_MAX), ENOENT);
	CHECK_EQ(info(&dev, fd).memattr, BARLEASE_MEMATTR_UC);
}

static int revoke_flags(int device, int lease, uint32_t flags)
{
	struct barlease_feature_revoke revoke = { lease, flags };

	return abi_feature(device, SET | BARLEASE_FEATURE_REVOKE, &revoke,
			   sizeof(revoke));
}

TEST(revoke_einval_flags, "a revoke with any flag is EINVAL and revokes nothing")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);

	for (int bit = 0; bit < 32; bit++)
		CHECK_ERRNO(revoke_flags(dev.device_fd, fd, 1u << bit), EINVAL);
	CHECK_EQ(info(&dev, fd).state, BARLEASE_STATE_LIVE);
}

TEST(lease_order, "a bad fd comes before a revoked lease, that before a bad argument")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);

	CHECK_ERRNO(revoke_flags(dev.device_fd, -1, 1), EBADF);
	CHECK_ERRNO(revoke_flags(dev.device_fd, foreign_dmabuf(), 1), ENODEV);
	CHECK_ERRNO(abi_memattr(dev.device_fd, -1, 77), EBADF);
	CHECK_ERRNO(abi_memattr(dev.device_fd, dev.device_fd, 77), EINVAL);
	CHECK_ERRNO(abi_memattr(dev.device_fd, foreign_dmabuf(), 77), ENODEV);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_ERRNO(revoke_flags(dev.device_fd, fd, 1), EBADFD);
	CHECK_ERRNO(abi_memattr(dev.device_fd, fd, 77), EBADFD);
}

struct feature {
	uint32_t number, op;
	size_t size;
};

static const struct feature features[] = {
	{ VFIO_DEVICE_FEATURE_DMA_BUF, GET,
	  sizeof(struct vfio_device_feature_dma_buf) },
	{ BARLEASE_FEATURE_REVOKE, SET, sizeof(struct barlease_feature_revoke) },
	{ BARLEASE_FEATURE_MEMATTR, SET, sizeof(struct barlease_feature_memattr) },
	{ BARLEASE_FEATURE_INFO, GET, sizeof(struct barlease_feature_info) },
};

static const struct feature *const features_end =
	features + sizeof(features) / sizeof(*features);

TEST(feature_probe, "PROBE finds each feature, with its own operation alone")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	for (const struct feature *f = features; f < features_end; f++) {
		uint32_t wrong = f->op ^ GET ^ SET;

		CHECK_OK(abi_feature(dev.device_fd, PROBE | f->number, NULL, 0));
		CHECK_OK(
			abi_feature(dev.device_fd, PROBE | f->op | f->number, NULL, 0));
		CHECK_ERRNO(
			abi_feature(dev.device_fd, PROBE | wrong | f->number, NULL, 0),
			EINVAL);
		CHECK_ERRNO(abi_feature(dev.device_fd, PROBE | GET | SET | f->number,
					NULL, 0),
			    EINVAL);
	}
	CHECK_ERRNO(abi_feature(dev.device_fd, PROBE | 0xBA03, NULL, 0), ENOTTY);
}

TEST(feature_einval_op, "a feature called with the other operation is EINVAL")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	char data[64] = { 0 };

	for (const struct feature *f = features; f < features_end; f++)
		CHECK_ERRNO(abi_feature(dev.device_fd, (f->op ^ GET ^ SET) | f->number,
					data, sizeof(data)),
			    EINVAL);
}

TEST(feature_einval_argsz, "an argsz below the feature's struct is EINVAL")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);

	for (const struct feature *f = features; f < features_end; f++) {
		for (size_t size = 0; size < f->size; size++) {
			int32_t data[16] = { fd };

			CHECK_ERRNO(abi_feature(dev.device_fd, f->op | f->number, data,
						size),
				    EINVAL);
		}
	}
	CHECK_EQ(info(&dev, fd).state, BARLEASE_STATE_LIVE);
}

/* A feature call whose struct ends at a page that is not there. */
static struct vfio_device_feature *before_nothing(size_t size)
{
	char *pages = CHECK_MAP(mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	CHECK_OK(munmap(pages + PAGE_SIZE, PAGE_SIZE));
	return (void *)(pages + PAGE_SIZE - sizeof(struct vfio_device_feature) - size);
}

TEST(feature_efault, "a bad pointer is EFAULT, and nothing was done")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	struct vfio_device_feature *feature;

	CHECK_ERRNO(ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, NULL), EFAULT);
	CHECK_ERRNO(ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, -1L), EFAULT);
	for (const struct feature *f = features; f < features_end; f++) {
		for (size_t left = 0; left < f->size; left += 4) {
			feature = before_nothing(left);
			feature->argsz = (uint32_t)(sizeof(*feature) + f->size);
			feature->flags = f->op | f->number;
			if (left)
				*(int32_t *)feature->data = fd;
			CHECK_ERRNO(ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, feature),
				    EFAULT);
		}
	}
	CHECK_EQ(info(&dev, fd).state, BARLEASE_STATE_LIVE);
	CHECK_EQ(info(&dev, fd).memattr, BARLEASE_MEMATTR_UC);
}

TEST(export_efault, "an export whose ranges cannot all be read is EFAULT")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct vfio_device_feature_dma_buf *export;
	size_t one = sizeof(export->dma_ranges[0]);

	for (size_t there = 0; there < 3 * one; there += 4) {
		struct vfio_device_feature *feature =
			before_nothing(sizeof(*export) + there);

		feature->argsz =
			(uint32_t)(sizeof(*feature) + sizeof(*export) + 3 * one);
		feature->flags = GET | VFIO_DEVICE_FEATURE_DMA_BUF;
		export = (void *)feature->data;
		export->region_index = RAM_BAR;
		export->open_flags = O_RDWR;
		export->nr_ranges = 3;
		for (size_t i = 0; i < there / one; i++)
			export->dma_ranges[i].length = PAGE_SIZE;
		CHECK_ERRNO(ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, feature), EFAULT);
	}
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

TEST(info_read_only_memory, "info into memory that is read-only is EFAULT")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	struct vfio_device_feature *feature =
		before_nothing(sizeof(struct barlease_feature_info));

	feature->argsz =
		(uint32_t)(sizeof(*feature) + sizeof(struct barlease_feature_info));
	feature->flags = GET | BARLEASE_FEATURE_INFO;
	*(int32_t *)feature->data = fd;
	CHECK_OK(ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, feature));
	CHECK_OK(mprotect((void *)((uintptr_t)feature & -PAGE_SIZE), PAGE_SIZE,
			  PROT_READ));
	CHECK_ERRNO(ioctl(dev.device_fd, VFIO_DEVICE_FEATURE, feature), EFAULT);
}

TEST(prefault_enodev, "prefault of a revoked lease is ENODEV, mapped or not")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int mapped = lease(&dev, RAM_BAR, 0, MIB(4));
	int other = lease(&dev, RAM_BAR, 0, MIB(4));

	map(mapped, 0, MIB(4), PROT_READ | PROT_WRITE);
	CHECK_OK(abi_revoke(dev.device_fd, mapped));
	CHECK_OK(abi_revoke(dev.device_fd, other));
	CHECK_ERRNO(abi_prefault(mapped), ENODEV);
	CHECK_ERRNO(abi_prefault(other), ENODEV);
}

TEST(prefault_eio, "prefault while decoding is off or in D3 is EIO")
{
	struct barlease_device dev = open_device(BLK_DEVICE);
	uint64_t size = dev.bars[4].size;
	int fd = lease(&dev, 4, 0, size);

	map(fd, 0, size, PROT_READ);
	set_decoding(&dev, false);
	CHECK_ERRNO(abi_prefault(fd), EIO);
	set_decoding(&dev, true);
	CHECK_OK(abi_prefault(fd));
	set_power_state(&dev, 3);
	CHECK_ERRNO(abi_prefault(fd), EIO);
	set_power_state(&dev, 0);
	set_decoding(&dev, true);
	CHECK_OK(abi_prefault(fd));
}

static void prefault_for_ever(int sock, void *lease)
{
	say(sock, 0);
	for (;;)
		CHECK_OK(abi_prefault(*(int *)lease));
}

TEST(prefault_eintr, "a fatal signal ends a prefault before it is through")
{
	enum { MAPPINGS = 16 };
	struct barlease_device dev = open_device(BIG_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, BIG_SIZE), status;
	struct kid kid;

	/* Off by a page, so that it takes one fault for each 64 KiB. */
	for (int i = 0; i < MAPPINGS; i++)
		map_at(fd, 0, BIG_SIZE, PROT_READ, PAGE_SIZE);
	kid = kid_start(prefault_for_ever, &fd);
	hear(kid.sock);
	while (!faults(&dev, fd))
		;
	CHECK_OK(kill(kid.pid, SIGKILL));
	CHECK_OK(waitpid(kid.pid, &status, 0));
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK(faults(&dev, fd) < MAPPINGS * (BIG_SIZE / KIB(64)));
}

TEST(sync_flags, "SYNC with unknown flags is EINVAL; END does nothing")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));

	map(fd, 0, MIB(4), PROT_READ);
	CHECK_ERRNO(abi_sync(fd, DMA_BUF_SYNC_START), EINVAL);
	CHECK_ERRNO(abi_sync(fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW | 8), EINVAL);
	CHECK_OK(abi_sync(fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW));
	CHECK_EQ(faults(&dev, fd), 0);
}

/* As <drm/drm.h> has it, which Debian's kernel headers leave out. */
struct prime_handle {
	uint32_t handle, flags;
	int32_t fd;
};
#define PRIME_FD_TO_HANDLE _IOWR('d', 0x2e, struct prime_handle)

TEST(attach_eopnotsupp, "attaching a lease for DMA is EOPNOTSUPP")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct prime_handle import = {
		.fd = lease(&dev, RAM_BAR, 0, MIB(1)),
	};
	int card;

	CHECK_EQ(system("modprobe vgem"), 0);
	card = (int)CHECK_OK(open("/dev/dri/card0", O_RDWR | O_CLOEXEC));
	CHECK_ERRNO(ioctl(card, PRIME_FD_TO_HANDLE, &import), EOPNOTSUPP);
	/* That importer does take others. */
	import.fd = foreign_dmabuf();
	CHECK_OK(ioctl(card, PRIME_FD_TO_HANDLE, &import));
}
