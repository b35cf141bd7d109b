// SPDX-License-Identifier: MIT
/*
 * map_errno.c - what mmap(), mprotect() and plain access are refused, how, and
 * in which order; no way around it by reopening.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

static void *try_map(int fd, uint64_t offset, uint64_t length, int prot, int flags)
{
	return mmap(NULL, length, prot, flags, fd, (off_t)offset);
}

static int lease_read_only(const struct barlease_device *dev, uint64_t length)
{
	struct vfio_region_dma_range range = { .length = length };

	return lease_ranges(dev, RAM_BAR, &range, 1, O_RDONLY);
}

TEST(mmap_einval_private, "a private mapping is EINVAL")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	int read_only = lease_read_only(&dev, MIB(4));

	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_READ, MAP_PRIVATE), EINVAL);
	CHECK_ERRNO(try_map(fd, 0, MIB(4), READ_WRITE, MAP_PRIVATE), EINVAL);
	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_NONE, MAP_PRIVATE), EINVAL);
	CHECK_ERRNO(try_map(read_only, 0, MIB(4), PROT_READ, MAP_PRIVATE), EINVAL);
	CHECK_ERRNO(try_map(read_only, 0, MIB(4), READ_WRITE, MAP_PRIVATE), EINVAL);
}

TEST(mmap_einval_bounds, "a mapping past the lease's end is EINVAL")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, MIB(16), MIB(4));
	const uint64_t size = MIB(4);
	const struct {
		uint64_t offset, length;
	} outside[] = {
		{ 0, size + PAGE_SIZE },
		{ 0, RAM_SIZE },
		{ size, PAGE_SIZE },
		{ size - PAGE_SIZE, 2 * PAGE_SIZE },
		{ PAGE_SIZE, size },
		{ RAM_SIZE, PAGE_SIZE },
		/* Where the offsets of the VFIO inode hold the BAR itself. */
		{ dev.bars[RAM_BAR].offset, PAGE_SIZE },
		{ (uint64_t)INT64_MAX & -PAGE_SIZE, PAGE_SIZE },
	};

	for (size_t i = 0; i < sizeof(outside) / sizeof(*outside); i++) {
		uint64_t offset = outside[i].offset;

		errno = 0;
		CHECK_THAT(try_map(fd, offset, outside[i].length, READ_WRITE,
				   MAP_SHARED) == MAP_FAILED &&
				   (errno == EINVAL || errno == EOVERFLOW),
			   "offset %#llx: expected EINVAL, saw %s",
			   (unsigned long long)offset, errno_name(errno));
	}
	/* Offsets with the top bit set are negative to mmap() itself. */
	CHECK(try_map(fd, -PAGE_SIZE, PAGE_SIZE, PROT_READ, MAP_SHARED) == MAP_FAILED);
	map(fd, size - PAGE_SIZE, PAGE_SIZE, READ_WRITE);
}

TEST(mmap_eacces, "a writable mapping of a read-only lease is EACCES")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease_read_only(&dev, MIB(4));

	CHECK_ERRNO(try_map(fd, 0, MIB(4), READ_WRITE, MAP_SHARED), EACCES);
	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_WRITE, MAP_SHARED), EACCES);
	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_WRITE, MAP_SHARED_VALIDATE), EACCES);
}

TEST(mmap_eperm_exec, "an executable mapping is EPERM")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	int read_only = lease_read_only(&dev, MIB(4));

	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_EXEC, MAP_SHARED), EPERM);
	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_READ | PROT_EXEC, MAP_SHARED), EPERM);
	CHECK_ERRNO(try_map(fd, 0, MIB(4), READ_WRITE | PROT_EXEC, MAP_SHARED), EPERM);
	CHECK_ERRNO(try_map(read_only, 0, MIB(4), PROT_READ | PROT_EXEC, MAP_SHARED),
		    EPERM);
}

TEST(mmap_enodev, "a mapping of a revoked lease, or one of a closed device, "
		  "is ENODEV")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int revoked = lease(&dev, RAM_BAR, 0, MIB(4));
	int closed = lease(&dev, RAM_BAR, 0, MIB(4));

	CHECK_OK(abi_revoke(dev.device_fd, revoked));
	CHECK_ERRNO(try_map(revoked, 0, MIB(4), PROT_READ, MAP_SHARED), ENODEV);
	CHECK_ERRNO(try_map(revoked, 0, MIB(4), PROT_NONE, MAP_SHARED), ENODEV);
	CHECK_OK(try_map(closed, 0, MIB(4), PROT_READ, MAP_SHARED));
	barlease_device_close(&dev);
	CHECK_ERRNO(try_map(closed, 0, MIB(4), PROT_READ, MAP_SHARED), ENODEV);
	CHECK_ERRNO(try_map(revoked, 0, MIB(4), PROT_READ, MAP_SHARED), ENODEV);
}

