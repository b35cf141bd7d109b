# SPDX-License-Identifier: MIT
#
# The commands of the house: builds, the demo, the tests, and what they need. make help lists them.

KERNEL ?= 6.12
BUILD ?= build
cache := $(or $(BARLEASE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/barlease)

all: module user  ## build the module for Debian's kernel KERNEL, and the user space

module:  ## build kernel/barlease-vfio-pci.ko for Debian's kernel KERNEL (default 6.12)
	tree=$$(vm/fetch $(KERNEL)) && $(MAKE) -C kernel KDIR="$$tree/build"

$(BUILD)/build.ninja:
	meson setup $(BUILD)

user: $(BUILD)/build.ninja  ## build the user space into build/
	meson compile -C $(BUILD)

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/make \1\t\2/p' Makefile | expand -t 24

.PHONY: all module user help
