"""One traced thread, and the memory of its process.

python-ptrace makes the raw call and lays out the registers; the requests that it lacks are ours.  Whatever
fails is a `TraceeError` that names the thread and the operation.  All calls come from the OS thread that
seized the tracee: to the kernel, the tracer is a thread.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ptrace.binding import func as raw
from ptrace.binding.linux_struct import user_regs_struct as Registers  # noqa: N812
from ptrace.error import PtraceError

from criupy.errors import FreezeError, TraceeError
from criupy.linux import abi
from criupy.linux.syscalls import SIG_BLOCK, SIG_SETMASK, LockedMemory, signal_mask
from criupy.tracee.batch import RemoteAddress

__all__ = ["Memory", "Registers", "RemoteAddress", "Stop", "Tracee", "held_signals"]

Step = Callable[[str], None]
"""Called with what was done after every change to a task: tests kill the tracer there."""

REGISTERS = struct.calcsize("27Q")
LARGEST_XSTATE = 4 * 4096
"""Bytes; with AMX a state has 11 KiB."""
_ptrace: Callable[[int, int, int, int], int] = raw.ptrace
_IOVEC = struct.Struct("<QQ")
_U64 = struct.Struct("<Q")
_SIGINFO_CHUNK = 64
_STOPPED = (os.CLD_TRAPPED, os.CLD_STOPPED)


def nothing(_: str) -> None:
    """No step hook."""


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold back all signals of this thread: tasks are being changed, and every wait is bounded.

    SIGCHLD is taken from the queue by `Tracee.wait`; it is raised again at the end if somebody handles it.
    """
    before = signal_mask(SIG_BLOCK, (1 << 64) - 1)
    try:
        yield
    finally:
        if callable(signal.getsignal(signal.SIGCHLD)):
            signal.raise_signal(signal.SIGCHLD)
        signal_mask(SIG_SETMASK, before)


class Stop(NamedTuple):
    """Why a tracee stopped: a signal about to be delivered (``event`` 0), or a PTRACE_EVENT_*."""

    signal: int
    event: int


