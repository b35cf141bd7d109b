// SPDX-License-Identifier: MIT
/*
 * failing.c - each call on leases and their mappings with each of its allocations
 * and user copies failed in turn: it says so or makes do, leaves nothing behind,
 * and works the next time.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "inject.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)
#define DEBUGFS    "/sys/kernel/debug/barlease"

typedef struct vfio_region_dma_range range_t;

/* What the calls below are made on. */
static struct {
	struct barlease_device dev;
	const char *bdf;
	range_t *ranges;
	uint32_t nr_ranges;
	uint64_t length;
	int fd; /* a lease; -1: none */
	char *at, *target, *moved;
} it = { .fd = -1 };

static void close_lease(void)
{
	CHECK_OK(close(it.fd));
	it.fd = -1;
}

/*
 * The lessor's calls
 */

static int export_it(void)
{
	it.fd = abi_export(it.dev.device_fd, RAM_BAR, it.ranges, it.nr_ranges, O_RDWR);
	return it.fd;
}

TEST(failing_export, "an export that runs out of memory fails, and works the next time",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "export",
					  .make = export_it,
					  .undo = close_lease };
	range_t page = { 0, PAGE_SIZE };

	it.dev = open_device(RAM_DEVICE);
	it.ranges = &page;
	it.nr_ranges = 1;
	inject_below_driver(NULL);
	fail_each(&call);
}

TEST(failing_export_window, "an export that fails takes no page offsets",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "export of 3 TiB",
					  .make = export_it,
					  .undo = close_lease };
	enum { COUNT = 3 * 1024 };
	range_t ranges[COUNT];

	for (int i = 0; i < COUNT; i++)
		ranges[i] = (range_t){ 0, BIG_SIZE };
	it.dev = open_device(BIG_DEVICE);
	it.ranges = ranges;
	it.nr_ranges = COUNT;
	/* It finds room only where no other is left. */
	CHECK_OK(export_it());
	CHECK_ERRNO(abi_export(it.dev.device_fd, RAM_BAR, ranges, COUNT, O_RDWR),
		    ENOSPC);
	close_lease();
	inject_below_driver(NULL);
	fail_each(&call);
}

/* As many leases of 256 GiB as there is room for. */
static unsigned int fill_windows(int *leases, unsigned int most)
{
	enum { COUNT = 256 };
	range_t ranges[COUNT];
	unsigned int count = 0;

	for (int i = 0; i < COUNT; i++)
		ranges[i] = (range_t){ 0, BIG_SIZE };
	while (count < most && (leases[count] = abi_export(it.dev.device_fd, RAM_BAR,
							   ranges, COUNT, O_RDWR)) >= 0)
		count++;
	CHECK(count < most && errno == ENOSPC);
	return count;
}

enum { MOST_WINDOWS = 32 };
static int windows[MOST_WINDOWS];
static unsigned int nr_windows;

/* Each time as many. */
static void fill_all(void)
{
	unsigned int now = fill_windows(windows, MOST_WINDOWS);

	CHECK(now > MOST_WINDOWS / 2);
	CHECK(!nr_windows || now == nr_windows);
	nr_windows = now;
}

static int close_all(void)
{
	for (unsigned int i = 0; i < nr_windows; i++)
		close(windows[i]);
	return 0;
}

static void see_none(void)
{
	CHECK_EQ(lease_rows(it.dev.bdf), 0);
}

TEST(failing_close, "a lease that ends without memory gives back its page offsets",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "close",
					  .prepare = fill_all,
					  .make = close_all,
					  .undo = see_none };
	unsigned int failures;

	it.dev = open_device(BIG_DEVICE);
	inject_below_driver(NULL);
	fail_each(&call);
	/* It has none to tell that it failed, so it must not, however often it tries.
	 */
	fill_all();
	inject_all();
	close_all();
	failures = injected_all();
	CHECK(failures);
	note("close, all at once: %u failures, 0 errors", failures);
	see_none();
	fill_all();
	close_all();
}

static void export_page(void)
{
	it.fd = lease(&it.dev, RAM_BAR, 0, PAGE_SIZE);
}

static int revoke_it(void)
{
	return abi_revoke(it.dev.device_fd, it.fd);
}

