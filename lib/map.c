// SPDX-License-Identifier: MIT
/* map.c - a lessee's map of a lease: the handle, from barlease_map() to its end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barlease.h"
#include "map.h"
#include "owner.h"
#include "place.h"
#include "sized.h"
#include "survive.h"

#define KNOWN_FLAGS                                                             \
	(BARLEASE_MAP_READONLY | BARLEASE_MAP_PREFAULT | BARLEASE_MAP_SURVIVE | \
	 BARLEASE_MAP_DONTFORK | BARLEASE_MAP_NO_HANDLER)

static size_t page_ceil(size_t length)
{
	size_t page_size = sysconf(_SC_PAGESIZE);

	return (length + page_size - 1) & -page_size;
}

/* Fill in what the caller left open, and refuse what is out of bounds. */
static int resolve(int lease_fd, struct barlease_map_options *o)
{
	off_t size = lseek(lease_fd, 0, SEEK_END);

	if (size < 0)
		return -1;
	if (o->flags & ~KNOWN_FLAGS || o->offset & (sysconf(_SC_PAGESIZE) - 1) ||
	    o->offset >= (uint64_t)size || o->length > size - o->offset)
		goto fail;
	if (o->length == 0)
		o->length = size - o->offset;
	if (o->length <= PTRDIFF_MAX)
		return 0;
fail:
	errno = EINVAL;
	return -1;
}

/* Of DMABUFs alone the ioctl says that it does not know these flags. */
static bool is_dmabuf(int fd)
{
	struct dma_buf_sync sync = { .flags = ~0ULL };

	return ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync) < 0 && errno == EINVAL;
}

static int protection(uint32_t flags)
{
	return PROT_READ | (flags & BARLEASE_MAP_READONLY ? 0 : PROT_WRITE);
}

static int place_pages(struct barlease_map *map, uint64_t va_hint)
{
	void *addr = barlease_place(map->fd, map->offset, map->length,
				    protection(map->flags), va_hint);

	if (addr == MAP_FAILED) {
		/* Our arguments are right: it is one that can't be mapped at all. */
		if (errno == EINVAL)
			errno = is_dmabuf(map->fd) ? EOPNOTSUPP : EINVAL;
		return -1;
	}
	map->addr = addr;
	return map->flags & BARLEASE_MAP_DONTFORK ?
		       madvise(map->addr, map->span, MADV_DONTFORK) :
		       0;
}

static int map_pages(struct barlease_map *map, uint64_t va_hint)
{
	bool hold = map->flags & BARLEASE_MAP_DONTFORK;
	int ret;

	if (hold)
		barlease_forks_hold();
	ret = place_pages(map, va_hint);
	if (hold)
		barlease_forks_let_go();
	if (ret)
		return -1;
	if (map->flags & BARLEASE_MAP_PREFAULT)
		return barlease_prefault(map->fd);
	return 0;
}

static int make_survive(struct barlease_map *map)
{
	const struct survivor_options options = {
		.prot = protection(map->flags),
		.dontfork = map->flags & BARLEASE_MAP_DONTFORK,
		.handler = !(map->flags & BARLEASE_MAP_NO_HANDLER),
	};

	if (!(map->flags & BARLEASE_MAP_SURVIVE))
		return 0;
	map->survivor = barlease_survivor_add(map->addr, map->span, &options);
	return map->survivor ? 0 : -1;
}

/* map: what there is of it. */
static void discard(struct barlease_map *map)
{
	int saved = errno;

	if (map->addr)
		munmap(map->addr, map->span);
	if (map->fd >= 0)
		close(map->fd);
	free(map);
	errno = saved;
}

static struct barlease_map *map_lease(int lease_fd,
				      const struct barlease_map_options *options)
{
	struct barlease_map_options o = { .va_hint = BARLEASE_VA_HINT_UNKNOWN };
	struct barlease_map *map;

	if (options && barlease_sized_in(&o, sizeof(o), options))
		return NULL;
	if (resolve(lease_fd, &o))
		return NULL;
	map = calloc(1, sizeof(*map));
	if (!map)
		return NULL;
	map->length = o.length;
	map->span = page_ceil(o.length);
	map->offset = o.offset;
	map->flags = o.flags;
	/* Above the standard streams, should the caller have closed one. */
	map->fd = fcntl(lease_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (map->fd < 0 || barlease_owner_set(&map->owner) ||
	    map_pages(map, o.va_hint) || make_survive(map)) {
		discard(map);
		return NULL;
	}
	return map;
}

/* A thread that was cancelled in there would leave a lock taken, or an fd. */
struct barlease_map *barlease_map(int lease_fd,
				  const struct barlease_map_options *options)
{
	struct barlease_map *map;
	int former;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &former);
	map = map_lease(lease_fd, options);
	pthread_setcancelstate(former, NULL);
	return map;
}

/* In a child something else may be where a map was that it was not to have. */
static int unmap_pages(struct barlease_map *map)
{
	if (map->survivor)
		return barlease_survivor_unmap(map->survivor);
	if (map->flags & BARLEASE_MAP_DONTFORK && !barlease_owner_is_us(&map->owner))
		return 0;
	return munmap(map->addr, map->span);
}

int barlease_unmap(struct barlease_map *map)
{
	int former;

	if (!map)
		return 0;
	if (unmap_pages(map))
		return -1;
	map->addr = NULL;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &former);
	discard(map);
	pthread_setcancelstate(former, NULL);
	return 0;
}

void *barlease_map_addr(const struct barlease_map *map)
{
	return map->addr;
}

size_t barlease_map_length(const struct barlease_map *map)
{
	return map->length;
}

int barlease_map_lost(const struct barlease_map *map)
{
	return map->survivor && barlease_survivor_lost(map->survivor);
}

int barlease_map_restore(struct barlease_map *map)
{
	if (!map->survivor) {
		errno = EINVAL;
		return -1;
	}
	if (barlease_survivor_restore(map->survivor, map->fd, map->offset))
		return -1;
	/* A help only: it may be lost again by now. */
	if (map->flags & BARLEASE_MAP_PREFAULT)
		barlease_prefault(map->fd);
	return 0;
}

int barlease_prefault(int lease_fd)
{
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW };

	return ioctl(lease_fd, DMA_BUF_IOCTL_SYNC, &sync);
}
