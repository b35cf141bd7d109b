// SPDX-License-Identifier: GPL-2.0-only
/*
 * The mappings of leases: mmap, faults, prefault, and the hooks that keep what
 * the core mm does to such mappings from outliving a revoke.
 */
#include <linux/fcntl.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>

#include "../include/barlease_uapi.h"
#include "compat.h"
#include "lease.h"
#include "trace.h"

static bool huge_pud;
module_param(huge_pud, bool, 0444);
MODULE_PARM_DESC(huge_pud, "Map with 1 GiB entries where alignment allows (default: N)");

static int fault_around_set(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, PAGE_SIZE >> 10, PMD_SIZE >> 10);
}

static const struct kernel_param_ops fault_around_ops = {
	.set = fault_around_set,
	.get = param_get_uint,
};

static unsigned int fault_around_kb = 64;
module_param_cb(fault_around_kb, &fault_around_ops, &fault_around_kb, 0444);
MODULE_PARM_DESC(fault_around_kb, "KiB that a fault maps where a huge entry does not fit: a page to 2048, rounded down to a power of two (default: 64)");

/* Never more than a PMD covers: a fault must stay below one page table. */
static unsigned int around_order(void)
{
	return max(ilog2(fault_around_kb) + 10, PAGE_SHIFT) - PAGE_SHIFT;
}

/*
 * Entries
 */

static struct barlease_run run_at(struct vm_area_struct *vma,
				  unsigned long addr, unsigned int order)
{
	struct barlease_lease *lease = vma->vm_private_data;
	struct barlease_view view = {
		.start = vma->vm_start >> PAGE_SHIFT,
		.end = vma->vm_end >> PAGE_SHIFT,
		.page = vma->vm_pgoff - lease->window,
	};

	return barlease_ranges_run(&lease->ranges, &view, addr >> PAGE_SHIFT,
				   order);
}

/*
 * Whether a 2 MiB or 1 GiB entry belongs at @addr. VMA, span and frame alone
 * decide, so that all faults on a block try the same: one that put small pages
 * where another is about to put a leaf, or found that leaf, would make the core
 * warn. Tables that mremap() has moved to where a leaf belongs are kept.
 */
static bool leaf_at(struct vm_area_struct *vma, unsigned long addr,
		    unsigned int order, struct barlease_run *run)
{
	*run = run_at(vma, addr, order);
	return barlease_run_is_leaf(run, order);
}

/* The locks of lease_enter(), on which all that makes entries relies. */
static void assert_entered(struct vm_area_struct *vma)
{
	struct barlease_lease *lease = vma->vm_private_data;

	lockdep_assert_held_read(&lease->dev->core.memory_lock);
	lockdep_assert_held_read(&lease->dev->reset_sem);
	lockdep_assert_held_read(&lease->rwsem);
}

/*
 * @write below tells the core to make a present entry writable: after
 * clear_refs, a store faults for ever without. But the core warns if that entry
 * is not ours, so it is asked for only when a leaf is there. It stays there:
 * whoever zaps holds a lock that the fault holds too, or the VMA's.
 */
#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
static bool pmd_wanted(struct vm_fault *vmf, struct barlease_run *run)
{
	return leaf_at(vmf->vma, vmf->address, PMD_ORDER, run);
}

static vm_fault_t map_pmd(struct vm_fault *vmf, const struct barlease_run *run)
{
	pmd_t pmd = pmdp_get_lockless(vmf->pmd);
	bool write = vmf->flags & FAULT_FLAG_WRITE &&
		     pmd_present(pmd) && pmd_leaf(pmd);

	assert_entered(vmf->vma);
	return vmf_insert_pfn_pmd(vmf, barlease_pfn(run->pfn), write);
}

/* Only mremap() brings a page table to where a leaf belongs. */
static bool pmd_is_table(struct vm_fault *vmf)
{
	pmd_t pmd = pmdp_get_lockless(vmf->pmd);

	return pmd_present(pmd) && !pmd_leaf(pmd);
}
#else
static bool pmd_is_table(struct vm_fault *vmf)
{
	return true;
}

