"""Stop a running process with all of its threads, and give it back as it was.

Threads are seized without options, so that they live on when criupy is killed, and stopped by
PTRACE_INTERRUPT; ``/proc/PID/task`` is walked until two walks agree.  A signal on its way in is delivered,
never held: the thread then stops at the entry of its handler.  Job-control stops are kept.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from criupy.errors import FreezeError, NoSuchTask, PrivilegeError, TraceeError
from criupy.linux import abi
from criupy.linux.syscalls import LockedMemory, process_mrelease
from criupy.tracee.batch import syscall_numbers
from criupy.tracee.ptrace import Memory, Registers, Step, Tracee, held_signals, nothing

STOP_SIGNALS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_CLONE_VFORK = 0x4000
_VFORK_CALLS = {"58", "56", "435"}  # vfork, clone, clone3
_EINTR = 4
_U64 = (1 << 64) - 1

# Calls that answer EINTR as soon as anything stops them, signal or not, although they could go on waiting:
# number, register, mask and value of the argument that says "for ever".
# Source: Linux fs/eventpoll.c, ipc/sem.c, kernel/signal.c, fs/aio.c
_INTERRUPTED_BY_A_STOP = {
    232: ("r10", 0xFFFFFFFF, 0xFFFFFFFF),  # epoll_wait
    281: ("r10", 0xFFFFFFFF, 0xFFFFFFFF),  # epoll_pwait
    441: ("r10", _U64, 0),  # epoll_pwait2
    65: ("r10", 0, 0),  # semop
    220: ("r10", _U64, 0),  # semtimedop
    128: ("rdx", _U64, 0),  # rt_sigtimedwait
    208: ("r8", _U64, 0),  # io_getevents
}


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


def regs_for_image(regs: Registers) -> Registers:
    """Registers to start from without the kernel's memory of an interrupted call: it is made again, or EINTR.

    So do images have it.
    """
    error = restart_error(regs)
    if error == abi.ERESTART_RESTARTBLOCK:
        regs.rax = -_EINTR & _U64
    elif error:
        regs.rax = regs.orig_rax
        regs.rip -= 2
    return regs


@dataclass(eq=False)
class FrozenProcess:
    """A stopped process.  ``threads``: leader first, all stopped, good until the end of `freeze`."""

    pid: int
    pidfd: int
    memory: Memory
    buffer: LockedMemory
    threads: tuple[Tracee, ...] = ()
    stopped_by: int | None = None
    """The signal of the job-control stop that the process was in, and still is."""
    restarting: int | None = None
    """Signals whose handlers have SA_RESTART, bit ``signo - 1``, once `inject` has asked."""
    unfiltered: set[int] = field(default_factory=set)
    """Threads whose seccomp filters are suspended until they are given back."""

    @property
    def processes(self) -> tuple[FrozenProcess, ...]:
        """The frozen tree, parents first."""
        return (self,)

    @property
    def leader(self) -> Tracee:
        return self.threads[0]

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
        deadline = time.monotonic() + timeout
        with held_signals():
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            process_mrelease(self.pidfd)
            for thread in (*self.threads[1:], *self.threads[:1]):
                _reap(thread, deadline)
            if not select.select([self.pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TraceeError(f"task {self.pid} was killed, but does not end")

    def leave_stopped(self) -> None:
        """Let the process be stopped by SIGSTOP when it is given back."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)


@contextmanager
def freeze(pid: int, *, timeout: float = 10.0, step: Step = nothing) -> Iterator[FrozenProcess]:
    """Stop all threads of ``pid``; on every way out they go on as if nothing had happened.

    What a killed criupy has left in the process is removed first.
    `NoSuchTask`; `PrivilegeError`; `FreezeError` when somebody else traces a thread, when the main thread has
    exited, or when a thread (a vfork parent, say) does not stop within ``timeout`` seconds.
    """
    from criupy.tracee.inject import remove_leftovers
    from criupy.tracee.space import Space

    if pid <= 0:
        raise NoSuchTask(f"{pid} is not a pid")
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise NoSuchTask(f"there is no task {pid}") from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, pidfd)
        _await_vfork(pid, time.monotonic() + timeout)
        memory = Memory(pid, step=step)
        stack.callback(memory.close)
        process = FrozenProcess(pid, pidfd, memory, Tracee.new_buffer())
        is_dirty = Space(process).has_leftovers()
        syscall_numbers()  # loads a table: not while anything is stopped
        freezer = _Freezer(process, time.monotonic() + timeout, step)
        stack.callback(freezer.release)
        with held_signals():
            freezer.freeze()
        if is_dirty:
            remove_leftovers(process)
        yield process


