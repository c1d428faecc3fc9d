"""Files that are opened by their path, and lose nothing by it: regular files, directories, some devices, O_PATH.

Image: ``reg_file_entry`` in ``files.img``; of deleted ones the content in ``ghost-file-X.img``
(`criupy.resources.nameless`), locks in ``filelocks.img`` (`criupy.resources.locks`).

Not kept: of a deleted file its extended attributes, and what its times have below a microsecond.

Refused: a deleted file that is larger than ``--ghost-limit``; without ``--link-remap`` one that has other names, and
without ``--file-locks`` a lock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from criupy.images.pb import fdtable_pb2
from criupy.model.plan import Step
from criupy.resources.fileplan import TablePlan, reg_entry
from criupy.resources.filetable import Collected, FileImages, path_entry
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile
from criupy.resources.pidnumbers import has_other_numbers

_NO_SEEK = (1 << 64) - 1
_STATELESS_DEVICES = {
    "1:3": "null",
    "1:5": "zero",
    "1:7": "full",
    "1:8": "random",
    "1:9": "urandom",
    "10:183": "hwrng",
}
"""Character devices of which every opening is like any other.  Source: Linux drivers/char/mem.c, random.c."""

_NOT_THERE_YET = re.compile(rb"/proc/(?P<pid>\d+)/(?:task/(?P<tid>\d+)(?:/|$)|(?:fd|fdinfo|map_files)/)")
"""Threads, descriptors and mappings come after the files."""
_OF_A_TASK = re.compile(rb"/proc/(\d+)(?:/|$)")


class RegularFile(FileKind):
    """What open(2) alone brings back, with flags and position."""

    name = "file"
    match = (
        "regular file",
        "directory",
        "O_PATH",
        *(f"character device {number}" for number in _STATELESS_DEVICES),
    )
    type = fdtable_pb2.REG

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        match = _NOT_THERE_YET.match(file.link)
        if match and file.link.startswith(b"/proc/%d/" % file.pid) and int(match["tid"] or 0) != file.pid:
            yield "what it shows of the task itself is not there yet when files are opened again", "close it"
        elif (match := _OF_A_TASK.match(file.link)) and has_other_numbers(int(match[1])):
            why = "it is of a task in a pid namespace of its own, which will have another number outside"
            yield why, "close it before the dump"

    def obstacles_among(self, file: OpenFile, pids: Iterable[int]) -> Iterator[tuple[str, str]]:
        match = _NOT_THERE_YET.match(file.link)
        owner = int(match["pid"]) if match else file.pid
        if match and owner != file.pid and int(match["tid"] or 0) != owner and owner in {*pids}:
            yield f"what it shows of task {owner} is not there yet when files are opened again", "close it"

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        file = one.file
        assert file.stat is not None
        made = path_entry(one.id, file.link, file.stat, file.flags, file.info.pos, file.owner)
        entry.reg.CopyFrom(made.reg)

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        reg = reg_entry(table.snapshot, entry.id)
        shown = reg.name.decode("utf-8", "backslashreplace")
        table.settle(entry.id, (yield from table.open_path(entry.id, reg.flags)))
        if reg.pos not in (0, _NO_SEEK) and not reg.flags & os.O_PATH:
            yield table.step("lseek", table.at[entry.id], reg.pos, os.SEEK_SET, expect=reg.pos, about=shown)