static bool pmd_wanted(struct vm_fault *vmf, struct barlease_run *run)
{
	return false;
}

static vm_fault_t map_pmd(struct vm_fault *vmf, const struct barlease_run *run)
{
	return VM_FAULT_FALLBACK;
}
#endif

#ifdef CONFIG_ARCH_SUPPORTS_PUD_PFNMAP
static bool pud_wanted(struct vm_fault *vmf, struct barlease_run *run)
{
	return huge_pud && leaf_at(vmf->vma, vmf->address, PUD_ORDER, run);
}

/*
 * What the core would do if @write were passed on. But a 1 GiB leaf need not
 * stay there: who reads smaps splits it with mmap_lock held for reading, and a
 * thread without huge pages then has a table put there, at which the core warns.
 */
static bool make_pud_writable(struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	spinlock_t *ptl = pud_lock(mm, vmf->pud);
	pud_t pud = READ_ONCE(*vmf->pud);
	bool is_leaf = pud_present(pud) && pud_leaf(pud);

	if (is_leaf)
		set_pud_at(mm, vmf->address & PUD_MASK, vmf->pud,
			   pud_mkwrite(pud_mkdirty(pud_mkyoung(pud))));
	spin_unlock(ptl);
	return is_leaf;
}

static vm_fault_t map_pud(struct vm_fault *vmf, const struct barlease_run *run)
{
	assert_entered(vmf->vma);
	if (vmf->flags & FAULT_FLAG_WRITE && make_pud_writable(vmf))
		return VM_FAULT_NOPAGE;
	return vmf_insert_pfn_pud(vmf, barlease_pfn(run->pfn), false);
}
#else
static bool pud_wanted(struct vm_fault *vmf, struct barlease_run *run)
{
	return false;
}

static vm_fault_t map_pud(struct vm_fault *vmf, const struct barlease_run *run)
{
	return VM_FAULT_FALLBACK;
}
#endif

/* The page that faulted must go in; its neighbours may. */
static vm_fault_t map_ptes(struct vm_fault *vmf, const struct barlease_run *run)
{
	struct vm_area_struct *vma = vmf->vma;
	u64 vpn = vmf->address >> PAGE_SHIFT, i;
	vm_fault_t ret;

	assert_entered(vma);
	ret = vmf_insert_pfn(vma, vpn << PAGE_SHIFT,
			     run->pfn + (vpn - run->vpn));
	if (ret != VM_FAULT_NOPAGE)
		return ret;
	for (i = 0; i < run->nr; i++)
		if (run->vpn + i != vpn &&
		    vmf_insert_pfn(vma, (run->vpn + i) << PAGE_SHIFT,
				   run->pfn + i) != VM_FAULT_NOPAGE)
			break;
	return VM_FAULT_NOPAGE;
}

struct wc_run {
	struct vm_area_struct *vma;
	const struct barlease_run *run;
};

static int map_wc_pte(pte_t *pte, unsigned long addr, void *data)
{
	struct wc_run *wc = data;
	u64 pfn = wc->run->pfn + ((addr >> PAGE_SHIFT) - wc->run->vpn);

	if (pte_none(ptep_get(pte)))
		set_pte_at(wc->vma->vm_mm, addr, pte,
			   pte_mkspecial(pfn_pte(pfn, wc->vma->vm_page_prot)));
	return 0;
}

/*
 * On x86 vmf_insert_pfn() replaces the memory type by the one registered for
 * the BAR, uncached. These entries go in past that.
 */
static vm_fault_t map_wc(struct vm_fault *vmf, const struct barlease_run *run)
{
	struct wc_run wc = { .vma = vmf->vma, .run = run };

	assert_entered(vmf->vma);
	if (apply_to_page_range(vmf->vma->vm_mm, run->vpn << PAGE_SHIFT,
				run->nr << PAGE_SHIFT, map_wc_pte, &wc))
		return VM_FAULT_OOM;
	return VM_FAULT_NOPAGE;
}

