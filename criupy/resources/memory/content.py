"""Which pages a task has of its own, and how they get out while it is stopped.

What is in no page map entry comes back by itself: a zero page, or what the mapped file holds.  Source: Linux
fs/proc/task_mmu.c (PAGEMAP_SCAN, the bits of pagemap), mm/process_vm_access.c.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from criupy.errors import TraceeError
from criupy.images.pages import PE_LAZY, PE_PRESENT, reserve_pages, send_pages
from criupy.linux import mman, syscalls
from criupy.resources.memory.vma import VDSO, Vma

CHUNK = 1 << 20
"""Bytes per read: what stays in the processor's cache until it is written."""
_PIECES = 1024  # UIO_MAXIOV
_WORTH_THREADS = 8 << 20
_TELL_EVERY = 0.1  # seconds
_REGIONS, _MOST_REGIONS = 1 << 10, 1 << 16


class Run(NamedTuple):
    """Pages of one area that go to the image; ``flags`` are the pagemap's.

    ``forced``: to be read through /proc/PID/mem, since they are not readable, or since others have them too:
    process_vm_readv pins pages, and gives the process its own copy of one that it shares.  Source: Linux mm/gup.c,
    ``gup_must_unshare``.
    """

    start: int
    end: int
    flags: int
    forced: bool


class Found(NamedTuple):
    """A run of pages as the kernel tells it."""

    start: int
    end: int
    guard: bool


