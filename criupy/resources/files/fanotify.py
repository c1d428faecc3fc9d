"""fanotify(7): marks on inodes, mounts and file systems, with events behind a descriptor.

Image: ``fanotify_file_entry`` in ``files.img``, with ``filesystem`` of our own.  The nursery has all groups, and sets
the marks when everything else is done.

Not kept: events that were not read.  Refused: groups that decide over accesses, since whoever dumps or restores would
wait for the decision of a task that stands still; groups of tasks without CAP_SYS_ADMIN, who must not get more rights.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux.capability import CAP_SYS_ADMIN
from criupy.linux.procfs import fdinfo, task
from criupy.linux.procfs.fdinfo import FanotifyMark
from criupy.model.plan import Stage, Step, path
from criupy.resources import watched
from criupy.resources.fileplan import AT_FDCWD, TablePlan
from criupy.resources.filetable import Astray, Collected, FileImages
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile, unread

# Source: Linux include/uapi/linux/fanotify.h
_CLOEXEC, _NONBLOCK, _CLASSES = 0x1, 0x2, 0xC
_ADD, _DONT_FOLLOW, _ON_MOUNT, _IGNORED_MASK, _ON_FILESYSTEM = 0x1, 0x4, 0x10, 0x20, 0x100
_SURVIVES, _EVICTABLE, _IGNORE = 0x40, 0x200, 0x400
_INIT_FLAGS = 0x7FFF
_OF_MARKED = 0x4000_0000 | 0x0800_0000
"""FAN_ONDIR and FAN_EVENT_ON_CHILD: which objects a mask is about."""


class Fanotify(FileKind):
    name = "fanotify"
    match = ("anon_inode:[fanotify]",)
    type = fdtable_pb2.FANOTIFY
    held = True
    loses_unread = True

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return ()

    def warnings(self, file: OpenFile) -> Iterator[str]:
        if left := unread(file.own):
            yield f"{left} bytes of events that it has not read yet are lost unless it reads them now"

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        found = fdinfo.fanotify(file.info.rest)
        if found.flags & _CLASSES:
            why = "it decides over accesses to files (FAN_CLASS_CONTENT), and all would wait for it meanwhile"
            yield why, "stop what uses it before the dump"
        if found.unknown or found.flags & ~_INIT_FLAGS:
            shown = b"; ".join(found.unknown).decode("utf-8", "backslashreplace") or f"flags {found.flags:#x}"
            yield f"it has something that criupy does not know ({shown})", "let the program remove that mark"
        with open(f"/proc/{file.pid}/status", "rb") as status:
            capabilities = task.credentials(status.read()).cap_effective
        if not capabilities >> CAP_SYS_ADMIN & 1:
            yield "its task has no CAP_SYS_ADMIN, and it would get more rights by a restore", "close it"

    def obstacles_among(self, file: OpenFile, pids: Iterable[int]) -> Iterator[tuple[str, str]]:
        for mark in _named(file):
            if mark.name is None:
                yield mark.lost()

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        found, ffy = fdinfo.fanotify(one.file.info.rest), entry.ffy
        ffy.id, ffy.flags = one.id, one.file.flags
        ffy.fown.CopyFrom(one.file.owner.message())
        ffy.faflags, ffy.evflags = found.flags, found.event_flags
        for mark in _named(one.file):
            if mark.name is None:
                raise Astray(*mark.lost())
            ffy.mark.append(_message(mark.mark, mark.name))

    def paths(self, entry: fdtable_pb2.file_entry) -> Iterator[bytes]:
        return (_name(mark) for mark in entry.ffy.mark)

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        ffy = entry.ffy
        if ffy.faflags & _CLASSES:
            raise ImageError(
                "files.img", f"fanotify {entry.id:#x} decides over accesses, which cannot be restored yet"
            )
        yield table.opens(entry.id, "fanotify_init", ffy.faflags & ~_CLOEXEC, ffy.evflags, about="fanotify")
        given = os.O_NONBLOCK if ffy.faflags & _NONBLOCK else 0
        yield from table.set_flags(entry.id, ffy.flags, given=given, about="fanotify")
        for mark in reversed(ffy.mark):
            for flags, mask in _additions(mark):
                yield table.step(
                    "fanotify_mark", table.at[entry.id], flags, mask, AT_FDCWD, path(_name(mark)),
                    stage=Stage.TIMERS, about="fanotify",
                )  # fmt: skip


class _Mark(NamedTuple):
    """A mark, and the name of what it is on if there is one."""

    mark: FanotifyMark
    name: bytes | None

    def lost(self) -> tuple[str, str]:
        if self.mark.inode is not None:
            return watched.lost(self.mark.inode)
        return "what it marks is mounted nowhere that criupy sees", "let the program remove that mark"


def _named(file: OpenFile) -> list[_Mark]:
    marks = fdinfo.fanotify(file.info.rest).marks
    inodes = [mark.inode for mark in marks if mark.inode is not None]
    names = iter(watched.names(inodes, file.pid) if inodes else ())
    return [
        _Mark(mark, watched.mount_point(mark.mount, mark.device) if mark.inode is None else next(names))
        for mark in marks
    ]


def _message(mark: FanotifyMark, name: bytes) -> files_pb2.fanotify_mark_entry:
    kind = files_pb2.MOUNT if mark.inode is None else files_pb2.INODE
    entry = files_pb2.fanotify_mark_entry(
        id=0, type=kind, mflags=mark.flags, mask=mark.mask, ignored_mask=mark.ignored, s_dev=mark.device
    )
    if mark.inode is not None:
        entry.ie.i_ino = mark.inode.ino
        entry.ie.f_handle.CopyFrom(watched.handle_entry(mark.inode, name))
        return entry
    entry.me.mnt_id, entry.me.path = mark.mount or 0, name
    if mark.mount is None:
        entry.me.filesystem = True
    return entry


def _name(mark: files_pb2.fanotify_mark_entry) -> bytes:
    name = mark.ie.f_handle.path if mark.type == files_pb2.INODE else mark.me.path
    return watched.absolute(name)


def _additions(mark: files_pb2.fanotify_mark_entry) -> Iterator[tuple[int, int]]:
    """Flags and mask: what is watched, and what is ignored."""
    what = _ADD | _DONT_FOLLOW
    if mark.type == files_pb2.MOUNT:
        what = _ADD | (_ON_FILESYSTEM if mark.me.filesystem else _ON_MOUNT)
    what |= mark.mflags & _EVICTABLE
    if mark.mask & ~_OF_MARKED or not mark.ignored_mask:
        yield what, mark.mask
    if mark.ignored_mask:
        ignoring = _IGNORE if mark.mflags & _IGNORE else _IGNORED_MASK
        yield what | ignoring | mark.mflags & _SURVIVES, mark.ignored_mask
