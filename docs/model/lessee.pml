/* SPDX-License-Identifier: MIT */
/*
 * A thread of a lessee: what it makes the mm do with its mappings. It may stop for ever wherever it holds nothing, so that
 * who waits for it in vain shows as a deadlock.
 */

inline up_write_mmap(m)
{
#ifdef THREADS
	vma_written[AT(m, 0)] = false;
	vma_written[AT(m, 1)] = false;
#endif
	up_write(mmap_lock[m])
}

inline vma_start_write(m, l)
{
#if defined(THREADS) && !defined(NO_VMA_START_WRITE)
	atomic { !vma_lock[AT(m, l)] -> vma_written[AT(m, l)] = true }
#else
	skip
#endif
}

/* handle_mm_fault(): under mmap_lock or, for a huge entry, the VMA's lock alone */
inline fault_lock()
{
	if
	:: down_read(mmap_lock[m])
#ifdef THREADS
	:: atomic {
		vma[AT(m, l)] && !vma_written[AT(m, l)] -> vma_lock[AT(m, l)]++;
		by_vma = true
	   }
#endif
	fi
}

inline fault_unlock()
{
#ifdef THREADS
	if
	:: by_vma -> vma_lock[AT(m, l)]--; by_vma = false
	:: else -> up_read(mmap_lock[m])
	fi
#else
	up_read(mmap_lock[m])
#endif
}

/* lease_fault(), by uc_fault(), uc_huge_fault() or wc_fault() */
inline fault()
{
	/*
	 * lease_enter(), without what it looks at first: that takes no lock, and ends
	 * faults before they have one. Of the state it ends those alone that the look
	 * under the lock would end, as a state that was left is never come back to.
	 */
#ifndef NO_MEMORY_LOCK
	down_read(memory_lock);
#endif
	if
	:: atomic {
		!reset_sem.writer && !reset_sem.waiting ->
		use_lease(l);
		use_device();
		reset_sem.readers++
	   };
	   atomic {
#ifndef NO_RWSEM
		down_read(lease_sem[l]);
#endif
#ifdef DEVICE_BEFORE_STATE
		use_vconfig();
		seen = decoding && state[l] == LIVE
#else
		if
		:: state[l] == LIVE -> use_vconfig(); seen = decoding	/* barlease_memory_enabled() */
		:: else -> skip
		fi
#endif
	   };
	   atomic {
		if
		:: seen -> make_entry(m, l); seen = false	/* map_ptes(), map_pmd(), map_pud(), map_wc() */
		:: else						/* VM_FAULT_SIGBUS */
		fi;
#ifndef NO_RWSEM
		up_read(lease_sem[l]);		/* lease_leave() */
#endif
		up_read(reset_sem);
#ifndef NO_MEMORY_LOCK
		up_read(memory_lock);
#endif
		fault_unlock()
	   }
#ifndef NO_MEMORY_LOCK
	:: up_read(memory_lock);		/* the trylock may also fail for nothing */
	   atomic { READABLE(reset_sem); fault_unlock() }	/* VM_FAULT_NOPAGE */
#endif
	fi
}

/*
 * Who may end, so that there is room for another child: a process without
 * threads itself; of one with threads, the child, in which nothing runs.
 */
#ifdef THREADS
#define LEAVER	(1 - m)
#else
#define LEAVER	m
#endif

/* dup_mmap(), of one VMA */
inline fork_vma(child)
{
	vma_start_write(m, l);
	atomic { use_lease(l); refs[l]++ };	/* get_file() */
	if
	:: copy = false				/* VM_WIPEONFORK */
	:: copy = true				/* a lessee took that away: MADV_KEEPONFORK */
#ifndef NO_FORK_HOOK
	   ; pte[AT(m, l)] = false		/* zap_mapping() of the parent's VMA, by lease_open() */
#endif
	fi;
	atomic { !i_mmap -> vma[AT(child, l)] = true };	/* vma_interval_tree_insert_after() */
	if
	:: copy ->				/* copy_huge_pmd(): looks, and then writes */
	   seen = pte[AT(m, l)];
	   atomic {
		if
		:: seen -> make_entry(child, l); seen = false
		:: else
		fi;
		copy = false
	   }
	:: else
	fi
}