static int memattr_it(void)
{
	return abi_memattr(it.dev.device_fd, it.fd, BARLEASE_MEMATTR_WC);
}

static int info_it(void)
{
	struct barlease_feature_info info;

	return abi_info(it.dev.device_fd, it.fd, &info);
}

TEST(failing_calls, "revoke, memattr and info that can't copy what they are told fail",
     .needs = FAULT_INJECTION)
{
	static const struct call revoke = { .name = "revoke",
					    .prepare = export_page,
					    .make = revoke_it,
					    .undo = close_lease };
	static const struct call memattr = { .name = "memattr",
					     .prepare = export_page,
					     .make = memattr_it,
					     .undo = close_lease };
	static const struct call info = { .name = "info",
					  .prepare = export_page,
					  .make = info_it,
					  .undo = close_lease };

	it.dev = open_device(RAM_DEVICE);
	inject_below_driver(NULL);
	fail_each(&revoke);
	fail_each(&memattr);
	fail_each(&info);
}

/*
 * Mappings
 */

static int mmap_it(void)
{
	it.at = mmap(NULL, it.length, READ_WRITE, MAP_SHARED, it.fd, 0);
	return it.at == MAP_FAILED ? -1 : 0;
}

static void munmap_it(void)
{
	CHECK_LOADS(it.at);
	CHECK_OK(munmap(it.at, it.length));
}

TEST(failing_mmap, "an mmap that runs out of memory fails, and works the next time",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "mmap",
					  .make = mmap_it,
					  .undo = munmap_it };

	it.dev = open_device(RAM_DEVICE);
	it.length = MIB(4);
	it.fd = lease(&it.dev, RAM_BAR, 0, it.length);
	inject_everywhere();
	fail_each(&call);
}

/* Where there are no page tables, and not so that huge pages fit. */
static void map_anew(void)
{
	it.at = map_at(it.fd, 0, it.length, READ_WRITE, PAGE_SIZE);
}

static void unmap_all(void)
{
	CHECK_LOADS(it.at);
	CHECK_OK(munmap(it.at, it.length));
}

static int prefault_it(void)
{
	return abi_prefault(it.fd);
}

TEST(failing_prefault,
     "a prefault that runs out of memory fails, and works the next "
     "time",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "prefault",
					  .prepare = map_anew,
					  .make = prefault_it,
					  .undo = unmap_all };

	it.dev = open_device(RAM_DEVICE);
	it.length = MIB(4);
	it.fd = lease(&it.dev, RAM_BAR, 0, it.length);
	inject_below_driver(NULL);
	fail_each(&call);
}

/* EIO for a signal, which is none of those that are right. */
static int access_it(void)
{
	for (uint64_t off = 0; off < it.length; off += KIB(64)) {
		if (try_store(it.at + off, 1)) {
			errno = EIO;
			return -1;
		}
	}
	return 0;
}

static void try_accesses(uint32_t memattr)
{
	static const struct call call = { .name = "access",
					  .prepare = map_anew,
					  .make = access_it,
					  .undo = unmap_all };

	it.dev = open_device(RAM_DEVICE);
	it.length = MIB(4);
	it.fd = lease(&it.dev, RAM_BAR, 0, it.length);
	CHECK_OK(abi_memattr(it.dev.device_fd, it.fd, memattr));
	inject_below_driver(NULL);
	fail_each(&call);
}

TEST(failing_access, "an access for which there is no memory is tried again",
     .needs = FAULT_INJECTION)
{
	try_accesses(BARLEASE_MEMATTR_UC);
}

TEST(failing_access_wc, "a write-combining one, too", .needs = FAULT_INJECTION)
{
	try_accesses(BARLEASE_MEMATTR_WC);
}

