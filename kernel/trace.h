/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints barlease:lease_*. They name the device by the address it had when
 * it was bound, as the pci_dev may be gone.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM barlease

#if !defined(BARLEASE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define BARLEASE_TRACE_H

#include <linux/tracepoint.h>

#include "lease.h"

DECLARE_EVENT_CLASS(lease_event,
		    TP_PROTO(const struct barlease_lease *lease),
		    TP_ARGS(lease),

		    TP_STRUCT__entry(__string(bdf, lease->dev->bdf)
				     __field(u64, id)
				     __field(u64, size)
				     __field(u32, nr_ranges)
				     __field(u32, nr_spans)
				     __field(u32, access)
				     __field(u64, faults)),

		    TP_fast_assign(__assign_str(bdf);
				   __entry->id = lease->id;
				   __entry->size = lease->ranges.nr_pages
						   << PAGE_SHIFT;
				   __entry->nr_ranges = lease->ranges.nr_ranges;
				   __entry->nr_spans = lease->ranges.nr_spans;
				   __entry->access = lease->access;
				   __entry->faults =
					atomic64_read(&lease->faults);),

		    TP_printk("%s id=%llu size=%#llx ranges=%u spans=%u access=%s faults=%llu",
			      __get_str(bdf), __entry->id, __entry->size,
			      __entry->nr_ranges, __entry->nr_spans,
			      __entry->access == O_RDONLY ? "ro" : "rw",
			      __entry->faults)
);

DEFINE_EVENT(lease_event, lease_export,
	     TP_PROTO(const struct barlease_lease *lease),
	     TP_ARGS(lease)
);

/* Behind the zap and the push-out. */
DEFINE_EVENT(lease_event, lease_revoke,
	     TP_PROTO(const struct barlease_lease *lease),
	     TP_ARGS(lease)
);

DEFINE_EVENT(lease_event, lease_release,
	     TP_PROTO(const struct barlease_lease *lease),
	     TP_ARGS(lease)
);

/* A fault that found a reset under way is about to wait for its end. */
DEFINE_EVENT(lease_event, lease_wait,
	     TP_PROTO(const struct barlease_lease *lease),
	     TP_ARGS(lease)
);

/* Each call of the fault handler, with the run of pages that it tried to map. */
TRACE_EVENT(lease_fault,
	    TP_PROTO(const struct barlease_lease *lease, unsigned long address,
		     const struct barlease_run *run, vm_fault_t result),
	    TP_ARGS(lease, address, run, result),

	    TP_STRUCT__entry(__string(bdf, lease->dev->bdf)
			     __field(u64, id)
			     __field(unsigned long, address)
			     __field(u64, pfn)
			     __field(u64, nr)
			     __field(unsigned int, result)),

	    TP_fast_assign(__assign_str(bdf);
			   __entry->id = lease->id;
			   __entry->address = address;
			   __entry->pfn = run->pfn;
			   __entry->nr = run->nr;
			   __entry->result = (__force unsigned int)result;),

	    TP_printk("%s id=%llu address=%#lx pfn=%#llx pages=%llu result=%s",
		      __get_str(bdf), __entry->id, __entry->address,
		      __entry->pfn, __entry->nr,
		      __print_symbolic(__entry->result,
				       { (__force long)VM_FAULT_NOPAGE, "NOPAGE" },
				       { (__force long)VM_FAULT_SIGBUS, "SIGBUS" },
				       { (__force long)VM_FAULT_OOM, "OOM" }))
);

#endif

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
