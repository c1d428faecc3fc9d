"""A snapshot: everything that an image set says about a tree of tasks, indexed, without the pages themselves.

It is the same value whether it was made from live tasks or loaded from images of criupy or of CRIU, and it
holds the image messages as they are.  What was loaded has been checked (:mod:`criupy.model.integrity`): ids
lead somewhere, counts and ranges are sane.  Those who read a snapshot do not change its messages.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from criupy.errors import ImageError
from criupy.images import ghosts
from criupy.images.codec import BY_NAME, Record
from criupy.images.directory import ImageDirectory, ImageWriter
from criupy.images.pages import (
    Content,
    Pagemap,
    PageSources,
    load_pagemap,
    own_content,
    pagemap_messages,
)
from criupy.images.pb.core_pb2 import core_entry, fs_entry, pstree_entry, seccomp_entry, task_kobj_ids_entry
from criupy.images.pb.fdtable_pb2 import FIFO, REG, fdinfo_entry, file_entry
from criupy.images.pb.files_pb2 import (
    GHOST,
    LINKED,
    file_lock_entry,
    memfd_inode_entry,
    pipe_data_entry,
    remap_file_path_entry,
    tty_data_entry,
    tty_info_entry,
)
from criupy.images.pb.inventory_pb2 import inventory_entry
from criupy.images.pb.memory_pb2 import mm_entry, vma_entry
from criupy.images.pb.namespaces_pb2 import ipc_shm_entry, timens_entry
from criupy.images.pb.sockets_pb2 import sk_packet_entry

TASK_ALIVE = 1
TASK_DEAD = 2
TASK_STOPPED = 3
LOCK_POSIX, LOCK_FLOCK, LOCK_OFD, LOCK_LEASE = 1, 2, 4, 8
"""``file_lock_entry.flag``."""
VMA_VDSO = 1 << 3
"""In ``vma_entry.status``."""
_LARGEST_VDSO = 1 << 20

_OTHER = (
    "CGROUP",
    "APPARMOR",
    "BPFMAP_DATA",
    "BINFMT_MISC",
)
"""Global images without a field of their own: kept as records."""


@dataclass(frozen=True)
class TaskImages:
    """One process.  A zombie has only ``pstree`` and ``core``.

    ``core`` is the leader's; ``threads`` are the cores by tid, the leader's first.  ``vdso`` is the content of the
    vdso, by which a restore tells whether it is this kernel's; it is there if the images were loaded, and so is where
    the pages are that parent sets hold (``resolved``).
    """

    pid: int
    pstree: pstree_entry
    core: core_entry
    ids: task_kobj_ids_entry | None = None
    mm: mm_entry | None = None
    fs: fs_entry | None = None
    threads: Mapping[int, core_entry] = field(default_factory=dict)
    pagemap: Pagemap | None = None
    vdso: bytes = field(default=b"", compare=False)
    resolved: tuple[Content, ...] | None = field(default=None, compare=False)

    @property
    def content(self) -> tuple[Content, ...]:
        """Where the pages are, ascending."""
        if self.resolved is not None:
            return self.resolved
        return own_content(self.pagemap) if self.pagemap is not None else ()

    @property
    def zombie(self) -> bool:
        return bool(self.core.tc.task_state == TASK_DEAD)

    @property
    def lost_its_leader(self) -> bool:
        """Whether its main thread has ended, while others go on."""
        return not self.zombie and self.core.tc.HasField("dead_leader")

    @property
    def living(self) -> tuple[int, ...]:
        """Its threads, the leader first unless that has ended."""
        return tuple(tid for tid in self.threads if tid != self.pid or not self.lost_its_leader)


class SocketPacket(NamedTuple):
    """What waits to be received by the socket with the file id ``entry.id_for``, in the order of the image."""

    entry: sk_packet_entry
    content: bytes


class PipeData(NamedTuple):
    """What was in a pipe: ``entry`` has the size of its buffer, ``content`` the bytes."""

    entry: pipe_data_entry
    content: bytes


@dataclass(frozen=True)
class Snapshot:
    """An image set.

    ``tasks`` are in the order of the process tree, parents first.  ``files`` is by file id, ``fdinfo`` by
    files_id, pipe content by pipe_id, ``memfds`` by inode_id, ``shmem`` by shmid, System V
    ``segments`` by id, ``ghosts`` by remap_id, ``terminals`` and what was read from them by tty_info_id.
    ``timens``: what the clocks showed, if that is known.
    ``others`` are further images by file name.
    """

    inventory: inventory_entry
    tasks: tuple[TaskImages, ...]
    files: Mapping[int, file_entry]
    fdinfo: Mapping[int, Sequence[fdinfo_entry]]
    seccomp: seccomp_entry = field(default_factory=seccomp_entry)
    pipes_data: Mapping[int, PipeData] = field(default_factory=dict)
    fifo_data: Mapping[int, PipeData] = field(default_factory=dict)
    sk_queues: Sequence[SocketPacket] = ()
    remaps: Sequence[remap_file_path_entry] = ()
    locks: Sequence[file_lock_entry] = ()
    ghosts: Mapping[int, ghosts.Ghost] = field(default_factory=dict)
    memfds: Mapping[int, memfd_inode_entry] = field(default_factory=dict)
    shmem: Mapping[int, Pagemap] = field(default_factory=dict)
    segments: Mapping[int, ipc_shm_entry] = field(default_factory=dict)
    timens: timens_entry | None = None
    terminals: Mapping[int, tty_info_entry] = field(default_factory=dict)
    terminal_data: Mapping[int, tty_data_entry] = field(default_factory=dict)
    others: Mapping[str, Sequence[Record]] = field(default_factory=dict)

    @property
    def root(self) -> TaskImages:
        """The root of the tree."""
        return self.tasks[0]

    @property
    def ipc_namespace(self) -> int:
        """The number of the IPC namespace of all tasks; 0: the images do not say."""
        return self.root.ids.ipc_ns_id if self.root.ids else 0

    @property
    def has_own_pids(self) -> bool:
        """Whether the tree lives in a pid namespace of its own: all its numbers are those inside."""
        outside, ids = self.inventory.root_ids, self.root.ids
        return ids is not None and outside.HasField("pid_ns_id") and ids.pid_ns_id != outside.pid_ns_id

    @property
    def outer_pids(self) -> frozenset[int]:
        """The pids of the tree as the dumper saw them, as far as the images say."""
        entries = [task.pstree for task in self.tasks]
        if not self.has_own_pids:
            return frozenset(entry.pid for entry in entries)
        return frozenset(entry.outer_pid for entry in entries if entry.HasField("outer_pid"))

    @property
    def is_own(self) -> bool:
        """Whether criupy wrote it, and not CRIU: it has fields of its own."""
        return bool(self.root.core.tc.HasField("true_personality"))

    @cached_property
    def nameless(self) -> Mapping[int, tuple[int, int]]:
        """What remaps say, by the id of the path: the remap_type and what it leads to."""
        return {remap.orig_id: remap_target(remap) for remap in self.remaps}

    @cached_property
    def opened(self) -> Mapping[int, Sequence[int]]:
        """The ids of all paths that a restore opens, each with how: O_PATH for descriptors and directories, else
        the access of mappings and executables.  An entry that nobody refers to is never looked at."""
        found: dict[int, dict[int, None]] = {}
        for file_id, how in _opened(self):
            found.setdefault(file_id, {})[how] = None
        return {file_id: tuple(how) for file_id, how in found.items()}

    def task(self, pid: int) -> TaskImages:
        """The task with a pid; KeyError if there is none."""
        for task in self.tasks:
            if task.pid == pid:
                return task
        raise KeyError(pid)

    def fds(self, task: TaskImages) -> Sequence[fdinfo_entry]:
        """The descriptors of a task."""
        return self.fdinfo.get(task.ids.files_id, ()) if task.ids else ()


_VMA_FILE = 1 << 6 | 1 << 7
_VMA_MEMFD = 1 << 14
_MAP_SHARED, _PROT_WRITE = 1, 2


def access_mode(vma: vma_entry) -> int:
    """The access that the mapped file was opened for."""
    if vma.HasField("fdflags"):
        return vma.fdflags & os.O_ACCMODE
    return os.O_RDWR if vma.flags & _MAP_SHARED and vma.prot & _PROT_WRITE else os.O_RDONLY


def _opened(snapshot: Snapshot) -> Iterator[tuple[int, int]]:
    held = [info.id for task in snapshot.tasks for info in snapshot.fds(task)]
    sent = [file_id for packet in snapshot.sk_queues for scm in packet.entry.scm for file_id in scm.rights]
    for file_id in (*held, *sent):
        entry = snapshot.files.get(file_id)
        if entry is not None and entry.type in (REG, FIFO):
            yield entry.fifo.regf_id if entry.type == FIFO else file_id, os.O_PATH
    for task in snapshot.tasks:
        if task.mm is not None:
            yield task.mm.exe_file_id, os.O_RDONLY
            for vma in task.mm.vmas:
                if vma.status & _VMA_FILE and not vma.status & _VMA_MEMFD:
                    yield vma.shmid, access_mode(vma)
        if task.fs is not None:
            yield task.fs.cwd_id, os.O_PATH
            yield task.fs.root_id, os.O_PATH


def remap_target(remap: remap_file_path_entry) -> tuple[int, int]:
    """The remap_type and what it leads to; old images say GHOST by the top bit of ``remap_id``."""
    if remap.HasField("remap_type"):
        return remap.remap_type, remap.remap_id
    ghost = remap.remap_id >> 31
    return (GHOST if ghost else LINKED), remap.remap_id & 0x7FFFFFFF


def load(directory: ImageDirectory) -> Snapshot:
    """The image set of a directory, checked.  ImageError: it is no image set, or contradicts itself."""
    from criupy.model import integrity

    inventory = directory.inventory()
    tasks = tuple(_task(directory, record.message) for record in directory.records("PSTREE"))
    remaps = tuple(record.message for record in directory.records("REMAP_FPATH"))
    memfds = _by_id("memfd.img", ((r.message.inode_id, r.message) for r in directory.records("MEMFD_INODE")))
    files = _files(directory)
    snapshot = Snapshot(
        inventory=inventory,
        tasks=tasks,
        files=files,
        fdinfo=_fdinfo(directory, tasks),
        seccomp=directory.first("SECCOMP") or seccomp_entry(),
        pipes_data=_pipe_data(directory, "PIPES_DATA"),
        fifo_data=_pipe_data(directory, "FIFO_DATA"),
        sk_queues=tuple(SocketPacket(r.message, r.payload) for r in directory.records("SK_QUEUES")),
        remaps=remaps,
        locks=tuple(record.message for record in directory.records("FILE_LOCKS")),
        ghosts=_ghosts(directory, remaps, files),
        memfds=memfds,
        shmem=_shmem(directory, tasks, memfds),
        segments=_segments(directory, tasks),
        timens=directory.first("TIMENS", 0),
        terminals=_by_id("tty-info.img", ((r.message.id, r.message) for r in directory.records("TTY_INFO"))),
        terminal_data=_by_id(
            "tty-data.img", ((r.message.tty_id, r.message) for r in directory.records("TTY_DATA"))
        ),
        others=_others(directory),
    )
    integrity.check(snapshot)
    return snapshot


def _task(directory: ImageDirectory, entry: pstree_entry) -> TaskImages:
    pid = entry.pid
    core = directory.only("CORE", pid)
    if core.tc.task_state == TASK_DEAD:
        return TaskImages(pid, entry, core, threads={pid: core})
    if list(entry.threads[:1]) != [pid]:
        raise ImageError("pstree.img", f"the first thread of task {pid} is not {pid}")
    threads = {pid: core}
    for tid in entry.threads[1:]:
        if tid in threads:
            raise ImageError("pstree.img", f"task {pid} has thread {tid} twice")
        threads[tid] = directory.only("CORE", tid)
    pagemap = load_pagemap(directory, "PAGEMAP", pid)
    if pagemap is None:
        raise ImageError(BY_NAME["PAGEMAP"].file_name(pid), "is missing or empty")
    mm = directory.only("MM", pid)
    with PageSources(directory, "PAGEMAP", pid, pagemap) as pages:
        content, vdso = pages.content(), _vdso(pid, mm, pages)
    return TaskImages(
        pid,
        entry,
        core,
        ids=directory.only("IDS", pid),
        mm=mm,
        fs=directory.only("FS", pid),
        threads=threads,
        pagemap=pagemap,
        vdso=vdso,
        resolved=content,
    )


def _vdso(pid: int, mm: mm_entry, pages: PageSources) -> bytes:
    for vma in mm.vmas:
        if vma.status & VMA_VDSO:
            size = vma.end - vma.start
            if not 0 < size <= _LARGEST_VDSO:
                raise ImageError(BY_NAME["MM"].file_name(pid), f"the vdso has {size} bytes")
            return pages.read(vma.start, size)
    return b""


def _by_id(name: str, pairs: Iterator[tuple[int, Any]]) -> dict[int, Any]:
    """By id; a second entry is an error unless it says the same."""
    found: dict[int, Any] = {}
    for key, value in pairs:
        first = found.setdefault(key, value)
        if first is not value and first != value:
            raise ImageError(name, f"two different entries have the id {key}")
    return found


def _files(directory: ImageDirectory) -> dict[int, file_entry]:
    return _by_id("files.img", ((record.message.id, record.message) for record in directory.records("FILES")))


def _fdinfo(directory: ImageDirectory, tasks: Sequence[TaskImages]) -> dict[int, tuple[fdinfo_entry, ...]]:
    tables = dict.fromkeys(task.ids.files_id for task in tasks if task.ids)
    return {table: tuple(record.message for record in directory.records("FDINFO", table)) for table in tables}


def _pipe_data(directory: ImageDirectory, kind: str) -> dict[int, PipeData]:
    records = directory.records(kind)
    name = BY_NAME[kind].file_name()
    return _by_id(name, ((r.message.pipe_id, PipeData(r.message, r.payload)) for r in records))


def _ghosts(
    directory: ImageDirectory, remaps: Sequence[remap_file_path_entry], files: Mapping[int, file_entry]
) -> dict[int, ghosts.Ghost]:
    """Of deleted files, and of those that are embedded."""
    targets = (remap_target(remap) for remap in remaps)
    ids = {number for kind, number in targets if kind == GHOST}
    ids |= {entry.reg.embedded_id for entry in files.values() if entry.reg.HasField("embedded_id")}
    return {number: ghosts.load(directory, number) for number in sorted(ids)}


def _shmem(
    directory: ImageDirectory, tasks: Sequence[TaskImages], memfds: Mapping[int, memfd_inode_entry]
) -> dict[int, Pagemap]:
    from criupy.model.integrity import shmem_ids

    found = {}
    for shmid in sorted(shmem_ids(tasks, memfds)):
        pagemap = load_pagemap(directory, "SHMEM_PAGEMAP", shmid)
        if pagemap is not None:
            found[shmid] = pagemap
    return found


def _segments(directory: ImageDirectory, tasks: Sequence[TaskImages]) -> dict[int, ipc_shm_entry]:
    if not tasks or tasks[0].ids is None:
        return {}
    number = tasks[0].ids.ipc_ns_id
    found = ((record.message.desc.id, record.message) for record in directory.records("IPCNS_SHM", number))
    return _by_id(BY_NAME["IPCNS_SHM"].file_name(number), found)


def _others(directory: ImageDirectory) -> dict[str, tuple[Record, ...]]:
    found = {BY_NAME[kind].file_name(): tuple(directory.records(kind)) for kind in _OTHER}
    return {name: records for name, records in found.items() if records}


def write(snapshot: Snapshot, writer: ImageWriter) -> None:
    """Writes every image except pages, ghosts and the inventory, which is for :meth:`ImageWriter.commit`."""
    writer.write("PSTREE", (task.pstree for task in snapshot.tasks))
    for task in snapshot.tasks:
        _write_task(task, writer)
    writer.write("FILES", snapshot.files.values())
    empty: dict[int, Sequence[fdinfo_entry]] = {task.ids.files_id: () for task in snapshot.tasks if task.ids}
    for table, entries in {**empty, **snapshot.fdinfo}.items():
        writer.write("FDINFO", entries, table)
    writer.write("SECCOMP", [snapshot.seccomp])
    _write_optional(snapshot, writer)
    for shmid, pagemap in snapshot.shmem.items():
        writer.write("SHMEM_PAGEMAP", pagemap_messages(pagemap), shmid)
    for name, records in snapshot.others.items():
        writer.write_named(name, records)


def _write_optional(snapshot: Snapshot, writer: ImageWriter) -> None:
    """What has no file if there is nothing in it."""
    contents: dict[str, Collection[PipeData | SocketPacket]] = {
        "PIPES_DATA": snapshot.pipes_data.values(),
        "FIFO_DATA": snapshot.fifo_data.values(),
        "SK_QUEUES": snapshot.sk_queues,
    }
    for kind, found in contents.items():
        if found:
            writer.write(kind, (Record(one.entry, one.content) for one in found))
    messages = {
        "REMAP_FPATH": snapshot.remaps,
        "FILE_LOCKS": snapshot.locks,
        "MEMFD_INODE": snapshot.memfds.values(),
        "TTY_INFO": snapshot.terminals.values(),
        "TTY_DATA": snapshot.terminal_data.values(),
    }
    for kind, entries in messages.items():
        if entries:
            writer.write(kind, entries)
    if snapshot.segments:
        writer.write("IPCNS_SHM", snapshot.segments.values(), snapshot.ipc_namespace)
    if snapshot.timens is not None:
        writer.write("TIMENS", [snapshot.timens], 0)


def _write_task(task: TaskImages, writer: ImageWriter) -> None:
    for tid, core in (task.threads or {task.pid: task.core}).items():
        writer.write("CORE", [core], tid)
    if task.ids:
        writer.write("IDS", [task.ids], task.pid)
    if task.mm:
        writer.write("MM", [task.mm], task.pid)
    if task.fs:
        writer.write("FS", [task.fs], task.pid)
    if task.pagemap:
        writer.write("PAGEMAP", pagemap_messages(task.pagemap), task.pid)
