"""The frozen part of a dump: collect what the kinds ask for, copy the pages, and nothing else."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

from criupy.linux import namespaces, syscalls
from criupy.linux.family import Member
from criupy.linux.features import KernelFeatures
from criupy.resources import memory
from criupy.resources.files import fs
from criupy.resources.filetable import FileTable
from criupy.resources.kind import Asking, Finish, Subject, TaskKind
from criupy.resources.namespaces import pidns, timens
from criupy.resources.pidnumbers import UNCHANGED, PidNumbers
from criupy.resources.registry import THREAD_KINDS
from criupy.tracee.batch import Diverged, Replay, Results, SyscallBatch
from criupy.tracee.frozen import FrozenProcess, FrozenTree
from criupy.tracee.inject import run_batches
from criupy.tracee.ptrace import Tracee


class ThreadFacts(NamedTuple):
    """What the task kinds learnt of one thread: what they take from the answers can wait for the thaw.

    ``status`` as read, if its pid namespace is not ours.
    """

    tid: int
    status: bytes
    answers: Results
    finishes: tuple[tuple[TaskKind, Finish], ...]

    def parts(self) -> Iterator[tuple[TaskKind, Any]]:
        """The facts, by kind."""
        return ((kind, finish(self.answers)) for kind, finish in self.finishes)


class Place(NamedTuple):
    """Where a process is in its tree; ``ppid`` is 0 for the root."""

    pid: int
    ppid: int
    pgid: int
    sid: int


class ZombieFacts(NamedTuple):
    """A dead process that nobody has waited for, ``stat`` as read, and ``status`` as of a thread."""

    place: Place
    stat: bytes
    status: bytes


class DeadLeader(NamedTuple):
    """A leader that has ended while others go on: ``stat`` as read, and where in the vdso there is a system call."""

    stat: bytes
    system_call: int


class ProcessFacts(NamedTuple):
    """Everything of one process but its page contents; ``namespaces`` are inode numbers by kind."""

    place: Place
    namespaces: dict[str, int]
    threads: tuple[ThreadFacts, ...]
    """The leader first, also when it has ended: what the process has is told by its facts."""
    dead_leader: DeadLeader | None
    memory: memory.MemoryFacts
    fs: fs.FsFacts
    shares: frozenset[str]
    """What it has in common with its parent: ``vm``, ``sighand``, ``io``."""

    @property
    def pid(self) -> int:
        return self.place.pid


class TreeFacts(NamedTuple):
    """A tree, parents first, with what its clocks showed; whether it is ``nested`` in a pid namespace of its own."""

    members: tuple[ProcessFacts | ZombieFacts, ...]
    clocks: timens.Clocks
    nested: bool

    @property
    def processes(self) -> list[ProcessFacts]:
        """The living."""
        return [member for member in self.members if isinstance(member, ProcessFacts)]

    def numbers(self) -> PidNumbers:
        """What its pids and tids are inside; `NotDumpable` as `pidns.numbers` says."""
        if not self.nested:
            return UNCHANGED
        dead = (member.status for member in self.members if isinstance(member, ZombieFacts))
        return pidns.numbers(
            [*dead, *(thread.status for process in self.processes for thread in process.threads)]
        )


@contextmanager
def quiet_interpreter() -> Iterator[None]:
    """No garbage collection while tasks are stopped."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def collect_tree(tree: FrozenTree, table: FileTable, features: KernelFeatures) -> TreeFacts:
    """Read the state of a stopped tree."""
    clocks = timens.collect(tree.processes[0].speaker)
    living = {process.pid: process for process in tree.processes}
    root = tree.processes[0].pid
    nested = pidns.is_nested(root)
    requests, reader = _Requests(features, keep_status=nested), memory.Reader(table, features)
    facts = TreeFacts(
        tuple(
            _collect(
                living[member.pid],
                living.get(member.ppid),
                _place(member, root),
                table,
                requests,
                reader.read,
            )
            if member.pid in living
            else _zombie(member.pid, _place(member, root), nested=nested)
            for member in tree.members
        ),
        clocks,
        nested,
    )
    table.all_are_known()
    return facts


def _place(member: Member, root: int) -> Place:
    pid = member.pid
    return Place(pid, member.ppid if pid != root else 0, os.getpgid(pid), os.getsid(pid))


def _zombie(pid: int, place: Place, *, nested: bool) -> ZombieFacts:
    return ZombieFacts(place, _read(pid, "stat"), _read(pid, "status") if nested else b"")


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.readall()


