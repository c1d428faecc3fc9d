"""eventfd(2): a 64-bit counter behind a descriptor.

Image: ``eventfd_file_entry`` in ``files.img``, with ``semaphore`` of our own; the count in all of its 64 bits.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Hashable, Iterator

from criupy.images.pb import fdtable_pb2
from criupy.linux.procfs import fdinfo
from criupy.model.plan import Step, data
from criupy.resources.fileplan import TablePlan
from criupy.resources.filetable import Collected, FileImages
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile

_EFD_SEMAPHORE = 1
_MAX = (1 << 64) - 2
"""The kernel lets nobody write more.  Source: Linux fs/eventfd.c, ``eventfd_write``."""


class Eventfd(FileKind):
    name = "eventfd"
    match = ("anon_inode:[eventfd]",)
    type = fdtable_pb2.EVENTFD

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return (fdinfo.eventfd_id(file.info.rest),)

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        found = fdinfo.eventfd(one.file.info.rest)
        efd = entry.efd
        efd.id, efd.flags, efd.counter = one.id, one.file.flags, found.counter
        efd.fown.CopyFrom(one.file.owner.message())
        if found.semaphore:
            efd.semaphore = True

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        efd = entry.efd
        flags = efd.flags & os.O_NONBLOCK | (_EFD_SEMAPHORE if efd.semaphore else 0)
        small = efd.counter < 1 << 32
        yield table.opens(efd.id, "eventfd2", efd.counter if small else 0, flags, about="eventfd")
        yield from table.set_flags(efd.id, efd.flags, given=efd.flags & os.O_NONBLOCK, about="eventfd")
        if not small:
            counter = min(efd.counter, _MAX)
            content = data(struct.pack("<Q", counter), text=f"&{counter}")
            yield table.step("write", table.at[efd.id], content, 8, expect=8, about="eventfd")
