"""Shared memory as it is stored."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from criupy.resources.shmem import SharedMemory

PAGE = 4096


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    found = SharedMemory()
    yield found
    found.close()


@pytest.fixture
def pages() -> Iterator[list[int]]:
    files: list[int] = []
    yield files
    for descriptor in files:
        os.close(descriptor)


def store(memory: SharedMemory, pages: list[int], taken: set[int]) -> None:
    def new_file() -> tuple[int, int]:
        pages.append(os.memfd_create("pages"))
        return len(pages), pages[-1]

    memory.copy(new_file, taken)


def test_what_is_beyond_the_end(memory: SharedMemory, pages: list[int]) -> None:
    """A page is mapped as a whole, and keeps what is written there."""
    fd = os.memfd_create("short")
    os.ftruncate(fd, 2 * PAGE)
    with mmap.mmap(fd, 2 * PAGE) as whole:
        whole[:4] = b"word"
        whole[PAGE + 100 : PAGE + 104] = b"more"
        os.ftruncate(fd, PAGE + 10)
        whole[PAGE + 50 : PAGE + 54] = b"past"
        memory.add(fd, b"/memfd:short (deleted)")
        os.close(fd)
        store(memory, pages, set())
    content = os.pread(pages[0], 3 * PAGE, 0)
    assert len(content) == 2 * PAGE
    assert content[:4] == b"word"
    assert content[PAGE:].strip(b"\0") == b"past"


def test_numbers_are_not_those_of_segments(memory: SharedMemory, pages: list[int]) -> None:
    descriptors = [os.memfd_create(name) for name in ("one", "two")]
    inodes = [os.fstat(fd).st_ino for fd in descriptors]
    for fd in descriptors:
        memory.add(fd, b"/memfd:x (deleted)")
        os.close(fd)
    store(memory, pages, {inodes[0], inodes[0] + 1})
    shmids = [entry.shmid for entry in memory.entries().values()]
    assert len({*shmids, inodes[0], inodes[0] + 1}) == 4
    assert list(memory.pagemaps()) == shmids
