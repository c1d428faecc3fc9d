"""Working directory, root and umask of a task.

Image: ``fs_entry`` in ``fs-PID.img``.  Its paths are those of the mount namespace, so both directories are opened
before chroot(2); a working directory outside of the root stays one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from criupy.errors import ImageError
from criupy.images.pb import core_pb2
from criupy.model.plan import Ref, Stage, Step, path
from criupy.resources.fileplan import open_steps, reg_entry
from criupy.resources.filetable import FileTable
from criupy.resources.kind import PlanSubject

_O_DIRECTORY_PATH = 0o10200000
_STAGE = Stage.FILESYSTEM


class FsFacts(NamedTuple):
    """File ids of the two directories, and the mode bits that new files do not get."""

    cwd: int
    root: int
    umask: int


def collect(pid: int, table: FileTable) -> FsFacts:
    """Of a frozen task."""
    with open(f"/proc/{pid}/status", "rb") as file:
        umask = next(int(line.split()[1], 8) for line in file if line.startswith(b"Umask:"))
    return FsFacts(table.link(pid, "cwd"), table.link(pid, "root"), umask)


def encode(facts: FsFacts) -> core_pb2.fs_entry:
    return core_pb2.fs_entry(cwd_id=facts.cwd, root_id=facts.root, umask=facts.umask)


def plan(subject: PlanSubject) -> Iterator[Step]:
    """The calls that put a task where it was."""
    fs = subject.task.fs
    if fs is None:
        raise ImageError(f"fs-{subject.task.pid}.img", "is missing")
    tid, snapshot = subject.tid, subject.snapshot
    root = reg_entry(snapshot, fs.root_id).name
    if fs.root_id in snapshot.nameless:
        raise ImageError(f"fs-{subject.task.pid}.img", "its root was deleted, which cannot be restored yet")
    cwd = Ref("directory", tid)
    yield from open_steps(subject, fs.cwd_id, _STAGE, _O_DIRECTORY_PATH, cwd)
    if root != b"/":
        yield Step(tid, _STAGE, "chroot", (path(root),), about="root directory")
    yield Step(tid, _STAGE, "fchdir", (cwd,), about="working directory")
    yield Step(tid, _STAGE, "close", (cwd,))
    if fs.HasField("umask"):
        yield Step(tid, _STAGE, "umask", (fs.umask,), about="umask")