class _Asked(NamedTuple):
    """How kinds make facts of the answers of a thread, and its status if that is kept."""

    finishes: tuple[tuple[TaskKind, Finish], ...]
    status: bytes


class _Requests:
    """The batches of threads.  Threads mostly ask for the same, and so do leaders of processes."""

    def __init__(self, features: KernelFeatures, *, keep_status: bool) -> None:
        self._features = features
        self._keep_status = keep_status
        self._last: dict[bool, SyscallBatch] = {}

    def of(
        self, process: FrozenProcess, thread: Tracee, more: Callable[[Asking], Finish] | None
    ) -> tuple[SyscallBatch, dict[int, _Asked], Finish | None]:
        """The batch of a thread, and how kinds and ``more``, who asks after them, make facts of its answers.

        The facts are those of the thread, and with the first of a process without leader also those of that one.
        """
        subject = Subject(process, thread.tid, self._features)
        last = self._last.get(subject.is_first)
        if last is not None:
            replay = Replay(last)
            with suppress(Diverged):
                finishes, after = self._ask(subject, replay, more)
                return replay.whole(), finishes, after
        batch = self._last[subject.is_first] = SyscallBatch()
        return batch, *self._ask(subject, batch, more)

    def _ask(
        self, subject: Subject, ask: Asking, more: Callable[[Asking], Finish] | None
    ) -> tuple[dict[int, _Asked], Finish | None]:
        asked: dict[int, _Asked] = {}
        if subject.is_first and not subject.is_leader:
            leader = replace(subject, tid=subject.pid, _files={})
            finishes = tuple(
                (kind, kind.collect(leader if kind.per_thread else subject, ask))
                for kind in THREAD_KINDS
                if kind.outlives or not kind.per_thread
            )
            asked[leader.tid] = _Asked(finishes, self._status(leader))
        finishes = tuple(
            (kind, kind.collect(subject, ask))
            for kind in THREAD_KINDS
            if kind.per_thread or subject.is_leader
        )
        asked[subject.tid] = _Asked(finishes, self._status(subject))
        return asked, more(ask) if more else None

    def _status(self, subject: Subject) -> bytes:
        return subject.read("status") if self._keep_status else b""


def _collect(
    process: FrozenProcess,
    parent: FrozenProcess | None,
    place: Place,
    table: FileTable,
    requests: _Requests,
    read_memory: Callable[[FrozenProcess], Callable[[Asking], Finish]],
) -> ProcessFacts:
    """Read the state of a stopped process: from outside what can be, the rest by one batch per thread."""
    asks: dict[int, SyscallBatch] = {}
    asked: dict[int, _Asked] = {}
    finish_memory: Finish | None = None
    for thread in process.threads:
        more = read_memory(process) if thread is process.first else None
        asks[thread.tid], found, after = requests.of(process, thread, more)
        asked |= found
        finish_memory = after or finish_memory
    assert finish_memory is not None
    speaker = process.speaker
    table.descriptors(process)
    directories = fs.collect(speaker, table)
    results = {tid: answers.check() for tid, answers in run_batches(process, asks).items()}
    first = results[process.first.tid]
    memory_facts, shares = finish_memory(first), _shares(speaker, parent.speaker if parent else 0)
    return ProcessFacts(
        place=place,
        namespaces=namespaces.identify(speaker),
        threads=tuple(
            ThreadFacts(tid, one.status, results.get(tid, first), one.finishes) for tid, one in asked.items()
        ),
        dead_leader=_dead_leader(process, memory_facts) if process.lost_its_leader else None,
        memory=memory_facts._replace(runs=()) if "vm" in shares else memory_facts,
        fs=directories,
        shares=shares,
    )


def _dead_leader(process: FrozenProcess, facts: memory.MemoryFacts) -> DeadLeader:
    return DeadLeader(_read(process.pid, "stat"), memory.system_call(facts, process.memory.read))


_SHAREABLE = {"vm": syscalls.KCMP_VM, "sighand": syscalls.KCMP_SIGHAND, "io": syscalls.KCMP_IO}


def _shares(pid: int, parent: int) -> frozenset[str]:
    """Most tasks have no I/O context yet, and no two of these can be told apart: it takes a priority to have one."""
    if not parent:
        return frozenset()
    found = {name for name, what in _SHAREABLE.items() if syscalls.kcmp_table(pid, parent, what) == 0}
    return frozenset(found if syscalls.ioprio_get(pid) else found - {"io"})
