// SPDX-License-Identifier: MIT
/*
 * module.c - the module's parameters, its likeness to vfio-pci, and when it can
 * be removed.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

static void check_parameter(const char *name, const char *value, mode_t mode)
{
	char path[128], *seen = module_parameter(name);
	struct stat about;

	CHECK_THAT(!strcmp(seen, value), "%s: expected %s, saw %s", name, value, seen);
	snprintf(path, sizeof(path), "/sys/module/barlease_vfio_pci/parameters/%s",
		 name);
	CHECK_OK(stat(path, &about));
	CHECK_THAT((about.st_mode & 0777) == mode, "%s: expected mode %o, saw %o", name,
		   mode, about.st_mode & 0777);
	free(seen);
}

TEST(module_defaults, "the parameters have their defaults, vfio-pci's own where "
		      "it has them")
{
	check_parameter("enable_sriov", "N", 0644);
	check_parameter("disable_denylist", "N", 0444);
	check_parameter("allow_msix", "N", 0444);
	check_parameter("huge_pud", "N", 0444);
	check_parameter("fault_around_kb", "64", 0444);
}

TEST(module_as_vfio_pci, "vfio-pci's parameters of that name have these defaults")
{
	CHECK_EQ(system("modprobe vfio-pci"), 0);
	for (int i = 0; i < 2; i++) {
		const char *name = i ? "enable_sriov" : "disable_denylist";
		char path[128], *theirs, *ours = module_parameter(name);

		snprintf(path, sizeof(path), "/sys/module/vfio_pci/parameters/%s",
			 name);
		theirs = read_file(path);
		theirs[strcspn(theirs, "\n")] = '\0';
		CHECK_THAT(!strcmp(theirs, ours), "%s: expected %s, saw %s", name,
			   theirs, ours);
	}
	CHECK_EQ(system("modprobe -r vfio-pci"), 0);
}

/* What a device answers to calls that change nothing but by a reset. */
struct answers {
	struct vfio_device_info device;
	union {
		struct vfio_region_info info;
		char space[512]; /* capabilities follow */
	} regions[VFIO_PCI_NUM_REGIONS + 1];
	struct vfio_irq_info irqs[VFIO_PCI_NUM_IRQS + 1];
	/* The errno of each, 0 for none. */
	int region_errors[VFIO_PCI_NUM_REGIONS + 1];
	int irq_errors[VFIO_PCI_NUM_IRQS + 1];
	int calls[256];         /* by number, with no argument */
	int features[2][0x400]; /* PROBE for GET, for SET */
};

static int error_of(int result)
{
	return result < 0 ? errno : 0;
}

static struct answers *ask(const char *bdf)
{
	struct answers *seen = calloc(1, sizeof(*seen));
	struct barlease_device dev = open_address(bdf);
	int fd = dev.device_fd;

	CHECK(seen);
	seen->device.argsz = sizeof(seen->device);
	CHECK_OK(ioctl(fd, VFIO_DEVICE_GET_INFO, &seen->device));
	for (uint32_t i = 0; i <= VFIO_PCI_NUM_REGIONS; i++) {
		seen->regions[i].info.argsz = sizeof(seen->regions[i]);
		seen->regions[i].info.index = i;
		seen->region_errors[i] = error_of(
			ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &seen->regions[i]));
	}
	for (uint32_t i = 0; i <= VFIO_PCI_NUM_IRQS; i++) {
		seen->irqs[i].argsz = sizeof(seen->irqs[i]);
		seen->irqs[i].index = i;
		seen->irq_errors[i] =
			error_of(ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, &seen->irqs[i]));
	}
	for (unsigned int i = 0; i < 256; i++)
		seen->calls[i] = error_of(ioctl(fd, _IO(VFIO_TYPE, i), NULL));
	for (uint32_t i = 0; i < 0x400; i++) {
		uint32_t probe = VFIO_DEVICE_FEATURE_PROBE | i;

		if (i == VFIO_DEVICE_FEATURE_DMA_BUF)
			continue;
		seen->features[0][i] = error_of(
			abi_feature(fd, probe | VFIO_DEVICE_FEATURE_GET, NULL, 0));
		seen->features[1][i] = error_of(
			abi_feature(fd, probe | VFIO_DEVICE_FEATURE_SET, NULL, 0));
	}
	barlease_device_close(&dev);
	return seen;
}