/*
 * Faults
 */

/*
 * Enter the state in which entries may be made: the lease live, the device
 * answering, and both held so until lease_leave(). VM_FAULT_NOPAGE lets the
 * access try again.
 */
static vm_fault_t lease_enter(struct vm_area_struct *vma)
{
	struct barlease_lease *lease = vma->vm_private_data;
	struct barlease_device *dev = lease->dev;

	/* Few faults wait for it, but each may. */
	might_lock_read(&dev->reset_sem);
	/*
	 * Who has lost it for good must not keep the device's locks from others.
	 * Nor does who has it write-protected by userfaultfd, where the kernel lets
	 * it, get entries: that takes leaves away beside a fault, and leaves marks
	 * at which the core puts nothing and says that it has.
	 */
	if (READ_ONCE(lease->state) != BARLEASE_LIVE || userfaultfd_armed(vma))
		return VM_FAULT_SIGBUS;
	/*
	 * A reset may take a minute; who is killed meanwhile need not see it. Nor
	 * must an access of the kernel's be tried without end for who is killed.
	 */
	if (fatal_signal_pending(current) ||
	    down_read_killable(&dev->core.memory_lock))
		return VM_FAULT_SIGBUS;
	if (!down_read_trylock(&dev->reset_sem)) {
		/* From sysfs: memory_lock must stay free for others meanwhile. */
		up_read(&dev->core.memory_lock);
		trace_lease_wait(lease);
		if (down_read_killable(&dev->reset_sem))
			return VM_FAULT_SIGBUS;
		up_read(&dev->reset_sem);
		return VM_FAULT_NOPAGE;
	}
	down_read(&lease->rwsem);
	/* In this order: the device's state is gone once the lease is closed. */
	if (lease->state == BARLEASE_LIVE && barlease_memory_enabled(&dev->core))
		return 0;

	up_read(&lease->rwsem);
	up_read(&dev->reset_sem);
	up_read(&dev->core.memory_lock);
	return VM_FAULT_SIGBUS;
}

static void lease_leave(struct barlease_lease *lease)
{
	up_read(&lease->rwsem);
	up_read(&lease->dev->reset_sem);
	up_read(&lease->dev->core.memory_lock);
}

typedef vm_fault_t (*map_fn)(struct vm_fault *vmf,
			     const struct barlease_run *run);

static vm_fault_t lease_fault(struct vm_fault *vmf,
			      const struct barlease_run *run, map_fn map)
{
	struct barlease_lease *lease = vmf->vma->vm_private_data;
	vm_fault_t ret;

	ret = lease_enter(vmf->vma);
	if (!ret) {
		ret = map(vmf, run);
		if (ret == VM_FAULT_NOPAGE)
			atomic64_inc(&lease->faults);
		lease_leave(lease);
	}
	trace_lease_fault(lease, vmf->address, run, ret);
	return ret;
}

static int touch_pte(pte_t *pte, unsigned long addr, void *data)
{
	return 0;
}

/*
 * Make the page table that small pages go to before any lock of ours is held.
 * It is charged to the lessee's memory cgroup, and making room there may take
 * as long as the lessee likes; a revoke or a reset must not wait for that.
 */
static vm_fault_t make_table(struct vm_fault *vmf)
{
	int ret;

	if (!pmd_none(pmdp_get_lockless(vmf->pmd)))
		return 0;
	ret = apply_to_page_range(vmf->vma->vm_mm, vmf->address & PAGE_MASK,
				  PAGE_SIZE, touch_pte, NULL);
	return ret ? vmf_error(ret) : 0;
}

static vm_fault_t uc_fault(struct vm_fault *vmf)
{
	struct barlease_run run;
	vm_fault_t ret;

	/*
	 * With PR_SET_THP_DISABLE uc_huge_fault() is never called. A leaf goes
	 * in all the same, see leaf_at(); another thread's may be there by now.
	 */
	if (pmd_wanted(vmf, &run) && !pmd_is_table(vmf))
		return lease_fault(vmf, &run, map_pmd);

	ret = make_table(vmf);
	if (ret)
		return ret;
	run = run_at(vmf->vma, vmf->address, around_order());
	return lease_fault(vmf, &run, map_ptes);
}

