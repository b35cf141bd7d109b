/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that differs between kernel versions, and core helpers that modules are
 * not given. Kbuild sees what the headers have: BARLEASE_HAS_<name>.
 */
#ifndef BARLEASE_COMPAT_H
#define BARLEASE_COMPAT_H

#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/version.h>
#include <linux/vfio_pci_core.h>

/* The namespace became a string literal in 6.13. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define BARLEASE_IMPORT_DMA_BUF MODULE_IMPORT_NS(DMA_BUF)
#else
#define BARLEASE_IMPORT_DMA_BUF MODULE_IMPORT_NS("DMA_BUF")
#endif

/* Later kernels have no type of its own for a frame. */
#ifdef BARLEASE_HAS_pfn_t
#include <linux/pfn_t.h>
#define barlease_pfn(pfn) __pfn_to_pfn_t(pfn, PFN_DEV)
#else
#define barlease_pfn(pfn) (pfn)
#endif

/* zap_vma_ptes() under its later name. */
#ifdef BARLEASE_HAS_zap_special_vma_range
#define barlease_zap_range zap_special_vma_range
#else
#define barlease_zap_range zap_vma_ptes
#endif

/* Operations that later cores have a driver name, each with its comma. */
#ifdef BARLEASE_HAS_get_region_info_caps
#define BARLEASE_REGION_INFO_OP \
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
#else
#define BARLEASE_REGION_INFO_OP
#endif

#ifdef BARLEASE_HAS_match_token_uuid
#define BARLEASE_TOKEN_OP .match_token_uuid = vfio_pci_core_match_token_uuid,
#else
#define BARLEASE_TOKEN_OP
#endif

/*
 * Claiming a BAR keeps everyone else from its addresses. Later cores claim them
 * all at open. Earlier ones leave it to the first use, without a lock, so it is
 * done at open here too, where nobody can race. A BAR that can't be claimed is
 * found out at export.
 */
static inline void barlease_claim_bars(struct vfio_pci_core_device *core)
{
#ifdef BARLEASE_HAS_vfio_pci_core_setup_barmap
	int bar;

	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++)
		if (core->bar_mmap_supported[bar])
			vfio_pci_core_setup_barmap(core, bar);
#endif
}

static inline bool barlease_bar_claimed(struct vfio_pci_core_device *core,
					u32 bar)
{
	return !IS_ERR_OR_NULL(core->barmap[bar]);
}

/* sparse does not compare power states. */
static inline bool barlease_in_d3(const struct pci_dev *pdev)
{
	return (__force int)pdev->current_state >= (__force int)PCI_D3hot;
}

/*
 * Whether the device answers memory accesses. The core has this test too, but
 * earlier ones don't export it. The command register is the virtual
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
