/* SPDX-License-Identifier: MIT */
/*
 * The locks: how they are taken, and which there are.
 *
 * A waiting writer keeps new readers from joining those inside. When nobody is
 * inside, the kernel lets a reader be first all the same.
 */

typedef rwsem {
	byte readers;
	bool writer;
	byte waiting;
}

#define READABLE(sem)	(!sem.writer && (!sem.waiting || !sem.readers))
#define FREE(sem)	(!sem.writer && !sem.readers)

inline down_read(sem) { atomic { READABLE(sem) -> sem.readers++ } }
inline up_read(sem) { sem.readers-- }

inline down_write(sem)
{
	if
	:: atomic { FREE(sem) -> sem.writer = true }
	:: atomic { !FREE(sem) -> sem.waiting++ };
	   atomic { FREE(sem) -> sem.waiting--; sem.writer = true }
	fi
}

inline up_write(sem) { sem.writer = false }

inline lock(mutex) { atomic { !mutex -> mutex = true } }
inline unlock(mutex) { mutex = false }

rwsem mmap_lock[2];	/* of an address space */
rwsem memory_lock;	/* vfio-pci-core's */
rwsem reset_sem;	/* dev->reset_sem */
rwsem lease_sem[NL];	/* lease->rwsem */
bool device_lock;	/* the PCI core's, of the pci_dev */
bool set_lock;		/* dev_set->lock */
bool list_lock;		/* dev->lock */
byte i_mmap;		/* readers of the inode's i_mmap_rwsem; writers take it and leave within a step */

#ifdef THREADS
byte vma_lock[4];	/* readers */
bool vma_written[4];	/* vma_start_write(), until mmap_lock is released */
#endif
