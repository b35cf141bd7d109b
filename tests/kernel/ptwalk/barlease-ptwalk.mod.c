#include <linux/module.h>
#include <linux/export-internal.h>
#include <linux/compiler.h>

MODULE_INFO(name, KBUILD_MODNAME);

__visible struct module __this_module
__section(".gnu.linkonce.this_module") = {
	.name = KBUILD_MODNAME,
	.init = init_module,
#ifdef CONFIG_MODULE_UNLOAD
	.exit = cleanup_module,
#endif
	.arch = MODULE_ARCH_INIT,
};



static const struct modversion_info ____versions[]
__used __section("__versions") = {
	{ 0x72d79d83, "pgdir_shift" },
	{ 0xb178cbd0, "__tracepoint_mmap_lock_acquire_returned" },
	{ 0x13ee99ee, "__tracepoint_mmap_lock_released" },
	{ 0xbdfb6dbb, "__fentry__" },
	{ 0xf0fdf6cb, "__stack_chk_fail" },
	{ 0x1e8f0f20, "const_pcpu_hot" },
	{ 0x7cd8d75e, "page_offset_base" },
	{ 0x1d19f77b, "physical_mask" },
	{ 0xdad13544, "ptrs_per_p4d" },
	{ 0x8f0b1b34, "misc_register" },
	{ 0x5b8239ca, "__x86_return_thunk" },
	{ 0x6b10bee1, "_copy_to_user" },
	{ 0x668b19a1, "down_read" },
	{ 0xd60dea9a, "pv_ops" },
	{ 0x2f995b35, "__mmap_lock_do_trace_start_locking" },
	{ 0x74701b65, "__tracepoint_mmap_lock_start_locking" },
	{ 0x729bfd37, "__mmap_lock_do_trace_released" },
	{ 0x3426ac54, "boot_cpu_data" },
	{ 0x53b954a2, "up_read" },
	{ 0xd4ec10e6, "BUG_func" },
	{ 0xc37da9a3, "misc_deregister" },
	{ 0x13c49cc2, "_copy_from_user" },
	{ 0x6ca1750c, "__mmap_lock_do_trace_acquire_returned" },
	{ 0x2f9b2b9a, "module_layout" },
};

MODULE_INFO(depends, "");

