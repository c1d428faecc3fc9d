"""Pagemaps and the files that hold the pages.

A pagemap says which runs of pages have content and where: in this set's ``pages-N.img`` (PRESENT), in the
parent's (PARENT), or at the source of a migration (LAZY alone).  Content is in the pages file in the order of
the entries, without gaps, so that an entry's offset is the sum of the PRESENT pages before it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from criupy.errors import ImageError
from criupy.images.codec import BY_NAME, Record
from criupy.images.directory import PARENT, ImageDirectory, ImageWriter
from criupy.linux.syscalls import TMPFS_MAGIC, fallocate, file_system

PAGE_SIZE = 4096
PE_PARENT = 1
PE_LAZY = 2
PE_PRESENT = 4
MAX_PARENTS = 1024
"""Image sets that one may be built upon; more is taken for a loop."""

_MAX_COUNT = 0xFFFFFFFF
_PIECE = 1 << 20
_ADDRESS_SPACE = 1 << 64


class PageRun(NamedTuple):
    """``nr_pages`` pages from ``vaddr``; ``offset`` is in bytes in the pages file, of use if PRESENT."""

    vaddr: int
    nr_pages: int
    flags: int
    offset: int

    @property
    def end(self) -> int:
        return self.vaddr + self.nr_pages * PAGE_SIZE


@dataclass(frozen=True)
class Pagemap:
    """A pagemap that was read and found in order: ascending, aligned, and covered by its pages file."""

    name: str
    pages_id: int
    runs: tuple[PageRun, ...]

    @property
    def pages_file(self) -> str:
        return BY_NAME["PAGES"].file_name(self.pages_id)

    def __iter__(self) -> Iterator[PageRun]:
        return iter(self.runs)

    @property
    def present_pages(self) -> int:
        return sum(run.nr_pages for run in self.runs if run.flags & PE_PRESENT)


class PagemapWriter:
    """Collects runs of pages in ascending order and joins those that touch and have the same flags."""

    def __init__(self, pages_id: int) -> None:
        self.pages_id = pages_id
        self.present_pages = 0
        self._runs: list[list[int]] = []

    def add(self, vaddr: int, nr_pages: int, flags: int = PE_PRESENT) -> int:
        """Adds a run; returns the offset of its content in the pages file (the next free one)."""
        offset = self.present_pages * PAGE_SIZE
        if flags & PE_PRESENT:
            self.present_pages += nr_pages
        last = self._runs[-1] if self._runs else None
        if last and last[0] + last[1] * PAGE_SIZE > vaddr:
            raise ValueError(f"pages at {vaddr:#x} come after those up to {last[0] + last[1] * PAGE_SIZE:#x}")
        joined = last is not None and last[2] == flags and last[0] + last[1] * PAGE_SIZE == vaddr
        if last is not None and joined and last[1] + nr_pages <= _MAX_COUNT:
            last[1] += nr_pages
        elif nr_pages:
            self._runs.append([vaddr, nr_pages, flags])
        return offset

    def pagemap(self, name: str = "") -> Pagemap:
        """What was added, as the value that reading gives."""
        runs, offset = [], 0
        for vaddr, count, flags in self._runs:
            runs.append(PageRun(vaddr, count, flags, offset))
            offset += count * PAGE_SIZE if flags & PE_PRESENT else 0
        return Pagemap(name, self.pages_id, tuple(runs))

    def records(self) -> Iterator[Any]:
        """pagemap_head and the pagemap_entry messages."""
        return pagemap_messages(self.pagemap())


def pagemap_messages(pagemap: Pagemap) -> Iterator[Any]:
    """pagemap_head and the entries; each count is in both fields, for CRIU before 4.2 and for 4.2."""
    from criupy.images.pb.memory_pb2 import pagemap_entry, pagemap_head

    yield pagemap_head(pages_id=pagemap.pages_id)
    for run in pagemap.runs:
        old = min(run.nr_pages, _MAX_COUNT)
        yield pagemap_entry(vaddr=run.vaddr, compat_nr_pages=old, nr_pages=run.nr_pages, flags=run.flags)


def create_pages(writer: ImageWriter, pages_id: int) -> int:
    """A descriptor of a new ``pages-N.img``, to be filled at a pagemap's offsets and closed by the caller."""
    return writer.create(BY_NAME["PAGES"].file_name(pages_id))


def remove_pages(writer: ImageWriter, pages_id: int) -> None:
    """Takes a pages file back."""
    writer.remove(BY_NAME["PAGES"].file_name(pages_id))


