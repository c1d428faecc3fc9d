"""What an image set holds, at a glance: the tree of its tasks, what each had of memory and descriptors, and totals.

A plain value of numbers and words, without image messages: ``criupy show`` draws it.
"""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from criupy.images.codec import kind_of_file
from criupy.images.directory import INVENTORY, ImageDirectory
from criupy.images.pages import PAGE_SIZE, PE_PARENT, PE_PRESENT, Pagemap, PageSources
from criupy.images.pb.core_pb2 import pstree_entry, task_core_entry
from criupy.images.pb.memory_pb2 import mm_entry
from criupy.model.descriptors import Describer, Description, signal_name, text
from criupy.model.snapshot import TASK_DEAD, TASK_STOPPED, Snapshot, TaskImages, load

LONGEST_COMMAND = 4096
"""Bytes of a command line that are looked at."""
_FORMATS = {1: "1.0", 2: "1.1"}
"""What CRIU calls its image format, by ``img_version``."""
_VMA_VSYSCALL, _VMA_GUARD = 1 << 2, 1 << 16


class Memory(NamedTuple):
    """Bytes of a task: ``mapped`` in all, ``saved`` in this image set, ``in_parent`` in those it builds upon."""

    mapped: int
    saved: int
    in_parent: int


class Descriptor(NamedTuple):
    """One descriptor.  ``same_as`` is the lowest one of the task with the same open file description, if not this."""

    fd: int
    file: Description
    close_on_exec: bool = False
    same_as: int | None = None


@dataclass(frozen=True)
class Task:
    """One process.

    ``command`` is the command line, after the comm if it does not hold that; the comm alone if the images have no
    command line.  ``state`` is in words, ``marks`` tell session and process group where they are not the parent's.
    A zombie has neither memory nor descriptors.  ``files_of`` is the pid of the first task with the same descriptor
    table, if that is another one.  ``places`` are the paths of exe, cwd and root.
    """

    pid: int
    command: str
    state: str
    marks: tuple[str, ...] = ()
    threads: int = 0
    memory: Memory | None = None
    descriptors: tuple[Descriptor, ...] = ()
    files_of: int | None = None
    places: tuple[tuple[str, str], ...] = ()
    children: tuple[Task, ...] = ()

    def walk(self) -> Iterator[Task]:
        """This task and its descendants, parents first."""
        ahead = [self]
        while ahead:
            task = ahead.pop()
            yield task
            ahead += reversed(task.children)


class SharedMemory(NamedTuple):
    """Memory that has images of its own: how many objects, and their bytes that are saved."""

    objects: int
    saved: int


class Disk(NamedTuple):
    """The image files: how many, their bytes, and the bytes that they take of the disk."""

    files: int
    size: int
    taken: int


@dataclass(frozen=True)
class Overview:
    """An image set.

    ``format`` is CRIU's name of its version, ``written`` the time of the inventory, which comes last, in seconds
    since 1970; it is the time of the copy if the set was copied without its times.  ``parent`` is where the link to
    the image set leads that this one builds upon; empty if there is none.
    """

    name: str
    format: str
    written: float
    root: Task
    shared: SharedMemory
    disk: Disk
    parent: str = ""


def survey(directory: ImageDirectory) -> Overview:
    """The overview of an image set.  ImageError: it is none, or contradicts itself."""
    snapshot = load(directory)
    return Overview(
        name=directory.name,
        format=_FORMATS[snapshot.inventory.img_version],
        written=directory.status(INVENTORY).st_mtime,
        root=_root(snapshot, directory),
        shared=SharedMemory(len(snapshot.shmem), sum(_saved(pagemap) for pagemap in snapshot.shmem.values())),
        disk=_disk(directory),
        parent=directory.parent_name() or "",
    )


def _disk(directory: ImageDirectory) -> Disk:
    found = [directory.status(name) for name in directory.names() if kind_of_file(name)]
    return Disk(len(found), sum(one.st_size for one in found), sum(one.st_blocks * 512 for one in found))


def _root(snapshot: Snapshot, directory: ImageDirectory) -> Task:
    """The tree, from the leaves up: parents come first in a snapshot."""
    reader = _Reader(snapshot, directory)
    children: dict[int, list[Task]] = defaultdict(list)
    for images in reversed(snapshot.tasks):
        below = tuple(reversed(children.pop(images.pid, [])))
        children[images.pstree.ppid].append(reader.task(images, below))
    return children[0][0]