/* Congruent: with the largest pages that there are, all of them there. */
static void map_whole(void)
{
	it.at = map_at(it.fd, 0, it.length, READ_WRITE, 0);
	it.target = CHECK_MAP(
		mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	it.moved = NULL;
	CHECK_OK(abi_prefault(it.fd));
}

/* Wherever the pages are by now, revoke takes them all. */
static void revoke_and_unmap(void)
{
	int fd = it.fd;

	CHECK_LOADS(it.at);
	CHECK_LOADS(it.at + it.length - PAGE_SIZE);
	if (it.moved)
		CHECK_LOADS(it.moved);
	CHECK_OK(revoke_it());
	CHECK_GONE(it.at);
	CHECK_GONE(it.at + it.length - PAGE_SIZE);
	if (it.moved)
		CHECK_GONE(it.moved);
	CHECK_OK(munmap(it.target, PAGE_SIZE));
	CHECK_OK(munmap(it.at, it.length));
	it.fd = lease(&it.dev, RAM_BAR, 0, it.length);
	close(fd);
}

static int munmap_middle(void)
{
	return munmap(it.at + it.length / 2 + PAGE_SIZE, PAGE_SIZE);
}

static int mprotect_middle(void)
{
	return mprotect(it.at + it.length / 2 + PAGE_SIZE, PAGE_SIZE, PROT_READ);
}

static int mremap_middle(void)
{
	char *at = mremap(it.at + it.length / 2 + PAGE_SIZE, PAGE_SIZE, PAGE_SIZE,
			  MREMAP_MAYMOVE | MREMAP_FIXED, it.target);

	if (at == MAP_FAILED)
		return -1;
	it.moved = at;
	return 0;
}

static int fork_it(void)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(try_load(it.at, &(uint32_t){ 0 }));
	if (pid < 0)
		return -1;
	CHECK_OK(waitpid(pid, &status, 0));
	CHECK_EQ(status, 0);
	return 0;
}

static void try_hooks(void)
{
	static const struct call calls[] = {
		{ .name = "munmap",
		  .prepare = map_whole,
		  .make = munmap_middle,
		  .undo = revoke_and_unmap },
		{ .name = "mprotect",
		  .prepare = map_whole,
		  .make = mprotect_middle,
		  .undo = revoke_and_unmap },
		{ .name = "mremap",
		  .prepare = map_whole,
		  .make = mremap_middle,
		  .undo = revoke_and_unmap },
	};

	it.dev = open_device(BIG_DEVICE);
	it.length = BIG_SIZE;
	it.fd = lease(&it.dev, RAM_BAR, 0, it.length);
	inject_everywhere();
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		fail_each(&calls[i]);
}

TEST(failing_hooks,
     "a mapping stays whole where munmap, mprotect or mremap of a part "
     "fails",
     .needs = FAULT_INJECTION)
{
	try_hooks();
}

TEST(failing_hooks_pud, "with huge_pud=1, too", .params = "huge_pud=1",
     .needs = FAULT_INJECTION)
{
	try_hooks();
}

static void map_whole_for_kids(void)
{
	map_whole();
	CHECK_OK(madvise(it.at, it.length, MADV_KEEPONFORK));
}

TEST(failing_fork, "a fork that runs out of memory leaves the parent its mapping",
     .needs = FAULT_INJECTION)
{
	/* The child has none of it; or it has, and ends in the midst of its making. */
	static const struct call calls[] = {
		{ .name = "fork",
		  .prepare = map_whole,
		  .make = fork_it,
		  .undo = revoke_and_unmap },
		{ .name = "fork, kept",
		  .prepare = map_whole_for_kids,
		  .make = fork_it,
		  .undo = revoke_and_unmap },
	};

	it.dev = open_device(RAM_DEVICE);
	it.length = MIB(4);
	it.fd = lease(&it.dev, RAM_BAR, 0, it.length);
	/* The page tables that it copies of others: the driver leaves none to be
	 * copied. */
	inject_below("copy_page_range");
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		fail_each(&calls[i]);
}

/*
 * debugfs
 */

static int read_rows(void)
{
	char text[512], path[96];
	int fd, error;
	ssize_t got;

	snprintf(path, sizeof(path), DEBUGFS "/%s/leases", it.bdf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = read(fd, text, sizeof(text) - 1);
	error = errno;
	close(fd);
	errno = error;
	if (got < 0)
		return -1;
	text[got] = '\0';
	CHECK(strstr(text, "live rw uc 4096 1 1 0"));
	return 0;
}

TEST(failing_debugfs, "debugfs' leases that can't be read for want of memory say so",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "debugfs",
					  .prepare = export_page,
					  .make = read_rows,
					  .undo = close_lease };

	it.bdf = device_bdf(RAM_DEVICE);
	it.dev = open_device(RAM_DEVICE);
	inject_everywhere();
	fail_each(&call);
}
