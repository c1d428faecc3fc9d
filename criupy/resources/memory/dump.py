"""The memory of a task, collected while it is stopped and encoded afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from criupy.images.pages import PE_PARENT, PE_PRESENT, Pagemap, PagemapWriter
from criupy.images.pb import memory_pb2
from criupy.linux import mman
from criupy.resources.memory import content, cow
from criupy.resources.memory.layout import Layout, parse_layout
from criupy.resources.memory.vma import FILE_SHARED, GUARD, VDSO, KnownFiles, Vma, read_vmas

if TYPE_CHECKING:
    from criupy.linux.features import KernelFeatures
    from criupy.resources.filetable import FileTable
    from criupy.resources.kind import Asking
    from criupy.tracee.batch import Results
    from criupy.tracee.frozen import FrozenProcess

_WORTH_A_THREAD = 64 << 20
_SYSTEM_CALL = b"\x0f\x05"
Progress = Callable[[str, int, int], None]
"""Told the label, what is done and what there is, in bytes."""


class MemoryFacts(NamedTuple):
    """One address space, of the process ``pid`` and read by the number of its thread ``speaker``.

    ``vmas`` are ascending, ``files`` the file ids by the start of the mapping, ``guards`` have (start, end),
    ``runs`` are the pages that go to the image, ``exe`` is a file id.
    """

    pid: int
    speaker: int
    vmas: tuple[Vma, ...]
    files: dict[int, int]
    guards: tuple[tuple[int, int], ...]
    runs: tuple[content.Run, ...]
    layout: Layout
    exe: int

    @property
    def nr_pages(self) -> int:
        """Pages that go to the image."""
        return sum(run.end - run.start for run in self.runs) // mman.PAGE

    @property
    def pages_scanned(self) -> int:
        """Pages of the areas that were looked at."""
        return sum(vma.end - vma.start for vma in self.vmas if vma.has_pages) // mman.PAGE


class Reader:
    """Reads the address spaces of frozen processes; what several have mapped is looked at once."""

    def __init__(self, table: FileTable, features: KernelFeatures) -> None:
        self._table = table
        self._features = features
        self._files: KnownFiles = {}

    def read(self, process: FrozenProcess) -> Callable[[Asking], Callable[[Results], MemoryFacts]]:
        """Reads one; what a thread of it has to be asked goes to the function that is returned.

        Raises `NotDumpable` for what has appeared since the first look.
        """
        speaker = process.speaker
        vmas, found = _look(speaker, self._features, self._files)
        files = _file_ids(speaker, vmas, self._table)
        exe = self._table.link(speaker, "exe")
        stat, auxv = _read(speaker, "stat"), _read(speaker, "auxv")

        def ask(asking: Asking) -> Callable[[Results], MemoryFacts]:
            brk = asking.call("brk", 0)
            return lambda results: MemoryFacts(
                pid=process.pid,
                speaker=speaker,
                vmas=tuple(vmas),
                files=files,
                guards=tuple(content.guards_of(found, vmas)),
                runs=tuple(content.runs_of(found, vmas)),
                layout=parse_layout(stat, auxv, results[brk]),
                exe=exe,
            )

        return ask


def _look(pid: int, features: KernelFeatures, files: KnownFiles) -> tuple[list[Vma], list[content.Found]]:
    """The areas and their pages.  The kernel walks all pages for each of the two: for a large task, side by side."""
    if not features.pagemap_scan or _resident(pid) < _WORTH_A_THREAD:
        vmas = read_vmas(pid, files)
        return vmas, content.scan(pid, vmas, has_pagemap_scan=features.pagemap_scan)
    found: list[content.Found] = []
    failures: list[BaseException] = []

    def scan() -> None:
        try:
            found.extend(content.scan(pid, (), has_pagemap_scan=True))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)

    thread = threading.Thread(target=scan)
    thread.start()
    try:
        vmas = read_vmas(pid, files)
    finally:
        thread.join()
    if failures:
        raise failures[0]
    return vmas, found


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(_read(pid, "statm").split()[1]) * mman.PAGE


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.readall()


def _file_ids(pid: int, vmas: list[Vma], table: FileTable) -> dict[int, int]:
    """File ids by the start of the mapping; the table, which looks at the link, is asked once per file."""
    ids: dict[tuple[int, int, bytes], int] = {}
    found: dict[int, int] = {}
    for vma in vmas:
        if vma.file:
            key = (vma.file.stat.st_dev, vma.file.stat.st_ino, vma.file.path)
            if key not in ids:
                for_reading = not vma.status & FILE_SHARED or vma.file.mode == os.O_RDONLY
                ids[key] = table.mapped(pid, vma.start, vma.end, for_reading=for_reading)
            found[vma.start] = ids[key]
    return found


def system_call(facts: MemoryFacts, read: Callable[[int, int], bytes]) -> int:
    """Where in the vdso there is an instruction that makes a system call; 0 without one.  ``read(address, size)``."""
    for vma in facts.vmas:
        if vma.status & VDSO:
            found = read(vma.start, vma.end - vma.start).find(_SYSTEM_CALL)
            return vma.start + found if found >= 0 else 0
    return 0


def copy_pages(
    facts: MemoryFacts, family: cow.Family | None, pages_fd: int, progress: Progress | None = None
) -> None:
    """Copies the pages that the frozen process has alone to the start of ``pages_fd``, in the order of the pagemap."""
    content.copy_runs(facts.speaker, _own_runs(facts, family), pages_fd, progress)


def copy_family(
    family: cow.Family, facts: Mapping[int, MemoryFacts], pages_fd: int, progress: Progress | None = None
) -> None:
    """Copies what a family shares to the start of ``pages_fd``; ``facts`` by pid."""
    offset = 0
    for owner, pieces in groupby(family.pieces, attrgetter("owner")):
        _, runs = cow.split(facts[owner].runs, [(piece.start, piece.end) for piece in pieces])
        content.copy_runs(facts[owner].speaker, runs, pages_fd, progress, offset=offset)
        offset += sum(run.end - run.start for run in runs)


def pagemap(facts: MemoryFacts, family: cow.Family | None, pages_id: int) -> Pagemap:
    """Which pages are in ``pages-<pages_id>.img``, and which in the family's set."""
    writer = PagemapWriter(pages_id)
    shared = family.shared.get(facts.pid, ()) if family else ()
    own, common = cow.split(facts.runs, shared)
    runs = [*own, *(run._replace(flags=PE_PARENT) for run in common)]
    for run in sorted(runs):
        writer.add(run.start, (run.end - run.start) // mman.PAGE, run.flags)
    return writer.pagemap(f"pagemap-{facts.pid}.img")


def family_pagemap(family: cow.Family, pages_id: int) -> Pagemap:
    """The pagemap that every member has in the family's set."""
    writer = PagemapWriter(pages_id)
    for piece in family.pieces:
        writer.add(piece.start, (piece.end - piece.start) // mman.PAGE, PE_PRESENT)
    return writer.pagemap()


def _own_runs(facts: MemoryFacts, family: cow.Family | None) -> Sequence[content.Run]:
    shared = family.shared.get(facts.pid, ()) if family else ()
    return cow.split(facts.runs, shared)[0] if shared else facts.runs


def encode_mm(facts: MemoryFacts) -> memory_pb2.mm_entry:
    """The image of the address space; what prctl tells of it is filled in by its own kind."""
    layout = facts.layout
    entry = memory_pb2.mm_entry(
        mm_start_code=layout.start_code,
        mm_end_code=layout.end_code,
        mm_start_data=layout.start_data,
        mm_end_data=layout.end_data,
        mm_start_stack=layout.start_stack,
        mm_start_brk=layout.start_brk,
        mm_brk=layout.brk,
        mm_arg_start=layout.arg_start,
        mm_arg_end=layout.arg_end,
        mm_env_start=layout.env_start,
        mm_env_end=layout.env_end,
        exe_file_id=facts.exe,
        mm_saved_auxv=layout.criu_auxv,
    )
    if layout.auxv != layout.criu_auxv:
        entry.full_auxv.extend(layout.auxv)
    for vma in facts.vmas:
        encode_vma(vma, facts.files.get(vma.start, 0), entry.vmas.add())
    for start, end in facts.guards:
        entry.vmas.add(start=start, end=end, pgoff=0, shmid=0, prot=0, flags=0, status=GUARD, fd=-1)
    return entry


def encode_vma(vma: Vma, file_id: int, entry: memory_pb2.vma_entry) -> None:
    """Fills the message of one area; ``file_id`` is 0 without a file."""
    entry.start, entry.end, entry.pgoff, entry.shmid = vma.start, vma.end, vma.offset, file_id
    entry.prot, entry.flags, entry.status, entry.fd = vma.prot, vma.flags, vma.status, -1
    if vma.madv:
        entry.madv = vma.madv
    if vma.mode is not None:
        entry.fdflags = vma.mode
    if vma.lock_on_fault:
        entry.lock_on_fault = True
    if vma.sealed:
        entry.sealed = True
