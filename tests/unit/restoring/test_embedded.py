"""Which embedded files a restore takes out of the images: those that are others by now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from criupy.images import ghosts
from criupy.images.directory import ImageDirectory, ImageWriter
from criupy.images.pb import core_pb2, fdtable_pb2, files_pb2, inventory_pb2
from criupy.images.pb.memory_pb2 import mm_entry
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.resources import nameless
from criupy.restoring import embedded

SIZE = 5 << 20


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "library.so"
    path.write_bytes(b"\x7fELF" + bytes(1 << 20) + os.urandom(100))
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def images(tmp_path: Path, library: Path) -> Path:
    with ImageWriter(str(tmp_path / "images")) as writer:
        nameless.embed(writer, 3, os.fsencode(library), library.stat())
        writer.commit(inventory_pb2.inventory_entry(img_version=2))
    return tmp_path / "images"


def replaced(library: Path, images: Path) -> list[tuple[int, int]]:
    """The remaps that a restore adds, of a task that runs the library."""
    fown = core_pb2.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
    reg = files_pb2.reg_file_entry(id=7, name=os.fsencode(library), flags=0, pos=0, fown=fown, embedded_id=3)
    task = TaskImages(1, core_pb2.pstree_entry(), core_pb2.core_entry(), mm=mm_entry(exe_file_id=7))
    with ImageDirectory(str(images)) as directory:
        snapshot = Snapshot(
            inventory_pb2.inventory_entry(),
            (task,),
            {7: fdtable_pb2.file_entry(type=fdtable_pb2.REG, id=7, reg=reg)},
            {},
            ghosts={3: ghosts.load(directory, 3)},
        )
        return [(remap.orig_id, remap.remap_id) for remap in embedded.replace(snapshot, directory).remaps]


def test_the_same_file(library, images):
    assert replaced(library, images) == []


def test_another_file_with_the_same_content(library, images):
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(content)
    library.chmod(0o644)
    assert replaced(library, images) == []


@pytest.mark.parametrize(
    "place", [0, 4000, (1 << 20) - 1, (1 << 20) + 60, (1 << 20) + 200, 3 << 20, SIZE - 1]
)
def test_a_single_byte_is_another(library, images, place):
    content = bytearray(library.read_bytes())
    content[place] ^= 1
    library.write_bytes(content)
    assert replaced(library, images) == [(7, 3)]


def test_another_size_or_mode(library, images):
    library.chmod(0o600)
    assert replaced(library, images) == [(7, 3)]
    library.chmod(0o644)
    assert replaced(library, images) == []
    os.truncate(library, SIZE + 1)
    assert replaced(library, images) == [(7, 3)]


def test_what_is_there_no_more_or_of_another_kind(library, images):
    library.unlink()
    assert replaced(library, images) == [(7, 3)]
    library.mkdir()
    assert replaced(library, images) == [(7, 3)]
