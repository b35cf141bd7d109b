# SPDX-License-Identifier: MIT
#
# The commands of the house: builds, the demo, the tests, and what they need. make help lists them. Only demo, check,
# sanitize, stress, stress-bugs, fuzz, fuzz-bugs, coverage, model and deps install packages on the host.

KERNEL ?= 6.12
BUILD ?= build
CACHE := $(or $(BARLEASE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/barlease)
PREFIX ?= /usr/local
# Debian's own. Without dpkg-dev meson does not know it, and takes lib64, where neither the loader nor pkg-config looks.
LIBDIR ?= $(addprefix lib/,$(shell cc -print-multiarch 2>/dev/null))
# Meson would take it as relative to the build directory.
override DESTDIR := $(and $(DESTDIR),$(abspath $(DESTDIR)))
export KERNEL BUILD DESTDIR

all: module user  ## build the module for Debian's kernel KERNEL, and the user space

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/make \1\t\2/p' Makefile | expand -t 24

module:  ## build the module for the kernel KERNEL (see vm/fetch --help; default 6.12) into build/modules/
	vm/kbuild $(KERNEL) kernel

test-module:
	vm/kbuild $(KERNEL) tests/kernel/ptwalk

$(BUILD)/build.ninja:
	@command -v meson >/dev/null || { echo 'meson is missing; run make deps' >&2; exit 1; }
	meson setup $(BUILD)

user: $(BUILD)/build.ninja  ## build the user space into build/
	meson compile -C $(BUILD)

demo:  ## run the demo in the VM
	@packaging/deps --kernel $(KERNEL)
	@$(MAKE) --no-print-directory module user
	vm/run --kernel $(KERNEL) --device ivshmem --timeout 120 -- \
		env BUILD=$(abspath $(BUILD)) examples/demo/run </dev/null

check:  ## run all tests: on the host, then in the VM
	@packaging/deps --kernel $(KERNEL)
	@$(MAKE) --no-print-directory module test-module user
	@tests/check

sanitize:  ## run the unit tests under ASan, UBSan and TSan, and 100,000 losses of maps
	@packaging/deps --kernel $(KERNEL)
	@tests/sanitize

stress:  ## run random operations of all kinds against an oracle in the VM: DURATION seconds (600), SEED
	@packaging/deps --kernel $(KERNEL)
	@$(MAKE) --no-print-directory module user
	@tests/stress/vm --kernel $(KERNEL) $(or $(DURATION),600) $(SEED)

stress-bugs:  ## see that a short stress finds each bug of tests/stress/bugs: DURATION, SEED
	@packaging/deps --kernel $(KERNEL)
	@$(MAKE) --no-print-directory module user
	@tests/stress/bugs/run

fuzz: KERNEL = debug
fuzz:  ## fuzz ranges.c on the host and the driver in the VM: DURATION seconds each (300), SEED; KERNEL is debug
	@packaging/deps --fuzz --kernel $(KERNEL)
	@$(MAKE) --no-print-directory user
	@tests/fuzz/fuzz run $(or $(DURATION),300) $(SEED)

fuzz-bugs: KERNEL = debug
fuzz-bugs:  ## see that the driver's fuzzer finds each bug of tests/fuzz/bugs: DURATION at most, SEED
	@packaging/deps --fuzz --kernel $(KERNEL)
	@$(MAKE) --no-print-directory user
	@tests/fuzz/bugs/run

coverage: KERNEL = debug
coverage:  ## run all tests under the debug kernel and see how much of the driver they reach: at least 95 % of its lines
	@packaging/deps --kernel $(KERNEL)
	@$(MAKE) --no-print-directory test-module user
	GCOV=y vm/kbuild $(KERNEL) kernel $(BUILD)/coverage
	@tests/check --coverage $(BUILD)/coverage/kernel

model:  ## search a model of the locking by spin for what would break a promise; see docs/model
	@packaging/deps --model
	@docs/model/run

lint:  ## check the form of the sources
	@tests/lint

deps:  ## install what building, the demo, the tests, the model and the lint need
	@packaging/deps --lint --kernel $(KERNEL)
	@packaging/deps --model

# So that the loader finds the library, or no longer looks for it; only root can tell it, and of the system's own directories.
ldconfig = @[ -n "$(DESTDIR)" ] || [ "$$(id -u)" != 0 ] || PATH=$$PATH:/usr/sbin:/sbin ldconfig

install: user  ## install the library: DESTDIR, PREFIX (/usr/local), LIBDIR (below PREFIX; lib/ and the multiarch name, if any)
	meson configure $(BUILD) -Dprefix=$(PREFIX) $(if $(LIBDIR),-Dlibdir=$(LIBDIR))
	meson install -C $(BUILD) --destdir "$(DESTDIR)"
	$(ldconfig)

# What is installed where a build directory knows from when it was last configured.
uninstall: $(BUILD)/build.ninja  ## remove what make install has installed with the same DESTDIR, PREFIX and LIBDIR
	meson setup --reconfigure $(BUILD) -Dprefix=$(PREFIX) $(if $(LIBDIR),-Dlibdir=$(LIBDIR)) >/dev/null
	packaging/uninstall $(BUILD)
	$(ldconfig)

install-driver:  ## give the driver to DKMS, which builds it for this kernel and for later ones
	packaging/install-driver

clean:  ## remove what was built
	rm -rf $(BUILD)
	find kernel tests/kernel/ptwalk \( -name '*.o' -o -name '*.ko' -o -name '*.mod' -o -name '*.mod.c' \
		-o -name '*.gcno' -o -name '.*.cmd' -o -name Module.symvers -o -name modules.order \) -delete

distclean-cache:  ## remove the downloaded kernels, the Debian 13 with its QEMU, the logs of failed runs
	rm -rf "$(CACHE)" 2>/dev/null || vm/as-root rm -rf --one-file-system "$(CACHE)"

.PHONY: all help install install-driver uninstall module test-module user demo check sanitize stress stress-bugs fuzz fuzz-bugs \
	coverage model lint deps clean distclean-cache
