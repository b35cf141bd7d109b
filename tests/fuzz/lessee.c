// SPDX-License-Identifier: MIT
/*
 * lessee.c - the calls that whoever holds a lease can make, with what each must
 * return and what each access must see.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lessee.h"

#define MAX_AREAS 128

/* Where accesses are; stores elsewhere than what the owner wrote to be loaded. */
#define LOAD_AT  0xff0
#define STORE_AT 0x008

/*
 * Where loads of other BARs are: registers that are not the same on all pages, and
 * that change neither by themselves nor by being read.
 */
#define REGISTER_AT 0x010

/* Pages of one lease that are mapped end to end with one protection. */
struct area {
	uint64_t start, nr; /* pages of the arena */
	uint64_t page;      /* of the lease */
	uint32_t lease;
	int prot;
};

struct lessee me;

static struct area areas[MAX_AREAS];
static uint32_t nr_areas;
static char *arena;

uint64_t pick(uint8_t code, uint64_t limit)
{
	static const int8_t deltas[] = { 0, 0, 0, 0,  0,  1,  2,  3,
					 4, 8, 9, 15, -1, -2, -3, -8 };
	const uint64_t bases[] = { 0,           1,
				   2,           16,
				   64,          512,
				   1024,        1536,
				   4096,        1ULL << 17,
				   1ULL << 18,  limit,
				   limit / 2,   limit / 2 - limit / 2 % 512,
				   limit - 512, 1ULL << 52 };

	return bases[code / 16] + (uint64_t)(int64_t)deltas[code % 16];
}

static char *address(uint64_t page)
{
	return arena + page * PAGE_SIZE;
}

