"""Ranges of pages: cutting them at areas, and into reads."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.errors import ImageError, TraceeError
from criupy.linux import mman, syscalls
from criupy.resources.memory import content
from criupy.resources.memory.content import CHUNK, Found, Job, Run
from criupy.resources.memory.vma import Vma

PAGE = 4096
REGULAR, VDSO, FILE_SHARED, ANON_PRIVATE = 1, 1 << 3, 1 << 7, 1 << 9
ANONYMOUS = 0x22


def area(
    start: int, end: int, prot: int = 3, flags: int = ANONYMOUS, status: int = REGULAR | ANON_PRIVATE
) -> Vma:
    return Vma(start * PAGE, end * PAGE, prot, flags, status)


def found(start: int, end: int, *, guard: bool = False) -> Found:
    return Found(start * PAGE, end * PAGE, guard)


def run(start: int, end: int, flags: int = 6, *, forced: bool = False) -> Run:
    return Run(start * PAGE, end * PAGE, flags, forced)


VMAS = [
    area(10, 20),
    area(20, 30, prot=0),
    area(40, 50, flags=0x2022),  # locked
    area(50, 60, flags=1, status=REGULAR | FILE_SHARED),
    area(60, 62, prot=5, status=REGULAR | ANON_PRIVATE | VDSO),
]


def test_runs() -> None:
    pages = [found(5, 12), found(15, 25), found(25, 26, guard=True), found(41, 61)]
    assert content.runs_of(pages, VMAS) == [
        run(10, 12),
        run(15, 20),
        run(20, 25, forced=True),
        run(41, 50, flags=4),
        run(60, 62, flags=4),
    ]


def test_guards_are_cut_at_areas() -> None:
    pages = [found(15, 25, guard=True), found(30, 31), found(42, 43, guard=True)]
    guards = content.guards_of(pages, VMAS)
    assert [(start // PAGE, end // PAGE) for start, end in guards] == [(15, 20), (20, 25), (42, 43)]


ranges = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 700), st.booleans()), max_size=30)


def runs_of(shape: list[tuple[int, int, bool]]) -> list[Run]:
    at, runs = 1, []
    for gap, length, forced in shape:
        runs.append(run(at + gap, at + gap + length, forced=forced))
        at += gap + length
    return runs


@given(ranges)
def test_jobs_cover_every_page_in_order(shape: list[tuple[int, int, bool]]) -> None:
    runs = runs_of(shape)
    jobs = list(content.jobs_of(runs))
    covered = [
        (page, job.forced) for job in jobs for at, size in job.pieces for page in range(at, at + size, PAGE)
    ]
    assert covered == [(page, one.forced) for one in runs for page in range(one.start, one.end, PAGE)]
    offset = 0
    for job in jobs:
        assert job.offset == offset
        assert job.size == sum(size for _, size in job.pieces) <= CHUNK
        assert len(job.pieces) <= 1024
        offset += job.size


@given(st.integers(1024, 3000))
def test_scattered_pages_are_gathered(count: int) -> None:
    jobs = list(content.jobs_of([run(2 * index, 2 * index + 1) for index in range(1, count + 1)]))
    assert len(jobs) == -(-count // (CHUNK // PAGE))


def test_neighbours_are_one_piece() -> None:
    assert list(content.jobs_of([run(1, 3), run(3, 4, flags=4)])) == [
        Job(0, 3 * PAGE, [(PAGE, 3 * PAGE)], forced=False)
    ]


@pytest.fixture
def pages_fd(tmp_path: Path) -> Callable[[], int]:
    return lambda: os.open(tmp_path / "pages", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)


@pytest.mark.parametrize("size", [PAGE, CHUNK + PAGE, 24 << 20])
@pytest.mark.parametrize("forced", [False, True])
def test_copying_our_own_memory(size: int, forced: bool, pages_fd: Callable[[], int]) -> None:
    import mmap

    from criupy.linux import syscalls

    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = os.urandom(PAGE) * (size // PAGE)
    memory[size - 1] = 7
    buffer = syscalls.address_of(memory)  # type: ignore[arg-type]
    fd = pages_fd()
    told: list[tuple[str, int, int]] = []
    content.copy_runs(
        os.getpid(), [Run(buffer, buffer + size, 6, forced)], fd, lambda *what: told.append(what)
    )
    assert os.fstat(fd).st_size == size
    assert os.pread(fd, size, 0) == memory[:]
    assert all(done <= total == size for _, done, total in told)
    os.close(fd)


@pytest.mark.parametrize("size", [PAGE, 24 << 20])
def test_memory_that_is_not_there(size: int, pages_fd: Callable[[], int]) -> None:
    fd = pages_fd()
    with pytest.raises(TraceeError, match="cannot be read"):
        content.copy_runs(os.getpid(), [Run(1 << 40, (1 << 40) + size, 6, forced=False)], fd)
    os.close(fd)


def test_a_full_disk() -> None:
    memory = bytearray(2 * PAGE)
    from criupy.linux import syscalls

    start = -(-syscalls.address_of(memory) // PAGE) * PAGE
    fd = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(ImageError, match=r"pages file.*"):
        content.copy_runs(os.getpid(), [Run(start, start + PAGE, 6, forced=False)], fd)
    os.close(fd)


def test_many_regions_are_found_once_each() -> None:
    """More than the kernel tells at once."""
    pages, step = 1 << 15, 3
    with mmap.mmap(-1, pages * mman.PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, pages, step):
            memory[page * mman.PAGE] = 1
        start = syscalls.address_of(memory)
        if not syscalls.has_pagemap_scan():
            pytest.skip("this kernel has no PAGEMAP_SCAN")
        regions = content.scan(os.getpid(), (), has_pagemap_scan=True)
        inside = [one for one in regions if start <= one.start < start + pages * mman.PAGE]
        assert [(one.start - start) // mman.PAGE for one in inside] == list(range(0, pages, step))
        assert all(one.end <= after.start for one, after in itertools.pairwise(regions))
