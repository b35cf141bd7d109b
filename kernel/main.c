// SPDX-License-Identifier: GPL-2.0-only
/*
 * barlease-vfio-pci: vfio-pci whose BARs can be leased out. This file is the
 * PCI and VFIO glue; what a lease is stands in lease.h.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/vfio_pci_core.h>

#include "../include/barlease_uapi.h"
#include "compat.h"
#include "lease.h"

static bool enable_sriov;
#ifdef CONFIG_PCI_IOV
module_param(enable_sriov, bool, 0644);
MODULE_PARM_DESC(enable_sriov, "Let sriov_numvfs create VFs of a bound PF (default: N)");
#endif

static bool disable_denylist;
module_param(disable_denylist, bool, 0444);
MODULE_PARM_DESC(disable_denylist, "Bind devices with known errata that make them unsafe in untrusted hands (default: N)");

/* vfio-pci's denylist: QAT, DSA and IAX */
static const struct pci_device_id barlease_denylist[] = {
	{ PCI_VDEVICE(INTEL, PCI_DEVICE_ID_INTEL_QAT_C3XXX) },
	{ PCI_VDEVICE(INTEL, PCI_DEVICE_ID_INTEL_QAT_C3XXX_VF) },
	{ PCI_VDEVICE(INTEL, PCI_DEVICE_ID_INTEL_QAT_C62X) },
	{ PCI_VDEVICE(INTEL, PCI_DEVICE_ID_INTEL_QAT_C62X_VF) },
	{ PCI_VDEVICE(INTEL, PCI_DEVICE_ID_INTEL_QAT_DH895XCC) },
	{ PCI_VDEVICE(INTEL, PCI_DEVICE_ID_INTEL_QAT_DH895XCC_VF) },
	{ PCI_VDEVICE(INTEL, PCI_DEVICE_ID_INTEL_DSA_SPR0) },
	{ PCI_VDEVICE(INTEL, PCI_DEVICE_ID_INTEL_IAX_SPR0) },
	{ }
};

static int barlease_init_dev(struct vfio_device *vdev)
{
	int ret;

	ret = vfio_pci_core_init_dev(vdev);
	if (ret)
		return ret;
	ret = barlease_leases_init(barlease_from_vdev(vdev));
	if (ret)
		vfio_pci_core_release_dev(vdev);
	return ret;
}

/* Runs when the last lease is gone too: each holds a reference. */
static void barlease_release_dev(struct vfio_device *vdev)
{
	barlease_leases_destroy(barlease_from_vdev(vdev));
	vfio_pci_core_release_dev(vdev);
}

static void barlease_guard(struct barlease_device *dev, u32 location, u32 size)
{
	u64 offset = location & PCI_MSIX_TABLE_OFFSET;

	dev->guards[dev->nr_guards++] = (struct barlease_guard) {
		.bar = location & PCI_MSIX_TABLE_BIR,
		.first = offset >> PAGE_SHIFT,
		.last = (offset + size - 1) >> PAGE_SHIFT,
	};
}

/* PCI Local Bus 3.0, 6.8.2: where the MSI-X table and its pending bits lie. */
static void barlease_read_msix(struct barlease_device *dev)
{
	struct pci_dev *pdev = dev->core.pdev;
	u32 table, pba, vectors;
	u16 control;

	dev->nr_guards = 0;
	if (!pdev->msix_cap)
		return;
	pci_read_config_word(pdev, pdev->msix_cap + PCI_MSIX_FLAGS, &control);
	pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_TABLE, &table);
	pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_PBA, &pba);
	vectors = (control & PCI_MSIX_FLAGS_QSIZE) + 1;

	barlease_guard(dev, table, vectors * PCI_MSIX_ENTRY_SIZE);
	barlease_guard(dev, pba, DIV_ROUND_UP(vectors, 64) * sizeof(u64));
}

static int barlease_open_device(struct vfio_device *vdev)
{
	struct barlease_device *dev = barlease_from_vdev(vdev);
	int ret;

	lockdep_assert_held(&vdev->dev_set->lock);
	ret = vfio_pci_core_enable(&dev->core);
	if (ret)
		return ret;
	barlease_read_msix(dev);
	vfio_pci_core_finish_enable(&dev->core);
	/* Now the core knows which BARs can be mapped. */
	barlease_claim_bars(&dev->core);
	return 0;
}

/* The leases die first: after this, nothing of theirs touches the pci_dev. */
static void barlease_close_device(struct vfio_device *vdev)
{
	lockdep_assert_held(&vdev->dev_set->lock);
	barlease_leases_close(barlease_from_vdev(vdev));
	vfio_pci_core_close_device(vdev);
}

static int barlease_device_feature(struct vfio_device *vdev, u32 flags,
				   void __user *arg, size_t argsz)
{
	struct barlease_device *dev = barlease_from_vdev(vdev);

	switch (flags & VFIO_DEVICE_FEATURE_MASK) {
	case VFIO_DEVICE_FEATURE_DMA_BUF:
		return barlease_lease_export(dev, flags, arg, argsz);
	case BARLEASE_FEATURE_REVOKE:
		return barlease_lease_revoke(dev, flags, arg, argsz);
	case BARLEASE_FEATURE_MEMATTR:
		return barlease_lease_memattr(dev, flags, arg, argsz);
	case BARLEASE_FEATURE_INFO:
		return barlease_lease_info(dev, flags, arg, argsz);
	default:
		return vfio_pci_core_ioctl_feature(vdev, flags, arg, argsz);
	}
}

