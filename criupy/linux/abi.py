"""Numbers and layouts of the kernel's user interface that more than one module needs."""

from __future__ import annotations

import os
import struct


def device_number(encoded: int) -> int:
    """A ``dev_t`` of what the kernel says.  Source: Linux include/linux/kdev_t.h, ``new_encode_dev``."""
    return os.makedev(encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00)


# Calls from 441 on, which python-ptrace does not know, and one that it has by another name.  Source: Linux
# arch/x86/entry/syscalls/syscall_64.tbl
NEWER_SYSCALLS = {283: "timerfd_create"} | dict(
    enumerate(
        (
            "epoll_pwait2", "mount_setattr", "quotactl_fd", "landlock_create_ruleset", "landlock_add_rule",
            "landlock_restrict_self", "memfd_secret", "process_mrelease", "futex_waitv",
            "set_mempolicy_home_node", "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake",
            "futex_wait", "futex_requeue", "statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr",
            "lsm_list_modules", "mseal", "setxattrat", "getxattrat", "listxattrat", "removexattrat",
            "open_tree_attr", "file_getattr", "file_setattr",
        ),
        start=441,
    )
)  # fmt: skip

# ptrace requests and stops that python-ptrace lacks.  Source: Linux include/uapi/linux/ptrace.h
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_PEEKSIGINFO = 0x4209
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_SECCOMP_GET_FILTER = 0x420C
PTRACE_SECCOMP_GET_METADATA = 0x420D
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F
PTRACE_EVENT_STOP = 128
PTRACE_O_EXITKILL = 1 << 20
PTRACE_O_SUSPEND_SECCOMP = 1 << 21
PTRACE_PEEKSIGINFO_SHARED = 1
SIGINFO_SIZE = 128
WALL = 0x40000000
"""__WALL of wait(2): threads and clone children too."""

NT_X86_XSTATE = 0x202  # Source: Linux include/uapi/linux/elf.h

PEEKSIGINFO_ARGS = struct.Struct("<QIi")
"""struct ptrace_peeksiginfo_args: offset, flags, how many."""
SECCOMP_METADATA = struct.Struct("<QQ")
"""struct seccomp_metadata: index of the filter, its flags."""
RSEQ_CONFIGURATION = struct.Struct("<QIIII")
"""struct ptrace_rseq_configuration: pointer, size, signature, flags, padding."""
RSEQ_CRITICAL_SECTION = struct.Struct("<IIQQQ")
"""struct rseq_cs: version, flags, start, length, abort address.  Source: Linux include/uapi/linux/rseq.h"""

# What a call answers inside the kernel when a signal interrupts it.  Source: Linux include/linux/errno.h
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516

MAX_ERRNO = 4095
