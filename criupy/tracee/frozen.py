"""Stopped processes: what can be asked of them, and how they end."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property

from criupy.errors import TraceeError
from criupy.linux import abi
from criupy.linux.family import Member
from criupy.linux.syscalls import LockedMemory, process_mrelease
from criupy.tracee import guardian
from criupy.tracee.ptrace import Memory, Registers, Tracee, held_signals

STOP_SIGNALS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_U64 = (1 << 64) - 1
EINTR = -4 & _U64
"""As a system call answers it, in a register."""
POLL, _NEGATIVE = 7, 1 << 31


def restart_error(regs: Registers) -> int:
    """The ERESTART* with which an interrupted system call waits to be restarted; 0 if there is none."""
    result = -((regs.rax ^ _U64) + 1) if regs.rax >> 63 else regs.rax
    if regs.orig_rax >> 63 or -result not in (
        abi.ERESTARTSYS,
        abi.ERESTARTNOINTR,
        abi.ERESTARTNOHAND,
        abi.ERESTART_RESTARTBLOCK,
    ):
        return 0
    return int(-result)


def waits_for_ever(call: int, timeout: int) -> bool:
    """Whether an interrupted call with a restart block is a poll(2) without timeout: made again, it is the same."""
    return call == POLL and bool(timeout & _NEGATIVE)


def regs_for_image(regs: Registers) -> Registers:
    """Registers to start from without the kernel's memory of an interrupted call: it is made again, or EINTR.

    So do images have it.
    """
    error = restart_error(regs)
    if error == abi.ERESTART_RESTARTBLOCK and not waits_for_ever(regs.orig_rax, regs.rdx):
        regs.rax = EINTR
    elif error:
        regs.rax = regs.orig_rax
        regs.rip -= 2
    return regs


@dataclass(eq=False)
class FrozenProcess:
    """A stopped process.  ``threads``: leader first, all stopped, good until the end of `freeze`.

    The leader is not among them when it has ended and others go on (pthread_exit).
    """

    pid: int
    speaker: int
    """Whom to ask of what the threads share (`family.speaker`): the first of them, once they are known."""
    pidfd: int
    memory: Memory
    buffer: LockedMemory
    threads: tuple[Tracee, ...] = ()
    stopped_by: int | None = None
    """The signal of the job-control stop that the process was in, and still is."""
    restarting: int | None = None
    """Signals whose handlers have SA_RESTART, bit ``signo - 1``, once `inject` has asked."""
    stopped_children: tuple[int, ...] = ()
    """Those of its children in the frozen tree that are in a job-control stop."""
    unfiltered: set[int] = field(default_factory=set)
    """Threads whose seccomp filters are suspended until they are given back."""

    @property
    def first(self) -> Tracee:
        """The leader, unless it has ended."""
        return self.threads[0]

    @property
    def lost_its_leader(self) -> bool:
        """Whether the leader has ended, while others go on."""
        return self.first.tid != self.pid

    def thread(self, tid: int) -> Tracee:
        """The thread ``tid``; KeyError if there is none."""
        return self._by_tid[tid]

    @cached_property
    def _by_tid(self) -> dict[int, Tracee]:
        return {thread.tid: thread for thread in self.threads}

    def regs_for_image(self, tid: int) -> Registers:
        """The registers of a thread with its interrupted call made ready to be made again."""
        return regs_for_image(self.thread(tid).regs())

    def kill(self, *, timeout: float = 10.0) -> None:
        """End the process, and wait until it is gone or a zombie that waits for its parent."""
        kill_all([self], timeout=timeout)

    def leave_stopped(self) -> None:
        """Let the process be stopped by SIGSTOP when it is given back."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)


@dataclass(frozen=True)
class FrozenTree:
    """A stopped tree: ``members`` are all of it, parents first; those that are no ``processes`` are zombies."""

    members: tuple[Member, ...]
    processes: tuple[FrozenProcess, ...]

    @property
    def zombies(self) -> Iterator[Member]:
        """The dead that nobody has waited for."""
        alive = {process.pid for process in self.processes}
        return (member for member in self.members if member.pid not in alive)

    def kill(self, *, timeout: float = 30.0) -> None:
        """End all processes, and wait until they are gone or wait as zombies for whoever has them."""
        kill_all(self.processes, timeout=timeout)

    def leave_stopped(self) -> None:
        """Let all processes be stopped by SIGSTOP when they are given back."""
        for process in self.processes:
            process.leave_stopped()


def kill_all(processes: Iterable[FrozenProcess], *, timeout: float) -> None:
    """End processes at once: nobody runs again to see another die, and none is left out if criupy is killed."""
    dying = list(processes)
    pidfds = [process.pidfd for process in dying]
    deadline = time.monotonic() + timeout
    with held_signals():
        if len(dying) == 1:
            guardian.kill(pidfds)
        else:
            guardian.finish(lambda: guardian.kill(pidfds))
        for process in dying:
            process_mrelease(process.pidfd)
        tids = [
            tid for process in dying for tid in (process.pid, *(thread.tid for thread in process.threads))
        ]
        reap_all(tids, deadline, kept={process.pid for process in dying if _is_our_child(process.pid)})
        for process in dying:
            ended = select.poll()
            ended.register(process.pidfd, select.POLLIN)
            if not ended.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise TraceeError(f"task {process.pid} was killed, but does not end")


def reap(pid: int, tid: int, deadline: float) -> None:
    """Wait for the end of a dying thread; a process of our own keeps its status for whoever waits for it."""
    reap_all([tid], deadline, kept={pid} if tid == pid and _is_our_child(pid) else frozenset())


def reap_all(tids: Iterable[int], deadline: float, *, kept: AbstractSet[int] = frozenset()) -> list[int]:
    """Wait for the ends of dying threads in the order in which they come; ``kept`` ones keep their status.

    Gives back those that have not ended by ``deadline``.

    That of a pid namespace's init who is the last to end waits until all others in there are reaped.  Source: Linux
    kernel/pid_namespace.c, ``zap_pid_ns_processes``.
    """
    left = [*dict.fromkeys(tids)]
    with held_signals():
        while left := [tid for tid in left if not _has_ended(tid, os.WNOWAIT if tid in kept else 0)]:
            if time.monotonic() > deadline:
                break
            signal.sigtimedwait({signal.SIGCHLD}, 0.002)
    return left


def _has_ended(tid: int, keep: int) -> bool:
    try:
        return os.waitid(os.P_PID, tid, os.WEXITED | os.WNOHANG | abi.WALL | keep) is not None
    except ChildProcessError:
        return True


def status_of(pid: int, tid: int) -> dict[str, str]:
    """``status`` of a thread by its keys; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/task/{tid}/status", encoding="utf-8", errors="replace") as status:
            return dict(line.split(":", 1) for line in status)
    except (FileNotFoundError, ProcessLookupError):
        return {}


def _is_our_child(pid: int) -> bool:
    return int(status_of(pid, pid).get("PPid", "0")) == os.getpid()