#define CHECK_SAME(member)                                                      \
	CHECK_THAT(!memcmp(theirs->member, ours->member, sizeof(ours->member)), \
		   "%s: expected vfio-pci's " #member ", saw others", bdf)

TEST(vfio_as_vfio_pci, "VFIO's calls answer as they do with vfio-pci bound")
{
	static const enum device_kind kinds[] = { RAM_DEVICE, BLK_DEVICE, NVME_DEVICE };

	CHECK_EQ(system("modprobe vfio-pci"), 0);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		const char *bdf = device_bdf(kinds[i]);
		struct answers *ours = ask(bdf), *theirs;

		CHECK_OK(barlease_device_bind(bdf, "vfio-pci"));
		theirs = ask(bdf);
		/* First, as a failure would leave it there for the next test. */
		bind_devices();
		CHECK(ours->device.flags & VFIO_DEVICE_FLAGS_PCI);
		CHECK(!memcmp(&theirs->device, &ours->device, sizeof(ours->device)));
		CHECK_SAME(regions);
		CHECK_SAME(region_errors);
		CHECK_SAME(irqs);
		CHECK_SAME(irq_errors);
		CHECK_SAME(calls);
		CHECK_SAME(features);
		free(theirs);
		free(ours);
	}
	CHECK_EQ(system("modprobe -r vfio-pci"), 0);
}

TEST(module_set, "parameters take the values they are given",
     .params = "enable_sriov=1 disable_denylist=1 allow_msix=1 huge_pud=1 "
	       "fault_around_kb=128")
{
	check_parameter("enable_sriov", "Y", 0644);
	check_parameter("disable_denylist", "Y", 0444);
	check_parameter("allow_msix", "Y", 0444);
	check_parameter("huge_pud", "Y", 0444);
	check_parameter("fault_around_kb", "128", 0444);
}

TEST(module_bounds, "fault_around_kb is bounded: a page to 2 MiB")
{
	static const char *const refused[] = { "0",          "1",
					       "3",          "2049",
					       "4294967295", "-1",
					       "many",       "18446744073709551616" };
	char params[64];

	CHECK_OK(module_try_unload());
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		snprintf(params, sizeof(params), "fault_around_kb=%s", refused[i]);
		CHECK_THAT(module_try_load(params) == -1,
			   "%s: expected a refusal, saw it loaded", params);
	}
	CHECK_OK(module_try_load("fault_around_kb=4"));
	CHECK_OK(module_try_unload());
	CHECK_OK(module_try_load("fault_around_kb=2048"));
}

/* Its removal is refused as it is in use, which changes nothing. */
static void check_pinned(void)
{
	CHECK_ERRNO(module_try_unload(), EWOULDBLOCK);
	CHECK(module_is_loaded());
}

TEST(module_removal, "a lease pins the module; without any it can be removed")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	char *at = map(fd, 0, MIB(4), PROT_READ | PROT_WRITE);

	check_pinned();
	CHECK_STORES(at);
	barlease_device_close(&dev);
	check_pinned();
	CHECK_GONE(at);
	/* By its mapping alone. */
	close(fd);
	check_pinned();
	CHECK_GONE(at);
	CHECK_OK(munmap(at, MIB(4)));
	CHECK_OK(module_try_unload());
	CHECK(!module_is_loaded());
}

static void hold(int sock, void *unused)
{
	int fd = receive_fd(sock);

	(void)unused;
	say(sock, 0);
	hear(sock);
	close(fd);
	say(sock, 0);
}

TEST(module_removal_holder, "another process's fd pins the module as well")
{
	struct kid kid = kid_start(hold, NULL);
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));

	send_fd(kid.sock, fd);
	hear(kid.sock);
	close(fd);
	barlease_device_close(&dev);
	check_pinned();
	say(kid.sock, 0);
	hear(kid.sock);
	CHECK_OK(module_try_unload());
	kid_join(&kid);
}

TEST(module_reload, "loaded anew, the module serves the same devices")
{
	for (int round = 0; round < 3; round++) {
		struct barlease_device dev = open_device(RAM_DEVICE);
		int fd = lease(&dev, RAM_BAR, 0, MIB(4));

		void *at = map(fd, 0, PAGE_SIZE, PROT_READ | PROT_WRITE);

		CHECK_STORES(at);
		CHECK_OK(abi_revoke(dev.device_fd, fd));
		CHECK_OK(munmap(at, PAGE_SIZE));
		close(fd);
		barlease_device_close(&dev);
		module_load(NULL);
	}
}

TEST(module_unasked, "the module has no alias, so nothing loads or picks it unasked")
{
	const char *bdf = device_bdf(EDU_DEVICE);
	char path[96];
	bool taken;

	CHECK_EQ(system("aliases=$(modinfo -F alias \"$BARLEASE_KO\") && "
			"test -z \"$aliases\""),
		 0);
	/* No driver of the kernel's is for this one, so ours would be the first. */
	CHECK_OK(barlease_device_bind(bdf, NULL));
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", bdf);
	taken = !access(path, F_OK);
	bind_devices();
	CHECK(!taken);
	CHECK_OK(access(path, F_OK));
}
