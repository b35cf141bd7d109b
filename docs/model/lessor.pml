/* SPDX-License-Identifier: MIT */
/*
 * A thread of the lessor: its calls on leases and on the device. It ends by
 * closing the device fd.
 */

/*
 * lease_get(), up to the reference: while the call's argument was copied another
 * thread may have closed the fd, or got it for another lease.
 */
inline lease_get(l)
{
	user_copy();
	if
	:: atomic { lessor_fd[l] -> refs[l]++ }	/* dma_buf_get() */
	:: !lessor_fd[l] -> goto done		/* EBADF */
	fi
}

/* The rest of it */
inline lease_lock(l)
{
	down_write(lease_sem[l]);
	use_lease(l)
}

proctype lessor()
{
	byte l;

idle:
	atomic {
		if :: l = 0 :: l = 1 fi;
		if
#if REVOKE
		:: lessor_fd[l] && l < REVOKE -> goto do_revoke
#endif
#ifdef INFO
		:: lessor_fd[l] -> goto do_info
#endif
#if CLOSE_FD
		:: l < CLOSE_FD && lessor_fd[l] -> lessor_fd[l] = false; goto do_put	/* close() */
#endif
#ifdef EXPORT
		:: !exists[l] -> exists[l] = true; refs[l] = 1; goto do_export
#endif
#ifdef PASS
		/* SCM_RIGHTS, of which the driver sees nothing */
		:: lessor_fd[l] && mm[0] == RUNS && !fd[AT(0, l)] -> fd[AT(0, l)] = true; refs[l]++; goto done
		:: lessor_fd[l] && mm[1] == RUNS && !fd[AT(1, l)] -> fd[AT(1, l)] = true; refs[l]++; goto done
#endif
#ifdef DECODING
		:: goto do_decoding
#endif
#ifdef RESET
		:: goto do_reset
#endif
		:: goto done
		:: users > 1 -> users--; goto stopped	/* vfio_df_close(), not the last */
		:: users == 1 -> l = 0; goto do_close
		fi
	};

#if REVOKE
do_revoke:					/* barlease_lease_revoke() */
	lease_get(l);
#ifdef ZAP_BEFORE_STATE
	zap_lease(l);
#endif
	atomic {
		lease_lock(l);
		if
		:: state[l] == CLOSED -> up_write(lease_sem[l]); goto do_put
		:: else -> state[l] = REVOKED
		fi;
#ifndef PUSH_OUT_UNDER_RWSEM
		up_write(lease_sem[l])
#endif
	};
#ifdef PUT_BEFORE_ZAP
	put_lease(l);
#endif
#ifndef ZAP_BEFORE_STATE
	zap_lease(l);
#endif
	push_out_stores();
#ifdef PUSH_OUT_UNDER_RWSEM
	up_write(lease_sem[l]);
#endif
	atomic { revoke_returned[l] = true; PROMISE(no_entry_after_revoke, NO_ENTRY(l)) };
#ifdef PUT_BEFORE_ZAP
	goto done;
#endif
	/* fall through */
#endif
#if REVOKE || CLOSE_FD
do_put:
	put_lease(l);
	goto done;
#endif

#ifdef INFO
do_info:					/* barlease_lease_info(), barlease_lease_memattr() */
#ifdef COPY_UNDER_RWSEM
	lease_get(l);
	lease_lock(l);
	user_copy();
	up_write(lease_sem[l]);
	put_lease(l);
#else
	lease_get(l);
	atomic { lease_lock(l); up_write(lease_sem[l]) };
	put_lease(l);
	user_copy();
#endif
	goto done;
#endif

#ifdef EXPORT
do_export:					/* barlease_lease_export() */
	user_copy();
	atomic { !list_lock -> use_pci_dev(); listed[l] = true };	/* check_region(), join_device() */
	if					/* get_device(), dma_buf_fd() */
	:: atomic { device_refs++; lessor_fd[l] = true }
	:: atomic { device_refs++; goto do_put }	/* EMFILE: dma_buf_put() */
	fi;
#ifdef TOUCH_AFTER_FD
	use_lease(l);
#endif
	goto done;
#endif

#ifdef DECODING
do_decoding:					/* vfio_basic_config_write(), vfio_lock_and_set_power_state() */
	down_write(memory_lock);
	if
	:: !decoding -> decoding = true
	:: decoding -> zap_device(); decoding = false
	fi;
	up_write_memory();
	goto done;
#endif

#ifdef RESET
do_reset:					/* vfio_pci_ioctl_reset() */
	down_write(memory_lock);
	zap_device();				/* vfio_pci_zap_bars() */
	try_reset();
	up_write_memory();
#endif

done:
	l = 0;
	goto idle;

do_close:					/* vfio_df_close() */
	lock(set_lock);
#ifndef NO_CLOSE_HOOK
	lock(list_lock);			/* barlease_leases_close() */
	do
	:: atomic {
		l < NL && listed[l] ->
		use_lease(l);
		down_write(lease_sem[l]);
		state[l] = CLOSED;
		up_write(lease_sem[l]);
		l++
	   }
	:: l < NL && !listed[l] -> l++
	:: l == NL -> break
	od;
	atomic { l = 0; unlock(list_lock) };
	zap_device();
	push_out_stores();
#endif
	atomic {
		close_returned[0] = exists[0];
		close_returned[1] = exists[1];
		PROMISE(no_entry_after_close, NO_ENTRIES)
	};
	atomic { down_write(memory_lock); up_write_memory() };	/* vfio_pci_runtime_pm_exit() */
	atomic { use_vconfig(); vconfig = false };	/* vfio_pci_core_close_device() */
#ifdef RESET_AT_CLOSE
	try_reset();				/* vfio_pci_dev_set_try_reset() */
#endif
	atomic { users = 0; unlock(set_lock) };	/* vfio_device_put_registration() */
#ifdef REOPEN
	if
#ifdef OPEN_UNREGISTERED
	:: users = 1;
#else
	:: atomic { registered -> users = 1 };	/* vfio_device_try_get_registration() */
#endif
	   lock(set_lock);
#ifdef RESET_AT_CLOSE
	   try_reset();				/* vfio_pci_core_enable() */
#endif
	   atomic {				/* barlease_open_device() */
		use_pci_dev();
		vconfig = true;
		decoding = true;
		unlock(set_lock);
		goto idle
	   }
	:: skip
	fi;
#endif

#if CLOSE_FD
	/* What is left is closed as the lessor ends: lease_release() */
	do
	:: l < CLOSE_FD && lessor_fd[l] -> lessor_fd[l] = false; put_lease(l); l++
	:: l < CLOSE_FD -> l++			/* closed before, or kept */
	:: l == CLOSE_FD -> break
	od;
#endif

stopped:
	skip
}
