/* SPDX-License-Identifier: MIT */
/*
 * The life of two leases of one device, with two lessees, for spin: what there
 * is, what is promised of it, and what several processes do with it. README.md
 * beside this says how to read it, what it leaves out and why. The script run
 * says which processes and operations take part in which run, and with which
 * mutations: each is a macro.
 */

#define NL	2			/* leases */
#define AT(m, l)	((m) * NL + (l))	/* the VMA, or the entry, of lease l in address space m */

/* Of how many leases: the first, or both */
#ifndef MAP
#define MAP	0
#endif
#ifndef CLOSE_FD
#define CLOSE_FD	0
#endif
#ifndef REVOKE
#define REVOKE	0
#endif

/* Address spaces in which lessees run: the threads of one process share one. */
#ifdef THREADS
#define SPACES	1
#else
#define SPACES	2
#endif

#include "locks.pml"

/*
 * State
 */

mtype = { LIVE, REVOKED, CLOSED };	/* enum barlease_state */
mtype = { NONE, FORKING, RUNS };	/* an address space */

mtype state[NL] = LIVE;
bool exists[NL] = true;		/* the lease's memory */
bool listed[NL] = true;		/* in dev->leases */
byte refs[NL];			/* of the DMABUF's file */
bool lessor_fd[NL] = true;
bool fd[4];			/* the lessees' */
bool vma[4];			/* linked at the inode */
bool pte[4];
mtype mm[2] = NONE;

byte users;			/* of the device fd */
bool registered = true;		/* may be opened */
bool in_set = true;		/* dev_set->device_list */
bool vconfig = true;		/* and what else open makes and close frees */
bool pci_dev = true;
#ifdef NO_DEVICE_REFERENCE
byte device_refs = 1;		/* of the vfio_device: the driver's alone */
#else
byte device_refs = 1 + NL;	/* of the vfio_device: the driver's, the leases' */
#endif
bool decoding = true;		/* the command register's bit; off stands for D3 too */
byte in_debugfs;		/* readers */
bool debugfs = true;

/*
 * Promises: what has been promised, which no code looks at, and what it means
 */

bool revoke_returned[NL];
bool close_returned[NL];
bool in_reset;			/* prepare has zapped, done has not begun */

bool no_entry_after_revoke = true;
bool no_entry_after_close = true;
bool no_entry_while_off = true;
bool no_entry_in_reset = true;
bool no_read_in_reset = true;
bool no_use_after_release = true;
bool no_use_of_gone_device = true;

/* ONLY, if not 0, is the one that is looked at; the others hold then, whatever happens. */
#ifndef ONLY
#define ONLY	0
#endif
#define NR_no_entry_after_revoke	1
#define NR_no_entry_after_close		2
#define NR_no_entry_while_off		3
#define NR_no_entry_in_reset		4
#define NR_no_read_in_reset		5
#define NR_no_use_after_release		6
#define NR_no_use_of_gone_device	7
#define NR_deadlock			8

#define PROMISE(name, holds)	name = (holds) || (ONLY && ONLY != NR_##name); assert(name)
#define NO_ENTRY(l)		(!pte[AT(0, l)] && !pte[AT(1, l)])
#define NO_ENTRIES		(NO_ENTRY(0) && NO_ENTRY(1))

inline use_lease(l) { PROMISE(no_use_after_release, exists[l]) }
inline use_device() { PROMISE(no_use_after_release, device_refs > 0) }
inline use_pci_dev() { PROMISE(no_use_of_gone_device, pci_dev) }
inline use_vconfig() { PROMISE(no_use_of_gone_device, pci_dev && vconfig) }

/* All entries are made here: what must not be there must not come. */
inline make_entry(space, lease)
{
	pte[AT(space, lease)] = true;
	PROMISE(no_entry_after_revoke, !revoke_returned[lease]);
	PROMISE(no_entry_after_close, !close_returned[lease]);
	PROMISE(no_entry_while_off, decoding || memory_lock.writer);
	PROMISE(no_entry_in_reset, !in_reset)
}

/*
 * Zaps: unmap_mapping_range(), a step a VMA, with the inode's i_mmap_rwsem held
 * from the first to the last. It finds those VMAs alone that are linked.
 */

inline zap_vma(x) { pte[x] = pte[x] && !vma[x] }

inline zap_lease(l)	/* barlease_lease_zap() */
{
	atomic { use_lease(l); use_device(); i_mmap++; zap_vma(AT(0, l)) };
	atomic { use_lease(l); use_device(); zap_vma(AT(1, l)); i_mmap-- }
}

inline zap_device()	/* barlease_leases_zap(), vfio_pci_zap_bars() */
{
	atomic { use_device(); i_mmap++; zap_vma(AT(0, 0)) };
	atomic { use_device(); zap_vma(AT(1, 0)) };
	atomic { use_device(); zap_vma(AT(0, 1)) };
	atomic { use_device(); zap_vma(AT(1, 1)); i_mmap-- }
}