static const struct vfio_device_ops barlease_vfio_ops = {
	.name		= "barlease-vfio-pci",
	.init		= barlease_init_dev,
	.release	= barlease_release_dev,
	.open_device	= barlease_open_device,
	.close_device	= barlease_close_device,
	.ioctl		= vfio_pci_core_ioctl,
	BARLEASE_REGION_INFO_OP
	.device_feature	= barlease_device_feature,
	.read		= vfio_pci_core_read,
	.write		= vfio_pci_core_write,
	.mmap		= vfio_pci_core_mmap,
	.request	= vfio_pci_core_request,
	.match		= vfio_pci_core_match,
	BARLEASE_TOKEN_OP
	.bind_iommufd	= vfio_iommufd_physical_bind,
	.unbind_iommufd	= vfio_iommufd_physical_unbind,
	.attach_ioas	= vfio_iommufd_physical_attach_ioas,
	.detach_ioas	= vfio_iommufd_physical_detach_ioas,
};

static int barlease_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct barlease_device *dev;
	int ret;

	if (pci_match_id(barlease_denylist, pdev)) {
		if (!disable_denylist) {
			pci_warn(pdev, "not bound: on the denylist (disable_denylist=1 lifts it)\n");
			return -EINVAL;
		}
		pci_warn(pdev, "bound in spite of the denylist\n");
	}

	dev = vfio_alloc_device(barlease_device, core.vdev, &pdev->dev,
				&barlease_vfio_ops);
	if (IS_ERR(dev))
		return PTR_ERR(dev);

	dev_set_drvdata(&pdev->dev, &dev->core);
	barlease_debugfs_add(dev);
	ret = vfio_pci_core_register_device(&dev->core);
	if (ret) {
		barlease_debugfs_remove(dev);
		vfio_put_device(&dev->core.vdev);
	}
	return ret;
}

static void barlease_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);
	struct barlease_device *dev = barlease_from_vdev(&core->vdev);
	struct vfio_device_set *set = core->vdev.dev_set;

	device_lock_assert(&pdev->dev);
	vfio_pci_core_unregister_device(core);

	/*
	 * A lease may keep the vfio_device for long, and with it its place on
	 * the list of devices that reset together, where a sibling's hot reset
	 * would use the pci_dev that goes away now. The release takes it off
	 * once more, which an empty node bears.
	 */
	mutex_lock(&set->lock);
	list_del_init(&core->vdev.dev_set_list);
	mutex_unlock(&set->lock);

	barlease_debugfs_remove(dev);
	vfio_put_device(&core->vdev);
}

static int barlease_sriov_configure(struct pci_dev *pdev, int nr_virtfn)
{
	if (!enable_sriov)
		return -ENOENT;
	return vfio_pci_core_sriov_configure(dev_get_drvdata(&pdev->dev),
					     nr_virtfn);
}

/*
 * Every reset that somebody asks for comes between these two, also one from
 * sysfs, for which the core zaps nothing; a port's error recovery does not, nor
 * does the core's reset when the device is closed, as all leases are by then. The
 * core's own resets hold memory_lock for writing here and those from sysfs do
 * not, so it can't be taken. Both run in one task under the device lock, and
 * prepare is never left without done.
 */
static void barlease_reset_prepare(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);
	struct barlease_device *dev = barlease_from_vdev(&core->vdev);

	device_lock_assert(&pdev->dev);
	down_write(&dev->reset_sem);
	barlease_leases_zap(dev);
}

static void barlease_reset_done(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);
	struct barlease_device *dev = barlease_from_vdev(&core->vdev);

	device_lock_assert(&pdev->dev);
	lockdep_assert_held_write(&dev->reset_sem);
	up_write(&dev->reset_sem);
}

static const struct pci_error_handlers barlease_err_handlers = {
	.error_detected	= vfio_pci_core_aer_err_detected,
	.reset_prepare	= barlease_reset_prepare,
	.reset_done	= barlease_reset_done,
};

/* By driver_override alone. No MODULE_DEVICE_TABLE: nothing picks us unasked. */
static const struct pci_device_id barlease_ids[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_ANY_ID, PCI_ANY_ID) },
	{ }
};

static struct pci_driver barlease_driver = {
	.name			= "barlease-vfio-pci",
	.id_table		= barlease_ids,
	.probe			= barlease_probe,
	.remove			= barlease_remove,
	.sriov_configure	= barlease_sriov_configure,
	.err_handler		= &barlease_err_handlers,
	.driver_managed_dma	= true,
};

static int __init barlease_init(void)
{
	int ret;

	barlease_debugfs_init();
	ret = pci_register_driver(&barlease_driver);
	if (ret)
		barlease_debugfs_exit();
	return ret;
}
module_init(barlease_init);

static void __exit barlease_exit(void)
{
	pci_unregister_driver(&barlease_driver);
	barlease_debugfs_exit();
}
module_exit(barlease_exit);

MODULE_DESCRIPTION("VFIO PCI driver that leases BAR slices as revocable DMABUFs");
MODULE_AUTHOR("The barlease authors");
MODULE_LICENSE("GPL");
BARLEASE_IMPORT_DMA_BUF;
