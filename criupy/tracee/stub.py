"""Stub threads: the tasks of a restore while they are being built.

A nursery process, a few hundred bytes of ELF from a memfd, makes the root of the tree with the pid that is wanted, as
criupy's own child.  In each task the walker of `blob.S` runs batches of system calls from a small private mapping at an
address that the image leaves free; the last call unmaps that.  Everything is traced with PTRACE_O_EXITKILL from its
first instruction until `StubTree.release`: it dies with criupy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from criupy.errors import FreezeError, PidInUse, RestoreError, TraceeError
from criupy.linux import abi
from criupy.model.plan import TaskPlan, ThreadState
from criupy.tracee import blob
from criupy.tracee.batch import RemoteAddress, Results, Slot, SyscallBatch
from criupy.tracee.ptrace import Memory, Registers, Stop, Tracee, held_signals

_PAGE = 4096
_ELF_BASE = 0x10000
_ELF_SPACE = 0x20000
_ELF_TABLE = RemoteAddress(_ELF_BASE + 0x10000)
_MAIN_TABLE = 64 << 20
_THREAD_TABLE = 64 << 10
_SYSCALL = blob.MEETING - 2

_PTRACE_O_TRACESYSGOOD, _PTRACE_O_TRACEFORK, _PTRACE_O_TRACEVFORK, _PTRACE_O_TRACECLONE = 1, 2, 4, 8
_CLONE_EVENTS = frozenset({1, 2, 3})  # PTRACE_EVENT_FORK, VFORK, CLONE
_CLONE_PARENT = 0x8000
_CLONE_THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000  # VM FS FILES SIGHAND THREAD SYSVSEM
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_NORESERVE, _MAP_FIXED_NOREPLACE = 0x2, 0x20, 0x4000, 0x100000
_PROT_READ_WRITE, _PROT_READ_EXEC = 3, 5
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP}
)
_PATIENCE = 3600.0
_EVERY_SIGNAL = (1 << 64) - 1
_USER_CS, _USER_DS = 0x33, 0x2B


class StubThread:
    """A thread that runs batches: ``start`` one, ``finish`` it; several threads may be at work at once."""

    def __init__(
        self, tracee: Tracee, code: RemoteAddress, table: RemoteAddress, capacity: int, meeting: int
    ) -> None:
        self.tracee = tracee
        self.code = code
        self.table = table
        self.capacity = capacity
        self._meeting = meeting
        self._batch: SyscallBatch | None = None
        self.born: list[int] = []
        """Tids of the tasks that the last batch has made, all traced and stopping."""

    @property
    def pid(self) -> int:
        return self.tracee.pid

    @property
    def tid(self) -> int:
        return self.tracee.tid

    def run(self, batch: SyscallBatch) -> Results:
        """All calls of a batch."""
        self.start(batch)
        return self.finish()

    def start(self, batch: SyscallBatch) -> None:
        """Let the thread begin; `RestoreError` for a batch that its table does not hold."""
        if batch.size > self.capacity:
            raise RestoreError(f"task {self.tid}: {batch.size} bytes of arguments, {self.capacity} at most")
        self.tracee.memory.write(self.table, batch.encode(self.table))
        registers = Registers()
        registers.rip = self.code + blob.RUN
        registers.orig_rax = (1 << 64) - 1
        registers.rbx = registers.r12 = self.table
        registers.r13 = self.table + batch.records_size
        registers.r14 = self._meeting
        registers.cs, registers.ss = _USER_CS, _USER_DS
        self.tracee.set_regs(registers)
        self._batch = batch
        self.born = []
        self.tracee.resume()

    def finish(self) -> Results:
        """Wait for the end of the batch.  `TraceeError` when the thread crashes or dies."""
        assert self._batch is not None
        while True:
            stop = wait(self.tracee)
            if stop.event == 0 and stop.signal == self._meeting and self._at_meeting():
                break
            if stop.event in _CLONE_EVENTS:
                self.born.append(self.tracee.event_message())
            elif stop.event == 0 and stop.signal in _CRASHES:
                where = self.tracee.regs().rip
                raise TraceeError(
                    f"task {self.tid}: {signal.Signals(stop.signal).name} at {where:#x} in the stub"
                )
            self.tracee.resume()
        batch, self._batch = self._batch, None
        return batch.decode(self.tracee.memory.read(self.table, batch.size), tid=self.tid)

    def _at_meeting(self) -> bool:
        return bool(self.tracee.regs().rip == self.code + blob.MEETING)


def wait(tracee: Tracee, patience: float = _PATIENCE) -> Stop:
    """Wait for a stop; signals of our own are let in twice a second."""
    deadline = time.monotonic() + patience
    while True:
        try:
            with held_signals():
                return tracee.wait(min(deadline, time.monotonic() + 0.5))
        except FreezeError:
            if time.monotonic() >= deadline:
                raise


class StubTree:
    """The tasks that a restore makes.  Left without `release`, all of them are killed."""

    def __init__(self, task: TaskPlan, files: Mapping[int, int], *, suspend_seccomp: bool) -> None:
        """``files``: descriptors of ours by the number that they have in the root; it has no others."""
        self._task = task
        self._files = files
        self._meeting = task.meeting_signal
        self._options = (
            abi.PTRACE_O_EXITKILL
            | _PTRACE_O_TRACESYSGOOD
            | _PTRACE_O_TRACEFORK
            | _PTRACE_O_TRACEVFORK
            | _PTRACE_O_TRACECLONE
            | (abi.PTRACE_O_SUSPEND_SECCOMP if suspend_seccomp else 0)
        )
        self._buffer = Tracee.new_buffer()
        self._pidfds: dict[int, int] = {}
        self._memory: Memory | None = None
        self._mapped = 0
        self._released = False
        self.threads: dict[int, StubThread] = {}
        """By tid, leader first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._released:
                for pid in list(self._pidfds):
                    self._kill(pid)
        finally:
            for pidfd in self._pidfds.values():
                os.close(pidfd)
            self._pidfds.clear()
            if self._memory is not None:
                self._memory.close()

    @property
    def leader(self) -> StubThread:
        return self.threads[self._task.pid]

    def create_root(self) -> StubThread:
        """Make the root of the tree with its pid; `PidInUse` when somebody has that."""
        nursery = self._spawn_nursery()
        try:
            pid = self._bear(nursery)
        finally:
            self._kill(nursery.pid)
            nursery.tracee.memory.close()
        self._memory = Memory(pid)
        leader = StubThread(
            Tracee(pid, pid, self._memory, self._buffer),
            RemoteAddress(_ELF_BASE + _ELF_CODE),
            _ELF_TABLE,
            _ELF_SPACE - 0x10000,
            self._meeting,
        )
        wait(leader.tracee, 10.0)
        self._settle(leader)
        self.threads[pid] = leader
        return leader

    def _spawn_nursery(self) -> StubThread:
        code = bytearray(blob.CODE)
        struct.pack_into("<I", code, blob.NURSERY_PARENT, os.getpid())
        image = os.memfd_create("criupy-stub")
        try:
            os.write(image, _elf(bytes(code)))
            actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in self._files.items()]
            pid = os.posix_spawn(
                f"/proc/self/fd/{image}",
                ["criupy-stub"],
                {},
                file_actions=actions,
                setsigmask=[],
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        finally:
            os.close(image)
        assert pid > 0
        self._pidfds[pid] = os.pidfd_open(pid)
        tracee = Tracee(pid, pid, Memory(pid), self._buffer)
        tracee.seize(self._options)
        tracee.interrupt()
        while wait(tracee, 10.0).event != abi.PTRACE_EVENT_STOP:
            tracee.resume()
        # All tasks inherit it: signals that are queued for them wait for their release.
        tracee.set_sigmask(_EVERY_SIGNAL & ~(1 << self._meeting - 1))
        return StubThread(
            tracee, RemoteAddress(_ELF_BASE + _ELF_CODE), _ELF_TABLE, _ELF_SPACE - 0x10000, self._meeting
        )

    def _bear(self, nursery: StubThread) -> int:
        """clone3 in the nursery; the child is ours by CLONE_PARENT.  Returns its pid."""
        batch = SyscallBatch()
        slot = _clone(batch, _CLONE_PARENT, self._task.pid)
        results = nursery.run(batch)
        answer = results.answers[slot.index]
        if answer == -errno.EEXIST:
            raise PidInUse(f"pid {self._task.pid} is in use")
        if answer < 0:
            raise RestoreError(f"task {self._task.pid} cannot be created: clone3", errno=-answer)
        assert answer == self._task.pid
        assert nursery.born == [answer]
        self._pidfds[answer] = os.pidfd_open(answer)
        return answer

    def _settle(self, leader: StubThread) -> None:
        """Move code and table to where the image has nothing, drop descriptors, become a session leader."""
        base = RemoteAddress(self._task.stub_base)
        extra = len(self._task.threads) + 1
        self._mapped = _PAGE + _MAIN_TABLE + extra * _THREAD_TABLE
        batch = SyscallBatch()
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED_NOREPLACE
        batch.call("mmap", base, _PAGE, _PROT_READ_EXEC, flags, -1, 0)
        batch.call("mmap", base + _PAGE, self._mapped - _PAGE, _PROT_READ_WRITE, flags, -1, 0)
        previous = 0
        for kept in sorted(self._files):
            if kept > previous:
                batch.call("close_range", previous, kept - 1, 0)
            previous = kept + 1
        batch.call("close_range", previous, 0xFFFFFFFF, 0)
        if self._task.sid == self._task.pid:
            batch.call("setsid")
        elif self._task.pgid == self._task.pid:
            batch.call("setpgid", 0, 0)
        leader.run(batch).check()
        leader.tracee.memory.write(base, blob.CODE)
        leader.code, leader.table, leader.capacity = base, base + _PAGE, _MAIN_TABLE

    def create_threads(self) -> None:
        """Make the other threads of the task with their tids."""
        wanted = [thread.tid for thread in self._task.threads[1:]]
        with self._on_one_processor():
            for start in range(0, len(wanted), 256):
                self._create(wanted[start : start + 256])

    @contextmanager
    def _on_one_processor(self) -> Iterator[None]:
        """A stop costs ten times less where tracer and task share a processor."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            os.sched_setaffinity(self._task.pid, {min(before)})
            yield
        finally:
            os.sched_setaffinity(0, before)
        for tid in self.threads:
            os.sched_setaffinity(tid, before)

    def _create(self, tids: Sequence[int]) -> None:
        batch = SyscallBatch()
        slots = [_clone(batch, _CLONE_THREAD_FLAGS, tid) for tid in tids]
        results = self.leader.run(batch)
        for tid, slot in zip(tids, slots, strict=True):
            answer = results.answers[slot.index]
            if answer == -errno.EEXIST:
                raise PidInUse(f"tid {tid} is in use")
            if answer < 0:
                raise RestoreError(f"thread {tid} cannot be created: clone3", errno=-answer)
            self._adopt(tid)

    def _adopt(self, tid: int) -> StubThread:
        assert self._memory is not None
        leader = self.leader
        table = leader.table + _MAIN_TABLE + len(self.threads) * _THREAD_TABLE
        tracee = Tracee(leader.pid, tid, self._memory, self._buffer)
        thread = StubThread(tracee, leader.code, table, _THREAD_TABLE, self._meeting)
        wait(tracee, 10.0)
        self.threads[tid] = thread
        return thread

    @contextmanager
    def extra_thread(self) -> Iterator[StubThread]:
        """A thread with a tid of the kernel's choice, for work that two do faster; gone afterwards."""
        batch = SyscallBatch()
        slot = _clone(batch, _CLONE_THREAD_FLAGS, None)
        thread = self._adopt(self.leader.run(batch).check()[slot])
        yield thread
        last = SyscallBatch()
        last.call("exit", 0)
        thread.start(last)
        os.waitid(os.P_PID, thread.tid, os.WEXITED | abi.WALL)
        del self.threads[thread.tid]

    def release(self, *, stopped: bool) -> None:
        """Give every thread its registers and let all go; ``stopped``: into a job-control stop."""
        states = {state.tid: state for state in self._task.threads}
        for tid, thread in self.threads.items():
            thread.tracee.set_xstate(states[tid].xstate)
        self._unmap_stub()
        for tid, thread in self.threads.items():
            thread.tracee.set_sigmask(states[tid].sigmask)
            thread.tracee.set_regs(_registers(states[tid]))
        with held_signals():  # half of a task let go would be the end of it
            if stopped:
                signal.pidfd_send_signal(self._pidfds[self._task.pid], signal.SIGSTOP)
            self._released = True
            for thread in self.threads.values():
                with contextlib.suppress(TraceeError):  # killed by somebody else, which is no failure of ours
                    thread.tracee.detach()

    def _unmap_stub(self) -> None:
        """The leader's last call; the tracer has it back before an instruction would be fetched."""
        leader = self.leader
        registers = Registers()
        registers.rip = leader.code + _SYSCALL
        registers.orig_rax = (1 << 64) - 1
        registers.rax, registers.rdi, registers.rsi = 11, self._task.stub_base, self._mapped
        registers.cs, registers.ss = _USER_CS, _USER_DS
        leader.tracee.set_regs(registers)
        for _border in ("entry", "exit"):
            leader.tracee.resume(to_syscall=True)
            stop = wait(leader.tracee)
            while stop != Stop(signal.SIGTRAP | 0x80, 0):
                leader.tracee.resume(to_syscall=True)
                stop = wait(leader.tracee)
        if leader.tracee.regs().rax:
            raise RestoreError(f"task {leader.pid}: the stub cannot be unmapped")

    def _kill(self, pid: int) -> None:
        """End a process of ours and reap it and its threads."""
        pidfd = self._pidfds[pid]
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for tid in [tid for tid, thread in self.threads.items() if thread.pid == pid and tid != pid]:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, tid, os.WEXITED | abi.WALL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, abi.WALL)
        os.close(pidfd)
        del self._pidfds[pid]


def _clone(batch: SyscallBatch, flags: int, tid: int | None) -> Slot:
    """struct clone_args of clone3(2), with a tid to have.  Source: Linux include/uapi/linux/sched.h."""
    content = struct.pack("<11Q", flags, 0, 0, 0, 0, 0, 0, 0, 0, int(tid is not None), 0)
    pointers = {64: batch.data(struct.pack("<i", tid), text=f"[{tid}]")} if tid is not None else {}
    return batch.call(
        "clone3", batch.data(content, pointers=pointers, text=f"{{flags={flags:#x}}}"), len(content)
    )


def _registers(state: ThreadState) -> Registers:
    return Registers.from_buffer_copy(struct.pack("<27Q", *state.registers))


_ELF_CODE = 0x100


def _elf(code: bytes) -> bytes:
    """A static executable that starts at ``blob.NURSERY``: code, and room for a table behind it, in one segment."""
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,  # ET_EXEC
        62,  # EM_X86_64
        1,
        _ELF_BASE + _ELF_CODE + blob.NURSERY,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    size = _ELF_CODE + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, _ELF_BASE, _ELF_BASE, size, _ELF_SPACE, _PAGE)
    return (head + segment).ljust(_ELF_CODE, b"\0") + code