/*
 * What several processes do
 */

/* All who write memory_lock let go of it here. */
inline up_write_memory()
{
	atomic { PROMISE(no_entry_while_off, decoding || NO_ENTRIES); up_write(memory_lock) }
}

inline push_out_stores()
{
	atomic { down_read(memory_lock); use_device() };
	atomic {
#ifndef PUSH_OUT_IN_RESET
		down_read(reset_sem);
#endif
		use_device();
		use_pci_dev();
		PROMISE(no_read_in_reset, !in_reset);	/* pci_read_config_word() */
#ifndef PUSH_OUT_IN_RESET
		up_read(reset_sem);
#endif
		up_read(memory_lock)
	}
}

/* vfio_device_release() takes dev_set->lock. */
inline put_vfio_device()
{
	device_refs--;
	if
	:: device_refs
	:: else -> !set_lock -> in_set = false
	fi
}

inline lease_release(l)
{
#ifdef LEAVE_WITHOUT_LOCK
	atomic { use_lease(l); use_device(); listed[l] = false };
#else
	atomic { !list_lock -> use_lease(l); use_device(); listed[l] = false };	/* leave_device() */
#endif
#ifdef PUT_BEFORE_WINDOW
	atomic { put_vfio_device() };
#endif
	atomic { use_lease(l); use_device() };	/* window_give_back() */
	atomic {
		PROMISE(no_use_after_release, NO_ENTRY(l));
		exists[l] = false;			/* lease_free() */
		revoke_returned[l] = false;
		close_returned[l] = false;
		state[l] = LIVE;
#if !defined(NO_DEVICE_REFERENCE) && !defined(PUT_BEFORE_WINDOW)
		put_vfio_device()			/* put_device() */
#endif
	}
}

/* fput(), dma_buf_put(): from user space's last reference no lock is held. */
inline put_lease(l)
{
	if
	:: atomic { refs[l] > 1 -> refs[l]-- }
	:: atomic { refs[l] == 1 -> refs[l] = 0 };
	   lease_release(l)
	fi
}

/* The caller has the device lock, and gives it back. */
inline reset_function()
{
#ifdef PREPARE_TAKES_MEMORY_LOCK
	down_read(memory_lock);
	up_read(memory_lock);
#endif
#ifdef NO_RESET_SEM
	zap_device();
#else
	down_write(reset_sem);			/* barlease_reset_prepare() */
	zap_device();
#endif
	atomic { in_reset = true; PROMISE(no_entry_in_reset, NO_ENTRIES) };
	atomic {				/* barlease_reset_done() */
		use_device();
		in_reset = false;
#ifndef NO_RESET_SEM
		up_write(reset_sem);
#endif
		unlock(device_lock)
	}
}

/* pci_try_reset_function(), pci_reset_bus(): the device lock is only tried. */
inline try_reset()
{
	if
	:: lock(device_lock) -> reset_function()
	:: skip					/* EAGAIN */
	fi
}

/*
 * A copy from or to the memory of the process that has the device fd. That may be a
 * mapping of a lease, and then it waits for all that a fault waits for, with the same
 * held: see fault().
 */
inline user_copy()
{
	if
	:: READABLE(mmap_lock[0])
	:: down_read(mmap_lock[0]);
	   down_read(memory_lock);
	   if
	   :: atomic { !reset_sem.writer && !reset_sem.waiting -> reset_sem.readers++ };
	      if
	      :: skip; down_read(lease_sem[0]); up_read(lease_sem[0])
	      :: skip; down_read(lease_sem[1]); up_read(lease_sem[1])
	      fi;
	      atomic { up_read(reset_sem); up_read(memory_lock) }
	   :: up_read(memory_lock); READABLE(reset_sem)
	   fi;
	   up_read(mmap_lock[0])
	fi
}

#include "lessee.pml"
#include "lessor.pml"
#include "others.pml"

init {
	byte i;

	atomic {
		users = LESSORS;
		do
		:: i < SPACES * NL ->
		   mm[i / NL] = RUNS;
		   fd[i] = true;
		   refs[i % NL]++;
		   /* What may end must begin; what does not is mapped from the start. */
		   if
		   :: i % NL >= MAP && i % NL >= CLOSE_FD -> vma[i] = true; refs[i % NL]++
		   :: else
		   fi;
		   i++
		:: else -> break
		od;
		refs[0]++;			/* the lessor's fds */
		refs[1]++;
		i = 0;
		run lessee(0);
#ifdef THREADS
		run lessee(0);			/* both of one process */
#else
		run lessee(1);
#endif
		run lessor();
#if LESSORS > 1
		run lessor();
#endif
#if defined(RESET_SYSFS) || defined(REMOVE)
		run root();
#endif
#ifdef READER
		run reader();
#endif
#ifdef SIBLING
		run sibling();
#endif
	}
}