class Memory:
    """The memory of a process through /proc/PID/mem: what is mapped, whatever its protection."""

    def __init__(self, pid: int, *, step: Step = nothing) -> None:
        """``pid``: or the number of one of its threads that lives, if its leader does not."""
        self.pid = pid
        self._step = step
        self._fd = self._open()

    def _open(self) -> int:
        try:
            return os.open(f"/proc/{self.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise TraceeError(f"task {self.pid}: opening its memory", errno=error.errno or 0) from error

    def reopen(self, pid: int) -> None:
        """Look at the memory that the process has now: it may have executed another program."""
        self.pid = pid
        os.close(self._fd)
        self._fd = -1
        self._fd = self._open()

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``, all of them, or `TraceeError`."""
        try:
            content = os.pread(self._fd, size, address)
        except OSError as error:
            raise self._failed("reading", address, size, error.errno or 0) from error
        if len(content) != size:
            raise self._failed("reading", address, size, 0)
        return content

    def write(self, address: int, content: bytes) -> None:
        """Write; a page that the task itself may not write becomes its private copy."""
        try:
            written = os.pwrite(self._fd, content, address)
        except OSError as error:
            raise self._failed("writing", address, len(content), error.errno or 0) from error
        if written != len(content):
            raise self._failed("writing", address, len(content), 0)
        self._step("write memory")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def _failed(self, what: str, address: int, size: int, errno: int) -> TraceeError:
        return TraceeError(f"task {self.pid}: {what} {size} bytes at {address:#x}", errno=errno)


class Tracee:
    """A thread that this OS thread traces; unless a method says otherwise, it must be stopped.

    ``buffer`` may be shared by all tracees of a tracer (`Tracee.new_buffer`).
    """

    __slots__ = ("_buffer", "_regs", "_rseq", "_sigmask", "_step", "memory", "pid", "stop", "tid")

    def __init__(
        self, pid: int, tid: int, memory: Memory, buffer: LockedMemory, *, step: Step = nothing
    ) -> None:
        if tid <= 0 or pid <= 0:
            raise ValueError(f"not a thread: {pid}/{tid}")
        self.pid = pid
        self.tid = tid
        self.memory = memory
        self.stop: Stop | None = None
        """Where it stands; ``None`` while it runs."""
        self._regs: Registers | None = None
        self._sigmask: int | None = None
        self._rseq: tuple[RemoteAddress, int, int, int] | None = None
        self._buffer = buffer
        self._step = step

    @staticmethod
    def new_buffer() -> LockedMemory:
        """What goes to the kernel passes through it."""
        return LockedMemory(2 * LARGEST_XSTATE)

    def __repr__(self) -> str:
        return f"<Tracee {self.tid} {self.stop or 'running'}>"

    # Control

    def seize(self, options: int = 0) -> None:
        """Become the tracer of a thread; it runs on."""
        self._ask("SEIZE", abi.PTRACE_SEIZE, 0, options)
        self._step("seize")

    def interrupt(self) -> None:
        """Let it stop soon (`wait`), also when it is blocked."""
        self._ask("INTERRUPT", abi.PTRACE_INTERRUPT)
        self._step("interrupt")

    def set_options(self, options: int) -> None:
        """PTRACE_O_*, all at once."""
        self._ask("SETOPTIONS", raw.PTRACE_SETOPTIONS, 0, options)
        self._step("options")

    def resume(self, signo: int = 0, *, to_syscall: bool = False) -> None:
        """Let it run, with the signal that it stopped for or 0; ``to_syscall``: to the next call's border."""
        self.stop = self._regs = self._sigmask = self._rseq = None
        self._ask("CONT", raw.PTRACE_SYSCALL if to_syscall else raw.PTRACE_CONT, 0, signo)
        self._step("cont")

    def detach(self, signo: int = 0) -> None:
        """Give it back; it runs on, or stays stopped if its process is."""
        self._ask("DETACH", raw.PTRACE_DETACH, 0, signo)
        self.stop = None
        self._step("detach")

    def event_message(self) -> int:
        """What PTRACE_GETEVENTMSG says about the event: the tid of a new task."""
        self._ask("GETEVENTMSG", raw.PTRACE_GETEVENTMSG, 0, self._buffer.address)
        message: int = _U64.unpack_from(self._buffer.bytes)[0]
        return message

    def wait(self, deadline: float) -> Stop:
        """Wait until it stops or ``deadline`` (`time.monotonic`); signals must be held (`held_signals`).

        The stop is not consumed (WNOWAIT): if the tracer dies now, a signal about to be delivered still is.
        `FreezeError` when it does not stop in time, `TraceeError` when it has died.
        """
        flags = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG | abi.WALL
        pause = 0.0005
        while True:
            try:
                state = os.waitid(os.P_PID, self.tid, flags)
            except ChildProcessError as error:
                raise TraceeError(f"task {self.tid} is gone") from error
            if state is not None:
                break
            left = deadline - time.monotonic()
            if left <= 0:
                raise FreezeError(f"task {self.tid} did not stop in time")
            # SIGCHLD may go to another thread of ours: look again now and then.
            signal.sigtimedwait({signal.SIGCHLD}, min(left, pause))
            pause = min(pause * 2, 0.05)
        if state.si_code not in _STOPPED:
            raise TraceeError(f"task {self.tid} has died")
        self.stop = Stop(state.si_status & 0xFF, state.si_status >> 8)
        return self.stop

    def has_died(self) -> bool:
        """Whether it waits to be reaped by us, or is gone; it need not be stopped."""
        try:
            state = os.waitid(os.P_PID, self.tid, os.WEXITED | os.WNOWAIT | os.WNOHANG | abi.WALL)
        except ChildProcessError:
            return True
        return state is not None and state.si_code not in _STOPPED  # of a tracee, stops are always told

    def consume_stop(self) -> None:
        """Forget the signal that it stopped for, should the tracer die."""
        os.waitid(os.P_PID, self.tid, os.WSTOPPED | os.WNOHANG | abi.WALL)

    # Registers

    def regs(self) -> Registers:
        """General registers; the caller may change its copy."""
        if self._regs is None:
            self._ask("GETREGS", raw.PTRACE_GETREGS, 0, self._buffer.address)
            self._regs = Registers.from_buffer_copy(self._buffer.bytes[:REGISTERS])
        return Registers.from_buffer_copy(self._regs)

    def set_regs(self, regs: Registers, *, keep: bool = False) -> None:
        """``keep``: ``regs`` will not be changed any more, and can be what `regs` says."""
        self._buffer.bytes[:REGISTERS] = bytes(regs)
        self._ask("SETREGS", raw.PTRACE_SETREGS, 0, self._buffer.address)
        self._regs = regs if keep else None
        self._step("setregs")

    def xstate(self) -> bytes:
        """FPU, SSE, AVX...: the XSAVE area, not compacted."""
        at = self._buffer.address + _IOVEC.size
        self._put(_IOVEC.pack(at, LARGEST_XSTATE))
        self._ask("GETREGSET NT_X86_XSTATE", raw.PTRACE_GETREGSET, abi.NT_X86_XSTATE, self._buffer.address)
        _, size = _IOVEC.unpack_from(self._buffer.bytes)
        return bytes(self._buffer.bytes[_IOVEC.size : _IOVEC.size + size])

    def set_xstate(self, state: bytes) -> None:
        """As `xstate` gave it, on a processor with the same layout."""
        self._put(_IOVEC.pack(self._buffer.address + _IOVEC.size, len(state)) + state)
        self._ask("SETREGSET NT_X86_XSTATE", raw.PTRACE_SETREGSET, abi.NT_X86_XSTATE, self._buffer.address)
        self._step("setxstate")

    # Signals

    def sigmask(self) -> int:
        """Blocked signals, bit ``signo - 1``; inside sigsuspend, ppoll and such, those of the time after."""
        if self._sigmask is None:
            self._ask("GETSIGMASK", abi.PTRACE_GETSIGMASK, _U64.size, self._buffer.address)
            self._sigmask = int(_U64.unpack_from(self._buffer.bytes)[0])
        return self._sigmask

    def set_sigmask(self, mask: int) -> None:
        self._put(_U64.pack(mask))
        self._ask("SETSIGMASK", abi.PTRACE_SETSIGMASK, _U64.size, self._buffer.address)
        self._sigmask = None
        self._step("setsigmask")

    def peek_siginfo(self, *, shared: bool) -> list[bytes]:
        """The siginfo (128 bytes each) of the signals pending for the process (``shared``) or the thread."""
        flags = abi.PTRACE_PEEKSIGINFO_SHARED if shared else 0
        head, size = abi.PEEKSIGINFO_ARGS.size, abi.SIGINFO_SIZE
        found: list[bytes] = []
        while True:
            self._put(abi.PEEKSIGINFO_ARGS.pack(len(found), flags, _SIGINFO_CHUNK))
            count = self._ask(
                "PEEKSIGINFO", abi.PTRACE_PEEKSIGINFO, self._buffer.address, self._buffer.address + head
            )
            chunk = bytes(self._buffer.bytes[head : head + count * size])
            found += (chunk[at : at + size] for at in range(0, len(chunk), size))
            if count < _SIGINFO_CHUNK:
                return found

    # Registrations

    def rseq(self) -> tuple[RemoteAddress, int, int, int]:
        """Restartable sequences: (address of struct rseq or 0, its size, signature, flags)."""
        if self._rseq is None:
            size = abi.RSEQ_CONFIGURATION.size
            self._ask("GET_RSEQ_CONFIGURATION", abi.PTRACE_GET_RSEQ_CONFIGURATION, size, self._buffer.address)
            pointer, length, signature, flags, _ = abi.RSEQ_CONFIGURATION.unpack_from(self._buffer.bytes)
            self._rseq = RemoteAddress(pointer), length, signature, flags
        return self._rseq

    def seccomp_filters(self) -> list[tuple[bytes, int]]:
        """The seccomp programs (struct sock_filter[]) and their SECCOMP_FILTER_FLAG_*, oldest first."""
        found: list[tuple[bytes, int]] = []
        while True:
            try:
                count = self._raw(abi.PTRACE_SECCOMP_GET_FILTER, len(found), 0)
            except PtraceError as error:
                # EINVAL: not in filter mode; ENOENT: no more.  Source: Linux kernel/seccomp.c
                if error.errno in (2, 22):
                    return found
                raise self._failed("SECCOMP_GET_FILTER", error) from error
            program = LockedMemory(count * 8)
            self._ask("SECCOMP_GET_FILTER", abi.PTRACE_SECCOMP_GET_FILTER, len(found), program.address)
            self._put(abi.SECCOMP_METADATA.pack(len(found), 0))
            size = abi.SECCOMP_METADATA.size
            self._ask("SECCOMP_GET_METADATA", abi.PTRACE_SECCOMP_GET_METADATA, size, self._buffer.address)
            _, flags = abi.SECCOMP_METADATA.unpack_from(self._buffer.bytes)
            found.append((bytes(program.bytes), flags))

    def _put(self, content: bytes) -> None:
        self._buffer.bytes[: len(content)] = content

    def _raw(self, request: int, address: int, data: int) -> int:
        return _ptrace(request, self.tid, address, data)

    def _ask(self, name: str, request: int, address: int = 0, data: int = 0) -> int:
        try:
            return self._raw(request, address, data)
        except PtraceError as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: PtraceError) -> TraceeError:
        return TraceeError(f"task {self.tid}: ptrace {name}", errno=error.errno or 0)
