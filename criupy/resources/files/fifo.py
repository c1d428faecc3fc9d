"""fifo(7): a pipe with a name.

Image: ``fifo_entry`` in ``files.img`` beside the ``reg_file_entry`` of its path; content in ``fifo-data.img``.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2
from criupy.model.plan import Step
from criupy.resources.fileplan import TablePlan, reg_entry
from criupy.resources.files import pipecontent
from criupy.resources.filetable import Collected, FileImages, FileTable, path_entry
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile


class Fifo(FileKind):
    """``facts``: (id of the path's entry, content or None)."""

    name = "fifo"
    match = ("fifo",)
    type = fdtable_pb2.FIFO

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return ()

    def together(self, entry: fdtable_pb2.file_entry) -> Hashable:
        return self.name, entry.fifo.pipe_id

    def collect(self, file: OpenFile, table: FileTable) -> tuple[int, pipecontent.PipeContent | None]:
        first = file.readable and table.first(("fifo", file.info.mnt_id, file.info.ino))
        return table.new_id(), pipecontent.collect(file.own) if first else None

    def path_id(self, one: Collected) -> int:
        path_id: int = one.facts[0]
        return path_id

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        path_id, content = one.facts
        file = one.file
        assert file.stat is not None
        images.files[path_id] = path_entry(
            path_id, file.link, file.stat, file.flags, file.info.pos, file.owner
        )
        fifo = entry.fifo
        fifo.id, fifo.pipe_id, fifo.regf_id = one.id, file.info.ino, path_id
        if content is not None:
            images.fifo_data[fifo.pipe_id] = content.image(fifo.pipe_id)

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        """All that are open at once; one descriptor more, for both directions, keeps opening from blocking."""
        pipe_id = entry.fifo.pipe_id
        held = table.groups[self.together(entry)]
        if not all(one.fifo.HasField("regf_id") for one in held):
            raise ImageError("files.img", f"file {entry.id:#x} is a FIFO without a path")
        about = reg_entry(table.snapshot, entry.fifo.regf_id).name.decode("utf-8", "backslashreplace")
        saved = table.snapshot.fifo_data.get(pipe_id)
        both = yield from table.open_path(entry.fifo.regf_id, os.O_RDWR | os.O_NONBLOCK)
        if saved is not None:
            yield from pipecontent.resize(both, saved.entry.size, table, about)
            yield from pipecontent.refill(both, saved, table, about)
        for one in held:
            flags = reg_entry(table.snapshot, one.fifo.regf_id).flags
            table.settle(one.id, (yield from table.open_path(one.fifo.regf_id, flags)))
        yield table.close(both)