proctype lessee(byte m)
{
	byte l;
	bool seen;
#ifdef FORK
	bool copy;
#endif
#ifdef THREADS
	bool by_vma;
#endif

end_idle:
	atomic {
		mm[m] == RUNS ->
		if :: l = 0 :: l = 1 fi;
		if
#ifdef FAULT
		:: vma[AT(m, l)] && !pte[AT(m, l)] -> goto do_fault
#endif
#ifdef PREFAULT
		:: vma[AT(m, l)] && fd[AT(m, l)] -> goto do_prefault
#endif
#if MAP
		:: l < MAP && !vma[AT(m, l)] && fd[AT(m, l)] -> refs[l]++; goto do_mmap	/* ksys_mmap_pgoff() */
		:: l < MAP && vma[AT(m, l)] -> goto do_munmap
#endif
#if CLOSE_FD
		:: l < CLOSE_FD && fd[AT(m, l)] -> fd[AT(m, l)] = false; goto do_put	/* close() */
#endif
#ifdef FORK
		:: mm[1 - m] == NONE -> mm[1 - m] = FORKING; l = 0; goto do_fork
		:: mm[LEAVER] == RUNS && !i_mmap && lessor_fd[0] && lessor_fd[1] ->	/* exit(), at once */
			l = 0;
			do
			:: l < NL ->
			   refs[l] = refs[l] - fd[AT(LEAVER, l)] - vma[AT(LEAVER, l)];
			   fd[AT(LEAVER, l)] = false;
			   vma[AT(LEAVER, l)] = false;
			   pte[AT(LEAVER, l)] = false;
			   l++
			:: else -> break
			od;
			mm[LEAVER] = NONE; goto done
#endif
		:: goto done
		:: goto stopped
		fi
	};

#ifdef PREFAULT
do_prefault:					/* barlease_prefault() */
	atomic { READABLE(lease_sem[l]); use_lease(l) };	/* lease_is_live() */
#endif
#ifdef FAULT
do_fault:
	fault_lock();
#ifdef THREADS
	if
	:: vma[AT(m, l)]
	:: else -> fault_unlock(); goto done	/* another thread's munmap() came first */
	fi;
#endif
	fault();
	goto done;
#endif

#if MAP
do_mmap:
	down_write(mmap_lock[m]);
#ifdef THREADS
	if
	:: !vma[AT(m, l)]
	:: else -> up_write_mmap(m); goto do_put
	fi;
#endif
	atomic { READABLE(lease_sem[l]); use_lease(l); seen = state[l] == LIVE };	/* barlease_mmap() */
	if
	:: atomic { seen && !i_mmap -> vma[AT(m, l)] = true; seen = false; up_write_mmap(m); goto done }
	:: atomic { !seen -> up_write_mmap(m); goto do_put }
	fi;

do_munmap:					/* do_vmi_align_munmap() */
	down_write(mmap_lock[m]);
#ifdef THREADS
	if
	:: vma[AT(m, l)]
	:: else -> up_write_mmap(m); goto done
	fi;
#endif
	vma_start_write(m, l);
#ifdef UNLINK_BEFORE_ZAP
	atomic { !i_mmap -> vma[AT(m, l)] = false };
	atomic { pte[AT(m, l)] = false; up_write_mmap(m) };
#else
	pte[AT(m, l)] = false;			/* unmap_vmas() */
	atomic { !i_mmap -> vma[AT(m, l)] = false; up_write_mmap(m) };	/* free_pgtables() unlinks it at the inode */
#endif
	/* fall through */
#endif
#if MAP || CLOSE_FD
do_put:
	put_lease(l);
	goto done;
#endif

#ifdef FORK
do_fork:					/* dup_mmap() */
	down_write(mmap_lock[m]);
	do
	:: l < NL && vma[AT(m, l)] -> fork_vma(1 - m); l++
	:: l < NL && !vma[AT(m, l)] -> l++
	:: l == NL -> break
	od;
	atomic {				/* copy_files() */
		up_write_mmap(m);
		l = 0;
		do
		:: l < NL ->
		   fd[AT(1 - m, l)] = fd[AT(m, l)];
		   refs[l] = refs[l] + fd[AT(m, l)];
		   l++
		:: else -> break
		od;
		mm[1 - m] = RUNS
	};
#endif

done:
	l = 0;
	goto end_idle;

stopped:
	skip
}