class _Reader:
    """Makes tasks of their images."""

    def __init__(self, snapshot: Snapshot, directory: ImageDirectory) -> None:
        self._snapshot = snapshot
        self._directory = directory
        self._describer = Describer(snapshot)
        self._entries = {images.pid: images.pstree for images in snapshot.tasks}
        self._tables: dict[int, int] = {}
        for images in snapshot.tasks:
            if images.ids:
                self._tables.setdefault(images.ids.files_id, images.pid)

    def task(self, images: TaskImages, children: tuple[Task, ...]) -> Task:
        """One task."""
        entry, tc = images.pstree, images.core.tc
        state, marks = _state(tc), tuple(_marks(entry, self._entries.get(entry.ppid)))
        if images.mm is None or images.fs is None or images.ids is None or images.pagemap is None:
            return Task(images.pid, text(tc.comm), state, marks, children=children)
        owner = self._tables[images.ids.files_id]
        return Task(
            pid=images.pid,
            command=_command(
                text(tc.comm), _arguments(self._directory, images.pid, images.mm, images.pagemap)
            ),
            state=state,
            marks=(*marks, "its main thread has ended") if images.lost_its_leader else marks,
            threads=len(images.living),
            memory=_memory(images.mm, images.pagemap),
            descriptors=tuple(self._descriptors(images)),
            files_of=None if owner == images.pid else owner,
            places=(
                ("exe", self._describer.path(images.mm.exe_file_id)),
                ("cwd", self._describer.path(images.fs.cwd_id)),
                ("root", self._describer.path(images.fs.root_id)),
            ),
            children=children,
        )

    def _descriptors(self, images: TaskImages) -> Iterator[Descriptor]:
        first: dict[int, int] = {}
        for info in sorted(self._snapshot.fds(images), key=lambda info: info.fd):
            same = first.setdefault(info.id, info.fd)
            file = self._describer.describe(info.id)
            yield Descriptor(info.fd, file, bool(info.flags), None if same == info.fd else same)


def _state(tc: task_core_entry) -> str:
    if tc.task_state == TASK_STOPPED:
        return f"stopped by {signal_name(tc.stop_signo or signal.SIGSTOP)}"
    if tc.task_state != TASK_DEAD:
        return "running"
    status = tc.exit_code
    if status & 0x7F:
        return f"zombie, killed by {signal_name(status & 0x7F)}"
    return f"zombie, exited with {status >> 8 & 0xFF}"


def _marks(entry: pstree_entry, parent: pstree_entry | None) -> Iterator[str]:
    if parent is None or entry.sid != parent.sid:
        yield "session leader" if entry.sid == entry.pid else f"session {entry.sid}"
    if entry.pgid == entry.pid == entry.sid:
        return  # as it has to be of a session leader
    if parent is None or entry.pgid != parent.pgid:
        yield "group leader" if entry.pgid == entry.pid else f"group {entry.pgid}"


def _memory(mm: mm_entry, pagemap: Pagemap) -> Memory:
    mapped = sum(vma.end - vma.start for vma in mm.vmas if not vma.status & (_VMA_VSYSCALL | _VMA_GUARD))
    in_parent = sum(run.nr_pages for run in pagemap if run.flags & PE_PARENT and not run.flags & PE_PRESENT)
    return Memory(mapped, _saved(pagemap), in_parent * PAGE_SIZE)


def _saved(pagemap: Pagemap) -> int:
    return pagemap.present_pages * PAGE_SIZE


def _command(comm: str, line: str) -> str:
    if not line:
        return comm
    return line if comm in line else f"{comm}: {line}"


def _arguments(directory: ImageDirectory, pid: int, mm: mm_entry, pagemap: Pagemap) -> str:
    """The command line as it is in the saved memory; empty if it is not there."""
    start, end = mm.mm_arg_start, min(mm.mm_arg_end, mm.mm_arg_start + LONGEST_COMMAND)
    runs = tuple(run for run in pagemap if run.vaddr < end and start < run.end)
    if start >= end or not runs:
        return ""
    with PageSources(directory, "PAGEMAP", pid, replace(pagemap, runs=runs)) as pages:
        words = pages.read(start, end - start).rstrip(b"\0").split(b"\0")
    rest = "..." if end < mm.mm_arg_end and any(words) else ""
    return text(b" ".join(words)) + rest
