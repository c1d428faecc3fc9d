"""All kinds of files together, as dumper, planner and restorer see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from criupy.errors import Obstacle
from criupy.linux.family import Kin
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs import fdinfo
from criupy.model.plan import Step
from criupy.model.snapshot import Snapshot
from criupy.options import FileOptions, Outside
from criupy.resources import filetable, locks, terminal
from criupy.resources.fileplan import Shared, plan_shared, plan_table
from criupy.resources.files import fs, pipe, unixmaking, unixsock
from criupy.resources.files.checks import FileCheck, checks
from criupy.resources.files.unixmaking import NameCheck
from criupy.resources.kind import FileKind, PlanSubject
from criupy.resources.openfile import OpenFile, open_files

_USUAL = FileOptions()


class FileKinds:
    """What the registry knows of files; immutable."""

    def __init__(self, kinds: Sequence[FileKind]) -> None:
        self.kinds = tuple(kinds)
        self._by_sort = {word: kind for kind in kinds for word in kind.match}
        self._by_type = {int(kind.type): kind for kind in kinds if kind.type}

    def obstacles(self, pid: int, kin: Kin, options: FileOptions = _USUAL) -> Iterator[Obstacle]:
        """Everything about the files of a running task that cannot be dumped; ``kin`` is dumped with it."""
        return filetable.obstacles(self._by_sort, pid, kin, options)

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

    def outside(self, pids: Iterable[int], allowed: Outside, *, shell_job: bool) -> Iterator[Obstacle]:
        """What of the files of running tasks, all that are dumped, is connected to others."""
        yield from unixsock.obstacles(pids, allowed)
        yield from terminal.obstacles(terminal.find(pids), shell_job=shell_job)

    def table(self, options: FileOptions = _USUAL) -> filetable.FileTable:
        """For one dump."""
        return filetable.FileTable(self._by_sort, options)

    def plan_shared(self, subject: PlanSubject) -> tuple[list[Step], Shared]:
        """What the nursery makes and opens for several tasks."""
        return plan_shared(self._by_type, subject)

    def plan_table(self, subject: PlanSubject, shared: Shared, nursery_fd: int) -> Iterator[Step]:
        """The descriptors of a task and of those that share its table."""
        return plan_table(self._by_type, subject, shared, nursery_fd)

    def plan_fs(self, subject: PlanSubject) -> Iterator[Step]:
        """Working directory, root and umask of a task."""
        return fs.plan(subject)

    def plan_locks(self, subject: PlanSubject) -> Iterator[Step]:
        """The locks of a task."""
        return locks.plan(subject)

    def aftermath(self, steps: Iterable[Step]) -> Callable[[], None] | None:
        """What takes away that a restore which has failed would leave behind; None: it leaves nothing."""
        return unixmaking.aftermath(steps)

    def refuse_outside(self, snapshot: Snapshot, allowed: Outside) -> None:
        """`UsageError` if something is to be connected to others, and may not be."""
        unixmaking.refuse_outside(snapshot, allowed)

    def checks(self, snapshot: Snapshot, *, build_ids: bool = True) -> Iterator[FileCheck | NameCheck]:
        """What has to hold on this machine before anything is created."""
        yield from checks(snapshot, self._by_type, build_ids=build_ids)
        yield from unixmaking.checks(snapshot)

    def check_locks(self, snapshot: Snapshot) -> None:
        """Raises `RestoreError` for a lock that somebody else holds."""
        wanted = [*locks.checks(snapshot)]
        if wanted:
            with open("/proc/locks", "rb") as file:
                held = fdinfo.held_locks(file.read())
            for check in wanted:
                check.run(held)


def _files(pids: Iterable[int]) -> Iterator[OpenFile]:
    """The descriptors of tasks; a task may end meanwhile."""
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            yield from open_files(pid)
