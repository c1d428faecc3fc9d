"""Stub processes: the tasks of a restore while they are being built.

A nursery process, a few hundred bytes of ELF from a memfd, makes the root of the tree with the pid that is wanted, as
criupy's own child; all others are born of the root.  If that is the first of a new pid namespace, the numbers of the
plan are those inside; what is done to tasks from here takes the others.  In each task the walker of `blob.S` runs
batches of system calls from a small private mapping at an address that the images leave free; the last call unmaps
that.  Everything is traced with PTRACE_O_EXITKILL from its first instruction until `StubTree.release`: it dies with
criupy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Self

from criupy.errors import FreezeError, PidInUse, RestoreError, TraceeError
from criupy.linux import abi
from criupy.linux.syscalls import LockedMemory, set_subreaper
from criupy.model.plan import NURSERY, StubPlan, TaskPlan, ThreadState
from criupy.tracee import blob, guardian
from criupy.tracee.batch import RemoteAddress, Results, Slot, SyscallBatch
from criupy.tracee.frozen import reap_all, status_of
from criupy.tracee.ptrace import Memory, Registers, Stop, Tracee, held_signals

_PAGE = 4096
_ELF_BASE = 0x10000
_ELF_SPACE = 0x10000 + (64 << 20)
_ELF_TABLE = RemoteAddress(_ELF_BASE + 0x10000)
_MAIN_TABLE = 64 << 20
_THREAD_TABLE = 64 << 10
_SHARER_TABLE = 2 << 20
_SYSCALL = blob.MEETING - 2

_PTRACE_O_TRACESYSGOOD, _PTRACE_O_TRACEFORK, _PTRACE_O_TRACEVFORK, _PTRACE_O_TRACECLONE = 1, 2, 4, 8
_CLONE_EVENTS = frozenset({1, 2, 3})  # PTRACE_EVENT_FORK, VFORK, CLONE
_CLONE_THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000  # VM FS FILES SIGHAND THREAD SYSVSEM
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_NORESERVE, _MAP_FIXED_NOREPLACE = 0x2, 0x20, 0x4000, 0x100000
_PROT_READ_WRITE, _PROT_READ_EXEC = 3, 5
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP}
)
_PATIENCE = 3600.0
_BIRTH = 10.0
_LAST_WORDS = 60.0
_EVERY_SIGNAL = (1 << 64) - 1
_EXTRA = -1
"""Number of a thread that the plan does not know."""
_USER_CS, _USER_DS = 0x33, 0x2B


def table_space(threads: int, sharers: int) -> int:
    """Bytes for the tables of an address space: of threads that are no leaders, one more, and sharing leaders."""
    return (threads + 1) * _THREAD_TABLE + sharers * _SHARER_TABLE


class StubThread:
    """A thread that runs batches: ``start`` one, ``finish`` it; several threads may be at work at once."""

    def __init__(
        self, tracee: Tracee, code: RemoteAddress, table: RemoteAddress, capacity: int, meeting: int
    ) -> None:
        self.tracee = tracee
        self.code = code
        self.table = table
        self.capacity = capacity
        self.meeting = meeting
        self._batch: SyscallBatch | None = None
        self.born: deque[int] = deque()
        """Tids, as criupy sees them, of the tasks that it has made and nobody has taken on, all traced and stopping."""

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
        self._prepare(batch)
        self._batch = batch
        self.tracee.resume()

    def _prepare(self, batch: SyscallBatch) -> None:
        if batch.size > self.capacity:
            raise RestoreError(f"task {self.tid}: {batch.size} bytes of arguments, {self.capacity} at most")
        self.tracee.memory.write(self.table, batch.encode(self.table))
        registers = Registers()
        registers.rip = self.code + blob.RUN
        registers.orig_rax = (1 << 64) - 1
        registers.rbx = registers.r12 = self.table
        registers.r13 = self.table + batch.records_size
        registers.r14 = self.meeting
        registers.cs, registers.ss = _USER_CS, _USER_DS
        self.tracee.set_regs(registers)

    def finish(self) -> Results:
        """Wait for the end of the batch.  `TraceeError` when the thread crashes or dies."""
        assert self._batch is not None
        while True:
            stop = wait(self.tracee)
            if stop.event == 0 and stop.signal == self.meeting and self._at_meeting():
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

    def leave(self, batch: SyscallBatch) -> None:
        """Let the thread run a batch of which it does not come back, and trace it no more."""
        self._prepare(batch)
        self.tracee.detach()

    def await_end(self) -> None:
        """Wait until the thread dies of its batch; signals are delivered."""
        while True:
            try:
                stop = wait(self.tracee, _BIRTH)
            except TraceeError:
                return
            self.tracee.resume(0 if stop.event else stop.signal)

    def _at_meeting(self) -> bool:
        return bool(self.tracee.regs().rip == self.code + blob.MEETING)


def _end_stopped(leader: StubThread) -> None:
    """Let it run though its process is in a job-control stop.

    Only who is traced can, and nobody can be let go of when it is dead but by a tracer that ends.
    """
    from concurrent.futures import ThreadPoolExecutor

    def trace() -> None:
        tracee = Tracee(leader.pid, leader.tid, leader.tracee.memory, Tracee.new_buffer())
        tracee.seize()
        wait(tracee, _BIRTH)
        tracee.resume()
        _await_death(leader.tid)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(trace).result()


def _await_death(tid: int) -> None:
    """Wait until a leader is dead, of which nobody is told as long as others go on."""
    deadline = time.monotonic() + _LAST_WORDS
    while status_of(tid, tid).get("State", "").split()[:1] != ["Z"]:
        if time.monotonic() > deadline:
            raise RestoreError(f"task {tid}: its main thread does not end")
        time.sleep(0.0005)


def _reap(tids: list[int]) -> None:
    """Wait for the ends of what was killed; signals of our own are let in twice a second."""
    while tids:
        tids = reap_all(tids, time.monotonic() + 0.5)


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


class Tables:
    """Where in an address space there is room for the tables of threads, beside the first one's."""

    def __init__(self, start: RemoteAddress) -> None:
        self._next = start

    def take(self, size: int) -> RemoteAddress:
        """Room that was not taken before."""
        place, self._next = self._next, self._next + size
        return place

    def give_back(self, size: int) -> None:
        """What was taken last."""
        self._next = RemoteAddress(self._next - size)


