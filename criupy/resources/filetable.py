"""The open files of one dump: who holds which, which are the same, and what number each has in the images.

Two phases.  While the tasks are frozen, only what may change is read: links, fdinfo, sizes, owners, content of pipes.
`FileTable.encode` makes messages of it afterwards, and looks at the names then.

File ids are one sequence for everything that is opened, be it a descriptor, a mapping, exe, cwd or root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from criupy.errors import ImageError, NotDumpable, Obstacle
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux import elf, family, syscalls
from criupy.linux.family import Kin
from criupy.linux.procfs import mountinfo
from criupy.model.snapshot import PipeData, SocketPacket
from criupy.options import FileOptions
from criupy.resources import locks, nameless
from criupy.resources.locks import Locks
from criupy.resources.nameless import DELETED, Nameless
from criupy.resources.openfile import (
    NOBODY,
    UNREACHABLE,
    Ahead,
    OpenFile,
    Owner,
    open_files,
    received,
    sort_of_link,
    unread,
)
from criupy.resources.pidnumbers import UNCHANGED, PidNumbers
from criupy.resources.shmem import SharedMemory, file_entry, is_shared_memory
from criupy.resources.sysvshm import Segments, is_segment
from criupy.resources.terminal import Lead, Terminals

if TYPE_CHECKING:
    from criupy.images.directory import ImageWriter
    from criupy.model.plan import Step
    from criupy.resources.fileplan import TablePlan
    from criupy.resources.kind import FileKind
    from criupy.tracee.frozen import FrozenProcess

FIRST_FILES_ID = 2
"""``files_id`` of the first task; the dumping process itself has 1."""
T = TypeVar("T")


class Distinct(Generic[T]):
    """Kernel objects told apart by kcmp(2), which orders them: one is found among n by log n comparisons.

    ``compare`` answers 0 for the same, 1 for less.
    """

    def __init__(self, compare: Callable[[T, T], int]) -> None:
        self._compare = compare
        self._known: list[T] = []

    def find(self, one: T) -> tuple[T | None, int]:
        """The known one that is the same object, or None and where a new one belongs."""
        low, high = 0, len(self._known)
        while low < high:
            middle = (low + high) // 2
            match self._compare(one, self._known[middle]):
                case 0:
                    return self._known[middle], middle
                case 1:
                    high = middle
                case _:
                    low = middle + 1
        return None, low

    def insert(self, place: int, one: T) -> None:
        self._known.insert(place, one)

    def first_of(self, one: T) -> T:
        """The first that is the same object: itself, if there was none."""
        known, place = self.find(one)
        if known is None:
            self.insert(place, one)
        return one if known is None else known


class Astray(Exception):
    """Something outside of a file that it needs, and that is not dumped or not found: why, and a hint."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why, self.hint = why, hint


class Collected(NamedTuple):
    """An open file description: its id, one descriptor that leads to it, and what its kind has found out."""

    id: int
    kind: FileKind
    file: OpenFile
    facts: Any


Look = Callable[[Sequence[Collected]], Iterator[tuple[str, str]]]
"""Finds out what a file has to do with others; gives (why, hint) if that cannot be dumped."""


class Tree(NamedTuple):
    """What files may lead to.

    ``numbers``: what pids are in images; ``pids``: of all processes that are dumped; ``namespace``: the id of one by
    its kind and inode number.
    """

    numbers: PidNumbers = UNCHANGED
    pids: frozenset[int] = frozenset()
    namespace: Callable[[str, int], int] = lambda _kind, _inode: 0


ALONE = Tree()
"""Of files that lead to no task."""


