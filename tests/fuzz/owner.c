// SPDX-License-Identifier: MIT
/*
 * owner.c - the lessor's calls, each with what docs/abi.md says it returns: of
 * several things that are wrong the first in its order decides.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "call.h"
#include "kids.h"
#include "lessee.h"
#include "owner.h"

/* Ranges that all leases of a device may have together. */
#define MAX_ALIVE 1048576

/* The ranges of the next export. */
static struct vfio_region_dma_range pending[MAX_RANGES];
static uint32_t nr_pending;

static int null_fd, foreign_fd;
/* Calls that take long are made once in an input, or twice. */
static bool was_large, was_reset, was_rebound;
static int reopened;

/* A DMABUF that is not ours; -1: the kernel has no such thing. */
static int make_foreign(void)
{
	struct udmabuf_create create = { .size = PAGE_SIZE };
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC), fd;

	if (device < 0)
		return -1;
	create.memfd = (uint32_t)memfd_create("fuzz", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	if (ftruncate((int)create.memfd, PAGE_SIZE) ||
	    fcntl((int)create.memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		wrong("cannot make a memfd: %m");
	fd = ioctl(device, UDMABUF_CREATE, &create);
	close((int)create.memfd);
	close(device);
	return fd;
}

void owner_init(void)
{
	call_init();
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	foreign_fd = make_foreign();
}

void owner_begin(void)
{
	nr_pending = 0;
	was_large = was_reset = was_rebound = false;
	reopened = 0;
}

/* The device that a record means, if it is open. */
static bool chosen_device(uint8_t code, enum device_name *dev)
{
	*dev = code % 8 < 5 ? RAM : code % 8 < 7 ? SPARE : BLK;
	return world->devices[*dev].open;
}

/*
 * Export
 */

/* arg: first page, length, misalignment, whether it goes on where the last ended */
int op_range(const struct record *r)
{
	struct vfio_region_dma_range *range = &pending[nr_pending];
	const uint64_t pages = (1ULL << 30) / PAGE_SIZE;

	if (nr_pending == MAX_RANGES)
		return 0;
	range->offset = pick(r->arg[0], pages) * PAGE_SIZE;
	range->length = pick(r->arg[1], pages) * PAGE_SIZE;
	if (r->arg[2] > 250)
		range->offset += r->arg[2] - 250;
	else if (r->arg[2] > 245)
		range->length += r->arg[2] - 245;
	if (r->arg[3] % 2 && nr_pending)
		range->offset = range[-1].offset + range[-1].length;
	nr_pending++;
	return 0;
}

static bool bad_range(const struct vfio_region_dma_range *range, uint64_t limit,
		      uint64_t *total)
{
	uint64_t end;

	return !range->length || (range->offset | range->length) % PAGE_SIZE ||
	       __builtin_add_overflow(range->offset, range->length, &end) ||
	       __builtin_add_overflow(*total, range->length, total) || end > limit;
}

/* Ranges are read 16 at a time; there are so many. */
static int want_ranges(const struct vfio_region_dma_range *ranges, uint32_t nr,
		       uint64_t there, uint64_t limit, uint64_t *total)
{
	*total = 0;
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t piece = nr - i < 16 ? nr - i : 16;

		if (i % 16 == 0 && i + piece > there)
			return -EFAULT;
		if (bad_range(&ranges[i], limit, total))
			return -EINVAL;
	}
	return nr > BARLEASE_MAX_RANGES ? -E2BIG : 0;
}

static bool meets_guard(enum device_name dev, uint32_t region,
			const struct vfio_region_dma_range *ranges, uint32_t nr)
{
	const struct modelled_device *m = &world->devices[dev];

	for (int g = 0; g < m->nr_guards; g++)
		for (uint32_t i = 0; i < nr && m->guards[g].bar == region; i++) {
			uint64_t first = ranges[i].offset / PAGE_SIZE;
			uint64_t last = first + ranges[i].length / PAGE_SIZE - 1;

			if (first <= m->guards[g].last && last >= m->guards[g].first)
				return true;
		}
	return false;
}

/*
 * The longest run of page offsets for leases. Those of BAR n begin at n TiB and are
 * as many as it is long; at 6 TiB they end.
 */
static uint64_t most_bytes(enum device_name dev)
{
	const struct barlease_bar *bars = devices[dev].bars;
	uint64_t start = 0, most = 0;

	for (uint64_t bar = 0; bar <= BARLEASE_BARS; bar++) {
		if (bar < BARLEASE_BARS && !bars[bar].size)
			continue;
		if ((bar << 40) - start > most)
			most = (bar << 40) - start;
		if (bar < BARLEASE_BARS)
			start = (bar << 40) + (bars[bar].size + PAGE_SIZE - 1) /
						      PAGE_SIZE * PAGE_SIZE;
	}
	return most;
}

/*
 * Whether there may be no room beside what is alive, of which we only know what
 * was exported in this input. A lease goes to the lowest place where it fits, so
 * none ends higher in that run than it would behind all before it, end to end.
 */
static bool may_lack_room(enum device_name dev, uint64_t total, uint32_t nr)
{
	uint64_t bytes = total, ranges = nr;

	for (uint32_t i = 0; i < world->nr_leases; i++)
		if (world->leases[i].dev == dev) {
			bytes += world->leases[i].size;
			ranges += world->leases[i].nr_ranges;
		}
	return bytes > most_bytes(dev) || ranges > MAX_ALIVE;
}

/* The result of an export; 1: a lease. Of that *total bytes. */
static int want_export(enum device_name dev, const struct call *call,
		       const struct vfio_device_feature_dma_buf *get, uint64_t *total)
{
	const size_t head = sizeof(struct vfio_device_feature) + sizeof(*get);
	uint32_t access = get->open_flags & O_ACCMODE;
	uint64_t limit = UINT64_MAX;
	int want = want_header(call, GET, sizeof(*get));

	if (want <= 0)
		return want;
	if (!get->nr_ranges || get->flags ||
	    call->argsz - head < (uint64_t)get->nr_ranges * 16 ||
	    get->open_flags & ~(uint32_t)(O_ACCMODE | O_CLOEXEC) ||
	    (access != O_RDONLY && access != O_RDWR))
		return -EINVAL;
	if (leasable(dev, get->region_index))
		limit = (devices[dev].bars[get->region_index].size + PAGE_SIZE - 1) /
			PAGE_SIZE * PAGE_SIZE;
	want = want_ranges(get->dma_ranges, get->nr_ranges, (call->size - head) / 16,
			   limit, total);
	if (want)
		return want;
	if (*total > most_bytes(dev))
		return -ENOSPC;
	if (!leasable(dev, get->region_index))
		return -ENODEV;
	if (meets_guard(dev, get->region_index, get->dma_ranges, get->nr_ranges))
		return -EPERM;
	return 1;
}

static uint32_t count_spans(const struct vfio_region_dma_range *ranges, uint32_t nr)
{
	uint32_t spans = 1;

	for (uint32_t i = 1; i < nr; i++)
		spans +=
			ranges[i - 1].offset + ranges[i - 1].length != ranges[i].offset;
	return spans;
}

static struct barlease_feature_info want_info(uint32_t i)
{
	const struct modelled_lease *lease = &world->leases[i];
	const struct modelled_device *dev = &world->devices[lease->dev];

	return (struct barlease_feature_info){
		.dmabuf_fd = me.fds[i],
		.state = lease->state == LIVE ? BARLEASE_STATE_LIVE :
						BARLEASE_STATE_REVOKED,
		.id = lease->id,
		.size = lease->size,
		.nr_ranges = lease->nr_ranges,
		.nr_spans = lease->nr_spans,
		.memattr = lease->memattr,
		.open_flags = lease->access,
		.va_hint = (dev->bar_start[lease->region] + lease->ranges[0].offset) %
			   (1ULL << 30),
	};
}

static void check_info(uint32_t i, struct barlease_feature_info seen)
{
	struct barlease_feature_info want = want_info(i);

	/* How many a range takes is the driver's affair; none is taken back. */
	want.faults = seen.faults;
	if (memcmp(&seen, &want, sizeof(seen)) || seen.faults < world->leases[i].faults)
		wrong("info of lease %u: state %u id %llu size %#llx ranges %u spans %u "
		      "memattr %u open_flags %u va_hint %#llx faults %llu",
		      i, seen.state, seen.id, seen.size, seen.nr_ranges, seen.nr_spans,
		      seen.memattr, seen.open_flags, seen.va_hint, seen.faults);
	world->leases[i].faults = seen.faults;
}

/* The export has returned this fd. */
static void note_lease(enum device_name dev, int fd,
		       const struct vfio_device_feature_dma_buf *get, uint64_t size)
{
	uint32_t i = world->nr_leases++, nr = get->nr_ranges;
	struct modelled_lease *lease = &world->leases[i];
	struct barlease_feature_info info = { .dmabuf_fd = fd };
	struct call call = simple_call(GET | BARLEASE_FEATURE_INFO, sizeof(info));

	*lease = (struct modelled_lease){
		.dev = dev,
		.region = get->region_index,
		.access = get->open_flags & O_ACCMODE,
		.size = size,
		.nr_ranges = nr,
		.nr_spans = count_spans(get->dma_ranges, nr),
	};
	memcpy(lease->ranges, get->dma_ranges,
	       (nr < MAX_RANGES ? nr : MAX_RANGES) * sizeof(*lease->ranges));
	me.fds[i] = fd;
	if (feature(dev, &call, &info) || info.id <= world->last_id || info.faults)
		wrong("a new lease: id %llu after %llu, faults %llu", info.id,
		      (unsigned long long)world->last_id, info.faults);
	world->last_id = lease->id = info.id;
	check_info(i, info);
	if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC) != !(get->open_flags & O_CLOEXEC))
		wrong("the fd of a lease is close-on-exec unasked, or not when asked");
}