static vm_fault_t uc_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct barlease_run run;

	if (order == PMD_ORDER && pmd_wanted(vmf, &run))
		return lease_fault(vmf, &run, map_pmd);
	if (order == PUD_ORDER && pud_wanted(vmf, &run))
		return lease_fault(vmf, &run, map_pud);
	return VM_FAULT_FALLBACK;
}

static vm_fault_t wc_fault(struct vm_fault *vmf)
{
	struct barlease_run run;
	vm_fault_t ret;

	ret = make_table(vmf);
	if (ret)
		return ret;
	run = run_at(vmf->vma, vmf->address, around_order());
	return lease_fault(vmf, &run, map_wc);
}

/*
 * Hooks
 */

/* Nothing faults in again before mmap_lock is released. */
static void zap_mapping(struct vm_area_struct *vma)
{
	vma_start_write(vma);
	barlease_zap_range(vma, vma->vm_start, vma->vm_end - vma->vm_start);
}

static void zap_moved(struct vm_area_struct *copy)
{
	struct vm_area_struct *vma;

	VMA_ITERATOR(vmi, copy->vm_mm, 0);

	for_each_vma(vmi, vma)
		if (vma->vm_file == copy->vm_file)
			zap_mapping(vma);
}

/*
 * A copy of a VMA is about to be used. Who makes it shows in what is at its
 * address: the copy itself, for fork; nothing yet, for mremap; the VMA that is
 * cut, for a split.
 *
 * fork copies huge entries without looking again under their lock, so that a
 * revoke can miss one. VM_WIPEONFORK makes it copy none; where a lessee took
 * that flag away the parent's VMA is zapped, so there is nothing to copy.
 *
 * mremap clears a leaf at its old place and sets it at the new one, and no lock
 * that a zap takes is held over both: a revoke that looks at the two in between
 * misses it. Nor does it flush the TLB for 1 GiB. So it finds nothing to move.
 * Which VMA it moves is not said; it is one of this process's of the lease.
 *
 * None of this walks what others have mapped, nor takes a lock of ours: that
 * takes as long as the scheduler lets the lessee take, and the lessor would wait.
 */
static void lease_open(struct vm_area_struct *vma)
{
	struct vm_area_struct *there;

	mmap_assert_write_locked(vma->vm_mm);
	there = vma_lookup(vma->vm_mm, vma->vm_start);
	if (there == vma) {
		mmap_assert_write_locked(current->mm);
		if (!(vma->vm_flags & VM_WIPEONFORK))
			zap_mapping(vma_lookup(current->mm, vma->vm_start));
	} else if (!there) {
		zap_moved(vma);
	}
}

/* Splitting a 1 GiB entry of frames without struct page panics the kernel. */
static int uc_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	unsigned long start, end;

	if (!huge_pud || IS_ALIGNED(addr, PUD_SIZE))
		return 0;
	vma_start_write(vma);
	start = max(ALIGN_DOWN(addr, PUD_SIZE), vma->vm_start);
	end = min(ALIGN(addr, PUD_SIZE), vma->vm_end);
	barlease_zap_range(vma, start, end - start);
	return 0;
}

static const struct vm_operations_struct uc_ops = {
	.open		= lease_open,
	.may_split	= uc_may_split,
	.fault		= uc_fault,
	.huge_fault	= uc_huge_fault,
};

static const struct vm_operations_struct wc_ops = {
	.open		= lease_open,
	.fault		= wc_fault,
};

