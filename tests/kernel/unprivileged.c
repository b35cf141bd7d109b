// SPDX-License-Identifier: MIT
/*
 * unprivileged.c - a lessee needs no privilege, and gains none by its lease.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

#define FIRST_UID 60001
#define LESSEES   3
#define PAGES     64

/* For good: no way back to root, and none to an fd that root had opened. */
static void become(uid_t uid)
{
	CHECK_OK(setgroups(0, NULL));
	CHECK_OK(setresgid(uid, uid, uid));
	CHECK_OK(setresuid(uid, uid, uid));
	CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK_ERRNO(setuid(0), EPERM);
}

/* Those of the devices, by group and by cdev: none can be opened. */
static void check_nodes_are_shut(void)
{
	glob_t nodes;

	CHECK_EQ(glob("/dev/vfio/[0-9]*", 0, NULL, &nodes), 0);
	if (path_is_cdev())
		CHECK_EQ(glob("/dev/vfio/devices/*", GLOB_APPEND, NULL, &nodes), 0);
	for (size_t i = 0; i < nodes.gl_pathc; i++) {
		CHECK_ERRNO(open(nodes.gl_pathv[i], O_RDWR), EACCES);
		CHECK_ERRNO(open(nodes.gl_pathv[i], O_RDONLY), EACCES);
	}
	globfree(&nodes);
}

/* It has pages n * PAGES and so on, with a lease that is read-only if n is 2. */
static void use_lease(int sock, void *arg)
{
	uint64_t n = (uint64_t)(uintptr_t)arg;
	bool read_only = n == 2;
	char *at;
	int fd;

	become(FIRST_UID + (uid_t)n);
	hear(sock);
	check_nodes_are_shut();

	fd = receive_fd(sock);
	at = map(fd, 0, PAGES * PAGE_SIZE, read_only ? PROT_READ : READ_WRITE);
	CHECK_OK(abi_prefault(fd));
	for (uint64_t page = 0; page < PAGES; page++)
		CHECK_PAGE(at + page * PAGE_SIZE, n * PAGES + page);
	CHECK_EQ(try_store(at, 1000 + (uint32_t)n), read_only ? SIGSEGV : 0);

	/* No further, and no calls but a lessee's. */
	CHECK_ERRNO(
		(long)mmap(NULL, (PAGES + 1) * PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0),
		EINVAL);
	if (read_only)
		CHECK_ERRNO((long)mmap(NULL, PAGE_SIZE, READ_WRITE, MAP_SHARED, fd, 0),
			    EACCES);
	CHECK_ERRNO(ioctl(fd, VFIO_DEVICE_RESET), ENOTTY);
	CHECK_ERRNO(abi_revoke(fd, fd), ENOTTY);

	say(sock, 0);
	hear(sock);
	CHECK_GONE(at);
	say(sock, 0);
	hear(sock);
}

TEST(unprivileged_lessees, "unprivileged lessees use what they are passed and no more")
{
	struct kid kids[LESSEES];
	struct barlease_device dev;
	int leases[LESSEES];
	uint32_t *bar;

	for (uintptr_t n = 0; n < LESSEES; n++)
		kids[n] = kid_start(use_lease, (void *)n);
	dev = open_device(RAM_DEVICE);
	stamp_pages(&dev);
	bar = map_bar(&dev, RAM_BAR, 0, MIB(2), READ_WRITE);
	for (uint64_t n = 0; n < LESSEES; n++) {
		struct vfio_region_dma_range range = { n * PAGES * PAGE_SIZE,
						       PAGES * PAGE_SIZE };

		bar[n * PAGES * PAGE_SIZE / sizeof(*bar)] = 7;
		leases[n] = lease_ranges(&dev, RAM_BAR, &range, 1,
					 n == 2 ? O_RDONLY : O_RDWR);
		say(kids[n].sock, 0);
		send_fd(kids[n].sock, leases[n]);
		hear(kids[n].sock);
		CHECK_EQ(bar[n * PAGES * PAGE_SIZE / sizeof(*bar)],
			 n == 2 ? 7 : 1000 + n);
	}
	for (uint64_t n = 0; n < LESSEES; n++) {
		CHECK_OK(abi_revoke(dev.device_fd, leases[n]));
		say(kids[n].sock, 0);
		hear(kids[n].sock);
	}
	for (uint64_t n = 0; n < LESSEES; n++) {
		say(kids[n].sock, 0);
		kid_join(&kids[n]);
	}
}
