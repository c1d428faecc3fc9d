"""The GNU build id of an ELF file.  Source: Linux include/uapi/linux/elf.h.

pyelftools would cost 70 ms of import at every dump for these forty lines.
"""

from __future__ import annotations

import os
import struct

_PT_NOTE, _NT_GNU_BUILD_ID = 4, 3
_MAX_HEADERS, _MAX_NOTES, _MAX_BUILD_ID = 512, 1 << 16, 64


def build_id(path: bytes) -> bytes:
    """The build id of the regular file at ``path``; empty when it has none or is no ELF file.

    OSError if it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, 4096, 0)
        if len(head) < 64 or head[:4] != b"\x7fELF" or head[5] != 1:
            return b""
        for offset, size in _notes(fd, head):
            found = _build_id_note(os.pread(fd, min(size, _MAX_NOTES), offset))
            if found:
                return found
        return b""
    finally:
        os.close(fd)


def build_id_words(path: bytes) -> list[int]:
    """The build id as images have it: four bytes to a little-endian word, the last one zero padded."""
    found = build_id(path)
    padded = found + bytes(-len(found) % 4)
    return list(struct.unpack(f"<{len(padded) // 4}I", padded))


def _notes(fd: int, head: bytes) -> list[tuple[int, int]]:
    """(offset, size) of the note segments."""
    if head[4] == 2:
        phoff, phentsize, phnum = struct.unpack_from("<Q14xHH", head, 32)
        fields = "<I4xQ16xQ"
    else:
        phoff, phentsize, phnum = struct.unpack_from("<I10xHH", head, 28)
        fields = "<II8xI"
    wanted = struct.calcsize(fields)
    count = min(phnum, _MAX_HEADERS)
    if phentsize < wanted or phoff >= 1 << 62:
        return []
    end = phoff + count * phentsize
    table = head[phoff:end] if end <= len(head) else os.pread(fd, end - phoff, phoff)
    found = []
    for start in range(0, len(table) - wanted + 1, phentsize):
        kind, offset, size = struct.unpack_from(fields, table, start)
        if kind == _PT_NOTE and offset < 1 << 62:
            found.append((offset, size))
    return found


def _build_id_note(notes: bytes) -> bytes:
    """The descriptor of the build id among notes; they are padded to four bytes."""
    place = 0
    while place + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, place)
        name = notes[place + 12 : place + 12 + name_size]
        content = place + 12 + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and name == b"GNU\0" and size <= _MAX_BUILD_ID:
            return notes[content : content + size]
        place = content + (size + 3 & ~3)
    return b""
