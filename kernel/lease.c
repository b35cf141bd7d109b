// SPDX-License-Identifier: GPL-2.0-only
/*
 * One lease, from export to release, and the calls its lessor makes.
 */
#include <linux/fcntl.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/uaccess.h>

#include "../include/barlease_uapi.h"
#include "compat.h"
#include "lease.h"
#include "trace.h"

static bool allow_msix;
module_param(allow_msix, bool, 0444);
MODULE_PARM_DESC(allow_msix, "Let leases hold pages of the MSI-X table and pending bits (default: N)");

static atomic64_t last_id;

/*
 * The windows of page offsets
 *
 * The core zaps all user mappings of a device by one walk over the VFIO inode,
 * offsets BAR0 to BAR5. A lease's mappings hang on the same inode, so the core
 * zaps them too; each lease has a window of offsets of its own there, so that
 * it can also be zapped alone. Offsets of real BARs stay the lessor's.
 */

static int windows_init(struct barlease_device *dev)
{
	struct pci_dev *pdev = dev->core.pdev;
	int bar, ret;

	mt_init_flags(&dev->windows, MT_FLAGS_ALLOC_RANGE);
	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++) {
		u64 first = VFIO_PCI_INDEX_TO_OFFSET(bar) >> PAGE_SHIFT;
		u64 nr = PFN_UP(min_t(u64, pci_resource_len(pdev, bar),
				      VFIO_PCI_INDEX_TO_OFFSET(1)));

		if (!nr)
			continue;
		ret = mtree_insert_range(&dev->windows, first, first + nr - 1,
					 xa_mk_value(bar), GFP_KERNEL);
		if (ret) {
			mtree_destroy(&dev->windows);
			return ret;
		}
	}
	return 0;
}

static int window_take(struct barlease_lease *lease)
{
	unsigned long first;
	int ret;

	ret = mtree_alloc_range(&lease->dev->windows, &first, xa_mk_value(0),
				lease->ranges.nr_pages, 0,
				(BARLEASE_OFFSETS_END >> PAGE_SHIFT) - 1,
				GFP_KERNEL_ACCOUNT);
	if (ret)
		return ret == -ENOMEM ? ret : -ENOSPC;
	lease->window = first;
	return 0;
}

/*
 * Who gives back can't be told that there is no memory for it. mtree_erase()
 * would leave the window taken then; and whether __GFP_NOFAIL gets through to
 * where a tree allocates is the tree's affair.
 */
static void window_give_back(struct barlease_lease *lease)
{
	unsigned long last = lease->window + lease->ranges.nr_pages - 1;

	MA_STATE(mas, &lease->dev->windows, lease->window, last);

	mas_lock(&mas);
	while (mas_store_gfp(&mas, NULL, GFP_KERNEL | __GFP_NOFAIL))
		mas_set_range(&mas, lease->window, last);
	mas_unlock(&mas);
}

int barlease_leases_init(struct barlease_device *dev)
{
	int ret;

	ret = windows_init(dev);
	if (ret)
		return ret;
	strscpy(dev->bdf, pci_name(dev->core.pdev), sizeof(dev->bdf));
	mutex_init(&dev->lock);
	INIT_LIST_HEAD(&dev->leases);
	init_rwsem(&dev->reset_sem);
	lockdep_register_key(&dev->reset_key);
	lockdep_set_class(&dev->reset_sem, &dev->reset_key);
	return 0;
}

void barlease_leases_destroy(struct barlease_device *dev)
{
	lockdep_unregister_key(&dev->reset_key);
	mutex_destroy(&dev->lock);
	mtree_destroy(&dev->windows);
}

/* vfio.h calls inode private; it is where the core's own zaps go (see above). */
static struct address_space *device_mapping(struct barlease_device *dev)
{
	return dev->core.vdev.inode->i_mapping;
}

