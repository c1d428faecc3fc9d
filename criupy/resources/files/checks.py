"""Whether the files that an image set names are still the files that it means."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from criupy.errors import RestoreError
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux import elf
from criupy.model.snapshot import Snapshot
from criupy.resources.kind import FileKind

_STATUS_FILE = 1 << 6 | 1 << 7
_STATUS_MEMFD = 1 << 14


class FileCheck(NamedTuple):
    """A path, and what it has to be; None or empty: anything.  ``itself``: what it leads to does not matter."""

    name: bytes
    size: int | None
    mode: int | None
    build_id: tuple[int, ...]
    itself: bool = False

    def __str__(self) -> str:
        return self.name.decode("utf-8", "backslashreplace")

    def run(self) -> None:
        """Raises `RestoreError` naming the file, what was expected, and what was found."""
        link = self.itself or (self.mode is not None and stat.S_ISLNK(self.mode))
        try:
            found = os.stat(self.name, follow_symlinks=not link)
            build_id = elf.build_id_words(self.name) if self.build_id and stat.S_ISREG(found.st_mode) else []
        except OSError as error:
            hint = "put it where it was when the dump was made"
            raise RestoreError(f"{self}, which the dump needs", errno=error.errno or 0, hint=hint) from error
        if self.mode is not None and found.st_mode != self.mode:
            raise self._differs("mode", f"{self.mode:o}", f"{found.st_mode:o}")
        if self.size is not None and found.st_size != self.size:
            raise self._differs("size", f"{self.size}", f"{found.st_size}")
        if self.build_id and tuple(build_id) != self.build_id:
            raise self._differs("build id", _hex(self.build_id), _hex(build_id) or "none")

    def _differs(self, what: str, expected: str, found: str) -> RestoreError:
        message = f"{self} is not the file that was dumped: its {what} was {expected}, and is {found}"
        return RestoreError(message, hint="put the file of then in its place")


def _hex(words: tuple[int, ...] | list[int]) -> str:
    return struct.pack(f"<{len(words)}I", *words).hex()


def checks(snapshot: Snapshot, kinds: Mapping[int, FileKind]) -> Iterator[FileCheck]:
    """One check for each file that will be opened by its path, and for what kinds need besides; ``kinds`` by type.

    Files below ``/proc/PID`` of a task to come cannot be looked at before; what number it has in /proc is not known
    when it gets a pid namespace of its own.
    """
    own = () if snapshot.has_own_pids else tuple(b"/proc/%d/" % task.pid for task in snapshot.tasks)
    for file_id in dict.fromkeys(_opened(snapshot)):
        entry = snapshot.files.get(file_id)
        if entry is None or entry.type != fdtable_pb2.REG or entry.reg.ext:
            continue
        if not entry.reg.name.startswith(own):
            yield _check(entry.reg)
    opened = dict.fromkeys(info.id for task in snapshot.tasks for info in snapshot.fds(task))
    needed = (snapshot.files[file_id] for file_id in opened if file_id in snapshot.files)
    for name in dict.fromkeys(
        name for entry in needed if entry.type in kinds for name in kinds[entry.type].paths(entry)
    ):
        if not name.startswith(own):
            yield FileCheck(name, None, None, (), itself=True)


def _check(reg: files_pb2.reg_file_entry) -> FileCheck:
    return FileCheck(
        name=reg.name,
        size=reg.size if reg.HasField("size") else None,
        mode=reg.mode if reg.HasField("mode") else None,
        build_id=tuple(reg.build_id),
    )


def _opened(snapshot: Snapshot) -> Iterator[int]:
    """Ids of the files that a restore opens; an entry that nobody refers to is never looked at."""
    for packet in snapshot.sk_queues:
        for scm in packet.entry.scm:
            yield from scm.rights
    for task in snapshot.tasks:
        for info in snapshot.fds(task):
            entry = snapshot.files.get(info.id)
            yield entry.fifo.regf_id if entry is not None and entry.type == fdtable_pb2.FIFO else info.id
        if task.mm is not None:
            yield task.mm.exe_file_id
            for vma in task.mm.vmas:
                if vma.status & _STATUS_FILE and not vma.status & _STATUS_MEMFD:
                    yield vma.shmid
        if task.fs is not None:
            yield task.fs.cwd_id
            yield task.fs.root_id
