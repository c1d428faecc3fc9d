"""What a kind of kernel object must know of itself: the protocols behind `criupy.resources.registry`.

A kind has one home, a module with one class, and that class has four sides::

    obstacles   before the freeze   what of this cannot be dumped, by name, with a way out
    collect     frozen              read little: /proc, ptrace, and requests for the one batch that runs inside
    encode      after the freeze    facts to image message; pure
    plan        before anything is  image message to steps; pure
                created

Kinds never import each other; what two of them share (file ids, device numbers) lives beside this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from criupy.resources.pidnumbers import UNCHANGED, PidNumbers

if TYPE_CHECKING:
    from criupy.errors import Obstacle
    from criupy.images.pb import core_pb2, fdtable_pb2
    from criupy.linux.features import KernelFeatures
    from criupy.model.plan import Step, StubPlan
    from criupy.model.snapshot import Snapshot, TaskImages
    from criupy.resources.fileplan import TablePlan
    from criupy.resources.filetable import Collected, FileImages, FileTable
    from criupy.resources.openfile import OpenFile
    from criupy.tracee.batch import Argument, Out, Results, Slot
    from criupy.tracee.frozen import FrozenProcess
    from criupy.tracee.ptrace import Tracee


@dataclass(frozen=True)
class Subject:
    """A thread of a frozen process, as `TaskKind.collect` sees it.

    ``read(name)`` gives ``/proc/PID/task/TID/name`` as bytes, each file read once per freeze.
    """

    process: FrozenProcess
    tid: int
    features: KernelFeatures
    _files: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def thread(self) -> Tracee:
        """KeyError for a leader that has ended."""
        return self.process.thread(self.tid)

    @property
    def is_leader(self) -> bool:
        return self.tid == self.process.pid

    @property
    def is_first(self) -> bool:
        """Whether it is the leader, or in its place if that has ended."""
        return self.tid == self.process.first.tid

    def read(self, name: str) -> bytes:
        if name not in self._files:
            self._files[name] = _content(f"/proc/{self.pid}/task/{self.tid}/{name}")
        return self._files[name]


def _content(path: str) -> bytes:
    """All of a small file of /proc, without what a file object asks beside."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while piece := os.read(descriptor, 1 << 16):
            content += piece
        return content
    finally:
        os.close(descriptor)


class Asking(Protocol):
    """Takes requests for the batch of a thread."""

    def call(self, name: str, *arguments: Argument, tolerate: bool = False) -> Slot: ...

    def out(self, size: int) -> Out: ...


Finish = Callable[["Results"], Any]
"""Turns the answers of the batch into facts; called some time after the batch ran, so it asks nobody else."""


@dataclass
class SeccompLeader:
    """The filters of a process's leader: where they begin in the list, and the threads found so far that have the
    same; ``followers`` is None once a thread was different."""

    chain: tuple[tuple[bytes, int], ...]
    first: int
    followers: list[core_pb2.core_entry] | None


@dataclass
class DumpSink:
    """Where `encode` leaves what does not belong into the core message: image-wide lists, by their home."""

    files: FileTable
    numbers: PidNumbers = UNCHANGED
    seccomp_filters: list[tuple[bytes, int, int | None]] = field(default_factory=list)
    """(filter, flags, index of the next newer one)"""
    seccomp_leader: SeccompLeader | None = None
    """Of the process being encoded."""


class PlanSubject(NamedTuple):
    """A thread to restore, as `TaskKind.plan` sees it."""

    tid: int
    task: TaskImages
    snapshot: Snapshot
    features: KernelFeatures
    warn: Callable[[str], None]
    """Say that something comes back only as near as this machine allows; the restore goes on."""
    stub: StubPlan
    shared: frozenset[str] = frozenset()
    """By the names of their ids (``sighand_id``...): what another process has set up for this one too."""

    @property
    def is_leader(self) -> bool:
        return self.tid == self.task.pid