/* Take every page of the device out of every address space. */
void barlease_leases_zap(struct barlease_device *dev)
{
	unmap_mapping_range(device_mapping(dev), 0, BARLEASE_OFFSETS_END, true);
}

/* The same for one lease. */
void barlease_lease_zap(struct barlease_lease *lease)
{
	unmap_mapping_range(device_mapping(lease->dev),
			    lease->window << PAGE_SHIFT,
			    lease->ranges.nr_pages << PAGE_SHIFT, true);
}

/*
 * Push out what was stored before the zap: a read that is answered drives the
 * posted writes before it (PCI Express Base 6.0, 2.4.1). What a CPU may hold in
 * a write-combining buffer an interrupt drains first; the zap's TLB flush sends
 * one on many machines, but not on all. The locks keep power and reset as they
 * are.
 */
static void push_out_stores(struct barlease_device *dev)
{
	struct pci_dev *pdev = dev->core.pdev;
	u16 vendor;

	if (READ_ONCE(dev->had_wc))
		kick_all_cpus_sync();
	down_read(&dev->core.memory_lock);
	down_read(&dev->reset_sem);
	if (!dev->core.pm_runtime_engaged && !barlease_in_d3(pdev) &&
	    !pci_channel_offline(pdev))
		pci_read_config_word(pdev, PCI_VENDOR_ID, &vendor);
	up_read(&dev->reset_sem);
	up_read(&dev->core.memory_lock);
}

/* At the last close of the device fd: every lease dies, for good. */
void barlease_leases_close(struct barlease_device *dev)
{
	struct barlease_lease *lease;

	mutex_lock(&dev->lock);
	list_for_each_entry(lease, &dev->leases, node) {
		down_write(&lease->rwsem);
		WRITE_ONCE(lease->state, BARLEASE_CLOSED);
		up_write(&lease->rwsem);
	}
	mutex_unlock(&dev->lock);

	barlease_leases_zap(dev);
	push_out_stores(dev);
}

/*
 * One lease: its memory, its window, its place on the device's list
 */

static int join_device(struct barlease_lease *lease)
{
	struct barlease_device *dev = lease->dev;
	int ret = 0;

	mutex_lock(&dev->lock);
	if (lease->ranges.nr_ranges > BARLEASE_MAX_ALIVE - dev->nr_ranges) {
		ret = -ENOSPC;
	} else {
		dev->nr_ranges += lease->ranges.nr_ranges;
		list_add_tail(&lease->node, &dev->leases);
	}
	mutex_unlock(&dev->lock);
	return ret;
}

static void leave_device(struct barlease_lease *lease)
{
	mutex_lock(&lease->dev->lock);
	list_del(&lease->node);
	lease->dev->nr_ranges -= lease->ranges.nr_ranges;
	mutex_unlock(&lease->dev->lock);
}

/*
 * Tell lockdep that nobody may allocate with @sem held: a fault holds it, and
 * making room in a lessee's memory cgroup may take as long as the lessee likes.
 */
static void no_reclaim_below(struct rw_semaphore *sem)
{
	fs_reclaim_acquire(GFP_KERNEL);
	might_lock(sem);
	fs_reclaim_release(GFP_KERNEL);
}

static void lease_free(struct barlease_lease *lease)
{
	kvfree(lease->ranges.spans);
	kfree(lease);
}

/* The last reference is gone, so no mapping is left and no call is under way. */
static void lease_release(struct dma_buf *dmabuf)
{
	struct barlease_lease *lease = dmabuf->priv;
	struct barlease_device *dev = lease->dev;

	trace_lease_release(lease);
	leave_device(lease);
	window_give_back(lease);
	lease_free(lease);
	/* VFIO takes it where this is the last reference to a device long gone. */
	might_lock(&dev->core.vdev.dev_set->lock);
	/* vfio.h calls device private; it exports no other way to count. */
	put_device(&dev->core.vdev.device);
}

