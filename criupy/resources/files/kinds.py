"""All kinds of files together, as dumper, planner and restorer see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from criupy.errors import Obstacle
from criupy.linux.family import Kin
from criupy.linux.features import KernelFeatures
from criupy.model.plan import Step
from criupy.model.snapshot import Snapshot
from criupy.resources import filetable, terminal
from criupy.resources.fileplan import Shared, plan_shared, plan_table
from criupy.resources.files import fs, pipe
from criupy.resources.files.checks import FileCheck, checks
from criupy.resources.kind import FileKind, PlanSubject
from criupy.resources.openfile import OpenFile, open_files


class FileKinds:
    """What the registry knows of files; immutable."""

    def __init__(self, kinds: Sequence[FileKind]) -> None:
        self.kinds = tuple(kinds)
        self._by_sort = {word: kind for kind in kinds for word in kind.match}
        self._by_type = {int(kind.type): kind for kind in kinds if kind.type}

    def obstacles(self, pid: int, kin: Kin) -> Iterator[Obstacle]:
        """Everything about the files of a running task that cannot be dumped; ``kin`` is dumped with it."""
        return filetable.obstacles(self._by_sort, pid, kin)

    def warnings(self, pids: Iterable[int], features: KernelFeatures) -> Iterator[str]:
        """What about the files of running tasks, all that are dumped, will come back only as near as can be."""
        pids, said = list(pids), list[str]()
        yield from terminal.warnings(pids)
        yield from pipe.warnings(self._warned(pids, said), features)
        yield from said

    def _warned(self, pids: Iterable[int], said: list[str]) -> Iterator[OpenFile]:
        """All files, while what their kinds have to say goes to ``said``."""
        for file in _files(pids):
            kind = filetable.find_kind(self._by_sort, file)
            said += (f"task {file.pid}, fd {file.fd} ({kind.name}): {line}" for line in kind.warnings(file))
            yield file

    def outside(self, pids: Iterable[int], *, shell_job: bool) -> Iterator[Obstacle]:
        """What of the files of running tasks, all that are dumped, is connected to others."""
        yield from terminal.obstacles(terminal.find(pids), shell_job=shell_job)

    def table(self, *, shell_job: bool = False) -> filetable.FileTable:
        """For one dump; ``shell_job``: one terminal may be looked after from outside."""
        return filetable.FileTable(self._by_sort, shell_job=shell_job)

    def plan_shared(self, subject: PlanSubject) -> tuple[list[Step], Shared]:
        """What the nursery makes and opens for several tasks."""
        return plan_shared(self._by_type, subject)

    def plan_table(self, subject: PlanSubject, shared: Shared, nursery_fd: int) -> Iterator[Step]:
        """The descriptors of a task and of those that share its table."""
        return plan_table(self._by_type, subject, shared, nursery_fd)

    def plan_fs(self, subject: PlanSubject) -> Iterator[Step]:
        """Working directory, root and umask of a task."""
        return fs.plan(subject)

    def checks(self, snapshot: Snapshot) -> Iterator[FileCheck]:
        """What has to hold on this machine before anything is created."""
        return checks(snapshot, self._by_type)


def _files(pids: Iterable[int]) -> Iterator[OpenFile]:
    """The descriptors of tasks; a task may end meanwhile."""
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            yield from open_files(pid)
