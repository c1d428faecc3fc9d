"""What the running kernel and this process may do, probed once and passed along as one frozen value."""

from __future__ import annotations

import os
from dataclasses import dataclass

from criupy.linux import cpu, syscalls
from criupy.linux.cpu import XsaveLayout
from criupy.linux.prctl import PR_GET_SECUREBITS, PR_GET_TIMERSLACK
from criupy.linux.procfs import task
from criupy.linux.procfs.task import Credentials


@dataclass(frozen=True)
class KernelFeatures:
    """Probed, never guessed from a version.

    ``capabilities`` is the effective set of criupy itself (bit = CAP_* number); ``pagemap_scan`` whether the
    PAGEMAP_SCAN ioctl is there (since v6.7, Source: Linux fs/proc/task_mmu.c); ``cpus`` the number of processors
    online; ``last_capability`` the highest CAP_* of the kernel; ``timer_restore_ids`` whether
    prctl(PR_TIMER_CREATE_RESTORE_IDS) is there (since v6.16, Source: Linux kernel/time/posix-timers.c); ``xsave``
    how register state is laid out, None without xsave.

    The rest is what a task under restore starts with, since criupy executes it (None: not known, and better set in
    any case): ``hard_limits`` by RLIMIT_* number, ``scheduling`` as (policy, nice, priority), ``credentials`` if they
    are what an exec leaves alone.
    """

    capabilities: int
    pagemap_scan: bool
    page_size: int = 4096
    cpus: int = 1
    last_capability: int = 40
    timer_restore_ids: bool = True
    xsave: XsaveLayout | None = None
    hard_limits: tuple[int, ...] = ((1 << 64) - 1,) * 16
    oom_score_adj: int = 0
    scheduling: tuple[int, int, int] | None = None
    timer_slack_ns: int | None = None
    credentials: Credentials | None = None

    def has_capability(self, number: int) -> bool:
        return bool(self.capabilities >> number & 1)


def probe() -> KernelFeatures:
    """Ask the kernel.  Costs well under a millisecond, so there is no cache to go stale."""
    credentials = task.credentials(_own("status"))
    policy, nice = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    scheduling = (policy, nice, os.sched_getparam(0).sched_priority)
    return KernelFeatures(
        capabilities=credentials.cap_effective,
        pagemap_scan=syscalls.has_pagemap_scan(),
        cpus=os.cpu_count() or 1,
        last_capability=int(_own("sys/kernel/cap_last_cap", of="")),
        timer_restore_ids=syscalls.has_timer_restore_ids(),
        xsave=cpu.xsave_layout(),
        hard_limits=tuple(hard for _, hard in task.limits(_own("limits"))),
        oom_score_adj=int(_own("oom_score_adj")),
        scheduling=scheduling if not policy & os.SCHED_RESET_ON_FORK else None,
        timer_slack_ns=syscalls.prctl(PR_GET_TIMERSLACK),
        credentials=credentials if _survives_exec(credentials) else None,
    )


def _survives_exec(own: Credentials) -> bool:
    """Whether a program that root executes has these very credentials.  Source: Linux security/commoncap.c."""
    everything = own.cap_permitted == own.cap_effective == own.cap_bounding
    inherited = own.cap_inheritable & ~own.cap_bounding or own.cap_ambient
    plain = syscalls.prctl(PR_GET_SECUREBITS) == 0 and not own.no_new_privs
    return set(own.uids) == {0} and everything and not inherited and plain


def _own(name: str, *, of: str = "self/") -> bytes:
    with open(f"/proc/{of}{name}", "rb", buffering=0) as file:
        return file.readall()