static uint32_t chosen_region(uint8_t code, enum device_name dev)
{
	static const uint32_t odd[] = { 0, 1, 3, 4, 5, 6, 7, 8, 9, UINT32_MAX };

	if (code >= 0xc0)
		return odd[code % ARRAY_SIZE(odd)];
	if (dev == BLK)
		return code % 2 ? 1 : 4;
	return RAM_BAR;
}

/* Fill in the ranges; returns how many there are. */
static uint32_t put_ranges(struct vfio_device_feature_dma_buf *get, uint8_t many)
{
	uint32_t nr = nr_pending ? nr_pending : 1;

	if (!nr_pending)
		pending[0] =
			(struct vfio_region_dma_range){ .length = 512 * PAGE_SIZE };
	memcpy(get->dma_ranges, pending, nr * sizeof(*pending));
	nr_pending = 0;
	if (many < 4 || was_large)
		return nr;
	/* The first one, as often as it may be or once more. */
	was_large = true;
	nr = BARLEASE_MAX_RANGES + many % 2;
	for (uint32_t i = 1; i < nr; i++)
		get->dma_ranges[i] = pending[0];
	return nr;
}

/* What is wrong with the number of ranges: it lies, or argsz does. */
static void lie_ranges(struct vfio_device_feature_dma_buf *get, struct call *call,
		       uint8_t code)
{
	switch (code) {
	case 24:
		get->nr_ranges = 0;
		break;
	case 25:
		get->nr_ranges++;
		break;
	case 26:
		get->nr_ranges++;
		call->argsz += 16;
		break;
	case 27:
		get->nr_ranges += 16;
		call->argsz += 16 * 16;
		break;
	case 28:
		get->nr_ranges = 65537;
		call->argsz = UINT32_MAX;
		break;
	case 29:
		get->nr_ranges = UINT32_MAX;
		call->argsz = UINT32_MAX;
		break;
	case 30:
		get->nr_ranges = 1U << 28;
		break;
	default:
		lie(call, code);
		break;
	}
}