/* Not until P2P import exists. */
static int lease_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *at)
{
	return -EOPNOTSUPP;
}

/* dma_buf_export() wants these two; without an attachment nobody calls them. */
static struct sg_table *lease_map(struct dma_buf_attachment *at,
				  enum dma_data_direction dir)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static void lease_unmap(struct dma_buf_attachment *at, struct sg_table *table,
			enum dma_data_direction dir)
{
}

static const struct dma_buf_ops lease_ops = {
	.attach			= lease_attach,
	.map_dma_buf		= lease_map,
	.unmap_dma_buf		= lease_unmap,
	.release		= lease_release,
	.mmap			= barlease_mmap,
	.begin_cpu_access	= barlease_prefault,
};

/*
 * Export
 */

/* A BAR that VFIO would let its owner mmap. */
static bool region_is_leasable(struct barlease_device *dev, u32 region)
{
	return region < PCI_STD_NUM_BARS && dev->core.bar_mmap_supported[region];
}

/* The bytes that ranges must lie in; of a region refused later any will do. */
static u64 region_limit(struct barlease_device *dev, u32 region)
{
	if (!region_is_leasable(dev, region))
		return U64_MAX;
	return PAGE_ALIGN(pci_resource_len(dev->core.pdev, region));
}

/*
 * Copy and check the ranges. More than BARLEASE_MAX_RANGES are checked too but
 * not kept: a bad range outranks too many. In pieces, as the caller says how
 * many there are.
 */
static int read_ranges(struct barlease_ranges *r,
		       const struct vfio_region_dma_range __user *user,
		       u32 nr, u64 limit)
{
	struct vfio_region_dma_range piece[16];
	u64 total = 0;
	u32 i;

	for (i = 0; i < nr; i++) {
		const struct vfio_region_dma_range *range = &piece[i % 16];
		u64 end;

		if (i % 16 == 0) {
			u32 n = min_t(u32, nr - i, 16);

			if (copy_from_user(piece, user + i, n * sizeof(*piece)))
				return -EFAULT;
			if (fatal_signal_pending(current))
				return -EINTR;
			cond_resched();
		}
		if (!range->length ||
		    !PAGE_ALIGNED(range->offset | range->length) ||
		    check_add_overflow(range->offset, range->length, &end) ||
		    check_add_overflow(total, range->length, &total) ||
		    end > limit)
			return -EINVAL;
		if (nr <= BARLEASE_MAX_RANGES)
			barlease_ranges_append(r, range->offset >> PAGE_SHIFT,
					       range->length >> PAGE_SHIFT);
	}
	return nr <= BARLEASE_MAX_RANGES ? 0 : -E2BIG;
}

static int check_region(struct barlease_device *dev, u32 region,
			struct barlease_ranges *r)
{
	u32 i;

	if (!region_is_leasable(dev, region))
		return -ENODEV;

	for (i = 0; i < dev->nr_guards && !allow_msix; i++) {
		const struct barlease_guard *guard = &dev->guards[i];

		if (guard->bar == region &&
		    barlease_ranges_meet(r, guard->first, guard->last))
			return -EPERM;
	}

	if (!barlease_bar_claimed(&dev->core, region))
		return -EBUSY;
	r->bar_pfn = pci_resource_start(dev->core.pdev, region) >> PAGE_SHIFT;
	return 0;
}

