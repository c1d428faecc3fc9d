"""Open files of ``/proc/PID/ns``: descriptors that mean a namespace, for setns(2).

Image: ``ns_file_entry`` in ``files.img``; ``ns_id`` is one of those in ``ids-PID.img``.  Source: Linux fs/nsfs.c.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2
from criupy.model.plan import NURSERY, Step, path
from criupy.resources.fileplan import AT_FDCWD, TablePlan
from criupy.resources.filetable import SHARED_IN_OWN_PIDS, Astray, Collected, FileImages
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile

_CLONE_FLAGS = {
    "time": 0x80, "mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
"""CLONE_NEW*.  Source: Linux include/uapi/linux/sched.h."""
_KINDS = {flag: kind for kind, flag in _CLONE_FLAGS.items()}


class NamespaceFile(FileKind):
    """Those that the task itself lives in: by any other, a dump would need a task in it."""

    name = "namespace file"
    match = tuple(_CLONE_FLAGS)
    type = fdtable_pb2.NS

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return (file.info.ino,)

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        kind, inode = _of(file)
        if os.stat(f"/proc/{file.pid}/ns/{kind}").st_ino != inode:
            yield (
                f"it leads to a {kind} namespace in which the task does not live",
                "close it before the dump",
            )

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        kind, inode = _of(one.file)
        nsf = entry.nsf
        if images.is_shared_in_own_pids(one.id):
            raise Astray(*SHARED_IN_OWN_PIDS)
        nsf.id, nsf.ns_id, nsf.ns_cflag = one.id, images.tree.namespace(kind, inode), _CLONE_FLAGS[kind]
        nsf.flags = one.file.flags

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        nsf, task = entry.nsf, table.snapshot.root
        kind = _KINDS.get(nsf.ns_cflag)
        if kind is None or task.ids is None or getattr(task.ids, f"{kind}_ns_id") != nsf.ns_id:
            raise ImageError(
                "files.img",
                f"file {entry.id:#x} is a namespace in which no task lives, and cannot be restored yet",
            )
        holder = b"self"
        if table.subject.tid == NURSERY:  # it lives elsewhere, and knows the root by number
            if table.snapshot.has_own_pids:
                raise ImageError("files.img", f"namespace file {entry.id:#x}: {SHARED_IN_OWN_PIDS[0]}")
            holder = b"%d" % task.pid
        name = path(b"/proc/%s/ns/%s" % (holder, kind.encode()))
        yield table.opens(entry.id, "openat", AT_FDCWD, name, nsf.flags, 0, about=f"{kind} namespace")


def _of(file: OpenFile) -> tuple[str, int]:
    """Kind and inode number, of ``net:[4026531833]``."""
    kind, _, number = file.link.decode().partition(":")
    return kind, int(number[1:-1])