class StubProcess:
    """A process while it is built: its threads.  ``tables`` are those of its address space, which it may share.

    When its leader has ended (`end_leader`), ``leader`` is the thread that stands in for it.
    """

    def __init__(
        self, number: int, leader: StubThread, pidfd: int, buffer: LockedMemory, tables: Tables
    ) -> None:
        self.leader = leader
        self.tables = tables
        self.pidfd = pidfd
        self.threads: dict[int, StubThread] = {number: leader}
        """By the tids of the plan, leader first."""
        self._number = number
        self._is_stopped = False
        self._buffer = buffer

    @property
    def pid(self) -> int:
        """As criupy sees it."""
        return self.leader.pid

    def close(self) -> None:
        self.leader.tracee.memory.close()
        os.close(self.pidfd)

    def create_threads(self, tids: Sequence[int]) -> None:
        """Make further threads with their tids."""
        with _on_one_processor(self.threads.values()):
            for start in range(0, len(tids), 256):
                self._create(tids[start : start + 256])

    def _create(self, tids: Sequence[int]) -> None:
        batch = SyscallBatch()
        slots = [_clone(batch, tid) for tid in tids]
        results = self.leader.run(batch)
        for tid, slot in zip(tids, slots, strict=True):
            answer = results.answers[slot.index]
            if answer == -errno.EEXIST:
                raise PidInUse(f"tid {tid} is in use")
            if answer < 0:
                raise RestoreError(f"thread {tid} cannot be created: clone3", errno=-answer)
            self._adopt(tid)

    def _adopt(self, number: int) -> StubThread:
        """The first of the threads that were made and not taken on yet."""
        leader = self.leader
        table = self.tables.take(_THREAD_TABLE)
        tracee = Tracee(leader.pid, leader.born.popleft(), leader.tracee.memory, self._buffer)
        thread = StubThread(tracee, leader.code, table, _THREAD_TABLE, leader.meeting)
        self.threads[number] = thread
        wait(tracee, _BIRTH)
        return thread

    @contextmanager
    def extra_thread(self) -> Iterator[StubThread]:
        """A thread with a tid of the kernel's choice, for work that two do faster; gone afterwards."""
        batch = SyscallBatch()
        _clone(batch, None)
        self.leader.run(batch).check()
        thread = self._adopt(_EXTRA)
        yield thread
        last = SyscallBatch()
        last.call("exit", 0)
        thread.start(last)
        os.waitid(os.P_PID, thread.tid, os.WEXITED | abi.WALL)
        del self.threads[_EXTRA]
        self.tables.give_back(_THREAD_TABLE)

    def stop(self) -> None:
        """Bring the process into a job-control stop, which goes on when its threads are let go.

        Before anything else of it runs: whoever made it is told by SIGCHLD.  Source: Linux kernel/signal.c,
        kernel/ptrace.c (``ptrace_unlink``).
        """
        tracee = self.leader.tracee
        signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
        tracee.resume()
        while (stop := wait(tracee, _BIRTH)) != Stop(signal.SIGSTOP, abi.PTRACE_EVENT_STOP):
            tracee.resume(stop.signal if stop.signal == signal.SIGSTOP else 0)
        self._is_stopped = True

    def end_leader(self, last: SyscallBatch) -> None:
        """Let the leader make its last call, exit(2); another thread does its work from now on, at its table.

        Nobody may trace a leader that is dead: its parent would not be told of the end of the process.
        """
        leader = self.leader
        heir = next(thread for thread in self.threads.values() if thread is not leader)
        leader.leave(last)
        if self._is_stopped:
            _end_stopped(leader)
        _await_death(leader.tid)
        del self.threads[self._number]
        heir.table, heir.capacity = leader.table, leader.capacity
        self.leader = heir

    def set_states(self, states: Iterable[ThreadState]) -> None:
        """Give every thread its masks and registers; the stub must be unmapped."""
        for state in states:
            tracee = self.threads[state.tid].tracee
            tracee.set_xstate(state.xstate)
            tracee.set_sigmask(state.sigmask)
            tracee.set_regs(_registers(state))

    def start_unmapping(self, base: int, size: int) -> None:
        """The leader's last call; the tracer has it back before an instruction would be fetched."""
        registers = Registers()
        registers.rip = self.leader.code + _SYSCALL
        registers.orig_rax = (1 << 64) - 1
        registers.rax, registers.rdi, registers.rsi = 11, base, size
        registers.cs, registers.ss = _USER_CS, _USER_DS
        self.leader.tracee.set_regs(registers)
        self.leader.tracee.resume(to_syscall=True)

    def finish_unmapping(self) -> None:
        tracee = self.leader.tracee
        for border in ("entry", "exit"):
            stop = wait(tracee)
            while stop != Stop(signal.SIGTRAP | 0x80, 0):
                tracee.resume(to_syscall=True)
                stop = wait(tracee)
            if border == "entry":
                tracee.resume(to_syscall=True)
        if tracee.regs().rax:
            raise RestoreError(f"task {self.pid}: the stub cannot be unmapped")

    def let_go(self, *, stopped: bool) -> None:
        """Let all threads run; ``stopped``: into a job-control stop."""
        if stopped:
            signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
        for thread in self.threads.values():
            with contextlib.suppress(TraceeError):  # killed by somebody else, which is no failure of ours
                thread.tracee.detach()

    def kill(self) -> None:
        """Send SIGKILL; `reap` waits for the end."""
        guardian.kill([self.pidfd])
        for tid in self._born():
            with contextlib.suppress(OSError):  # EINVAL: a thread, which dies with its process
                guardian.kill_by_pid(tid)

    def reap(self) -> None:
        _reap(self.tids())

    def tids(self) -> list[int]:
        """Of all that has to be reaped, as criupy sees them."""
        return [self.pid, *(thread.tid for thread in self.threads.values()), *self._born()]

    def _born(self) -> Iterator[int]:
        return (tid for thread in self.threads.values() for tid in thread.born)


