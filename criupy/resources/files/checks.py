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


class FileCheck(NamedTuple):
    """A path, and what it has to be; None or empty: anything.  ``itself``: what it leads to does not matter."""

    name: bytes
    size: int | None
    mode: int | None
    build_id: tuple[int, ...]
    is_mapped: bool = False
    """Or run."""
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
            hint = self._hint("put it where it was when the dump was made")
            raise RestoreError(f"{self}, which the dump needs", errno=error.errno or 0, hint=hint) from error
        if self.mode is not None and found.st_mode != self.mode:
            raise self._differs("mode", f"{self.mode:o}", f"{found.st_mode:o}")
        if self.size is not None and found.st_size != self.size:
            raise self._differs("size", f"{self.size}", f"{found.st_size}")
        if self.build_id and tuple(build_id) != self.build_id:
            found_id = _hex(build_id) or "none"
            raise self._differs("build id", _hex(self.build_id), found_id, ", or go by its size alone")

    def _differs(self, what: str, expected: str, found: str, more: str = "") -> RestoreError:
        message = f"{self} is not the file that was dumped: its {what} was {expected}, and is {found}"
        more = f"{more} (--file-validation filesize)" if more else ""
        return RestoreError(message, hint=self._hint(f"put the file of then in its place{more}"))

    def _hint(self, way_out: str) -> str:
        if not self.is_mapped:
            return way_out
        return f"{way_out}; a dump with --embed-mapped-files needs neither executables nor libraries"


def _hex(words: tuple[int, ...] | list[int]) -> str:
    return struct.pack(f"<{len(words)}I", *words).hex()


def checks(snapshot: Snapshot, kinds: Mapping[int, FileKind], *, build_ids: bool) -> Iterator[FileCheck]:
    """One check for each file that will be opened by its path, and for what kinds need besides; ``kinds`` by type.

    Files below ``/proc/PID`` of a task to come cannot be looked at before; what number it has in /proc is not known
    when it gets a pid namespace of its own.
    """
    own = () if snapshot.has_own_pids else tuple(b"/proc/%d/" % task.pid for task in snapshot.tasks)
    for file_id, how in snapshot.opened.items():
        entry = snapshot.files.get(file_id)
        if entry is None or entry.type != fdtable_pb2.REG or entry.reg.ext:
            continue
        kind, number = snapshot.nameless.get(file_id, (None, 0))
        name = snapshot.files[number].reg.name if kind == files_pb2.LINKED else entry.reg.name
        if kind != files_pb2.GHOST and not name.startswith(own):
            check = _check(name, entry.reg)._replace(is_mapped=any(flags != os.O_PATH for flags in how))
            yield check if build_ids else check._replace(build_id=())
    opened = dict.fromkeys(info.id for task in snapshot.tasks for info in snapshot.fds(task))
    needed = (snapshot.files[file_id] for file_id in opened if file_id in snapshot.files)
    for name in dict.fromkeys(
        name for entry in needed if entry.type in kinds for name in kinds[entry.type].paths(entry)
    ):
        if not name.startswith(own):
            yield FileCheck(name, None, None, (), itself=True)


def _check(name: bytes, reg: files_pb2.reg_file_entry) -> FileCheck:
    return FileCheck(
        name=name,
        size=reg.size if reg.HasField("size") else None,
        mode=reg.mode if reg.HasField("mode") else None,
        build_id=tuple(reg.build_id),
    )
