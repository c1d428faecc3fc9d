"""pidfd_open(2): a descriptor that means a process.

Image: ``pidfd_entry`` in ``files.img``; the inode number says which of those that lead to the dead mean the same one.
The nursery opens all of them.  For each dead process it makes one that ends at once.

Not kept: how a dead process has ended (PIDFD_GET_INFO).
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2
from criupy.linux.abi import WALL
from criupy.linux.family import descends
from criupy.linux.procfs import fdinfo
from criupy.model.plan import Ref, Stage, Step, clone_args, outer_pid
from criupy.resources.fileplan import TablePlan
from criupy.resources.filetable import Astray, Collected, FileImages
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile

_PIDFD_THREAD = os.O_EXCL
_GIVEN = os.O_NONBLOCK | _PIDFD_THREAD
_GONE = -1
_INO_MASK = 0xFFFF_FFFF
_PASSING = 1 << 41
"""From here on: tasks that are made to end, by the inode number that their descriptors had."""
_HINT = "close it, or dump both together"


class Pidfd(FileKind):
    name = "pidfd"
    match = ("pidfd", "anon_inode:[pidfd]")
    type = fdtable_pb2.PIDFD
    held = True

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return (file.info.ino,)

    def together(self, entry: fdtable_pb2.file_entry) -> Hashable:
        return (self.name, entry.pidfd.ino) if self.early(entry) else entry.id

    def early(self, entry: fdtable_pb2.file_entry) -> bool:
        return entry.pidfd.nspid == _GONE

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        pid = fdinfo.pidfd_pid(file.info.rest)
        if pid == 0:
            yield "it leads to a process in a pid namespace that criupy does not see", "close it"
        elif pid > 0 and file.flags & _PIDFD_THREAD and not _is_process(pid):
            yield f"it leads to the thread {pid} alone, which cannot be dumped yet", "close it"

    def obstacles_among(self, file: OpenFile, pids: Iterable[int]) -> Iterator[tuple[str, str]]:
        pid, known = fdinfo.pidfd_pid(file.info.rest), {*pids}
        if pid > 0 and not descends(pid, known) and not descends(pid, {*map(_process, known)}):
            yield _stranger(pid)

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        pid, pidfd = fdinfo.pidfd_pid(one.file.info.rest), entry.pidfd
        if pid > 0 and pid not in images.tree.pids and _is_process(pid):
            raise Astray(*_stranger(pid))
        pidfd.id, pidfd.ino = one.id, one.file.info.ino & _INO_MASK
        pidfd.nspid = images.tree.numbers.inside(pid) if pid > 0 else pid
        pidfd.flags = one.file.flags & ~os.O_ACCMODE
        pidfd.fown.CopyFrom(one.file.owner.message())

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        if self.early(entry):
            yield from self._plan_dead(entry, table)
            return
        pid = entry.pidfd.nspid
        if pid not in {task.pid for task in table.snapshot.tasks}:
            raise ImageError(
                "files.img", f"pidfd {entry.id:#x} leads to {pid}, which is not in the image set"
            )
        seen = outer_pid(pid) if table.snapshot.has_own_pids else pid
        yield table.opens(entry.id, "pidfd_open", seen, entry.pidfd.flags & _GIVEN, about=f"pidfd of {pid}")
        yield from self._rest(entry, table)

    def _plan_dead(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        """All descriptors of one that is gone, by a task that is there for them only."""
        passing = _PASSING + entry.pidfd.ino
        task, about = Ref("task", passing), "pidfd of a dead process"
        yield table.step("clone3", *clone_args(0, None), stage=Stage.TREE, about=about)._replace(gives=task)
        held = table.groups[self.together(entry)]
        for one in held:
            opens = table.opens(one.id, "pidfd_open", task, one.pidfd.flags & _GIVEN, about=about)
            yield opens._replace(stage=Stage.TREE)
        yield table.step("exit_group", 0, stage=Stage.TREE, about=about)._replace(tid=passing)
        yield table.step("wait4", task, 0, WALL, 0, stage=Stage.TREE, about=about)
        for one in held:
            yield from self._rest(one, table)

    def _rest(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        given = entry.pidfd.flags & os.O_NONBLOCK
        yield from table.set_flags(entry.id, entry.pidfd.flags, given=given, about="pidfd")


def _is_process(pid: int) -> bool:
    """Whether it is not one of the threads of a process beside its leader."""
    return _process(pid) == pid


def _process(tid: int) -> int:
    """The process of a thread; the number itself if there is none any more."""
    try:
        with open(f"/proc/{tid}/status", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(b"Tgid:"))
    except (FileNotFoundError, ProcessLookupError):
        return tid


def _stranger(pid: int) -> tuple[str, str]:
    try:
        with open(f"/proc/{pid}/comm") as file:
            name = f" ({file.read().strip()})"
    except (FileNotFoundError, ProcessLookupError):
        name = ""
    return f"it leads to process {pid}{name}, which is not dumped", _HINT