/* GET VFIO_DEVICE_FEATURE_DMA_BUF: checks in the order of docs/abi.md. */
int barlease_lease_export(struct barlease_device *dev, u32 flags,
			  void __user *arg, size_t argsz)
{
	struct vfio_device_feature_dma_buf __user *uarg = arg;
	struct vfio_device_feature_dma_buf get;
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct barlease_lease *lease;
	struct dma_buf *dmabuf;
	u32 access;
	int ret;

	ret = vfio_check_feature(flags, argsz, VFIO_DEVICE_FEATURE_GET,
				 sizeof(get));
	if (ret != 1)
		return ret;
	if (copy_from_user(&get, uarg, sizeof(get)))
		return -EFAULT;

	access = get.open_flags & O_ACCMODE;
	if (!get.nr_ranges || get.flags ||
	    argsz < struct_size(uarg, dma_ranges, get.nr_ranges) ||
	    get.open_flags & ~(O_ACCMODE | O_CLOEXEC) ||
	    (access != O_RDONLY && access != O_RDWR))
		return -EINVAL;

	lease = kzalloc(sizeof(*lease), GFP_KERNEL_ACCOUNT);
	if (!lease)
		return -ENOMEM;
	lease->dev = dev;
	lease->access = access;
	init_rwsem(&lease->rwsem);
	no_reclaim_below(&lease->rwsem);
	lease->ranges.spans = kvcalloc(min(get.nr_ranges, BARLEASE_MAX_RANGES),
				       sizeof(struct barlease_span),
				       GFP_KERNEL_ACCOUNT);
	if (!lease->ranges.spans) {
		ret = -ENOMEM;
		goto err_free;
	}

	ret = read_ranges(&lease->ranges, uarg->dma_ranges, get.nr_ranges,
			  region_limit(dev, get.region_index));
	if (ret)
		goto err_free;
	ret = window_take(lease);
	if (ret)
		goto err_free;
	ret = check_region(dev, get.region_index, &lease->ranges);
	if (ret)
		goto err_window;
	lease->id = atomic64_inc_return(&last_id);
	ret = join_device(lease);
	if (ret)
		goto err_window;

	info.ops = &lease_ops;
	info.size = lease->ranges.nr_pages << PAGE_SHIFT;
	info.flags = access;
	info.priv = lease;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		ret = PTR_ERR(dmabuf);
		goto err_leave;
	}
	get_device(&dev->core.vdev.device);
	/* From here on release undoes all of it. */

	dmabuf->file->f_mapping = device_mapping(dev);
	trace_lease_export(lease);
	/* The last line: when it returns another thread may have closed it. */
	ret = dma_buf_fd(dmabuf, get.open_flags & O_CLOEXEC);
	if (ret < 0)
		dma_buf_put(dmabuf);
	return ret;

err_leave:
	leave_device(lease);
err_window:
	window_give_back(lease);
err_free:
	lease_free(lease);
	return ret;
}

/*
 * The lessor's calls on a lease
 */

/*
 * What the calls below begin with: check the request, copy its struct to @data,
 * and find the lease behind the fd that each struct begins with. It must be one
 * that this device has made since it was opened.
 *
 * Return: its dma-buf, to be put after the lease's rwsem, held for writing, has
 * been released; NULL for a PROBE; or an error.
 */
static struct dma_buf *lease_get(struct barlease_device *dev, u32 flags, u32 op,
				 void __user *arg, size_t argsz,
				 void *data, size_t size)
{
	struct barlease_lease *lease;
	struct dma_buf *dmabuf;
	int ret;

	ret = vfio_check_feature(flags, argsz, op, size);
	if (ret != 1)
		return ERR_PTR(ret);
	if (copy_from_user(data, arg, size))
		return ERR_PTR(-EFAULT);
	dmabuf = dma_buf_get(*(s32 *)data);
	if (IS_ERR(dmabuf))
		return dmabuf;
	lease = dmabuf->priv;
	if (dmabuf->ops == &lease_ops && lease->dev == dev) {
		down_write(&lease->rwsem);
		if (lease->state != BARLEASE_CLOSED)
			return dmabuf;
		up_write(&lease->rwsem);
	}
	dma_buf_put(dmabuf);
	return ERR_PTR(-ENODEV);
}