/* arg: device, region, open flags, flags, what is wrong, how many */
int op_export(const struct record *r)
{
	static const uint32_t open_flags[] = {
		O_RDWR,   O_RDWR | O_CLOEXEC,  O_RDONLY, O_RDONLY | O_CLOEXEC,
		O_WRONLY, O_RDWR | O_NONBLOCK, 3,        O_RDWR | 1U << 31,
	};
	static uint64_t room[ROOM / 8];
	struct vfio_device_feature_dma_buf *get = (void *)room;
	struct call call;
	enum device_name dev;
	uint64_t total = 0;
	int want, seen;
	uint32_t nr;

	if (!chosen_device(r->arg[0], &dev) || world->nr_leases == MAX_LEASES)
		return 0;
	nr = put_ranges(get, r->arg[5] > 250 ? r->arg[5] - 247 : 0);
	get->region_index = chosen_region(r->arg[1], dev);
	get->open_flags = open_flags[r->arg[2] < 0xc0 ? r->arg[2] % 4 : r->arg[2] % 8];
	get->flags = r->arg[3] > 250 ? 1U << (r->arg[3] % 32) : 0;
	get->nr_ranges = nr;
	call = simple_call(GET | VFIO_DEVICE_FEATURE_DMA_BUF,
			   sizeof(*get) + nr * sizeof(*get->dma_ranges));
	lie_ranges(get, &call, r->arg[4]);

	want = want_export(dev, &call, get, &total);
	seen = feature(dev, &call, get);
	say("export(device %d, BAR %u, %u ranges, first %#llx + %#llx, %#lx bytes, open "
	    "flags %#x, argsz %u): %d",
	    dev, get->region_index, get->nr_ranges, get->dma_ranges[0].offset,
	    get->dma_ranges[0].length, total, get->open_flags, call.argsz, seen);
	if (seen == -ENOSPC && (want == 1 || want == -ENODEV || want == -EPERM) &&
	    may_lack_room(dev, total, nr))
		return seen;
	if (want == 1 && seen >= 0) {
		note_lease(dev, seen, get, total);
		return 1;
	}
	if (seen != want)
		wrong("export: %d, should be %d", seen, want);
	return seen;
}