/*
 * Whether the kernel itself lets no DMABUF be mapped for executing. Then this
 * personality does not ask for it either.
 */
static bool is_noexec(int fd)
{
	int persona = personality(READ_IMPLIES_EXEC);
	bool noexec = try_map(fd, 0, PAGE_SIZE, PROT_READ, MAP_SHARED) != MAP_FAILED;

	CHECK_OK(persona);
	CHECK_OK(personality((unsigned long)persona));
	return noexec;
}

TEST(mmap_order, "mmap: EINVAL comes before EPERM, that before ENODEV")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	/* Such a kernel says so before it asks the driver. */
	int first = is_noexec(fd) ? EPERM : EINVAL;

	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_READ | PROT_EXEC, MAP_PRIVATE), first);
	CHECK_ERRNO(try_map(fd, 0, MIB(8), PROT_READ | PROT_EXEC, MAP_SHARED), first);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_READ, MAP_PRIVATE), EINVAL);
	CHECK_ERRNO(try_map(fd, 0, MIB(8), PROT_READ, MAP_SHARED), EINVAL);
	CHECK_ERRNO(try_map(fd, 0, MIB(4), PROT_READ | PROT_EXEC, MAP_SHARED), EPERM);
}

TEST(mprotect_eacces, "mprotect adds no write to a read-only lease, no exec to any")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	int read_only = lease_read_only(&dev, MIB(4));
	void *both = map(fd, 0, MIB(4), READ_WRITE);
	void *reads = map(read_only, 0, MIB(4), PROT_READ);

	for (int touched = 0; touched < 2; touched++) {
		CHECK_ERRNO(mprotect(reads, MIB(4), READ_WRITE), EACCES);
		CHECK_ERRNO(mprotect(reads, MIB(4), PROT_WRITE), EACCES);
		CHECK_ERRNO(mprotect(reads, MIB(4), PROT_READ | PROT_EXEC), EACCES);
		CHECK_ERRNO(mprotect(reads, PAGE_SIZE, PROT_EXEC), EACCES);
		CHECK_ERRNO(mprotect(both, MIB(4), READ_WRITE | PROT_EXEC), EACCES);
		CHECK_ERRNO(mprotect(both, PAGE_SIZE, PROT_EXEC), EACCES);
		CHECK_STORE(reads, SIGSEGV);
		CHECK_LOADS(reads);
		CHECK_STORES(both);
	}
	/* A detour by no access at all gives no more. */
	CHECK_OK(mprotect(reads, MIB(4), PROT_NONE));
	CHECK_LOAD(reads, SIGSEGV);
	CHECK_ERRNO(mprotect(reads, MIB(4), READ_WRITE), EACCES);
	CHECK_OK(mprotect(reads, MIB(4), PROT_READ));
	CHECK_LOADS(reads);
}

TEST(mprotect_read_only_mapping,
     "a writable lease mapped for reading can be made writable, as a file's")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	void *at = map(fd, 0, MIB(4), PROT_READ);

	CHECK_LOADS(at);
	CHECK_STORE(at, SIGSEGV);
	CHECK_OK(mprotect(at, MIB(4), READ_WRITE));
	CHECK_STORES(at);
	CHECK_OK(mprotect(at, MIB(4), PROT_READ));
	CHECK_STORE(at, SIGSEGV);
	CHECK_LOADS(at);
}

TEST(read_only_lease, "a read-only lease is mapped shared and reads its pages")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease_read_only(&dev, MIB(4));
	char *at = map(fd, 0, MIB(4), PROT_READ);

	stamp_pages(&dev);
	for (uint64_t page = 0; page < MIB(4) / PAGE_SIZE; page++)
		CHECK_PAGE(at + page * PAGE_SIZE, page);
	CHECK_STORE(at, SIGSEGV);
	/* The entry itself forbids it, not the VMA alone. */
	CHECK_EQ(page_entry(at).entry & 2, 0);
}