static void reserve(uint64_t start, uint64_t nr)
{
	if (mmap(address(start), nr * PAGE_SIZE, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		wrong("cannot reserve addresses: %m");
}

/*
 * What is mapped
 */

static struct area *area_at(uint64_t page)
{
	for (uint32_t i = 0; i < nr_areas; i++)
		if (page >= areas[i].start && page - areas[i].start < areas[i].nr)
			return &areas[i];
	return NULL;
}

/* Room for what one call can add: it may cut four areas in two. */
static bool full(void)
{
	return nr_areas + 4 > MAX_AREAS;
}

/* Let areas begin at this page, if one is there. */
static void cut(uint64_t page)
{
	struct area *area = area_at(page), *rest;
	uint64_t before;

	if (!area || area->start == page)
		return;
	before = page - area->start;
	rest = &areas[nr_areas++];
	*rest = *area;
	rest->start += before;
	rest->page += before;
	rest->nr -= before;
	area->nr = before;
}

/* What was mapped in [start, start + nr) is so no more. */
static void forget(uint64_t start, uint64_t nr)
{
	cut(start);
	cut(start + nr);
	for (uint32_t i = 0; i < nr_areas;) {
		if (areas[i].start >= start && areas[i].start - start < nr)
			areas[i] = areas[--nr_areas];
		else
			i++;
	}
}

/* It is mapped elsewhere now. */
static void move(uint64_t start, uint64_t nr, uint64_t to)
{
	cut(start);
	cut(start + nr);
	for (uint32_t i = 0; i < nr_areas; i++)
		if (areas[i].start >= start && areas[i].start - start < nr)
			areas[i].start = areas[i].start - start + to;
}

/* The area that a record means by its first argument, and the page inside it by its
 * second. */
static struct area *chosen(const struct record *r, uint64_t *page)
{
	struct area *area;

	if (!nr_areas)
		return NULL;
	area = &areas[r->arg[0] % nr_areas];
	*page = pick(r->arg[1], area->nr) % area->nr;
	return area;
}

/* The lease that a record means by its first argument, if this process has it. */
static struct modelled_lease *chosen_lease(const struct record *r, int *fd)
{
	uint32_t i;

	if (!world->nr_leases)
		return NULL;
	i = r->arg[0] % world->nr_leases;
	*fd = me.fds[i];
	return *fd >= 0 ? &world->leases[i] : NULL;
}

/*
 * Mapping
 */

static int want_mmap(const struct modelled_lease *lease, uint64_t offset, uint64_t nr,
		     int prot, bool shared)
{
	if (!nr || offset % PAGE_SIZE)
		return -EINVAL;
	if (shared && prot & PROT_WRITE && lease->access == O_RDONLY)
		return -EACCES;
	if (offset / PAGE_SIZE + nr > lease->size / PAGE_SIZE || !shared)
		return -EINVAL;
	if (prot & PROT_EXEC)
		return -EPERM;
	return lease->state == LIVE ? 0 : -ENODEV;
}

/* arg: lease, where, length, offset, prot, flags */
int op_mmap(const struct record *r)
{
	static const int kinds[] = { MAP_SHARED,          MAP_SHARED,
				     MAP_SHARED,          MAP_SHARED | MAP_POPULATE,
				     MAP_SHARED_VALIDATE, MAP_SHARED | MAP_NORESERVE,
				     MAP_PRIVATE,         MAP_SHARED };
	int fd, flags = kinds[r->arg[5] % 8], want, seen;
	struct modelled_lease *lease = chosen_lease(r, &fd);
	/* Often as much as there is, readable and writable. */
	int prot = r->arg[4] & 0x80 ? PROT_READ | PROT_WRITE : r->arg[4] % 8;
	uint64_t start, nr, offset;

	if (!lease || full())
		return 0;
	start = pick(r->arg[1], ARENA_PAGES) % ARENA_PAGES;
	nr = pick(r->arg[2], lease->size / PAGE_SIZE);
	if (nr > ARENA_PAGES - start)
		nr = ARENA_PAGES - start;
	offset = pick(r->arg[3], lease->size / PAGE_SIZE) % (1ULL << 40) * PAGE_SIZE;
	if (r->arg[5] / 8 == 31)
		offset++;

	forget(start, nr);
	if (nr)
		reserve(start, nr);
	seen = (int)outcome((long)mmap(address(start), nr * PAGE_SIZE, prot,
				       flags | MAP_FIXED, fd, (off_t)offset) == -1 ?
				    -1 :
				    0);
	want = want_mmap(lease, offset, nr, prot, (flags & MAP_TYPE) != MAP_PRIVATE);
	say("mmap(lease %u, %#lx + %#lx pages at %#lx, prot %d, flags %#x): %d",
	    r->arg[0] % world->nr_leases, offset, nr, start, prot, flags, seen);
	if (seen != want)
		wrong("mmap: %d, should be %d", seen, want);
	if (!seen)
		areas[nr_areas++] = (struct area){
			.start = start,
			.nr = nr,
			.page = offset / PAGE_SIZE,
			.lease = r->arg[0] % world->nr_leases,
			.prot = prot,
		};
	else if (nr)
		reserve(start, nr);
	return seen;
}

/* arg: area, first page, length */
int op_munmap(const struct record *r)
{
	uint64_t page, start, nr;
	struct area *area = chosen(r, &page);

	if (!area || full())
		return 0;
	start = area->start + page;
	nr = pick(r->arg[2], area->nr) % (ARENA_PAGES - start) + 1;
	expect("munmap", outcome(munmap(address(start), nr * PAGE_SIZE)), 0);
	reserve(start, nr);
	forget(start, nr);
	return 0;
}

/* arg: area, first page, length, prot */
int op_mprotect(const struct record *r)
{
	uint64_t page, start, end, at;
	struct area *area = chosen(r, &page);
	int prot = r->arg[3] % 8, want = 0, seen;

	if (!area || full())
		return 0;
	start = area->start + page;
	end = start + pick(r->arg[2], area->nr) % (ARENA_PAGES - start) + 1;
	/* It may go on over what is mapped next to it. */
	for (at = start; at < end && area; area = area_at(at))
		at = area->start + area->nr;
	if (at < end)
		end = at;

	cut(start);
	cut(end);
	seen = (int)outcome(mprotect(address(start), (end - start) * PAGE_SIZE, prot));
	for (at = start; at < end; at += area->nr) {
		area = area_at(at);
		if (prot & PROT_EXEC ||
		    (prot & PROT_WRITE &&
		     world->leases[area->lease].access == O_RDONLY)) {
			want = -EACCES;
			break;
		}
		area->prot = prot;
	}
	say("mprotect(%#lx to %#lx, prot %d): %d", start, end, prot, seen);
	if (seen != want)
		wrong("mprotect: %d, should be %d", seen, want);
	return seen;
}

static int move_area(uint64_t start, uint64_t nr, uint64_t to)
{
	void *moved = mremap(address(start), nr * PAGE_SIZE, nr * PAGE_SIZE,
			     MREMAP_MAYMOVE | MREMAP_FIXED, address(to));
	int seen = (int)outcome(moved == MAP_FAILED ? -1 : 0);
	bool overlaps = to < start + nr && start < to + nr;

	say("mremap(%#lx pages from %#lx to %#lx):", nr, start, to);
	expect("mremap", seen, overlaps ? -EINVAL : 0);
	if (overlaps)
		return seen;
	forget(to, nr);
	move(start, nr, to);
	reserve(start, nr);
	return 0;
}

/* arg: area, first page, length, where to, how */
int op_mremap(const struct record *r)
{
	uint64_t page, start, nr, to;
	struct area *area = chosen(r, &page);
	char *at;

	if (!area || full())
		return 0;
	start = area->start + page;
	nr = pick(r->arg[2], area->nr) % (area->nr - page) + 1;
	to = pick(r->arg[3], ARENA_PAGES) % ARENA_PAGES;
	if (to + nr > ARENA_PAGES)
		to = ARENA_PAGES - nr;
	at = address(start);
	switch (r->arg[4] % 8) {
	case 5:
		return expect(
			"mremap, growing",
			outcome((long)mremap(at, nr * PAGE_SIZE, (nr + 1) * PAGE_SIZE,
					     MREMAP_MAYMOVE)),
			-EFAULT);
	case 6:
		return expect("mremap, a second one",
			      outcome((long)mremap(at, 0, PAGE_SIZE, MREMAP_MAYMOVE)),
			      -EFAULT);
	case 7:
		return expect(
			"mremap, keeping the old",
			outcome((long)mremap(at, PAGE_SIZE, PAGE_SIZE,
					     MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL)),
			-EINVAL);
	default:
		return move_area(start, nr, to);
	}
}

/* arg: area, -, advice. Of a whole area, so that the model knows where VMAs end. */
int op_madvise(const struct record *r)
{
	/* Of a VM_PFNMAP what is about pages fails, whatever is mapped. */
	static const struct {
		int advice, want;
	} advices[] = {
		{ MADV_KEEPONFORK, 0 },     { MADV_KEEPONFORK, 0 },
		{ MADV_DONTNEED, -EINVAL }, { MADV_RANDOM, 0 },
		{ MADV_SEQUENTIAL, 0 },     { MADV_PAGEOUT, -EINVAL },
		{ MADV_WILLNEED, 0 },       { MADV_POPULATE_READ, -EINVAL },
	};
	int advice = advices[r->arg[2] % 8].advice;
	uint64_t page;
	struct area *area = chosen(r, &page);

	if (!area)
		return 0;
	say("madvise(%#lx, %d):", area->start, advice);
	return expect(
		"madvise",
		outcome(madvise(address(area->start), area->nr * PAGE_SIZE, advice)),
		advices[r->arg[2] % 8].want);
}

/*
 * Access
 */

static sigjmp_buf escape;
static volatile sig_atomic_t escaping;

static void on_signal(int number)
{
	if (escaping)
		siglongjmp(escape, number);
	signal(number, SIG_DFL);
}

static int try_load(const volatile void *at, uint32_t *value)
{
	int number = sigsetjmp(escape, 0);

	if (!number) {
		escaping = 1;
		*value = *(const volatile uint32_t *)at;
	}
	escaping = 0;
	return number;
}

static int try_store(volatile void *at, uint32_t value)
{
	int number = sigsetjmp(escape, 0);

	if (!number) {
		escaping = 1;
		*(volatile uint32_t *)at = value;
	}
	escaping = 0;
	return number;
}

/* A value that no earlier access had. */
static uint32_t token(void)
{
	static uint32_t last;

	return ++last << 8 | ((uint32_t)getpid() & 0xff);
}

/* Whether this process can look at a lease's pages as their owner. */
static bool is_owner(const struct modelled_lease *lease)
{
	const struct modelled_device *dev = &world->devices[lease->dev];

	return dev->decoding && !dev->asleep && devices[lease->dev].device_fd >= 0;
}

static void check_load(const struct area *area, uint64_t page)
{
	const struct modelled_lease *lease = &world->leases[area->lease];
	bool owner = is_owner(lease), ram = lease->region == RAM_BAR;
	uint32_t in_page = ram ? LOAD_AT : REGISTER_AT;
	uint64_t at = bar_offset(lease, (area->page + page) * PAGE_SIZE) + in_page;
	uint32_t want = token(), seen = 0;
	int number, signal = !area->prot ? SIGSEGV : !reachable(lease) ? SIGBUS : 0;

	if (owner && ram)
		poke(lease->dev, at, want);
	number = try_load(address(area->start + page) + in_page, &seen);
	say("load of page %#lx, lease %u: %s", area->start + page, area->lease,
	    number ? strsignal(number) : "done");
	if (number != signal)
		wrong("load of page %#lx of lease %u: signal %d, should be %d",
		      area->page + page, area->lease, number, signal);
	/* Of one that did not get there its signal is all that there is. */
	if (number || !owner)
		return;
	if (!ram)
		want = peek(lease->dev, lease->region, at);
	if (seen != want)
		wrong("load of page %#lx of lease %u: %#x, should be %#x",
		      area->page + page, area->lease, seen, want);
}

static void check_store(const struct area *area, uint64_t page)
{
	const struct modelled_lease *lease = &world->leases[area->lease];
	uint64_t at = bar_offset(lease, (area->page + page) * PAGE_SIZE) + STORE_AT;
	bool owner = is_owner(lease);
	uint32_t value = token(), before = 0, after;
	int number, signal = !(area->prot & PROT_WRITE) ? SIGSEGV :
			     !reachable(lease)          ? SIGBUS :
							  0;

	/* Who knows what another device's registers would do. */
	if (!signal && lease->region != RAM_BAR)
		return;
	if (owner)
		before = peek(lease->dev, lease->region, at);
	number = try_store(address(area->start + page) + STORE_AT, value);
	say("store to page %#lx, lease %u: %s", area->start + page, area->lease,
	    number ? strsignal(number) : "done");
	if (number != signal)
		wrong("store to page %#lx of lease %u: signal %d, should be %d",
		      area->page + page, area->lease, number, signal);
	if (!owner)
		return;
	after = peek(lease->dev, lease->region, at);
	if (after != (number ? before : value))
		wrong("store to page %#lx of lease %u: the owner sees %#x",
		      area->page + page, area->lease, after);
}

/* arg: area, page */
int op_load(const struct record *r)
{
	uint64_t page;
	struct area *area = chosen(r, &page);

	if (area)
		check_load(area, page);
	return 0;
}

int op_store(const struct record *r)
{
	uint64_t page;
	struct area *area = chosen(r, &page);

	if (area)
		check_store(area, page);
	return 0;
}

void lessee_sweep(void)
{
	for (uint32_t i = 0; i < nr_areas; i++) {
		check_load(&areas[i], 0);
		check_load(&areas[i], areas[i].nr - 1);
		check_store(&areas[i], areas[i].nr - 1);
	}
}

/*
 * The fd
 */

static int want_sync(uint32_t i, uint64_t flags)
{
	const struct modelled_lease *lease = &world->leases[i];

	if (flags & ~(uint64_t)DMA_BUF_SYNC_VALID_FLAGS_MASK ||
	    !(flags & DMA_BUF_SYNC_RW))
		return -EINVAL;
	if (flags & DMA_BUF_SYNC_END)
		return 0;
	if (lease->state != LIVE)
		return -ENODEV;
	for (uint32_t k = 0; k < nr_areas; k++)
		if (areas[k].lease == i && areas[k].prot && !reachable(lease))
			return -EIO;
	return 0;
}

/* Small pages, as all may be, take long; this many it may take. */
#define PREFAULT_PAGES 8192

static bool is_long(uint32_t i)
{
	uint64_t pages = 0;

	for (uint32_t k = 0; k < nr_areas; k++)
		if (areas[k].lease == i)
			pages += areas[k].nr;
	return pages > PREFAULT_PAGES;
}

/* arg: lease, flags. Prefault. */
int op_sync(const struct record *r)
{
	static const uint64_t kinds[] = {
		DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW,
		DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW,
		DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ,
		DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE,
		DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW,
		DMA_BUF_SYNC_START,
		DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW | 8,
		DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW | 1ULL << 63,
	};
	struct dma_buf_sync sync = { .flags = kinds[r->arg[1] % 8] };
	int fd;

	if (!chosen_lease(r, &fd) || is_long(r->arg[0] % world->nr_leases))
		return 0;
	return expect("prefault", outcome(ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync)),
		      want_sync(r->arg[0] % world->nr_leases, sync.flags));
}

/* arg: lease, what. All else that can be done with a DMABUF's fd. */
int op_dmabuf(const struct record *r)
{
	struct dma_buf_export_sync_file fence = { .flags = DMA_BUF_SYNC_RW };
	struct modelled_lease *lease;
	char text[8] = "fuzzed";
	int fd, copy;

	lease = chosen_lease(r, &fd);
	if (!lease)
		return 0;
	switch (r->arg[1] % 6) {
	case 0:
		return expect("lseek", outcome(lseek(fd, 0, SEEK_END)),
			      (long)lease->size) > 0;
	case 1:
		return expect("name", outcome(ioctl(fd, DMA_BUF_SET_NAME_A, text)), 0);
	case 2:
		/* Of no fence at all, as none is imported; all our kernels have it. */
		expect("sync file",
		       outcome(ioctl(fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &fence)), 0);
		close(fence.fd);
		return 0;
	case 3:
		return expect("ftruncate", outcome(ftruncate(fd, 0)), -EINVAL);
	case 4:
		return expect("read", outcome(read(fd, text, 1)), -EINVAL);
	default:
		/* One more reference, which is the last one for a moment. */
		copy = dup(fd);
		close(fd);
		me.fds[r->arg[0] % world->nr_leases] = copy;
		return 0;
	}
}

/* arg: lease */
int op_close(const struct record *r)
{
	int fd;

	if (!chosen_lease(r, &fd))
		return 0;
	me.fds[r->arg[0] % world->nr_leases] = -1;
	return expect("close", outcome(close(fd)), 0);
}

static int clear_refs(const char *what)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC), written;

	written = (int)outcome(write(fd, what, 1));
	close(fd);
	say("clear_refs %s:", what);
	return expect("clear_refs", written, 1);
}