def scan(pid: int, vmas: Iterable[Vma], *, has_pagemap_scan: bool) -> list[Found]:
    """The pages of a stopped task that differ from zero and from the file, and its guard pages; ascending."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        if has_pagemap_scan:
            return list(_scan(pagemap.fileno()))
        return [found for vma in vmas if vma.has_pages for found in _read_pagemap(pagemap.fileno(), vma)]


def _scan(pagemap: int) -> Iterator[Found]:
    room = _REGIONS
    unwanted = mman.PAGE_IS_FILE | mman.PAGE_IS_PFNZERO
    start, end, guard = 0, mman.TASK_SIZE, mman.PAGE_IS_GUARD
    while start < end:
        regions = array("Q", bytes(24 * room))
        ask = array("Q", [96, 0, start, end, 0, regions.buffer_info()[0], room, 0])
        ask.extend((unwanted, unwanted, mman.PAGE_IS_PRESENT | mman.PAGE_IS_SWAPPED, guard))
        try:
            count = fcntl.ioctl(pagemap, mman.PAGEMAP_SCAN, ask)
        except OSError as error:
            if not guard:
                raise TraceeError("the page map cannot be scanned", errno=error.errno or 0) from error
            guard = 0  # before v6.15 there was no such bit
            continue
        words = regions[: 3 * count].tolist()
        for first, last, categories in zip(words[::3], words[1::3], words[2::3], strict=True):
            yield Found(first, last, bool(categories & mman.PAGE_IS_GUARD))
        # With no room left the walk may be said to end before its last region.
        start = max([ask[4], *words[3 * count - 2 :: 3]])
        room = min(8 * room, _MOST_REGIONS)


_PM_PRESENT_OR_SWAPPED = 3 << 62
_PM_FILE = 1 << 61
_PM_GUARD = 1 << 58


def _read_pagemap(pagemap: int, vma: Vma) -> Iterator[Found]:
    """The same from the words of pagemap; zero pages cannot be told from others there."""
    address = vma.start
    while address < vma.end:
        size = min(vma.end - address, CHUNK * mman.PAGE // 8)
        words = array("Q", os.pread(pagemap, size // mman.PAGE * 8, address // mman.PAGE * 8))
        begin, kind = address, 0
        for word in words:
            now = 0
            if word & _PM_GUARD:
                now = 2
            elif word & _PM_PRESENT_OR_SWAPPED and not word & _PM_FILE:
                now = 1
            if now != kind:
                if kind:
                    yield Found(begin, address, kind == 2)
                begin, kind = address, now
            address += mman.PAGE
        if kind:
            yield Found(begin, address, kind == 2)
        if not words:
            raise TraceeError(f"the page map ends at {address:#x}")


def guards_of(found: Iterable[Found], vmas: list[Vma]) -> list[tuple[int, int]]:
    """The guard regions (start, end), cut at the borders of areas."""
    return [(start, end) for one in found if one.guard for _, start, end in _within(one, vmas) if start < end]


def runs_of(found: Iterable[Found], vmas: list[Vma]) -> list[Run]:
    """The pages that go to the image: all of the vdso, and what was found in areas with own pages."""
    runs = [
        Run(
            start,
            end,
            PE_PRESENT | (PE_LAZY if vma.may_be_lazy else 0),
            vma.in_common or not vma.prot & mman.PROT_READ,
        )
        for one in found
        if not one.guard
        for vma, start, end in _within(one, vmas)
        if vma.has_pages and not vma.status & VDSO
    ]
    runs += [Run(vma.start, vma.end, PE_PRESENT, False) for vma in vmas if vma.status & VDSO]
    return sorted(runs)


def _within(found: Found, vmas: list[Vma]) -> Iterator[tuple[Vma, int, int]]:
    index = max(bisect_right(vmas, found.start, key=lambda vma: vma.start) - 1, 0)
    while index < len(vmas) and vmas[index].start < found.end:
        vma = vmas[index]
        if vma.end > found.start:
            yield vma, max(found.start, vma.start), min(found.end, vma.end)
        index += 1


class Job(NamedTuple):
    """One read and one write: ``pieces`` of memory (address, length), ``size`` bytes, to ``offset``."""

    offset: int
    size: int
    pieces: list[tuple[int, int]]
    forced: bool


def jobs_of(runs: Iterable[Run], offset: int = 0) -> Iterator[Job]:
    """Cuts and gathers runs into jobs of at most CHUNK bytes, whose pages follow each other from ``offset`` on."""
    size = 0
    pieces: list[tuple[int, int]] = []
    forced = False
    for run in runs:
        address = run.start
        while address < run.end:
            if pieces and (size == CHUNK or len(pieces) == _PIECES or forced != run.forced):
                yield Job(offset, size, pieces, forced)
                offset, size, pieces = offset + size, 0, []
            forced = run.forced
            length = min(run.end - address, CHUNK - size)
            if pieces and sum(pieces[-1]) == address:
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + length)
            else:
                pieces.append((address, length))
            address, size = address + length, size + length
    if pieces:
        yield Job(offset, size, pieces, forced)


def copy_runs(
    pid: int,
    runs: Iterable[Run],
    pages_fd: int,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    offset: int = 0,
) -> None:
    """Copies the pages of a stopped task to ``pages_fd`` from ``offset`` on, in order.

    Two threads share the work from some MiB on: one reads while the other writes, for neither holds the
    interpreter's lock.  Only one writes at a time: two would spin on the lock of the file.

    Raises `TraceeError` for memory that cannot be read, `ImageError` for a failed write.
    """
    jobs = deque(jobs_of(runs, offset))
    if not jobs:
        return
    largest = max(job.size for job in jobs)
    reserve_pages(pages_fd, jobs[-1].offset + jobs[-1].size)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    copy = partial(_work, pid, memory, jobs, largest, pages_fd, threading.Lock())
    try:
        if sum(job.size for job in jobs) < _WORTH_THREADS:
            copy()
        else:
            _share(copy, jobs, progress)
    finally:
        os.close(memory)


def _share(
    copy: Callable[[], None], jobs: deque[Job], progress: Callable[[str, int, int], None] | None
) -> None:
    failures: list[BaseException] = []
    total = sum(job.size for job in jobs)

    def work() -> None:
        try:
            # criupy may be pinned to the processor of the task
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
            copy()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)
            jobs.clear()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_TELL_EVERY)
                if progress is not None:
                    progress("memory", jobs[0].offset if jobs else total, total)
    finally:  # an interrupt must not leave them at work on a task that is let go
        jobs.clear()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _work(
    pid: int, memory: int, jobs: deque[Job], largest: int, pages_fd: int, writing: threading.Lock
) -> None:
    with _buffer(largest) as (source, buffer):
        address = syscalls.address_of(buffer)
        while True:
            try:
                job = jobs.popleft()
            except IndexError:
                return
            done = 0
            if not job.forced:
                done = syscalls.process_vm_readv(pid, address, job.size, job.pieces)
            if done < job.size:
                _read_forced(memory, buffer, job, done)
            with writing:
                send_pages(pages_fd, source, job.size, job.offset)


@contextmanager
def _buffer(size: int) -> Iterator[tuple[int, mmap.mmap]]:
    """Memory that is a file as well: its descriptor, and where it is mapped."""
    source = os.memfd_create("criupy-pages")
    try:
        os.ftruncate(source, size)
        with mmap.mmap(source, size) as buffer:
            yield source, buffer
    finally:
        os.close(source)


def _read_forced(memory: int, buffer: mmap.mmap, job: Job, done: int) -> None:
    """Reads what is left of a job through /proc/PID/mem, which the areas' protection does not hinder."""
    position = 0
    for address, length in job.pieces:
        while position + length > done:
            at = address + max(done - position, 0)
            done = max(done, position)
            try:
                with memoryview(buffer) as view, view[done : position + length] as part:
                    count = os.preadv(memory, [part], at)
            except OSError as error:
                raise TraceeError(f"memory at {at:#x} cannot be read", errno=error.errno or 0) from error
            if not count:
                raise TraceeError(f"memory at {at:#x} cannot be read")
            done += count
        position += length