/*
 * The calls on a lease
 */

/* Which fd a record means; *lease: of which lease it is, or none. */
static int chosen_fd(uint8_t code, enum device_name dev, int64_t *lease)
{
	*lease = -1;
	switch (code) {
	case 250:
		return -1;
	case 251:
		return INT32_MAX;
	case 252:
		return null_fd;
	case 253:
		return devices[dev].device_fd;
	case 254:
		return foreign_fd;
	default:
		if (!world->nr_leases)
			return -1;
		*lease = code % world->nr_leases;
		return me.fds[*lease];
	}
}

/* What is said of the fd: 1 if it is one of a lease of this device. */
static int want_fd(int fd, enum device_name dev, int64_t lease)
{
	if (fd < 0 || fd == INT32_MAX)
		return -EBADF;
	if (lease < 0)
		return fd == foreign_fd ? -ENODEV : -EINVAL;
	if (world->leases[lease].dev != dev || world->leases[lease].state == CLOSED)
		return -ENODEV;
	return 1;
}

/* arg: device, fd, flags, what is wrong */
int op_revoke(const struct record *r)
{
	struct call call = simple_call(SET | BARLEASE_FEATURE_REVOKE,
				       sizeof(struct barlease_feature_revoke));
	struct barlease_feature_revoke set;
	enum device_name dev;
	int64_t lease;
	int want;

	if (!chosen_device(r->arg[0], &dev))
		return 0;
	set.dmabuf_fd = chosen_fd(r->arg[1], dev, &lease);
	set.flags = r->arg[2] > 245 ? 1U << (r->arg[2] % 32) : 0;
	lie(&call, r->arg[3]);
	want = want_header(&call, SET, sizeof(set));
	if (want == 1)
		want = want_fd(set.dmabuf_fd, dev, lease);
	if (want == 1)
		want = world->leases[lease].state == REVOKED ? -EBADFD :
		       set.flags                             ? -EINVAL :
							       1;
	expect("revoke", feature(dev, &call, &set), want == 1 ? 0 : want);
	if (want == 1) {
		world->leases[lease].state = REVOKED;
		sweep_all();
	}
	return want;
}

/* arg: device, fd, memattr, what is wrong */
int op_memattr(const struct record *r)
{
	struct call call = simple_call(SET | BARLEASE_FEATURE_MEMATTR,
				       sizeof(struct barlease_feature_memattr));
	struct barlease_feature_memattr set;
	enum device_name dev;
	int64_t lease;
	int want;

	if (!chosen_device(r->arg[0], &dev))
		return 0;
	set.dmabuf_fd = chosen_fd(r->arg[1], dev, &lease);
	set.memattr = r->arg[2] > 250 ? UINT32_MAX >> (r->arg[2] % 4) : r->arg[2] % 3;
	lie(&call, r->arg[3]);
	want = want_header(&call, SET, sizeof(set));
	if (want == 1)
		want = want_fd(set.dmabuf_fd, dev, lease);
	if (want == 1)
		want = world->leases[lease].state == REVOKED ? -EBADFD :
		       set.memattr > BARLEASE_MEMATTR_WC     ? -ENOENT :
							       1;
	expect("memattr", feature(dev, &call, &set), want == 1 ? 0 : want);
	if (want == 1)
		world->leases[lease].memattr = set.memattr;
	return want;
}