@dataclass
class FileImages:
    """The images of a dump that are about files.

    ``files`` is by file id, ``fdinfo`` by files_id, ``files_ids`` and ``fs_ids`` by pid, pipe content by pipe_id.
    """

    tree: Tree = ALONE
    files: dict[int, fdtable_pb2.file_entry] = field(default_factory=dict)
    fdinfo: dict[int, list[fdtable_pb2.fdinfo_entry]] = field(default_factory=dict)
    open_at: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """The descriptors by `OpenFile.pid` (that of the first process with a table) and file id."""
    files_ids: dict[int, int] = field(default_factory=dict)
    fs_ids: dict[int, int] = field(default_factory=dict)
    pipes_data: dict[int, PipeData] = field(default_factory=dict)
    fifo_data: dict[int, PipeData] = field(default_factory=dict)
    sk_queues: list[SocketPacket] = field(default_factory=list)
    received: dict[int, int] = field(default_factory=dict)
    """File ids of what came in messages, by our descriptors."""
    ranks: dict[int, int] = field(default_factory=dict)
    """By file id: what has to come after others in ``files`` has a higher one, others 0."""
    terminal_ids: dict[Lead, int] = field(default_factory=dict)
    remaps: Sequence[files_pb2.remap_file_path_entry] = ()
    locks: Sequence[files_pb2.file_lock_entry] = ()


class _Named(NamedTuple):
    """What is opened by its path: the id of that, the name, and who has it."""

    file_id: int
    name: bytes
    stat: os.stat_result
    pid: int
    what: str


class _Probe(NamedTuple):
    """A file that is looked for among those that were collected."""

    file: OpenFile


def _compare_files(one: Collected | _Probe, other: Collected | _Probe) -> int:
    return syscalls.kcmp_file(one.file.pid, other.file.pid, one.file.fd, other.file.fd)


def _compare_tables(pid: int, other: int) -> int:
    return syscalls.kcmp_table(pid, other, syscalls.KCMP_FILES)


def _compare_directories(pid: int, other: int) -> int:
    return syscalls.kcmp_table(pid, other, syscalls.KCMP_FS)