def reserve_pages(fd: int, size: int) -> None:
    """Sets ``size`` bytes of the disk aside for a pages file: writing them is quicker then, and cannot run short.

    ImageError when there is no room.  Memory (tmpfs) takes as long to be set aside as to be written.
    """
    try:
        if file_system(fd) != TMPFS_MAGIC:
            fallocate(fd, size)
    except OSError as error:
        raise ImageError("pages file", f"cannot be written: {os.strerror(error.errno or 0)}") from error


def send_pages(
    fd: int, buffer: int, size: int, offset: int, *, start: int = 0, name: str = "pages file"
) -> None:
    """Writes ``size`` bytes of the file ``buffer``, from ``start`` on, to a pages file, or the one of that ``name``.

    ImageError when it does not take all.
    sendfile writes 64 KiB at a time.  Larger writes get larger folios in the page cache; where a virtual machine
    gives free memory back to its host, those have to be fetched again, which takes twice the time and more.
    """
    done = 0
    try:
        os.lseek(fd, offset, os.SEEK_SET)
        while done < size:
            try:
                count = os.sendfile(fd, buffer, start + done, size - done)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a file system that does not know splice
                    raise
                content = os.pread(buffer, min(size - done, _PIECE), start + done)
                count = os.pwrite(fd, content, offset + done)
            if not count:
                raise ImageError(name, "takes no more")
            done += count
    except OSError as error:
        raise ImageError(name, f"cannot be written: {os.strerror(error.errno or 0)}") from error


def _old_flags(entry: Any) -> int:
    if entry.HasField("flags"):
        return 0
    return PE_PARENT if entry.in_parent else PE_PRESENT


def _runs(name: str, records: Iterator[Record]) -> Iterator[PageRun]:
    offset = end = 0
    for record in records:
        entry = record.message
        vaddr, count = entry.vaddr, entry.nr_pages or entry.compat_nr_pages
        if vaddr % PAGE_SIZE:
            raise ImageError(name, f"entry at {vaddr:#x} is not page aligned")
        if vaddr < end:
            raise ImageError(name, f"entry at {vaddr:#x} overlaps the one before or is out of order")
        end = vaddr + count * PAGE_SIZE
        if not count or end > _ADDRESS_SPACE:
            raise ImageError(name, f"entry at {vaddr:#x} has {count} pages")
        flags = entry.flags or _old_flags(entry)
        if flags > PE_PARENT | PE_LAZY | PE_PRESENT:
            raise ImageError(name, f"entry at {vaddr:#x} has flags {flags:#x}")
        yield PageRun(vaddr, count, flags, offset)
        if flags & PE_PRESENT:
            offset += count * PAGE_SIZE


def load_pagemap(directory: ImageDirectory, kind: str, number: int) -> Pagemap | None:
    """The checked pagemap of a task (PAGEMAP) or of shared memory (SHMEM_PAGEMAP); None without a file."""
    name = BY_NAME[kind].file_name(number)
    records = directory.records(kind, number)
    head = next(records, None)
    if head is None:
        return None
    pagemap = Pagemap(name, head.message.pages_id, tuple(_runs(name, records)))
    _check_pages(directory, pagemap)
    return pagemap


def _check_pages(directory: ImageDirectory, pagemap: Pagemap) -> None:
    wanted = pagemap.present_pages * PAGE_SIZE
    fd = directory.open_fd(pagemap.pages_file)
    if fd is None:
        if not wanted:
            return
        raise ImageError(pagemap.pages_file, f"is missing; {pagemap.name} needs it")
    try:
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    if size < wanted:
        raise ImageError(
            pagemap.pages_file,
            f"has {size} bytes where {pagemap.name} needs {wanted}: the file is truncated",
            offset=size,
        )


class PageSource(NamedTuple):
    """Where the content of ``nr_pages`` pages from ``vaddr`` is: ``files[file]`` at ``offset`` bytes."""

    vaddr: int
    nr_pages: int
    file: int
    offset: int


class PagesFile(NamedTuple):
    """A pages file: its number, and in which set it is (0 the set itself, 1 its parent, and so on)."""

    depth: int
    pages_id: int

    def __str__(self) -> str:
        return "parent/" * self.depth + BY_NAME["PAGES"].file_name(self.pages_id)


class Content(NamedTuple):
    """Where the content of the pages from ``start`` to ``end`` is: at ``offset`` bytes of a pages file."""

    start: int
    end: int
    file: PagesFile
    offset: int


def own_content(pagemap: Pagemap) -> tuple[Content, ...]:
    """What the pagemap has in its own set."""
    file = PagesFile(0, pagemap.pages_id)
    return tuple(Content(run.vaddr, run.end, file, run.offset) for run in pagemap if run.flags & PE_PRESENT)


