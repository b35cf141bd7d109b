// SPDX-License-Identifier: GPL-2.0-only
/*
 * ptwalk - read one leaf entry of the caller's page tables (x86-64).
 *
 * Stock kernels have no other way to see which memory type a mapping really
 * got: /proc/PID/pagemap passes over PFN mappings, and the PAT debugfs tells
 * what was registered, not what was inserted.
 */
#include <asm/msr.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "ptwalk.h"

/* The PAT bit lies elsewhere in a large entry, the other two do not move. */
static u32 memtype(u64 entry, bool large)
{
	u32 index = 0, low, high;

	if (entry & _PAGE_PWT)
		index |= 1;
	if (entry & _PAGE_PCD)
		index |= 2;
	if (entry & (large ? _PAGE_PAT_LARGE : _PAGE_PAT))
		index |= 4;
	rdmsr(MSR_IA32_CR_PAT, low, high);
	return ((index < 4 ? low : high) >> (index % 4 * 8)) & 7;
}

static void answer(struct ptwalk *walk, u32 level, u64 entry)
{
	if (!(entry & _PAGE_PRESENT))
		return;
	walk->level = level;
	walk->entry = entry;
	walk->memtype = memtype(entry, level > PTWALK_PTE);
}

/* mmap_lock keeps the tables from being freed; entries are read once each. */
static void walk_tables(struct mm_struct *mm, struct ptwalk *walk)
{
	unsigned long address = walk->address;
	pgd_t *pgd = pgd_offset(mm, address);
	p4d_t *p4d;
	pud_t *pud, pud_entry;
	pmd_t *pmd, pmd_entry;

	if (pgd_none(READ_ONCE(*pgd)))
		return;
	p4d = p4d_offset(pgd, address);
	if (p4d_none(READ_ONCE(*p4d)))
		return;
	pud = pud_offset(p4d, address);
	pud_entry = READ_ONCE(*pud);
	if (pud_none(pud_entry) || pud_leaf(pud_entry))
		return answer(walk, PTWALK_PUD, pud_val(pud_entry));
	pmd = pmd_offset(pud, address);
	pmd_entry = READ_ONCE(*pmd);
	if (pmd_none(pmd_entry) || pmd_leaf(pmd_entry))
		return answer(walk, PTWALK_PMD, pmd_val(pmd_entry));
	answer(walk, PTWALK_PTE, pte_val(READ_ONCE(*pte_offset_kernel(pmd, address))));
}

static long ptwalk_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct mm_struct *mm = current->mm;
	struct ptwalk walk;
	u64 address;

	if (cmd != PTWALK_IOCTL)
		return -ENOTTY;
	if (copy_from_user(&walk, (void __user *)arg, sizeof(walk)))
		return -EFAULT;
	address = walk.address;
	if (address >= TASK_SIZE)
		return -EINVAL;
	walk = (struct ptwalk){ .address = address, .level = PTWALK_NONE };
	mmap_read_lock(mm);
	walk_tables(mm, &walk);
	mmap_read_unlock(mm);
	if (copy_to_user((void __user *)arg, &walk, sizeof(walk)))
		return -EFAULT;
	return 0;
}

static const struct file_operations ptwalk_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = ptwalk_ioctl,
};

static struct miscdevice ptwalk_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = PTWALK_DEVICE,
	.fops = &ptwalk_fops,
};

module_misc_device(ptwalk_device);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Tests of barlease: read a page table entry");
