"""memfd_create(2): memory behind a descriptor, shared by everyone who has or maps it.

Image: ``memfd_file_entry`` in ``files.img``; the memory itself has its home in `criupy.resources.shmem`.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator

from criupy.images.pb import fdtable_pb2
from criupy.model.plan import Step
from criupy.resources.fileplan import AT_FDCWD, TablePlan
from criupy.resources.filetable import Collected, FileImages, FileTable
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile
from criupy.resources.shmem import again, file_entry


class Memfd(FileKind):
    """``facts``: the inode_id.  Only the nursery can open one, since it has made the memory."""

    name = "memfd"
    match = ("memfd",)
    type = fdtable_pb2.MEMFD
    held = True
    nameless = True

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return (file.info.ino, file.info.pos)

    def collect(self, file: OpenFile, table: FileTable) -> int:
        return table.shmem.add(file.own, file.link)

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        entry.CopyFrom(file_entry(one.id, one.facts, one.file))

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        memfd = entry.memfd
        about = f"memfd {memfd.inode_id}"
        memory = again(table.memory.objects[memfd.inode_id])
        flags = memfd.flags & ~os.O_CLOEXEC
        yield table.opens(entry.id, "openat", AT_FDCWD, memory, flags, 0, about=about)
        if memfd.pos:
            number = table.at[entry.id]
            yield table.step("lseek", number, memfd.pos, os.SEEK_SET, expect=memfd.pos, about=about)