/* The dma-buf core and the mm have seen to bounds, MAY_WRITE and file mode. */
int barlease_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct barlease_lease *lease = dmabuf->priv;
	enum barlease_state state;
	u32 memattr;

	/* A shared mapping of a read-only file has VM_MAYSHARE alone. */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;

	down_read(&lease->rwsem);
	state = lease->state;
	memattr = lease->memattr;
	up_read(&lease->rwsem);
	if (state != BARLEASE_LIVE)
		return -ENODEV;

	vm_flags_mod(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP |
		     VM_WIPEONFORK, VM_MAYEXEC);
	vma->vm_pgoff += lease->window;
	vma->vm_private_data = lease;
	if (memattr == BARLEASE_MEMATTR_WC) {
		vma->vm_page_prot = pgprot_writecombine(vma->vm_page_prot);
		vma->vm_ops = &wc_ops;
	} else {
		vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
		vma->vm_ops = &uc_ops;
	}
	vma->vm_page_prot = pgprot_decrypted(vma->vm_page_prot);
	return 0;
}

/*
 * Prefault
 */

/* Steps between two looks at who else wants the lock. */
#define PREFAULT_STEPS 512

static bool prefault_present(struct vm_area_struct *vma, unsigned long addr)
{
	struct follow_pfnmap_args args = { .vma = vma, .address = addr };

	if (follow_pfnmap_start(&args))
		return false;
	follow_pfnmap_end(&args);
	return true;
}

/*
 * Fault in what is missing of one VMA from *addr on, and move *addr behind.
 * Without ALLOW_RETRY fixup_user_fault() keeps the mmap_lock, so the VMA stays.
 * One try an address: what it brings is the core's affair, and that of other
 * threads of a hostile lessee.
 */
static int prefault_vma(struct vm_area_struct *vma, unsigned long *addr)
{
	unsigned int flags = vma->vm_flags & VM_READ ? 0 : FAULT_FLAG_WRITE;
	int steps, ret = 0;

	mmap_assert_locked(vma->vm_mm);
	for (steps = 0; steps < PREFAULT_STEPS && *addr < vma->vm_end; steps++) {
		struct barlease_run run = run_at(vma, *addr, around_order());

		if (fatal_signal_pending(current))
			return -EINTR;
		if (!prefault_present(vma, *addr))
			ret = fixup_user_fault(vma->vm_mm, *addr, flags, NULL);
		if (ret)
			return ret;
		*addr = (run.vpn + run.nr) << PAGE_SHIFT;
	}
	return 0;
}

/*
 * Prefault the first of the caller's mappings of the lease at or behind *addr
 * that has something to do. -ENOENT: there is none.
 */
static int prefault_next(struct dma_buf *dmabuf, unsigned long *addr)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	int ret = -ENOENT;

	VMA_ITERATOR(vmi, mm, *addr);

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for_each_vma(vmi, vma) {
		if (vma->vm_file != dmabuf->file ||
		    !(vma->vm_flags & (VM_READ | VM_WRITE)))
			continue;
		*addr = max(*addr, vma->vm_start);
		ret = prefault_vma(vma, addr);
		break;
	}
	mmap_read_unlock(mm);
	return ret;
}

static bool lease_is_live(struct barlease_lease *lease)
{
	bool live;

	down_read(&lease->rwsem);
	live = lease->state == BARLEASE_LIVE;
	up_read(&lease->rwsem);
	return live;
}

/*
 * DMA_BUF_IOCTL_SYNC with START: fault in every mapping of the lease in the
 * caller's address space. No lock of ours is held, and mmap_lock is dropped
 * after each PREFAULT_STEPS.
 */
int barlease_prefault(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	struct barlease_lease *lease = dmabuf->priv;
	unsigned long addr = 0;
	int ret;

	if (current->flags & PF_KTHREAD || !current->mm)
		return 0;
	if (!lease_is_live(lease))
		return -ENODEV;

	do {
		ret = prefault_next(dmabuf, &addr);
		cond_resched();
	} while (!ret);

	if (ret == -ENOENT)
		return 0;
	if (ret == -EFAULT)
		return lease_is_live(lease) ? -EIO : -ENODEV;
	return ret;
}