TEST(reopen, "opening a lease anew, by /proc, gives no access at all")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease_read_only(&dev, MIB(4));
	char *at = map(fd, 0, MIB(4), PROT_READ);
	char path[2][96];

	snprintf(path[0], sizeof(path[0]), "/proc/self/fd/%d", fd);
	snprintf(path[1], sizeof(path[1]), "/proc/self/map_files/%lx-%lx",
		 (unsigned long)at, (unsigned long)(at + MIB(4)));
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(access(path[i], F_OK), 0);
		CHECK_EQ(open(path[i], O_RDWR), -1);
		CHECK_EQ(open(path[i], O_RDONLY), -1);
		CHECK_EQ(open(path[i], O_WRONLY), -1);
	}
	CHECK_OK(fcntl(fd, F_SETFL, O_RDWR));
	CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_ERRNO(try_map(fd, 0, MIB(4), READ_WRITE, MAP_SHARED), EACCES);
}

TEST(no_file_io, "a lease is read and written by mapping alone")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	char byte = 0;

	CHECK_EQ(read(fd, &byte, 1), -1);
	CHECK_EQ(write(fd, &byte, 1), -1);
	CHECK_EQ(pread(fd, &byte, 1, 0), -1);
	CHECK_EQ(pwrite(fd, &byte, 1, 0), -1);
	CHECK_EQ(ftruncate(fd, 0), -1);
	CHECK_EQ(fallocate(fd, 0, 0, PAGE_SIZE), -1);
	CHECK_EQ(lseek(fd, 0, SEEK_END), MIB(4));
}

TEST(no_pinning, "nothing pins a lease's pages or reads them for another")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4)), pair[2];
	char *at = map(fd, 0, MIB(4), READ_WRITE), copy[16];
	struct iovec there = { .iov_base = at, .iov_len = sizeof(copy) };
	struct iovec here = { .iov_base = copy, .iov_len = sizeof(copy) };

	CHECK_LOADS(at);
	CHECK_OK(pipe(pair));
	CHECK_ERRNO(vmsplice(pair[1], &there, 1, 0), EFAULT);
	CHECK_EQ(process_vm_readv(getpid(), &here, 1, &there, 1, 0), -1);
	CHECK_EQ(process_vm_writev(getpid(), &here, 1, &there, 1, 0), -1);
}

TEST(access_sigbus_revoked,
     "after a revoke each access is SIGBUS, of pages touched before or not")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(64));
	char *huge = map_at(fd, 0, MIB(64), READ_WRITE, info(&dev, fd).va_hint);
	char *odd = map_at(fd, 0, MIB(64), READ_WRITE, PAGE_SIZE);

	for (uint64_t at = 0; at < MIB(32); at += KIB(64)) {
		CHECK_STORES(huge + at);
		CHECK_STORES(odd + at);
	}
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	for (uint64_t at = 0; at < MIB(64); at += KIB(64)) {
		CHECK_GONE(huge + at);
		CHECK_GONE(odd + at);
		CHECK_STORE(huge + at, SIGBUS);
	}
}

TEST(access_sigbus_closed,
     "after the device was closed each access is SIGBUS, reopened or not")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	char *at = map(fd, 0, MIB(4), READ_WRITE);

	CHECK_STORES(at);
	barlease_device_close(&dev);
	CHECK_GONE(at);
	CHECK_STORE(at + MIB(3), SIGBUS);
	dev = open_device(RAM_DEVICE);
	CHECK_GONE(at);
	CHECK_STORE(at + MIB(3), SIGBUS);
}

TEST(access_sigbus_off,
     "with decoding off or in D3 each access is SIGBUS, and works again after")
{
	struct barlease_device dev = open_device(BLK_DEVICE);
	uint64_t size = dev.bars[4].size;
	int fd = lease(&dev, 4, 0, size);
	char *at = map(fd, 0, size, PROT_READ);

	CHECK_LOADS(at);
	set_decoding(&dev, false);
	CHECK_GONE(at);
	CHECK_GONE(at + size - PAGE_SIZE);
	set_decoding(&dev, true);
	CHECK_LOADS(at);
	set_power_state(&dev, 3);
	CHECK_GONE(at);
	set_power_state(&dev, 0);
	set_decoding(&dev, true);
	CHECK_LOADS(at);
}
