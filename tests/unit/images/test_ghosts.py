"""Ghost images: what was in a file, with its holes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from criupy.errors import ImageError
from criupy.images import ghosts
from criupy.images.directory import ImageDirectory, ImageWriter
from criupy.images.pb.files_pb2 import ghost_file_entry
from criupy.images.pb.inventory_pb2 import inventory_entry


def stored(place: Path, content: dict[int, bytes], size: int) -> ghosts.Ghost:
    """The image of a file that has ``content`` at some offsets."""
    with (place / "file").open("wb") as file:
        file.truncate(size)
        for offset, part in content.items():
            file.seek(offset)
            file.write(part)
    entry = ghost_file_entry(uid=1, gid=2, mode=0o100640)
    with ImageWriter(str(place / "images")) as writer:
        source = os.open(place / "file", os.O_RDONLY)
        os.lseek(source, 3, os.SEEK_SET)
        ghosts.write(writer, 0xAB, entry, source, size)
        os.close(source)
        writer.commit(inventory_entry(img_version=2))
    with ImageDirectory(str(place / "images")) as directory:
        return ghosts.load(directory, 0xAB)


def read(place: Path, ghost: ghosts.Ghost) -> bytes:
    image = (place / "images" / ghost.name).read_bytes()
    found = bytearray(ghost.size)
    for chunk in ghost.chunks:
        found[chunk.offset : chunk.offset + chunk.size] = image[chunk.place : chunk.place + chunk.size]
    return bytes(found)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ({}, 0),
        ({0: b"small"}, 5),
        ({0: b"x" * 12287}, 12287),
        ({0: b"x" * 12288}, 12288),
        ({5000: b"in the middle", 1 << 20: b"far away"}, 3 << 20),
        ({}, 1 << 30),
    ],
)
def test_content_and_holes_are_kept(tmp_path, content, size):
    ghost = stored(tmp_path, content, size)
    assert ghost.size == size
    assert ghost.name == "ghost-file-ab.img"
    assert (ghost.entry.uid, ghost.entry.chunks) == (1, size >= 12288)
    if size < 1 << 30:
        assert read(tmp_path, ghost) == (tmp_path / "file").read_bytes()
    assert (tmp_path / "images" / ghost.name).stat().st_size < 20000


def test_a_missing_image(tmp_path):
    stored(tmp_path, {}, 0)
    with (
        ImageDirectory(str(tmp_path / "images")) as directory,
        pytest.raises(ImageError, match=r"ghost-file-7.img: is missing"),
    ):
        ghosts.load(directory, 7)


def test_a_truncated_image(tmp_path):
    ghost = stored(tmp_path, {0: b"x" * 20000}, 20000)
    os.truncate(tmp_path / "images" / ghost.name, 19000)
    with (
        ImageDirectory(str(tmp_path / "images")) as directory,
        pytest.raises(ImageError, match="truncated"),
    ):
        ghosts.load(directory, 0xAB)
