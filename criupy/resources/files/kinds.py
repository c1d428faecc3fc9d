"""All kinds of files together, as dumper, planner and restorer see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from criupy.errors import Obstacle
from criupy.linux.features import KernelFeatures
from criupy.model.plan import Step
from criupy.model.snapshot import Snapshot
from criupy.resources import filetable
from criupy.resources.fileplan import plan_table
from criupy.resources.files import fs, pipe
from criupy.resources.files.checks import FileCheck, checks
from criupy.resources.kind import FileKind, PlanSubject


class FileKinds:
    """What the registry knows of files; immutable."""

    def __init__(self, kinds: Sequence[FileKind]) -> None:
        self._by_sort = {word: kind for kind in kinds for word in kind.match}
        self._by_type = {int(kind.type): kind for kind in kinds if kind.type}

    def obstacles(self, pid: int) -> Iterator[Obstacle]:
        """Everything about the files of a running task that cannot be dumped."""
        return filetable.obstacles(self._by_sort, pid)

    def warnings(self, pid: int, features: KernelFeatures) -> Iterator[str]:
        """What about the files of a running task will come back only as near as can be."""
        yield from pipe.warnings(filetable.open_files(pid), features)

    def table(self) -> filetable.FileTable:
        """For one dump."""
        return filetable.FileTable(self._by_sort)

    def plan(self, subject: PlanSubject) -> Iterator[Step]:
        """Descriptors, working directory, root and umask of a task."""
        yield from plan_table(self._by_type, subject)
        yield from fs.plan(subject)

    def checks(self, snapshot: Snapshot) -> Iterator[FileCheck]:
        """What has to hold on this machine before anything is created."""
        return checks(snapshot)