/* SET BARLEASE_FEATURE_REVOKE */
int barlease_lease_revoke(struct barlease_device *dev, u32 flags,
			  void __user *arg, size_t argsz)
{
	struct barlease_feature_revoke set;
	struct barlease_lease *lease;
	struct dma_buf *dmabuf;
	int ret = 0;

	dmabuf = lease_get(dev, flags, VFIO_DEVICE_FEATURE_SET, arg, argsz,
			   &set, sizeof(set));
	if (IS_ERR_OR_NULL(dmabuf))
		return PTR_ERR_OR_ZERO(dmabuf);
	lease = dmabuf->priv;

	if (lease->state == BARLEASE_REVOKED)
		ret = -EBADFD;
	else if (set.flags)
		ret = -EINVAL;
	else
		WRITE_ONCE(lease->state, BARLEASE_REVOKED);
	up_write(&lease->rwsem);

	/*
	 * A fault that saw the lease live held rwsem until its entries were in,
	 * so the zap finds them; later ones see it revoked. Whoever is told that
	 * it was revoked already may rely on it too, though the other caller may
	 * be in here still.
	 */
	if (ret != -EINVAL) {
		barlease_lease_zap(lease);
		push_out_stores(dev);
	}
	if (!ret)
		trace_lease_revoke(lease);
	dma_buf_put(dmabuf);
	return ret;
}

/* SET BARLEASE_FEATURE_MEMATTR */
int barlease_lease_memattr(struct barlease_device *dev, u32 flags,
			   void __user *arg, size_t argsz)
{
	struct barlease_feature_memattr set;
	struct barlease_lease *lease;
	struct dma_buf *dmabuf;
	int ret = 0;

	dmabuf = lease_get(dev, flags, VFIO_DEVICE_FEATURE_SET, arg, argsz,
			   &set, sizeof(set));
	if (IS_ERR_OR_NULL(dmabuf))
		return PTR_ERR_OR_ZERO(dmabuf);
	lease = dmabuf->priv;

	if (lease->state == BARLEASE_REVOKED)
		ret = -EBADFD;
	else if (set.memattr > BARLEASE_MEMATTR_WC)
		ret = -ENOENT;
	else
		lease->memattr = set.memattr;
	if (lease->memattr == BARLEASE_MEMATTR_WC)
		WRITE_ONCE(dev->had_wc, true);
	up_write(&lease->rwsem);
	dma_buf_put(dmabuf);
	return ret;
}

/* GET BARLEASE_FEATURE_INFO */
int barlease_lease_info(struct barlease_device *dev, u32 flags,
			void __user *arg, size_t argsz)
{
	struct barlease_feature_info get;
	struct barlease_lease *lease;
	struct dma_buf *dmabuf;
	u64 first_pfn;

	dmabuf = lease_get(dev, flags, VFIO_DEVICE_FEATURE_GET, arg, argsz,
			   &get, sizeof(get));
	if (IS_ERR_OR_NULL(dmabuf))
		return PTR_ERR_OR_ZERO(dmabuf);
	lease = dmabuf->priv;

	first_pfn = barlease_ranges_pfn(&lease->ranges, 0);
	get = (struct barlease_feature_info) {
		.dmabuf_fd = get.dmabuf_fd,
		.state = lease->state == BARLEASE_LIVE ?
			 BARLEASE_STATE_LIVE : BARLEASE_STATE_REVOKED,
		.id = lease->id,
		.size = lease->ranges.nr_pages << PAGE_SHIFT,
		.nr_ranges = lease->ranges.nr_ranges,
		.nr_spans = lease->ranges.nr_spans,
		.memattr = lease->memattr,
		.open_flags = lease->access,
		.va_hint = (first_pfn << PAGE_SHIFT) & (SZ_1G - 1),
		.faults = atomic64_read(&lease->faults),
	};
	up_write(&lease->rwsem);
	dma_buf_put(dmabuf);

	if (copy_to_user(arg, &get, sizeof(get)) ||
	    clear_user(arg + sizeof(get), argsz - sizeof(get)))
		return -EFAULT;
	return 0;
}
