"""Pages that parent and child have in common, found in images that store them twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from criupy.images.pages import Content, PagesFile
from criupy.images.pb.core_pb2 import core_entry, pstree_entry
from criupy.images.pb.fdtable_pb2 import REG, file_entry
from criupy.images.pb.inventory_pb2 import inventory_entry
from criupy.images.pb.memory_pb2 import mm_entry
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.restoring import likeness

PAGE = 4096
AREA = range(0x400000, 0x400000 + 128 * PAGE, PAGE)
FILES = PagesFile(0, 1), PagesFile(0, 2)


@pytest.fixture
def pages(tmp_path: Path):
    """``pages(parent, child)``: the contents of their pages files; gives a reader."""
    opened: list[int] = []

    def write(*contents: bytes) -> likeness.Reader:
        for content in contents:
            path = tmp_path / f"pages-{len(opened)}"
            path.write_bytes(content)
            opened.append(os.open(path, os.O_RDONLY))
        return lambda file: opened[file.pages_id - 1]

    yield write
    for descriptor in opened:
        os.close(descriptor)


def task(pid: int, ppid: int, exe: int, file: PagesFile) -> TaskImages:
    mm = mm_entry(exe_file_id=exe)
    mm.vmas.add(start=AREA.start, end=AREA.stop, pgoff=0, shmid=0, prot=3, flags=0x22, status=0x201, fd=-1)
    tree = pstree_entry(pid=pid, ppid=ppid, pgid=1, sid=1, threads=[pid])
    content = (Content(AREA.start, AREA.stop, file, 0),)
    return TaskImages(pid, tree, core_entry(mtype=core_entry.X86_64), mm=mm, resolved=content)


def family(child_exe: int = 5) -> Snapshot:
    files = {}
    for number, name in ((5, b"/bin/one"), (6, b"/bin/other")):
        files[number] = file_entry(type=REG, id=number)
        files[number].reg.name = name
    tasks = (task(1, 0, 5, FILES[0]), task(2, 1, child_exe, FILES[1]))
    return Snapshot(inventory_entry(img_version=2), tasks, files, {})


def test_equal_pages_are_the_parents(pages) -> None:
    one = bytearray(os.urandom(len(AREA) * PAGE))
    other = bytearray(one)
    for changed in (0, 70, 127):
        other[changed * PAGE + 9] ^= 1
    found = likeness.find(family(), pages(bytes(one), bytes(other)))
    own = [
        page
        for part in found.tasks[1].content
        if part.file == FILES[1]
        for page in range((part.start - AREA.start) // PAGE, (part.end - AREA.start) // PAGE)
    ]
    assert own == [0, 70, 127]
    assert all(part.offset == part.start - AREA.start for part in found.tasks[1].content)
    covered = sum(part.end - part.start for part in found.tasks[1].content)
    assert covered == len(AREA) * PAGE
    assert found.tasks[0] == family().tasks[0]


def test_another_program_has_nothing_in_common(pages) -> None:
    content = bytes(len(AREA) * PAGE)
    found = likeness.find(family(child_exe=6), pages(content, content))
    assert {part.file for part in found.tasks[1].content} == {FILES[1]}


def test_images_of_criupy_are_left_alone() -> None:
    own = family()
    own.root.core.tc.true_personality = 0

    def nobody(file: PagesFile) -> int:
        raise AssertionError(f"{file} was read")

    assert likeness.find(own, nobody) is own