class StubTree:
    """The tasks that a restore makes, by the numbers of their plan.  Left without `release`, all of them are killed.

    Meanwhile criupy is a subreaper, so that it can reap whom it kills.
    """

    def __init__(self, plan: StubPlan, files: Sequence[int], space: int, *, suspend_seccomp: bool) -> None:
        """``files``: descriptors of ours, which the nursery has from 0 on; ``space``: bytes of `table_space`."""
        self._plan = plan
        self._files = files
        self._options = (
            abi.PTRACE_O_EXITKILL
            | _PTRACE_O_TRACESYSGOOD
            | _PTRACE_O_TRACEFORK
            | _PTRACE_O_TRACEVFORK
            | _PTRACE_O_TRACECLONE
            | (abi.PTRACE_O_SUSPEND_SECCOMP if suspend_seccomp else 0)
        )
        self._buffer = Tracee.new_buffer()
        self._mapped = _PAGE + _MAIN_TABLE + space
        self._was_subreaper = False
        self._affinity = os.sched_getaffinity(0)
        self.processes: dict[int, StubProcess] = {}

    def __enter__(self) -> Self:
        self._was_subreaper = set_subreaper(on=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            processes = list(self.processes.values())
            for process in processes:
                process.kill()
            tids = [tid for process in processes for tid in process.tids()]
            for _ in range(2):  # once more, as the one whom orphans come to
                _reap(tids)
        finally:
            for process in self.processes.values():
                process.close()
            self.processes.clear()
            set_subreaper(on=self._was_subreaper)

    def thread(self, number: int, tid: int) -> StubThread:
        """A thread of the process with the number ``number`` in the plan."""
        return self.processes[number].threads[tid]

    def create_nursery(self, unwanted: Collection[int]) -> StubProcess:
        """The process that the tree is born of; its pid is none of ``unwanted``."""
        taken: list[StubThread] = []
        try:
            while True:
                nursery = self._spawn_nursery()
                if nursery.pid not in unwanted:
                    break
                taken.append(nursery)  # it must not get this number again
        finally:
            for other in taken:
                self._dismiss(other)
        tables = Tables(RemoteAddress(_ELF_TABLE + _MAIN_TABLE))
        process = StubProcess(NURSERY, nursery, os.pidfd_open(nursery.pid), self._buffer, tables)
        self.processes[NURSERY] = process
        batch = SyscallBatch()
        batch.call("close_range", len(self._files), 0xFFFFFFFF, 0)
        # For the root, which may not see the nursery: at the number after its files.
        batch.call("pidfd_open", nursery.pid, 0)
        nursery.run(batch).check()
        return process

    @staticmethod
    def _dismiss(nursery: StubThread) -> None:
        assert nursery.pid > 0
        os.kill(nursery.pid, signal.SIGKILL)  # a child of ours that nobody has waited for
        os.waitpid(nursery.pid, abi.WALL)
        nursery.tracee.memory.close()

    def _spawn_nursery(self) -> StubThread:
        code = bytearray(blob.CODE)
        struct.pack_into("<I", code, blob.NURSERY_PARENT, os.getpid())
        files = [os.memfd_create("criupy-stub")]
        try:
            os.write(files[0], _elf(bytes(code)))
            for file in (files[0], *self._files):  # out of the way of the numbers that they get
                files.append(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, len(self._files)))  # noqa: PERF401 - closed below
            actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in enumerate(files[2:])]
            pid = os.posix_spawn(
                f"/proc/self/fd/{files[1]}",
                ["criupy-stub"],
                {},
                file_actions=actions,
                setsigmask=[],
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        finally:
            for file in files:
                os.close(file)
        assert pid > 0
        tracee = Tracee(pid, pid, Memory(pid), self._buffer)
        tracee.seize(self._options)
        tracee.interrupt()
        while wait(tracee, _BIRTH).event != abi.PTRACE_EVENT_STOP:
            tracee.resume()
        # All tasks inherit it: signals that are queued for them wait for their release.
        tracee.set_sigmask(_EVERY_SIGNAL & ~(1 << self._plan.meeting_signal - 1))
        code_address = RemoteAddress(_ELF_BASE + _ELF_CODE)
        return StubThread(tracee, code_address, _ELF_TABLE, _MAIN_TABLE, self._plan.meeting_signal)

    def welcome(self, number: int, mother: StubProcess, *, shares_memory: bool = False) -> StubProcess:
        """Take on the first of the processes that the leader of ``mother`` has made and that are not taken on yet.

        ``number`` is its pid in the plan; it has a copy of its mother's memory, or the same.
        """
        maker = mother.leader
        pid = maker.born[0]
        assert pid > 0
        pidfd = os.pidfd_open(pid)
        try:
            memory = Memory(pid)
        except BaseException:
            os.close(pidfd)
            raise
        tracee = Tracee(pid, pid, memory, self._buffer)
        if shares_memory:
            leader = StubThread(
                tracee, maker.code, mother.tables.take(_SHARER_TABLE), _SHARER_TABLE, maker.meeting
            )
            process = StubProcess(number, leader, pidfd, self._buffer, mother.tables)
        else:
            base = RemoteAddress(self._plan.base)
            leader = StubThread(tracee, maker.code, maker.table, maker.capacity, maker.meeting)
            process = StubProcess(number, leader, pidfd, self._buffer, Tables(base + _PAGE + _MAIN_TABLE))
        is_root = len(self.processes) == 1  # others of the nursery's only pass by
        self.processes[number] = process
        maker.born.popleft()
        wait(tracee, _BIRTH)
        if is_root:
            self._settle(leader)
        elif mother is not self.processes[NURSERY] and not shares_memory:
            leader.table, leader.capacity = RemoteAddress(self._plan.base) + _PAGE, _MAIN_TABLE
        return process

    def _settle(self, root: StubThread) -> None:
        """Move code and table to where the images have nothing, and keep no descriptor but that of the nursery."""
        base = RemoteAddress(self._plan.base)
        batch = SyscallBatch()
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED_NOREPLACE
        batch.call("mmap", base, _PAGE, _PROT_READ_EXEC, flags, -1, 0)
        batch.call("mmap", base + _PAGE, self._mapped - _PAGE, _PROT_READ_WRITE, flags, -1, 0)
        nursery, wanted = len(self._files), self._plan.nursery_fd
        if nursery != wanted:
            batch.call("dup3", nursery, wanted, 0)
        if wanted:
            batch.call("close_range", 0, wanted - 1, 0)
        batch.call("close_range", wanted + 1, 0xFFFFFFFF, 0)
        root.run(batch).check()
        batch = SyscallBatch()
        batch.call("close", nursery)
        self.processes[NURSERY].leader.run(batch).check()
        root.tracee.memory.write(base, blob.CODE)
        root.code, root.table, root.capacity = base, base + _PAGE, _MAIN_TABLE

    def bury(self, number: int) -> None:
        """Reap a process of the tree that was told to end; its parent has to wait for it still."""
        process = self.processes.pop(number)
        process.reap()
        process.close()

    @contextmanager
    def on_one_processor(self) -> Iterator[None]:
        """A stop costs ten times less where tracer and task share a processor."""
        processor = {min(self._affinity)}
        os.sched_setaffinity(0, processor)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._affinity)
            for process in self.processes.values():
                for thread in process.threads.values():
                    with contextlib.suppress(ProcessLookupError):
                        os.sched_setaffinity(thread.tid, self._affinity)

    def release(self, plans: Iterable[TaskPlan], *, stopped: bool) -> None:
        """Give every thread its registers and let all go: the commit point.

        ``stopped``: every task into a job-control stop, and not only those that were in one.
        """
        tasks = [(self.processes[plan.pid], plan) for plan in plans]
        owners = list({plan.memory or plan.pid: process for process, plan in reversed(tasks)}.values())
        for process in owners:
            process.start_unmapping(self._plan.base, self._mapped)
        for process in owners:
            process.finish_unmapping()
        for process, plan in tasks:
            process.set_states(plan.threads)
        nursery = self.processes.pop(NURSERY)
        nursery.kill()
        nursery.reap()
        nursery.close()
        set_subreaper(on=self._was_subreaper)
        pidfds = [process.pidfd for process, _ in tasks]
        # A process dies whole, but half of a tree let go would be the end of it.
        alone = len(tasks) == 1
        with held_signals(), nullcontext() if alone else guardian.unless_done(lambda: guardian.kill(pidfds)):
            for process, plan in tasks:
                process.let_go(stopped=stopped and not plan.stopped)
            self.processes.clear()
        for process, _ in tasks:
            process.close()


@contextmanager
def _on_one_processor(threads: Collection[StubThread]) -> Iterator[None]:
    """A stop costs ten times less where tracer and tasks share a processor; ``threads`` may become more meanwhile."""
    before = os.sched_getaffinity(0)
    processor = {min(before)}
    os.sched_setaffinity(0, processor)
    try:
        for thread in threads:
            os.sched_setaffinity(thread.tid, processor)
        yield
    finally:
        os.sched_setaffinity(0, before)
        for thread in threads:
            os.sched_setaffinity(thread.tid, before)


def _clone(batch: SyscallBatch, tid: int | None) -> Slot:
    """A thread, with a tid to have."""
    content = struct.pack("<11Q", _CLONE_THREAD_FLAGS, 0, 0, 0, 0, 0, 0, 0, 0, int(tid is not None), 0)
    pointers = {64: batch.data(struct.pack("<i", tid), text=f"[{tid}]")} if tid is not None else {}
    return batch.call("clone3", batch.data(content, pointers=pointers, text="{a thread}"), len(content))


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