class FileTable:
    """Every open file of one dump.  ``kinds`` are found by the words of `OpenFile.sorts`."""

    def __init__(self, kinds: Mapping[str, FileKind], options: FileOptions) -> None:
        self._kinds = kinds
        self._options = options
        self.allowed = options.outside
        self._last = 0
        self._collected: list[Collected] = []
        self._looks: list[tuple[OpenFile, Look]] = []
        self._shared: dict[Hashable, Distinct[Collected | _Probe]] = {}
        self._tables: Distinct[int] = Distinct(_compare_tables)
        self._table_of: dict[int, int] = {}
        """By pid, the speaker of the first process that has the table; the same of directories."""
        self._directories: Distinct[int] = Distinct(_compare_directories)
        self._fs_of: dict[int, int] = {}
        self._descriptors: dict[int, list[tuple[OpenFile, Collected]]] = {}
        """By speaker."""
        self._paths: dict[int, _Named] = {}
        self._path_ids: dict[Hashable, int] = {}
        self._seen: set[Hashable] = set()
        self._asked: dict[Hashable, Any] = {}
        self._on_their_way: list[int] = []
        self._received: dict[int, int] = {}
        self.until_the_end = ExitStack()
        """What kinds need for the whole dump, and give back after it."""
        self.shmem = SharedMemory()
        self.segments = Segments()
        self.terminals = Terminals(shell_job=options.shell_job)
        self.nameless = Nameless(options, self.new_id)
        self._mapped: set[int] = set()
        """Ids of what is run or mapped, and not written that way."""
        self._locks = Locks()
        self._leased: set[tuple[int, int]] = set()
        """Inodes that nobody may open."""
        self._memory: dict[int, int] = {}
        """Mapped shared memory: inode_id by file id."""
        self._ahead: dict[int, Ahead] = {}
        self._queues: dict[int, list[int]] = {}
        """By pid, the descriptors of kinds that lose what was not read."""

    def new_id(self) -> int:
        self._last += 1
        return self._last

    def first(self, key: Hashable) -> bool:
        """Whether ``key`` is asked about for the first time in this dump."""
        seen = key in self._seen
        self._seen.add(key)
        return not seen

    def once(self, key: Hashable, ask: Callable[[], T]) -> T:
        """What ``ask`` has answered when it was asked for ``key`` first."""
        if key not in self._asked:
            self._asked[key] = ask()
        answer: T = self._asked[key]
        return answer

    def receive(self, fds: Iterable[int]) -> None:
        """Takes descriptors of ours that lead to files on their way in messages; these are dumped like others."""
        self._on_their_way += fds

    def close(self) -> None:
        """Lets go of what the dump needed."""
        self.until_the_end.close()
        for fd in (*self._received, *self._on_their_way):
            os.close(fd)
        self._received.clear()
        self._on_their_way.clear()

    def look_ahead(self, pid: int) -> None:
        """Before the freeze: opens what is going to be read then, which is half of the work."""
        with suppress(FileNotFoundError, ProcessLookupError):  # the freeze will say that the task is gone
            ahead = self._ahead[pid] = Ahead(family.speaker(pid))
            self._queues[pid] = [fd for fd, (_, _, link) in ahead.said.items() if self._loses_unread(link)]
            links = [link for _, _, link in ahead.said.values()]
            for kind in dict.fromkeys(self._kinds.values()):
                kind.prepare(links, self)

    def _loses_unread(self, link: bytes) -> bool:
        kind = self._kinds.get(sort_of_link(link)) if link.startswith(b"anon_inode:") else None
        return kind is not None and kind.loses_unread

    def unread(self, processes: Iterable[FrozenProcess]) -> int:
        """Bytes that frozen tasks have not read and that cannot be kept; of the descriptors from before the freeze."""
        return sum(
            _unread(process.pidfd, fd) for process in processes for fd in self._queues.get(process.pid, ())
        )

    def descriptors(self, process: FrozenProcess) -> None:
        """Collects all descriptors of a frozen task; those of a table that it shares are collected once.

        Raises `NotDumpable` for what has appeared since the first look.
        """
        speaker = process.speaker
        self._fs_of[process.pid] = self._directories.first_of(speaker)
        known, place = self._tables.find(speaker)
        self._table_of[process.pid] = speaker if known is None else known
        if known is not None:
            return
        self._tables.insert(place, speaker)
        found = self._descriptors.setdefault(speaker, [])
        obstacles: list[Obstacle] = []
        ahead = self._ahead.pop(process.pid, None)
        if ahead is not None and ahead.pid != speaker:
            ahead = None  # the leader has ended since, and what was opened of it says nothing any more
        for file in open_files(speaker, ahead):
            one = self._collect(file, obstacles, self._options)
            if one is None:
                continue
            found.append((file, one))
            if b"lock:" in file.info.rest:
                self._locks.add(file, process.pid, one.id)
                if file.stat is not None and locks.is_leased(file):
                    self._leased.add((file.stat.st_dev, file.stat.st_ino))
        while self._on_their_way:  # in one of them may be others
            fd = self._on_their_way.pop()
            refused: list[Obstacle] = []
            self._received[fd] = 0
            one = self._collect(received(fd), refused, self._options._replace(file_locks=False))
            obstacles += (each._replace(pid=speaker, what=f"{each.what} in a message") for each in refused)
            if one is not None:
                self._received[fd] = one.id
        if obstacles:
            raise NotDumpable(obstacles)

    def _collect(self, file: OpenFile, obstacles: list[Obstacle], options: FileOptions) -> Collected | None:
        """The description behind a descriptor; None if there is something in the way."""
        kind = find_kind(self._kinds, file)
        if self._is_suspect(kind, file) and (
            new := [*_obstacles(self._kinds, file, comm_of(file.pid), options)]
        ):
            obstacles += new
            return None
        return self._description(kind, file)

    @staticmethod
    def _is_suspect(kind: FileKind, file: OpenFile) -> bool:
        """Whether it may not be dumpable, at a quick look."""
        if b"lock:" in file.info.rest or any(kind.obstacles(file)):
            return True
        if file.stat is None or kind.nameless:
            return False
        return not file.stat.st_nlink or file.link.endswith(DELETED)

    def when_all_are_known(self, file: OpenFile, look: Look) -> None:
        """Asks for ``look`` at the files of all tasks, still frozen."""
        self._looks.append((file, look))

    def all_are_known(self) -> None:
        """The descriptors of all tasks are collected.  Raises `NotDumpable`."""
        obstacles = [
            Obstacle(file.pid, comm_of(file.pid), _what(find_kind(self._kinds, file), file), why, hint)
            for file, look in self._looks
            for why, hint in look(self._collected)
        ]
        if obstacles:
            raise NotDumpable(obstacles)

    def mapped(self, pid: int, start: int, end: int, *, for_reading: bool = False) -> int:
        """File id of the file that is mapped at [start, end) of a frozen task; the id of a System V segment.

        ``pid``, here and below: or the thread that speaks for it.  ``for_reading``: what is mapped is not changed that
        way.
        """
        file_id = self._path(pid, f"map_files/{start:x}-{end:x}", f"mapping {start:#x}")
        if for_reading:
            self._mapped.add(file_id)
        return file_id

    def link(self, pid: int, name: str) -> int:
        """File id of ``exe``, ``cwd`` or ``root`` of a frozen task."""
        file_id = self._path(pid, name, name)
        if name == "exe":
            self._mapped.add(file_id)
        return file_id

    def encode(self, tree: Tree = ALONE, writer: ImageWriter | None = None) -> FileImages:
        """The messages; pids in them are those of the images.  What is to be embedded goes to ``writer``.

        Raises `NotDumpable` when a name leads elsewhere by now.
        """
        obstacles = [*self._misnamed()]
        if obstacles:
            raise NotDumpable(obstacles)
        images = FileImages(tree, received=self._received, terminal_ids=self.terminals.ids())
        for speaker, found_files in self._descriptors.items():
            for file, one in found_files:
                images.open_at.setdefault((speaker, one.id), []).append(file.fd)
        for one in self._collected:
            entry = images.files[one.id] = fdtable_pb2.file_entry(type=one.kind.type, id=one.id)
            owner = one.file.owner._replace(pid=tree.numbers.inside(one.file.owner.pid))
            try:
                one.kind.encode(one._replace(file=one.file._replace(owner=owner)), entry, images)
            except Astray as astray:
                what = _what(one.kind, one.file)
                obstacles.append(Obstacle(one.file.pid, comm_of(one.file.pid), what, astray.why, astray.hint))
        if obstacles:
            raise NotDumpable(obstacles)
        self._encode_paths(images, writer)
        images.locks = self._locks.entries(tree.numbers)
        for file_id, inode_id in self._memory.items():
            images.files[file_id] = file_entry(file_id, inode_id, None)
        order = sorted(images.files, key=lambda file_id: (images.ranks.get(file_id, 0), file_id))
        images.files = {file_id: images.files[file_id] for file_id in order}
        tables = {pid: number for number, pid in enumerate(self._descriptors, FIRST_FILES_ID)}
        images.files_ids = {pid: tables[holder] for pid, holder in self._table_of.items()}
        firsts = list(dict.fromkeys(self._fs_of.values()))
        images.fs_ids = {pid: firsts.index(holder) + FIRST_FILES_ID for pid, holder in self._fs_of.items()}
        for pid, found_files in self._descriptors.items():
            images.fdinfo[tables[pid]] = [
                fdtable_pb2.fdinfo_entry(id=one.id, flags=int(file.cloexec), type=one.kind.type, fd=file.fd)
                for file, one in found_files
            ]
        return images

    def _encode_paths(self, images: FileImages, writer: ImageWriter | None) -> None:
        """What is mapped, run or stood in; and what is known of all that was opened by its path."""
        for named in self._paths.values():
            images.files[named.file_id] = path_entry(named.file_id, named.name, named.stat)
        for entry in self.nameless.entries():
            images.files[entry.id] = entry
        images.remaps = self.nameless.remaps()
        for remap in images.remaps:
            reg = images.files[remap.orig_id].reg
            reg.name = reg.name.removesuffix(DELETED)
        if writer is not None and self._options.embed:
            self._embed(images.files, writer)
        if self._options.build_ids:
            self._add_build_ids(images.files)

    def _misnamed(self) -> Iterator[Obstacle]:
        """What cannot be opened again by its name."""
        for _, name, found, pid, what in self._named():
            problem = name_problem(name, found)
            if problem:
                yield Obstacle(pid, comm_of(pid), f"{what}, {os.fsdecode(name)}", *problem)

    def _named(self) -> Iterator[_Named]:
        """What is opened by its path, and has one."""
        for one in self._collected:
            file, path_id = one.file, one.kind.path_id(one)
            if file.stat and not one.kind.nameless and path_id not in self.nameless:
                yield _Named(path_id, file.link, file.stat, file.pid, f"fd {file.fd} ({one.kind.name})")
        yield from (one for one in self._paths.values() if one.file_id not in self.nameless)

    def _embed(self, files: Mapping[int, fdtable_pb2.file_entry], writer: ImageWriter) -> None:
        wanted = [
            one for one in self._named() if one.file_id in self._mapped and stat.S_ISREG(one.stat.st_mode)
        ]
        for number, (file_id, name, found, _, _) in enumerate(wanted, self.nameless.last + 1):
            if (found.st_dev, found.st_ino) not in self._leased:
                nameless.embed(writer, number, name, found)
                files[file_id].reg.embedded_id = number

    def _add_build_ids(self, files: Mapping[int, fdtable_pb2.file_entry]) -> None:
        known: dict[bytes, list[int]] = {}
        for file_id, name, found, _, _ in self._named():
            is_leased = (found.st_dev, found.st_ino) in self._leased
            if stat.S_ISREG(found.st_mode) and found.st_blocks and not is_leased:
                if name not in known:
                    known[name] = elf.build_id_words(name)
                files[file_id].reg.build_id.extend(known[name])

    def _description(self, kind: FileKind, file: OpenFile) -> Collected:
        """The open file description behind a descriptor: one that is known already, or a new one.

        Only files that look the same are compared.
        """
        alike = (kind.name, file.link, file.flags, *kind.identity(file))
        shared = self._shared.setdefault(alike, Distinct(_compare_files))
        known, place = shared.find(_Probe(file))
        if isinstance(known, Collected):
            return known
        one = Collected(self.new_id(), kind, file, kind.collect(file, self))
        shared.insert(place, one)
        self._collected.append(one)
        if file.stat is not None and not kind.nameless:
            self.nameless.add(kind.path_id(one), file.own, file.link, file.stat)
        return one

    def _path(self, pid: int, link: str, what: str) -> int:
        """Equal regular files share an id; directories and devices never do."""
        where = f"/proc/{pid}/{link}"
        name, found = os.readlink(os.fsencode(where)), os.stat(where)
        if is_shared_memory(name, found.st_nlink):
            return self._mapped_memory(where, name, found)
        if is_segment(name, found.st_nlink):
            return self.segments.add(where, found)
        key = (found.st_dev, found.st_ino, name)
        if stat.S_ISREG(found.st_mode) and key in self._path_ids:
            return self._path_ids[key]
        problem = nameless.problem(where, name, found, self._options)
        if problem:
            raise NotDumpable([Obstacle(pid, comm_of(pid), f"{what}, {os.fsdecode(name)}", *problem)])
        file_id = self._path_ids[key] = self.new_id()
        self._paths[file_id] = _Named(file_id, name, found, pid, what)
        self.nameless.add(file_id, where, name, found)
        return file_id

    def _mapped_memory(self, where: str, name: bytes, found: os.stat_result) -> int:
        key = ("memory", found.st_dev, found.st_ino)
        if key not in self._path_ids:
            file_id = self._path_ids[key] = self.new_id()
            self._memory[file_id] = self.shmem.add(where, name)
        return self._path_ids[key]


