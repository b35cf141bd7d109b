// SPDX-License-Identifier: MIT
/*
 * ones.c - two sealed memfds for all lost maps of the process: one full of ones,
 * and an empty one.
 */
#define _GNU_SOURCE
#include "ones.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW)

/* What tells it from a file that got its number once somebody had closed it. */
struct memory {
	int fd;
	dev_t dev;
	ino_t ino;
};

static struct memory ones = { .fd = -1 }, nothing = { .fd = -1 };

static bool still_there(const struct memory *memory)
{
	struct stat st;

	return fstat(memory->fd, &st) == 0 && st.st_dev == memory->dev &&
	       st.st_ino == memory->ino;
}

static int fill(int fd)
{
	struct rlimit limit;
	char piece[4096];
	ssize_t len;

	/* To write beyond it would be a signal, which ends the program. */
	if (getrlimit(RLIMIT_FSIZE, &limit))
		return -1;
	if (limit.rlim_cur < ONES_SIZE) {
		errno = EFBIG;
		return -1;
	}
	memset(piece, 0xff, sizeof(piece));
	for (size_t at = 0; at < ONES_SIZE; at += sizeof(piece)) {
		len = pwrite(fd, piece, sizeof(piece), at);
		if (len != sizeof(piece)) {
			if (len >= 0)
				errno = ENOSPC;
			return -1;
		}
	}
	return fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_WRITE);
}

/* That one is mapped shared and for stores, which the other seal would forbid. */
static int leave_empty(int fd)
{
	return fcntl(fd, F_ADD_SEALS, SEALS);
}

static int prepare(struct memory *memory, const char *name, int (*finish)(int fd))
{
	struct stat st;
	int fd, saved;

	if (memory->fd >= 0) {
		if (still_there(memory))
			return 0;
		errno = EBADF;
		return -1;
	}
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && finish(fd) == 0 && fstat(fd, &st) == 0) {
		memory->dev = st.st_dev;
		memory->ino = st.st_ino;
		/* Above the standard streams, should the program lack one. */
		memory->fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	}
	saved = errno;
	if (fd >= 0)
		close(fd);
	errno = saved;
	return memory->fd < 0 ? -1 : 0;
}

int barlease_ones_prepare(void)
{
	return prepare(&ones, "barlease-ones", fill) ||
			       prepare(&nothing, "barlease-nothing", leave_empty) ?
		       -1 :
		       0;
}

/* Returns where it is, or NULL. */
static char *map(const struct memory *memory, char *addr, size_t length, int prot,
		 int flags)
{
	long at;

	if (!still_there(memory)) {
		errno = EBADF;
		return NULL;
	}
	at = syscall(SYS_mmap, addr, length, prot, flags, memory->fd, 0);
	if (at == -1)
		return NULL;
	/* What is thrown away need not count where all that is mapped is locked. */
	syscall(SYS_munlock, at, length);
	return (char *)at;
}

bool barlease_ones_map(char *addr, size_t length, int prot, int flags)
{
	/* Stores may touch any share of it, so no memory is set aside for them. */
	return map(&ones, addr, length, prot, MAP_PRIVATE | MAP_NORESERVE | flags) ==
	       addr;
}

bool barlease_nothing_map(char *addr, size_t length, int prot, int flags)
{
	return map(&nothing, addr, length, prot, MAP_SHARED | flags) == addr;
}

char *barlease_nothing_map_somewhere(size_t length)
{
	return map(&nothing, NULL, length, PROT_NONE, MAP_SHARED);
}
