// SPDX-License-Identifier: MIT
/* ones.c - a sealed memfd full of ones, for all lost maps of the process. */
#define _GNU_SOURCE
#include "ones.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* What tells it from a file that got its number once somebody had closed it. */
static struct {
	int fd;
	dev_t dev;
	ino_t ino;
} ones = { .fd = -1 };

static bool still_there(void)
{
	struct stat st;

	return fstat(ones.fd, &st) == 0 && st.st_dev == ones.dev &&
	       st.st_ino == ones.ino;
}

static int fill(int fd)
{
	char piece[4096];
	ssize_t len;

	memset(piece, 0xff, sizeof(piece));
	for (size_t at = 0; at < ONES_SIZE; at += sizeof(piece)) {
		len = pwrite(fd, piece, sizeof(piece), at);
		if (len != sizeof(piece)) {
			if (len >= 0)
				errno = ENOSPC;
			return -1;
		}
	}
	return fcntl(fd, F_ADD_SEALS, SEALS);
}

int barlease_ones_prepare(void)
{
	struct stat st;
	int fd, saved;

	if (ones.fd >= 0) {
		if (still_there())
			return 0;
		errno = EBADF;
		return -1;
	}
	fd = memfd_create("barlease-ones", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && fill(fd) == 0 && fstat(fd, &st) == 0) {
		ones.dev = st.st_dev;
		ones.ino = st.st_ino;
		/* Above the standard streams, should the program lack one. */
		ones.fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	}
	saved = errno;
	if (fd >= 0)
		close(fd);
	errno = saved;
	return ones.fd < 0 ? -1 : 0;
}

bool barlease_ones_map(char *addr, size_t length, int prot, int flags)
{
#ifdef SYS_mmap2
	const long number = SYS_mmap2;
#else
	const long number = SYS_mmap;
#endif

	/* Stores may touch any share of it, so no memory is set aside for them. */
	return still_there() &&
	       syscall(number, addr, length, prot, MAP_PRIVATE | MAP_NORESERVE | flags,
		       ones.fd, 0) == (long)addr;
}
