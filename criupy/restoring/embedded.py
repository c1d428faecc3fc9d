"""Executables and libraries that the images hold, in place of those that are other files by now."""

from __future__ import annotations

import dataclasses
import os
import stat

from criupy.errors import ImageError
from criupy.images.directory import ImageDirectory
from criupy.images.ghosts import Ghost
from criupy.images.pb.files_pb2 import GHOST, remap_file_path_entry
from criupy.model.snapshot import Snapshot

_PIECE = 1 << 20


def replace(snapshot: Snapshot, directory: ImageDirectory) -> Snapshot:
    """The same snapshot, in which an embedded file that was changed or is gone has no name, and comes of the images."""
    remaps = [
        remap_file_path_entry(orig_id=file_id, remap_id=number, remap_type=GHOST)
        for file_id, name, number in _embedded(snapshot)
        if not _is_the_same(name, snapshot.ghosts[number], directory)
    ]
    return dataclasses.replace(snapshot, remaps=[*snapshot.remaps, *remaps]) if remaps else snapshot


def _embedded(snapshot: Snapshot) -> list[tuple[int, bytes, int]]:
    """(file id, name, number of the ghost) of all that a restore opens."""
    entries = (snapshot.files[file_id] for file_id in snapshot.opened if file_id not in snapshot.nameless)
    return [(one.id, one.reg.name, one.reg.embedded_id) for one in entries if one.reg.HasField("embedded_id")]


def _is_the_same(name: bytes, ghost: Ghost, directory: ImageDirectory) -> bool:
    """Whether the file with the name has the mode and content of the embedded one."""
    try:
        found = os.stat(name)
        if (
            found.st_mode != ghost.entry.mode
            or found.st_size != ghost.size
            or not stat.S_ISREG(found.st_mode)
        ):
            return False
        return _is_untouched(found, ghost) or _has_the_content(name, ghost, directory)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_untouched(found: os.stat_result, ghost: Ghost) -> bool:
    """Whether it is the very file that was embedded, which nobody has written to since."""
    entry = ghost.entry
    device = entry.dev >> 20 == os.major(found.st_dev) and entry.dev & 0xFFFFF == os.minor(found.st_dev)
    written = entry.mtim.tv_sec, entry.mtim.tv_usec
    return bool(
        device and entry.ino == found.st_ino and written == divmod(found.st_mtime_ns // 1000, 1_000_000)
    )


def _has_the_content(name: bytes, ghost: Ghost, directory: ImageDirectory) -> bool:
    image = directory.open_fd(ghost.name)
    if image is None:
        raise ImageError(ghost.name, "is missing")
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            return _equal(file, image, ghost)
        finally:
            os.close(file)
    finally:
        os.close(image)


def _equal(file: int, image: int, ghost: Ghost) -> bool:
    end = 0
    for offset, size, place in (*ghost.chunks, (ghost.size, 0, 0)):
        for at in range(end, offset, _PIECE):
            hole = min(_PIECE, offset - at)
            if os.pread(file, hole, at) != bytes(hole):
                return False
        for at in range(0, size, _PIECE):
            piece = min(_PIECE, size - at)
            if os.pread(file, piece, offset + at) != os.pread(image, piece, place + at):
                return False
        end = offset + size
    return True