def _unread(pidfd: int, fd: int) -> int:
    try:
        own = syscalls.pidfd_getfd(pidfd, fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return 0  # closed since
    try:
        return unread(own)
    finally:
        os.close(own)


def find_kind(kinds: Mapping[str, FileKind], file: OpenFile) -> FileKind:
    """The kind that knows a file; `Refused` for what cannot be dumped."""
    sorts = file.sorts()
    for sort in sorts:
        if sort in kinds:
            return kinds[sort]
    return Refused(sorts[-1], (sorts[-1],))


def path_entry(
    file_id: int, name: bytes, found: os.stat_result, flags: int = 0, pos: int = 0, owner: Owner = NOBODY
) -> fdtable_pb2.file_entry:
    """The entry of something that is opened by its path, with what a restore compares.

    A log, which is only appended to, has no size: it may have grown.
    """
    entry = fdtable_pb2.file_entry(type=fdtable_pb2.REG, id=file_id)
    reg = entry.reg
    reg.id, reg.flags, reg.pos, reg.name, reg.mode = file_id, flags, pos, name, found.st_mode
    reg.fown.CopyFrom(owner.message())
    is_log = flags & os.O_APPEND and flags & os.O_ACCMODE == os.O_WRONLY
    if stat.S_ISREG(found.st_mode) and not is_log:
        reg.size = found.st_size
    return entry


def path_problem(
    way: str | int, name: bytes, found: os.stat_result, options: FileOptions
) -> tuple[str, str] | None:
    """Why an open file, to which ``way`` leads, cannot be dumped for what became of its name, and a way out."""
    if name.startswith(UNREACHABLE):
        return name_problem(name, found)
    if nameless.is_ghost(way, name, found) or nameless.has_lost_its_name(way, name, found):
        return nameless.problem(way, name, found, options)
    return name_problem(name, found)


def name_problem(name: bytes, found: os.stat_result) -> tuple[str, str] | None:
    """Why an open file cannot be opened again by its name, and a way out; None if it can.

    ``found`` is the open file's own stat.
    """
    if name.startswith(UNREACHABLE):
        return "it lies outside of what criupy can see", "run criupy in the mount namespace of the task"
    try:
        named = os.lstat(name) if stat.S_ISLNK(found.st_mode) else os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return "its name is gone", "put it back (ln), or close it"
    if (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino) or _overlaid(named, found):
        return None
    return "its name leads to another file by now", "move that away, or unmount what covers it"


def _overlaid(named: os.stat_result, found: os.stat_result) -> bool:
    """Whether a mapped file is the lower file of what an overlay shows under the same name."""
    same = (named.st_size, named.st_mode, named.st_mtime_ns) == (
        found.st_size,
        found.st_mode,
        found.st_mtime_ns,
    )
    if not same:
        return False
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = mountinfo.parse(file.read())
    device = (os.major(named.st_dev), os.minor(named.st_dev))
    return any(mount.device == device and mount.fstype == b"overlay" for mount in mounts)


def obstacles(kinds: Mapping[str, FileKind], pid: int, kin: Kin, options: FileOptions) -> Iterator[Obstacle]:
    """Everything about the files of a running task that cannot be dumped; ``kin`` is dumped with it.

    ``pid``: or the thread that speaks for it.
    """
    comm = comm_of(pid)
    for file in open_files(pid):
        yield from _obstacles(kinds, file, comm, options)
        kind = find_kind(kinds, file)
        for why, hint in kind.obstacles_among(file, _speakers(kin)):
            yield Obstacle(pid, comm, _what(kind, file), why, hint)
        if not _is_owned_by(kin, file.owner):
            why = f"its signals go to {_OWNERS.get(file.owner.pid_type, 'pid')} {file.owner.pid}, which is not dumped"
            hint = "let the program take it back: fcntl(fd, F_SETOWN, 0)"
            yield Obstacle(pid, comm, _what(kind, file), why, hint)
    for name in ("exe", "cwd", "root"):
        way = f"/proc/{pid}/{name}"
        problem = path_problem(way, os.readlink(way.encode()), os.stat(way), options)
        if problem:
            yield Obstacle(pid, comm, name, *problem)
    yield from _separate_threads(pid, comm)


def _speakers(kin: Kin) -> Iterator[int]:
    for pid in kin.pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            yield family.speaker(pid)


_TABLES = {syscalls.KCMP_FILES: "descriptors", syscalls.KCMP_FS: "a working directory, root and umask"}


def _separate_threads(pid: int, comm: str) -> Iterator[Obstacle]:
    """Threads that have taken leave of what threads share, with unshare(2).  The dead have nothing."""
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        for what, name in _TABLES.items():
            with suppress(ProcessLookupError):  # a thread that has ended meanwhile
                if syscalls.kcmp_table(pid, tid, what) and not family.is_ending_thread(pid, tid):
                    why = f"it has {name} of its own, which cannot be dumped yet"
                    yield Obstacle(
                        pid, comm, f"thread {tid}", why, "stop what makes it leave the others (unshare)"
                    )


def _what(kind: FileKind, file: OpenFile) -> str:
    shown = f" {file.link.removesuffix(DELETED).decode('utf-8', 'backslashreplace')}" if file.stat else ""
    return f"fd {file.fd} ({kind.name}{shown})"


def _obstacles(
    kinds: Mapping[str, FileKind], file: OpenFile, comm: str, options: FileOptions
) -> Iterator[Obstacle]:
    kind = find_kind(kinds, file)
    found = [*kind.obstacles(file)]
    if kind.type != fdtable_pb2.UND:
        if file.stat and not kind.nameless:
            problem = path_problem(file.own, file.link, file.stat, options)
            found += [problem] if problem else []
        found += locks.problems(file, wanted=options.file_locks)
    for why, hint in found:
        yield Obstacle(file.pid, comm, _what(kind, file), why, hint)


_OWNERS = {0: "thread", 1: "process", 2: "process group"}


def _is_owned_by(kin: Kin, owner: Owner) -> bool:
    if not owner.pid:
        return True
    if _OWNERS.get(owner.pid_type) == "process group":
        return owner.pid in kin.groups
    return owner.pid in kin.pids or any(os.path.exists(f"/proc/{pid}/task/{owner.pid}") for pid in kin.pids)


def comm_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read().rstrip(b"\n").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Refused:
    """A kind of file that cannot be dumped, and what to do about it: a `FileKind` that says no."""

    name: str
    match: tuple[str, ...]
    hint: str = "close it before the dump, or stop what uses it"
    held: bool = False
    carries: bool = False
    nameless: bool = False
    loses_unread: bool = False

    @property
    def type(self) -> fdtable_pb2.fd_types:
        return fdtable_pb2.UND

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return (file.fd,)

    def together(self, entry: fdtable_pb2.file_entry) -> Hashable:
        return entry.id

    def prepare(self, links: Iterable[bytes], table: FileTable) -> None:
        return

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        yield "descriptors of this kind cannot be dumped yet", self.hint

    def path_id(self, one: Collected) -> int:
        return one.id

    def early(self, entry: fdtable_pb2.file_entry) -> bool:
        return False

    def warnings(self, file: OpenFile) -> Iterator[str]:
        return iter(())

    def obstacles_among(self, file: OpenFile, pids: Iterable[int]) -> Iterator[tuple[str, str]]:
        return iter(())

    def collect(self, file: OpenFile, table: FileTable) -> Any:
        kinds = dict.fromkeys(self.match, self)
        raise NotDumpable([*_obstacles(kinds, file, comm_of(file.pid), FileOptions())])

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        raise AssertionError(f"{self.name} was collected")

    def paths(self, entry: fdtable_pb2.file_entry) -> Iterator[bytes]:
        return iter(())

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        raise ImageError("files.img", f"file {entry.id:#x} has no type")

    def reaches(self, entry: fdtable_pb2.file_entry) -> Iterator[int]:
        return iter(())

    def unite(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        return iter(())

    def complete(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        return iter(())
