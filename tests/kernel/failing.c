// SPDX-License-Identifier: MIT
/*
 * failing.c - each call with each of its allocations and user copies failed in
 * turn: it says so or makes do, leaves nothing behind, and works the next time.
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
#define DRIVER_DIR "/sys/bus/pci/drivers/" BARLEASE_DRIVER
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

struct call {
	const char *name;
	void (*prepare)(void);
	int (*make)(void); /* -1 and errno, or another result */
	void (*undo)(void);
	int also; /* an errno that is right besides */
};

/* What a call that failed must not leave behind. */
struct traces {
	unsigned int fds, leases, users;
};

static struct traces look(void)
{
	return (struct traces){
		.fds = count_fds(),
		.leases = leases_alive(),
		.users = module_is_loaded() ? module_users() : 0,
	};
}

static void check_same(const struct traces *before)
{
	struct traces now = look();

	CHECK_EQ(now.fds, before->fds);
	CHECK_EQ(now.leases, before->leases);
	CHECK_EQ(now.users, before->users);
}

/* One that fails must be able to do so again. Whether it failed. */
static bool fails(const struct call *call, unsigned int nth, bool *counted)
{
	struct traces before = look();
	int result, error;

	inject(nth);
	result = call->make();
	error = errno;
	*counted = injected();
	if (result != -1)
		return false;
	CHECK_THAT(*counted, "%s: expected success, saw %s", call->name,
		   errno_name(error));
	CHECK_THAT(error == ENOMEM || error == EFAULT || error == call->also,
		   "%s, failure %u: expected ENOMEM or EFAULT, saw %s", call->name, nth,
		   errno_name(error));
	check_same(&before);
	CHECK_THAT(call->make() != -1, "%s after failure %u: expected success, saw %s",
		   call->name, nth, errno_name(errno));
	return true;
}

static void fail_each(const struct call *call)
{
	struct traces before = look();
	unsigned int nth = 0, errors = 0;
	bool counted = true;

	while (counted) {
		nth++;
		if (call->prepare)
			call->prepare();
		errors += fails(call, nth, &counted);
		call->undo();
		check_same(&before);
	}
	CHECK_THAT(nth > 1, "%s: expected it to take memory, saw none", call->name);
	note("%s: %u failures, %u errors", call->name, nth - 1, errors);
}

static void close_lease(void)
{
	CHECK_OK(close(it.fd));
	it.fd = -1;
}

/*
 * Open
 */

static int open_it(void)
{
	return try_open_address(&it.dev, it.bdf);
}

/* Where a BAR could not be claimed the open is as good, but for that BAR. */
static void close_it(void)
{
	range_t page = { 0, PAGE_SIZE };
	int fd = abi_export(it.dev.device_fd, 0, &page, 1, O_RDWR);

	if (fd == -1)
		CHECK_EQ(errno, EBUSY);
	else
		close(fd);
	barlease_device_close(&it.dev);
}

TEST(failing_open, "an open that runs out of memory fails, and works the next time",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "open",
					  .make = open_it,
					  .undo = close_it };
	struct barlease_device dev;

	it.bdf = device_bdf(NVME_DEVICE);
	/*
	 * ACPI's interpreter goes on to use what it has freed where memory lacks, and
	 * takes it hundreds of times to look up an interrupt.
	 */
	inject_below_driver("acpi_pci_irq_enable");
	fail_each(&call);
	dev = open_address(it.bdf);
	close(lease(&dev, 0, 0, PAGE_SIZE));
}

/*
 * Bind and load
 */

/* 0, or -1 with errno. */
static int try_write(const char *path, const char *text)
{
	int fd = (int)CHECK_OK(open(path, O_WRONLY | O_CLOEXEC)), error;
	ssize_t written = write(fd, text, strlen(text));

	error = errno;
	close(fd);
	errno = error;
	return written < 0 ? -1 : 0;
}

static bool is_bound(const char *bdf)
{
	char path[96];

	snprintf(path, sizeof(path), DRIVER_DIR "/%s", bdf);
	return !access(path, F_OK);
}

static int bind_it(void)
{
	int result = try_write(DRIVER_DIR "/bind", it.bdf), error = errno;
	char path[96];

	if (result) {
		snprintf(path, sizeof(path), DEBUGFS "/%s", it.bdf);
		CHECK(!is_bound(it.bdf));
		CHECK_ERRNO(access(path, F_OK), ENOENT);
		errno = error;
	}
	return result;
}

static void unbind_it(void)
{
	write_file(DRIVER_DIR "/unbind", it.bdf);
}

TEST(failing_bind, "a bind that runs out of memory fails, and works the next time",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "bind",
					  .make = bind_it,
					  .undo = unbind_it };

	it.bdf = device_bdf(NVME_DEVICE);
	unbind_it();
	/* VFIO warns when it gives up a group that it could not make. */
	inject_below_driver("vfio_create_group");
	fail_each(&call);
	bind_devices();
	it.dev = open_address(it.bdf);
	close(lease(&it.dev, 0, 0, PAGE_SIZE));
}

static int load_it(void)
{
	int result = module_try_load(NULL), error = errno;

	if (result) {
		CHECK(!module_is_loaded());
		CHECK_ERRNO(access(DRIVER_DIR, F_OK), ENOENT);
		CHECK_ERRNO(access(DEBUGFS, F_OK), ENOENT);
		errno = error;
	}
	return result;
}

static void unload_it(void)
{
	CHECK_OK(module_try_unload());
}

TEST(failing_load, "a load that runs out of memory fails, and works the next time",
     .needs = FAULT_INJECTION)
{
	/* EINVAL is how the core says that there was no memory for a directory. */
	static const struct call call = {
		.name = "load", .make = load_it, .undo = unload_it, .also = EINVAL
	};

	/* Otherwise it would bind them again each time. */
	unbind_devices();
	unload_it();
	inject_below("do_one_initcall");
	fail_each(&call);
	module_load(NULL);
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

TEST(failing_close, "a lease that ends without memory gives back its page offsets",
     .needs = FAULT_INJECTION)
{
	enum { MOST = 32 };
	unsigned int first, failures;
	int leases[MOST];

	it.dev = open_device(BIG_DEVICE);
	first = fill_windows(leases, MOST);
	CHECK(first > MOST / 2);
	inject_below_driver(NULL);
	/* It has none to tell that it failed, so it must not, however often it tries.
	 */
	inject_all();
	for (unsigned int i = 0; i < first; i++)
		close(leases[i]);
	failures = injected_all();
	CHECK(failures);
	note("close: %u failures, 0 errors", failures);
	CHECK_EQ(lease_rows(it.dev.bdf), 0);
	CHECK_EQ(fill_windows(leases, MOST), first);
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

TEST(failing_fork, "a fork that runs out of memory leaves the parent its mapping",
     .needs = FAULT_INJECTION)
{
	static const struct call call = { .name = "fork",
					  .prepare = map_whole,
					  .make = fork_it,
					  .undo = revoke_and_unmap };

	it.dev = open_device(RAM_DEVICE);
	it.length = MIB(4);
	it.fd = lease(&it.dev, RAM_BAR, 0, it.length);
	/* The page tables that it copies, behind the driver's hook. */
	inject_below("copy_page_range");
	fail_each(&call);
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