class TaskKind(Protocol):
    """A part of the state of a thread or (``per_thread`` false: asked of its first thread) of a process."""

    name: str
    per_thread: bool
    outlives: bool
    """Of a thread: a leader that has ended has it still, until its process does; it shows in /proc, and who may signal
    the process depends on it."""

    def obstacles(self, pid: int, features: KernelFeatures) -> Iterator[Obstacle]:
        """What in the running task ``pid`` cannot be dumped; no freeze yet, so it may be gone a moment later."""
        ...

    def warnings(self, pid: int, features: KernelFeatures) -> Iterator[str]:
        """What will come back only as near as this machine allows, said before the freeze."""
        ...

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        """Read from outside what can be; add requests to ``ask`` for the rest.

        It may be called again for one thread, with another ``ask``.
        """
        ...

    def encode(self, facts: Any, core: core_pb2.core_entry, sink: DumpSink) -> None:
        """Fill this kind's part of the core message."""
        ...

    def plan(self, core: core_pb2.core_entry, subject: PlanSubject) -> Iterator[Step]:
        """The calls that give the state back."""
        ...


class FileKind(Protocol):
    """A kind of open file.

    ``type`` is its number in ``files.img``; ``match`` are the words of `OpenFile.sorts` that it answers to.
    Kinds inherit from this, for the parts that most of them leave as they are.
    """

    @property
    def held(self) -> bool:
        """Whether only the nursery can open it, whoever has it."""
        return False

    @property
    def carries(self) -> bool:
        """Whether other files may be on their way in it, so that these are opened before it."""
        return False

    @property
    def nameless(self) -> bool:
        """Whether it has no name by which it could be opened again, and needs none."""
        return False

    @property
    def loses_unread(self) -> bool:
        """Whether what waits to be read cannot be kept: then a dump gives tasks a moment to read it."""
        return False

    @property
    def name(self) -> str: ...

    @property
    def match(self) -> tuple[str, ...]: ...

    @property
    def type(self) -> fdtable_pb2.fd_types: ...

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        """What two descriptors of one open file description have in common, besides link and flags.

        The narrower, the fewer comparisons; it must not change while tasks are frozen.
        """
        return (file.info.pos,)

    def together(self, entry: fdtable_pb2.file_entry) -> Hashable:
        """The same for files that can only be opened together, as the ends of a pipe are."""
        return entry.id

    def prepare(self, links: Iterable[bytes], table: FileTable) -> None:
        """Before the freeze: what would take time then.  ``links``: where descriptors of a running task lead."""
        return

    def early(self, entry: fdtable_pb2.file_entry) -> bool:
        """Whether the nursery opens it while the tree grows, before it makes anything else."""
        return False

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        """(why, hint) for each reason not to dump this one; the task runs.  Deleted files and locks are seen to."""
        return iter(())

    def obstacles_among(self, file: OpenFile, pids: Iterable[int]) -> Iterator[tuple[str, str]]:
        """The same, of what ``file`` has to do with tasks and names; ``pids`` are all that are dumped with it.

        Not asked of a frozen task: of that `FileTable.when_all_are_known` finds it, or `encode` raises `Astray`.
        """
        return iter(())

    def warnings(self, file: OpenFile) -> Iterator[str]:
        """What of this one will come back only as near as can be; the task runs."""
        return iter(())

    def collect(self, file: OpenFile, table: FileTable) -> Any:
        """Read what is not in ``file``; once per open file description, frozen.

        What it has to do with files of other tasks can wait for `FileTable.when_all_are_known`.
        """
        return None

    def path_id(self, one: Collected) -> int:
        """The id of the entry that has its path, if it has one."""
        return one.id

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        """Fill the part of ``entry`` that belongs to ``type``, and further images."""
        ...

    def paths(self, entry: fdtable_pb2.file_entry) -> Iterator[bytes]:
        """What has to be there when it is restored, besides what it opens."""
        return iter(())

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        """Open it, by `TablePlan.opens`, at whatever number; owner and close-on-exec are seen to."""
        ...

    def reaches(self, entry: fdtable_pb2.file_entry) -> Iterator[int]:
        """Ids of files that it has to be open beside, if only for a moment."""
        return iter(())

    def unite(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        """What it has to do with files that are open beside it in the nursery, when all of them are."""
        return iter(())

    def complete(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        """What has to wait until every descriptor of the task is at its number; in one table of those that share it."""
        return iter(())