/* arg: device, fd, bytes beyond, what is wrong */
int op_info(const struct record *r)
{
	struct {
		struct barlease_feature_info info;
		uint8_t beyond[64];
	} get;
	uint32_t beyond = r->arg[2] % (sizeof(get.beyond) + 1);
	struct call call =
		simple_call(GET | BARLEASE_FEATURE_INFO, sizeof(get.info) + beyond);
	enum device_name dev;
	int64_t lease;
	int want;

	if (!chosen_device(r->arg[0], &dev))
		return 0;
	memset(&get, 0xee, sizeof(get));
	get.info.dmabuf_fd = chosen_fd(r->arg[1], dev, &lease);
	lie(&call, r->arg[3]);
	want = want_header(&call, GET, sizeof(get.info));
	if (want == 1)
		want = want_fd(get.info.dmabuf_fd, dev, lease);
	if (want == 1 && (call.pointer == READ_ONLY || call.argsz > call.size))
		want = -EFAULT;
	expect("info", feature(dev, &call, &get), want == 1 ? 0 : want);
	if (want != 1)
		return want;
	check_info((uint32_t)lease, get.info);
	/* What argsz says beyond the struct is zeroed, the rest left alone. */
	beyond = call.argsz - (uint32_t)sizeof(struct vfio_device_feature) -
		 (uint32_t)sizeof(get.info);
	for (uint32_t i = 0; i < sizeof(get.beyond); i++)
		if (get.beyond[i] != (i < beyond ? 0 : 0xee))
			wrong("info: byte %u behind the struct is %#x", i,
			      get.beyond[i]);
	return want;
}

/*
 * arg: device. Those with an fd here are listed; others may be, for a mapping, and
 * from before the device was closed unless it was unbound.
 */
int op_list(const struct record *r)
{
	enum device_name dev;
	int with_fd = 0, all = 0, seen;

	chosen_device(r->arg[0], &dev);
	for (uint32_t i = 0; i < world->nr_leases; i++)
		if (world->leases[i].dev == dev) {
			with_fd += me.fds[i] >= 0 && world->leases[i].state != CLOSED;
			all++;
		}
	seen = count_leases(dev);
	say("listed leases of device %d: %d", dev, seen);
	if (seen < with_fd || seen > all)
		wrong("%d leases of device %d are listed, should be %d to %d", seen,
		      dev, with_fd, all);
	return seen;
}

/* arg: device, which, what is wrong. A feature that is not there. */
int op_unknown(const struct record *r)
{
	static const uint32_t features[] = { 0xba03, 0xb9ff, 0xffff, 0x7fff };
	struct call call = simple_call(GET | features[r->arg[1] % 4], 8);
	uint64_t payload = 0;
	enum device_name dev;

	if (!chosen_device(r->arg[0], &dev))
		return 0;
	lie(&call, r->arg[2]);
	return expect("unknown feature", feature(dev, &call, &payload),
		      want_header(&call, 0, 8));
}

/*
 * The devices
 */

/* arg: device, on or off */
int op_decoding(const struct record *r)
{
	enum device_name dev;

	if (!chosen_device(r->arg[0], &dev))
		return 0;
	set_decoding(dev, r->arg[1] % 2);
	say("decoding of device %d: %d", dev, r->arg[1] % 2);
	return r->arg[1] % 2;
}

/* arg: asleep or awake */
int op_sleep(const struct record *r)
{
	set_asleep(r->arg[0] % 2);
	say("asleep: %d", r->arg[0] % 2);
	return r->arg[0] % 2;
}

/* arg: how */
int op_reset(const struct record *r)
{
	if (was_reset)
		return 0;
	was_reset = true;
	say("reset %d", r->arg[0] % 3);
	reset(r->arg[0] % 3);
	sweep_all();
	return r->arg[0] % 3;
}

/* arg: what. Leases of the spare device die when it is closed. */
int op_reopen(const struct record *r)
{
	if (++reopened > 2)
		return 0;
	say("the spare device: %d", r->arg[0] % 4);
	if (r->arg[0] % 4 == 3 && !was_rebound) {
		was_rebound = true;
		rebind_spare();
	} else if (world->devices[SPARE].open) {
		close_spare();
	} else {
		open_spare();
	}
	sweep_all();
	return world->devices[SPARE].open;
}