class _Freezer:
    """The tracees of one process, from the first that is seized."""

    def __init__(self, process: FrozenProcess, deadline: float, step: Step) -> None:
        self.process = process
        self.deadline = deadline
        self.step = step
        self.tracees: dict[int, Tracee] = {}

    def freeze(self) -> None:
        walk: set[int] = set()
        while (now := _threads(self.process.pid)) != walk:
            walk = now
            new = [tracee for tid in sorted(now - self.tracees.keys()) if (tracee := self._seize(tid))]
            for tracee in new:
                self._halt(tracee)
        pid = self.process.pid
        if pid not in self.tracees:
            raise FreezeError(f"task {pid}: its main thread has exited")
        rest = (self.tracees[tid] for tid in sorted(self.tracees.keys() - {pid}))
        self.process.threads = (self.tracees[pid], *rest)

    def _seize(self, tid: int) -> Tracee | None:
        process = self.process
        tracee = Tracee(process.pid, tid, process.memory, process.buffer, step=self.step)
        try:
            tracee.seize()
        except TraceeError as error:
            state, tracer = _state_and_tracer(process.pid, tid)
            if state in ("", "Z", "X"):
                return None
            if tracer:
                raise FreezeError(
                    f"task {tid} is traced by {tracer} ({_comm(tracer)})", hint="stop the debugger first"
                ) from error
            raise PrivilegeError(f"task {tid} may not be traced: {os.strerror(error.errno)}") from error
        self.tracees[tid] = tracee
        tracee.interrupt()
        return tracee

    def _halt(self, tracee: Tracee) -> None:
        """Wait for the stop that was asked for; signals that come first are delivered."""
        try:
            while (stop := tracee.wait(self.deadline)).event != abi.PTRACE_EVENT_STOP:
                tracee.resume(stop.signal)
        except TraceeError:
            if tracee.tid == self.process.pid:
                raise
            _reap(tracee, self.deadline)
            del self.tracees[tracee.tid]
            return
        except FreezeError as error:
            raise FreezeError(
                f"{error}: it is {_doing(tracee)}",
                hint="it stays traced, and stops when that ends, until criupy exits",
            ) from error
        _let_it_go_on_waiting(tracee)
        if stop.signal in STOP_SIGNALS:
            self.process.stopped_by = stop.signal

    def release(self) -> None:
        """Detach all; a thread that does not stop can only be left to the end of criupy."""
        with held_signals():
            for tracee in self.tracees.values():
                signo = 0
                if tracee.stop is None:
                    with contextlib.suppress(FreezeError, TraceeError):
                        stop = tracee.wait(time.monotonic() + 0.2)
                        signo = 0 if stop.event else stop.signal
                try:
                    tracee.detach(signo)
                except TraceeError:  # killed meanwhile, or not stopping
                    _reap(tracee, time.monotonic() + 0.05)


def _let_it_go_on_waiting(tracee: Tracee) -> None:
    """Turn an EINTR that only our stop has caused into a restart; a handler still makes it EINTR."""
    regs = tracee.regs()
    if regs.rax != -_EINTR & _U64:
        return
    register, mask, for_ever = _INTERRUPTED_BY_A_STOP.get(regs.orig_rax, ("", 0, 1))
    if register and getattr(regs, register) & mask == for_ever:
        regs.rax = -abi.ERESTARTNOHAND & _U64
        tracee.set_regs(regs)


def _reap(tracee: Tracee, deadline: float) -> None:
    """Wait for the end of a dying thread; a process of our own keeps its status for whoever waits for it."""
    keep = os.WNOWAIT if tracee.tid == tracee.pid and _parent(tracee.pid) == os.getpid() else 0
    with held_signals():
        while True:
            try:
                if os.waitid(os.P_PID, tracee.tid, os.WEXITED | os.WNOHANG | abi.WALL | keep) is not None:
                    return
            except ChildProcessError:
                return
            if time.monotonic() > deadline:
                return
            signal.sigtimedwait({signal.SIGCHLD}, 0.002)


def _threads(pid: int) -> set[int]:
    try:
        return set(map(int, os.listdir(f"/proc/{pid}/task")))
    except FileNotFoundError as error:
        raise NoSuchTask(f"task {pid} has ended") from error


def _status(pid: int, tid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/task/{tid}/status", encoding="utf-8", errors="replace") as status:
            return dict(line.split(":", 1) for line in status)
    except (FileNotFoundError, ProcessLookupError):
        return {}


def _state_and_tracer(pid: int, tid: int) -> tuple[str, int]:
    status = _status(pid, tid)
    return status.get("State", "").strip()[:1], int(status.get("TracerPid", "0"))


def _parent(pid: int) -> int:
    return int(_status(pid, pid).get("PPid", "0"))


def _comm(pid: int) -> str:
    return _status(pid, pid).get("Name", "gone").strip()


def _doing(tracee: Tracee) -> str:
    try:
        with open(f"/proc/{tracee.pid}/task/{tracee.tid}/wchan", encoding="ascii") as file:
            return f"in {file.read()}, state {_state_and_tracer(tracee.pid, tracee.tid)[0]}"
    except OSError:
        return "gone"


def _await_vfork(pid: int, deadline: float) -> None:
    """A vfork parent does not stop before its child has gone on, nor can it be let go of: look before."""
    while any(_in_vfork(pid, tid) for tid in _threads(pid)):
        if time.monotonic() > deadline:
            raise FreezeError(
                f"task {pid} waits for a child of vfork, and does not stop before that has gone on"
            )
        time.sleep(0.005)


def _in_vfork(pid: int, tid: int) -> bool:
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] != b"D":
                return False
        with open(f"/proc/{pid}/task/{tid}/syscall", encoding="ascii") as file:
            number, *arguments = file.read().split()
    except OSError:
        return False
    if number == "56":
        return bool(int(arguments[0], 16) & _CLONE_VFORK)
    return number in _VFORK_CALLS