/* arg: area, page, what. What a process does to all that it has mapped. */
int op_process(const struct record *r)
{
	uint64_t page;
	struct area *area = chosen(r, &page);
	char byte;
	struct iovec local = { &byte, 1 }, remote = { NULL, 1 };

	switch (r->arg[2] % 5) {
	case 0:
		return clear_refs("4");
	case 1:
		return clear_refs("1");
	case 2:
		return expect("THP off", prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	case 3:
		return expect("THP on", prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), 0);
	default:
		if (!area)
			return 0;
		remote.iov_base = address(area->start + page);
		return expect(
			"process_vm_readv",
			outcome(process_vm_readv(getpid(), &local, 1, &remote, 1, 0)),
			-EFAULT);
	}
}

/*
 * Beginning and end
 */

void lessee_init(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_NODEFER };
	const uint64_t gib = 1ULL << 30, length = ARENA_PAGES * PAGE_SIZE;
	char *room = mmap(NULL, length + gib, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		wrong("cannot reserve addresses: %m");
	arena = room + (gib - (uintptr_t)room % gib) % gib;
	memset(me.fds, -1, sizeof(me.fds));
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

void lessee_clear(void)
{
	nr_areas = 0;
	reserve(0, ARENA_PAGES);
	for (int i = 0; i < MAX_LEASES; i++) {
		if (me.fds[i] >= 0)
			close(me.fds[i]);
		me.fds[i] = -1;
	}
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
}
