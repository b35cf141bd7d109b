// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is seen from outside: debugfs barlease/<bdf>/leases, a row a lease, and
 * the tracepoints.
 */
#include <linux/debugfs.h>
#include <linux/fcntl.h>
#include <linux/seq_file.h>

#include "../include/barlease_uapi.h"
#include "lease.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static struct dentry *root;

static void *leases_start(struct seq_file *m, loff_t *pos)
{
	struct barlease_device *dev = m->private;

	mutex_lock(&dev->lock);
	return seq_list_start_head(&dev->leases, *pos);
}

static void *leases_next(struct seq_file *m, void *v, loff_t *pos)
{
	struct barlease_device *dev = m->private;

	return seq_list_next(v, &dev->leases, pos);
}

static void leases_stop(struct seq_file *m, void *v)
{
	struct barlease_device *dev = m->private;

	mutex_unlock(&dev->lock);
}

static int leases_show(struct seq_file *m, void *v)
{
	static const char * const states[] = {
		[BARLEASE_LIVE] = "live",
		[BARLEASE_REVOKED] = "revoked",
		[BARLEASE_CLOSED] = "closed",
	};
	struct barlease_device *dev = m->private;
	struct barlease_lease *lease;

	if (v == &dev->leases) {
		seq_puts(m, "id state access memattr size ranges spans faults\n");
		return 0;
	}

	lease = list_entry(v, struct barlease_lease, node);
	down_read(&lease->rwsem);
	seq_printf(m, "%llu %s %s %s %llu %u %u %lld\n", lease->id,
		   states[lease->state],
		   lease->access == O_RDONLY ? "ro" : "rw",
		   lease->memattr == BARLEASE_MEMATTR_WC ? "wc" : "uc",
		   lease->ranges.nr_pages << PAGE_SHIFT,
		   lease->ranges.nr_ranges, lease->ranges.nr_spans,
		   atomic64_read(&lease->faults));
	up_read(&lease->rwsem);
	return 0;
}

static const struct seq_operations leases_sops = {
	.start	= leases_start,
	.next	= leases_next,
	.stop	= leases_stop,
	.show	= leases_show,
};
DEFINE_SEQ_ATTRIBUTE(leases);

void barlease_debugfs_add(struct barlease_device *dev)
{
	dev->debugfs = debugfs_create_dir(dev->bdf, root);
	/* Lockdown lets a file through that can't do more than be read. */
	debugfs_create_file("leases", 0400, dev->debugfs, dev, &leases_fops);
}

/* Waits for readers, so that dev may be put afterwards. */
void barlease_debugfs_remove(struct barlease_device *dev)
{
	debugfs_remove(dev->debugfs);
}

void barlease_debugfs_init(void)
{
	root = debugfs_create_dir("barlease", NULL);
}

void barlease_debugfs_exit(void)
{
	debugfs_remove(root);
}
