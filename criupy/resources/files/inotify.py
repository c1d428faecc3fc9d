"""inotify(7): watches on inodes, with events behind a descriptor.

Image: ``inotify_file_entry`` in ``files.img``; a watch is found again by the name in its ``f_handle``.  The nursery has
all instances, and adds the watches when every file is open and every page in its place: a restore causes no events.

Not kept: events that were not read.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2
from criupy.linux.procfs import fdinfo
from criupy.linux.syscalls import IN_DONT_FOLLOW
from criupy.model.plan import Stage, Step, path
from criupy.resources import watched
from criupy.resources.fileplan import TablePlan
from criupy.resources.filetable import Astray, Collected, FileImages
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile, unread

_ADDABLE = 0xFFF | 0x0400_0000 | 0x8000_0000
"""IN_ALL_EVENTS, IN_EXCL_UNLINK and IN_ONESHOT: what inotify_add_watch(2) takes of a watch's mask."""
_SETNEXTWD = 0x4004_4900
"""Source: Linux include/uapi/linux/inotify.h, ``INOTIFY_IOC_SETNEXTWD``."""
_LAST_WD = (1 << 31) - 1


class Inotify(FileKind):
    name = "inotify"
    match = ("anon_inode:inotify", "anon_inode:[inotify]")
    type = fdtable_pb2.INOTIFY
    held = True
    loses_unread = True

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return ()

    def warnings(self, file: OpenFile) -> Iterator[str]:
        if left := unread(file.own):
            yield f"{left} bytes of events that it has not read yet are lost unless it reads them now"

    def obstacles_among(self, file: OpenFile, pids: Iterable[int]) -> Iterator[tuple[str, str]]:
        inodes = [watch.inode for watch in fdinfo.inotify_watches(file.info.rest)]
        for inode, name in zip(inodes, watched.names(inodes, file.pid), strict=True):
            if name is None:
                yield watched.lost(inode)

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        ify = entry.ify
        ify.id, ify.flags = one.id, one.file.flags
        ify.fown.CopyFrom(one.file.owner.message())
        watches = [*fdinfo.inotify_watches(one.file.info.rest)]
        names = watched.names([watch.inode for watch in watches], one.file.pid)
        for watch, name in zip(watches, names, strict=True):
            inode = watch.inode
            if name is None:
                raise Astray(*watched.lost(inode))
            ify.wd.add(
                id=0,
                i_ino=inode.ino,
                mask=watch.mask,
                ignored_mask=0,
                s_dev=inode.device,
                wd=watch.wd,
                f_handle=watched.handle_entry(inode, name),
            )

    def paths(self, entry: fdtable_pb2.file_entry) -> Iterator[bytes]:
        return (watched.absolute(watch.f_handle.path) for watch in entry.ify.wd)

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        ify = entry.ify
        given = ify.flags & os.O_NONBLOCK
        yield table.opens(entry.id, "inotify_init1", given, about="inotify")
        yield from table.set_flags(entry.id, ify.flags, given=given, about="inotify")
        number, last = table.at[entry.id], 0
        for watch in sorted(ify.wd, key=lambda watch: watch.wd):
            if not last < watch.wd <= _LAST_WD:
                raise ImageError("files.img", f"inotify {entry.id:#x} has no room for a watch {watch.wd}")
            name = watched.absolute(watch.f_handle.path)
            about = f"inotify, watch {watch.wd}"
            if watch.wd != last + 1:
                yield table.step("ioctl", number, _SETNEXTWD, watch.wd, stage=Stage.TIMERS, about=about)
            last = watch.wd
            mask = watch.mask & _ADDABLE | IN_DONT_FOLLOW
            yield table.step(
                "inotify_add_watch",
                number,
                path(name),
                mask,
                stage=Stage.TIMERS,
                expect=watch.wd,
                about=about,
            )
