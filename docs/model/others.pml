/* SPDX-License-Identifier: MIT */
/*
 * Those who are neither lessor nor lessee: root, readers of debugfs, a sibling.
 */

/*
 * Root: resets by sysfs, and unbinds the driver.
 */
#if defined(RESET_SYSFS) || defined(REMOVE)
proctype root()
{
end_idle:
	if
#ifdef RESET_SYSFS
	:: lock(device_lock) ->			/* pci_reset_function() */
	   reset_function();
	   goto end_idle
#endif
#ifdef REMOVE
	:: lock(device_lock) ->			/* barlease_remove() */
	   registered = false;			/* vfio_pci_core_unregister_device() waits for the last user */
	   !users -> skip;
#ifndef KEEP_IN_SET
	   atomic { !set_lock -> in_set = false };
#endif
	   debugfs = false;			/* barlease_debugfs_remove() waits for readers */
	   !in_debugfs -> skip;
	   atomic { put_vfio_device(); pci_dev = false; unlock(device_lock) }
#endif
	:: skip
	fi
}
#endif

/* A reader of barlease/<address>/leases */
#ifdef READER
proctype reader()
{
	byte l;

end_idle:
	if
	:: atomic { debugfs -> in_debugfs++ };
	   atomic { !list_lock -> use_device(); list_lock = true };	/* leases_start() */
	   do
	   :: atomic { l < NL && listed[l] -> use_lease(l) };	/* leases_show() */
	      atomic { READABLE(lease_sem[l]); use_lease(l); l++ }
	   :: l < NL && !listed[l] -> l++
	   :: l == NL -> break
	   od;
	   atomic { l = 0; unlock(list_lock) };	/* leases_stop() */
	   user_copy();				/* seq_read(), into what may be a mapping of a lease */
	   in_debugfs--;			/* debugfs_file_put() */
	   goto end_idle
	:: skip
	fi
}
#endif

/* Who has another device of the same set, and resets all of them. */
#ifdef SIBLING
proctype sibling()
{
end_idle:
	if
	:: lock(set_lock) ->			/* vfio_pci_dev_set_hot_reset() */
	   if
	   :: in_set ->
	      use_pci_dev();
	      if
	      :: atomic { FREE(memory_lock) && !memory_lock.waiting -> memory_lock.writer = true };
		 zap_device();
#ifdef BLOCKING_DEVICE_LOCK
		 lock(device_lock);
		 reset_function();
#else
		 try_reset();
#endif
		 up_write_memory()
	      :: skip				/* EBUSY; the trylock may also fail for nothing */
	      fi
	   :: else
	   fi;
	   unlock(set_lock);
	   goto end_idle
	:: skip
	fi
}
#endif