class PageSources:
    """The content of one pagemap, PARENT entries followed to the set that holds them.

    A context manager that owns the descriptors of the pages files, ``files``, which are ``names``.  ``sources`` is
    ascending.
    Runs that are LAZY alone have their content elsewhere and are an ImageError here.
    """

    def __init__(self, directory: ImageDirectory, kind: str, number: int, pagemap: Pagemap) -> None:
        self.files: list[int] = []
        self.names: list[PagesFile] = []
        self.sources: list[PageSource] = []
        try:
            self._resolve(directory, kind, number, pagemap)
        except BaseException:
            self.close()
            raise
        self.sources.sort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self.files:
            os.close(self.files.pop())

    def content(self) -> tuple[Content, ...]:
        """All of it, ascending."""
        return tuple(
            Content(vaddr, vaddr + count * PAGE_SIZE, self.names[file], offset)
            for vaddr, count, file, offset in self.sources
        )

    def read(self, vaddr: int, size: int) -> bytes:
        """The content of a small range; what has no page is zero."""
        content = bytearray(size)
        for source in self.sources:
            start = max(source.vaddr, vaddr)
            end = min(source.vaddr + source.nr_pages * PAGE_SIZE, vaddr + size)
            if start < end:
                page = os.pread(self.files[source.file], end - start, source.offset + start - source.vaddr)
                content[start - vaddr : start - vaddr + len(page)] = page
        return bytes(content)

    def _resolve(self, directory: ImageDirectory, kind: str, number: int, pagemap: Pagemap) -> None:
        wanted = self._take(directory, 0, pagemap, pagemap.runs)
        version, depth = directory.version, 0
        with contextlib.ExitStack() as opened:
            while wanted:
                depth += 1
                if depth > MAX_PARENTS:
                    raise ImageError(PARENT, f"more than {MAX_PARENTS} image sets build upon each other")
                parent = directory.parent()
                if parent is None:
                    at = wanted[0].vaddr
                    raise ImageError(pagemap.name, f"pages at {at:#x} are in a parent, but there is none")
                opened.close()
                directory = opened.enter_context(parent)
                older = _parent_pagemap(directory, kind, number, version)
                wanted = self._take(directory, depth, older, _cut(wanted, older, directory.name))

    def _take(
        self,
        directory: ImageDirectory,
        depth: int,
        pagemap: Pagemap,
        runs: tuple[PageRun, ...] | list[PageRun],
    ) -> list[PageRun]:
        """Adds the runs whose content is in this set; returns those that are in its parent."""
        index = len(self.files)
        if any(run.flags & PE_PRESENT for run in runs):
            fd = directory.open_fd(pagemap.pages_file)
            if fd is None:
                raise ImageError(pagemap.pages_file, "is missing")
            self.files.append(fd)
            self.names.append(PagesFile(depth, pagemap.pages_id))
        wanted = []
        for run in runs:
            if run.flags & PE_PRESENT:
                self.sources.append(PageSource(run.vaddr, run.nr_pages, index, run.offset))
            elif run.flags & PE_PARENT:
                wanted.append(run)
            else:
                raise ImageError(
                    pagemap.name, f"pages at {run.vaddr:#x} were left at the source of a migration"
                )
        return wanted


def _parent_pagemap(parent: ImageDirectory, kind: str, number: int, version: int) -> Pagemap:
    """The pagemap of the same number in a parent set, which may have no inventory."""
    pagemap = load_pagemap(parent.of_version(version), kind, number)
    if pagemap is None:
        raise ImageError(os.path.join(parent.name, BY_NAME[kind].file_name(number)), "is missing or empty")
    return pagemap


def _cut(wanted: list[PageRun], pagemap: Pagemap, name: str) -> list[PageRun]:
    """The parts of ``pagemap`` that cover ``wanted``, which must be covered whole."""
    starts = [run.vaddr for run in pagemap.runs]
    parts = []
    for want in wanted:
        vaddr = want.vaddr
        index = max(bisect_right(starts, vaddr) - 1, 0)
        while vaddr < want.end:
            if index >= len(starts) or not pagemap.runs[index].vaddr <= vaddr < pagemap.runs[index].end:
                raise ImageError(
                    os.path.join(name, pagemap.name), f"has no page at {vaddr:#x}, but a child needs it"
                )
            run = pagemap.runs[index]
            end = min(run.end, want.end)
            parts.append(
                PageRun(vaddr, (end - vaddr) // PAGE_SIZE, run.flags, run.offset + vaddr - run.vaddr)
            )
            vaddr, index = end, index + 1
    return parts
