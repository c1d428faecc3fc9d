"""Numbers of memory mappings.  Source: Linux include/uapi/asm-generic/mman*.h, include/uapi/linux/prctl.h."""

from __future__ import annotations

PAGE = 4096
TASK_SIZE = 0x7FFFFFFFF000
"""The end of user space without 57-bit addresses.  Source: Linux arch/x86/include/asm/page_64_types.h."""

PROT_READ = 1
PROT_WRITE = 2
PROT_EXEC = 4

MAP_SHARED = 0x1
MAP_PRIVATE = 0x2
MAP_DROPPABLE = 0x8
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_GROWSDOWN = 0x100
MAP_LOCKED = 0x2000
MAP_NORESERVE = 0x4000
MAP_HUGETLB = 0x40000
MAP_FIXED_NOREPLACE = 0x100000
MAP_HUGE_SHIFT = 26

MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2

MADV_NORMAL = 0
MADV_RANDOM = 1
MADV_SEQUENTIAL = 2
MADV_DONTNEED = 4
MADV_DONTFORK = 10
MADV_MERGEABLE = 12
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_DONTDUMP = 16
MADV_WIPEONFORK = 18
MADV_GUARD_INSTALL = 102

MLOCK_ONFAULT = 1

PAGEMAP_SCAN = 0xC0606610
"""_IOWR('f', 16, struct pm_scan_arg), with 12 words.  Source: Linux include/uapi/linux/fs.h."""
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_PFNZERO = 1 << 5
PAGE_IS_GUARD = 1 << 8
"""Since v6.15."""

PR_SET_MM = 35
PR_SET_MM_MAP = 14

ARCH_MAP_VDSO_64 = 0x2003
"""arch_prctl: map the vdso and its data at an address.  Source: Linux arch/x86/include/uapi/asm/prctl.h."""
