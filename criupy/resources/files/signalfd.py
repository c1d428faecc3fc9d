"""signalfd(2): signals read from a descriptor.

Image: ``signalfd_entry`` in ``files.img``.  The signals themselves are pending in the tasks, where `task.signals` has
them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from criupy.images.pb import fdtable_pb2
from criupy.linux.procfs import fdinfo
from criupy.model.plan import Step, data
from criupy.resources.fileplan import TablePlan
from criupy.resources.filetable import Collected, FileImages
from criupy.resources.kind import FileKind

_NEW = -1
_MASK_SIZE = 8


class Signalfd(FileKind):
    """The mask belongs to the open file, and who reads gets the signals of the reader."""

    name = "signalfd"
    match = ("anon_inode:[signalfd]",)
    type = fdtable_pb2.SIGNALFD

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        sgfd = entry.sgfd
        sgfd.id, sgfd.flags = one.id, one.file.flags
        sgfd.fown.CopyFrom(one.file.owner.message())
        sgfd.sigmask = fdinfo.signalfd(one.file.info.rest)

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        sgfd = entry.sgfd
        mask = data(struct.pack("<Q", sgfd.sigmask), text=f"&{sgfd.sigmask:#x}")
        given = sgfd.flags & os.O_NONBLOCK
        yield table.opens(entry.id, "signalfd4", _NEW, mask, _MASK_SIZE, given, about="signalfd")
        yield from table.set_flags(entry.id, sgfd.flags, given=given, about="signalfd")
