"""The ``check`` verb: what dump and restore need of the kernel, each thing probed by using it.

Source of the list: what the modules of criupy call.  Probes touch nothing but this process and a child of its own.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from criupy.errors import CriupyError
from criupy.linux import abi, syscalls
from criupy.linux.capability import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN, CAP_SYS_PTRACE
from criupy.linux.features import KernelFeatures, probe


@dataclass(frozen=True)
class Missing:
    """Something that is not there: its name, what it is needed for, and what would give it."""

    name: str
    purpose: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} is missing: needed to {self.purpose}; {self.remedy}"


@dataclass(frozen=True)
class _Need:
    name: str
    purpose: str
    remedy: str
    is_there: Callable[[KernelFeatures], bool]


def missing() -> list[Missing]:
    """Everything that dump and restore would miss here, in the order of `_NEEDS`."""
    features = probe()
    return [Missing(need.name, need.purpose, need.remedy) for need in _NEEDS if not need.is_there(features)]


@contextmanager
def _child() -> Iterator[int]:
    """A child of our own that waits to be killed."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _answers(call: Callable[[], object], *refusals: int) -> bool:
    """Whether a call is known to the kernel: it works, or fails with one of ``refusals``."""
    try:
        call()
    except OSError as error:
        return error.errno in refusals
    return True


def _map_files() -> bool:
    return _answers(lambda: os.listdir("/proc/self/map_files"))


def _kcmp() -> bool:
    return _answers(lambda: syscalls.kcmp_file(os.getpid(), os.getpid(), 0, 0), errno.EBADF)


def _pidfd_getfd() -> bool:
    pidfd = os.pidfd_open(os.getpid())
    try:
        return _answers(lambda: os.close(syscalls.pidfd_getfd(pidfd, pidfd)))
    finally:
        os.close(pidfd)


def _ptrace() -> bool:
    """SEIZE, INTERRUPT, and what is read from a stopped thread."""
    import time

    from criupy.tracee.ptrace import Memory, Tracee

    with _child() as pid:
        memory = Memory(pid)
        tracee = Tracee(pid, pid, memory, Tracee.new_buffer())
        try:
            tracee.seize(abi.PTRACE_O_EXITKILL)
            tracee.interrupt()
            tracee.wait(time.monotonic() + 5)
            tracee.regs()
            tracee.xstate()
            tracee.sigmask()
            tracee.peek_siginfo(shared=True)
            tracee.rseq()
            tracee.seccomp_filters()
            tracee.detach()
        except CriupyError:
            return False
        finally:
            memory.close()
    return True


def _soft_pagemap() -> bool:
    with open("/proc/self/pagemap", "rb") as pagemap:
        return _answers(lambda: pagemap.read(8))


_KERNEL = "a kernel with CONFIG_CHECKPOINT_RESTORE, 5.11 or later, has it"
_ROOT = "run criupy as root"

_NEEDS = (
    _Need("CAP_SYS_PTRACE", "stop tasks and read them", _ROOT, lambda f: f.has_capability(CAP_SYS_PTRACE)),
    _Need(
        "CAP_SYS_ADMIN",
        "open mapped files and restore seccomp filters",
        _ROOT,
        lambda f: f.has_capability(CAP_SYS_ADMIN),
    ),
    _Need(
        "CAP_CHECKPOINT_RESTORE",
        "give tasks their pids",
        _ROOT,
        lambda f: f.has_capability(CAP_CHECKPOINT_RESTORE) or f.has_capability(CAP_SYS_ADMIN),
    ),
    _Need(
        "ptrace",
        "stop tasks and read their registers, signals and registrations",
        _KERNEL,
        lambda _: _ptrace(),
    ),
    _Need("map_files", "find the files behind mappings", _KERNEL, lambda _: _map_files()),
    _Need("pagemap", "find the pages of a task", _KERNEL, lambda f: f.pagemap_scan or _soft_pagemap()),
    _Need("kcmp", "find what tasks share", _KERNEL, lambda _: _kcmp()),
    _Need("pidfd_getfd", "look into open files", _KERNEL, lambda _: _pidfd_getfd()),
    _Need("clone3 with set_tid", "give tasks their pids", _KERNEL, lambda _: syscalls.has_clone3_set_tid()),
    _Need("PR_SET_MM_MAP", "give a program its layout", _KERNEL, lambda _: syscalls.has_set_mm_map()),
    _Need(
        "ARCH_MAP_VDSO_64",
        "put the vdso where a program expects it",
        _KERNEL,
        lambda _: syscalls.has_map_vdso(),
    ),
    _Need("memfd_create", "start the tasks of a restore", _KERNEL, lambda _: _memfd()),
    _Need("openat2", "open images without leaving their directory", _KERNEL, lambda _: _openat2()),
)


def _memfd() -> bool:
    return _answers(lambda: os.close(os.memfd_create("criupy-check")))


def _openat2() -> bool:
    return _answers(lambda: os.close(syscalls.openat2(-100, "/", os.O_RDONLY)))
