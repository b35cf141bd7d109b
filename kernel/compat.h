/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that differs between kernel versions, and core helpers that modules are
 * not given.
 */
#ifndef BARLEASE_COMPAT_H
#define BARLEASE_COMPAT_H

#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/version.h>
#include <linux/vfio_pci_core.h>

#define BARLEASE_KERNEL(major, minor) \
	(LINUX_VERSION_CODE >= KERNEL_VERSION(major, minor, 0))

#if !BARLEASE_KERNEL(6, 12)
#error "barlease-vfio-pci needs Linux 6.12 or newer"
#endif

/* The namespace became a string literal in 6.13. */
#if !BARLEASE_KERNEL(6, 13)
#define BARLEASE_IMPORT_DMA_BUF MODULE_IMPORT_NS(DMA_BUF)
#else
#define BARLEASE_IMPORT_DMA_BUF MODULE_IMPORT_NS("DMA_BUF")
#endif

/* pfn_t went away in 6.17. */
#if !BARLEASE_KERNEL(6, 17)
#include <linux/pfn_t.h>
#define barlease_pfn(pfn) __pfn_to_pfn_t(pfn, PFN_DEV)
#else
#define barlease_pfn(pfn) (pfn)
#endif

#if BARLEASE_KERNEL(6, 17)
#define BARLEASE_HAVE_MATCH_TOKEN_UUID
#endif

#if BARLEASE_KERNEL(7, 0)
#define BARLEASE_HAVE_REGION_INFO_CAPS
#define barlease_zap_range zap_special_vma_range
#else
#define barlease_zap_range zap_vma_ptes
#endif

/*
 * Claiming a BAR keeps everyone else from its addresses. From 7.0 on the core
 * claims them all at open; before, the first use does, without a lock, so it is
 * done at open here too, where nobody can race. A BAR that can't be claimed is
 * found out at export.
 */
#if BARLEASE_KERNEL(7, 0)
static inline void barlease_claim_bars(struct vfio_pci_core_device *core)
{
}

static inline bool barlease_bar_claimed(struct vfio_pci_core_device *core,
					u32 bar)
{
	return !IS_ERR_OR_NULL(vfio_pci_core_get_iomap(core, bar));
}
#else
static inline void barlease_claim_bars(struct vfio_pci_core_device *core)
{
	int bar;

	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++)
		if (core->bar_mmap_supported[bar])
			vfio_pci_core_setup_barmap(core, bar);
}

static inline bool barlease_bar_claimed(struct vfio_pci_core_device *core,
					u32 bar)
{
	return core->barmap[bar];
}
#endif

/* sparse does not compare power states. */
static inline bool barlease_in_d3(const struct pci_dev *pdev)
{
	return (__force int)pdev->current_state >= (__force int)PCI_D3hot;
}

/*
 * Whether the device answers memory accesses. The core has this test too, and
 * exports it to modules from 7.x on only. The command register is the virtual
 * one that the lessor writes; the bit means nothing on VFs (no_command_memory).
 * Caller holds memory_lock, and the device is open.
 */
static inline bool barlease_memory_enabled(struct vfio_pci_core_device *core)
{
	__le16 command;

	lockdep_assert_held(&core->memory_lock);
	if (core->pm_runtime_engaged || barlease_in_d3(core->pdev))
		return false;
	if (core->pdev->no_command_memory)
		return true;
	memcpy(&command, core->vconfig + PCI_COMMAND, sizeof(command));
	return le16_to_cpu(command) & PCI_COMMAND_MEMORY;
}

#endif
