"""Ghost files: what was in a file that has no name any more (``ghost-file-X.img``).

A small file follows its message as it is; of a larger one there are chunks, with holes where there are none.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from criupy.errors import ImageError
from criupy.images.codec import BY_NAME, encode_head, encode_record
from criupy.images.directory import ImageDirectory, ImageWriter
from criupy.images.pages import PAGE_SIZE, send_pages
from criupy.images.pb.files_pb2 import ghost_chunk_entry, ghost_file_entry

_KIND = "GHOST_FILE"
_IN_CHUNKS = 3 * PAGE_SIZE
"""Smaller files are stored whole, as CRIU has it."""
_LARGEST = (1 << 63) - 1


class Chunk(NamedTuple):
    """``size`` bytes at ``offset`` of the file, which are at ``place`` of the image."""

    offset: int
    size: int
    place: int


class Ghost(NamedTuple):
    """A ghost image without the content itself."""

    number: int
    entry: Any
    chunks: tuple[Chunk, ...]

    @property
    def name(self) -> str:
        return file_name(self.number)

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        if self.entry.chunks:
            return int(self.entry.size)
        return sum(chunk.size for chunk in self.chunks)


def file_name(number: int) -> str:
    return BY_NAME[_KIND].file_name(number)


def load(directory: ImageDirectory, number: int) -> Ghost:
    """A ghost image, checked; ImageError if it is missing or contradicts itself."""
    name = file_name(number)
    records = iter(directory.placed(_KIND, number))
    first = next(records, None)
    if first is None:
        raise ImageError(name, "is missing or empty")
    if not first.message.chunks:
        return Ghost(number, first.message, (Chunk(0, first.size, first.place),) if first.size else ())
    size, end = first.message.size, 0
    if size > _LARGEST:
        raise ImageError(name, f"the file has {size} bytes")
    chunks = []
    for message, place, length in records:
        if message.off < end or message.off + length > size:
            raise ImageError(name, f"the chunk at {message.off} is out of order, or beyond the end")
        end = message.off + length
        chunks.append(Chunk(message.off, length, place))
    return Ghost(number, first.message, tuple(chunks))


def write(writer: ImageWriter, number: int, entry: ghost_file_entry, source: int, size: int) -> None:
    """Stores ``size`` bytes of the file behind the descriptor ``source``, which is left where it is."""
    name = file_name(number)
    target = writer.create(name)
    try:
        place = 0
        if size >= _IN_CHUNKS:
            entry.chunks, entry.size = True, size
        place = _put(target, name, place, encode_head(BY_NAME[_KIND]) + encode_record(entry))
        for offset, length in extents(source, size) if entry.chunks else [(0, size)]:
            if entry.chunks:
                chunk = ghost_chunk_entry(len=length, off=offset)
                place = _put(target, name, place, encode_record(chunk))
            send_pages(target, source, length, place, start=offset, name=name)
            place += length
    finally:
        os.close(target)


def _put(target: int, name: str, place: int, content: bytes) -> int:
    try:
        if os.pwrite(target, content, place) != len(content):
            raise ImageError(name, "takes no more")
    except OSError as error:
        raise ImageError(name, f"cannot be written: {os.strerror(error.errno or 0)}") from error
    return place + len(content)


def extents(source: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is no hole; where it can, it starts at whole pages."""
    end = 0
    while end < size:
        before = end
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = before, size  # a file system that knows no holes
        start = max(before, start // PAGE_SIZE * PAGE_SIZE)
        end = min(end, size)
        yield start, end - start
