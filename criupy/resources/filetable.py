"""The open files of one dump: who holds which, which are the same, and what number each has in the images.

Two phases.  While the tasks are frozen, only what may change is read: links, fdinfo, sizes, owners, content of pipes.
`FileTable.encode` makes messages of it afterwards, and looks at the names then.

File ids are one sequence for everything that is opened, be it a descriptor, a mapping, exe, cwd or root.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import struct
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from criupy.errors import ImageError, NotDumpable, Obstacle
from criupy.images.pb import core_pb2, fdtable_pb2
from criupy.linux import elf, syscalls
from criupy.linux.procfs import fdinfo, mountinfo
from criupy.model.snapshot import PipeData

if TYPE_CHECKING:
    from criupy.model.plan import Step
    from criupy.resources.fileplan import TablePlan
    from criupy.resources.kind import FileKind
    from criupy.tracee.batch import SyscallBatch
    from criupy.tracee.freezer import FrozenProcess

FIRST_FILES_ID = 2
"""``files_id`` of the first task; the dumping process itself has 1."""
_DELETED = b" (deleted)"
_UNREACHABLE = b"(unreachable)"
_OTHER_DESCRIPTORS = 128
"""What criupy itself may need besides."""
_NO_OWNER = bytes(8)
_F_GETSIG, _F_GETOWN_EX, _F_GETOWNER_UIDS = 11, 16, 17


class Owner(NamedTuple):
    """Who gets SIGIO, or the signal ``signum`` if that is not 0.

    ``pid_type`` is F_OWNER_TID 0, PID 1 or PGRP 2; ``pid`` 0 means nobody.  The signal is sent as ``uid`` and ``euid``.
    """

    uid: int
    euid: int
    signum: int
    pid_type: int
    pid: int

    def message(self) -> core_pb2.fown_entry:
        return core_pb2.fown_entry(**self._asdict())


NOBODY = Owner(0, 0, 0, 0, 0)


class OpenFile(NamedTuple):
    """One descriptor of a task.

    ``link`` is where ``/proc/PID/fd/N`` leads; ``stat`` is None for what has no path (pipes, sockets, anonymous
    inodes).  ``own`` is a duplicate of the descriptor, open only while the file is being collected.
    """

    pid: int
    fd: int
    link: bytes
    info: fdinfo.FdInfo
    stat: os.stat_result | None
    owner: Owner
    own: int

    @property
    def flags(self) -> int:
        """Flags of the open file description, as images have them."""
        return self.info.flags & ~os.O_CLOEXEC

    @property
    def cloexec(self) -> bool:
        return bool(self.info.flags & os.O_CLOEXEC)

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    def sorts(self) -> tuple[str, ...]:
        """What it is, the narrowest word first: keys for the registry of kinds."""
        if self.info.flags & os.O_PATH:
            return ("O_PATH",)
        if self.stat is None:
            return (_nameless(self.link),)
        if not self.stat.st_nlink and self.link.startswith(b"/memfd:"):
            return ("memfd",)
        word = _SORTS[stat.S_IFMT(self.stat.st_mode)]
        if word not in ("character device", "block device"):
            return (word,)
        major, minor = os.major(self.stat.st_rdev), os.minor(self.stat.st_rdev)
        return f"{word} {major}:{minor}", f"{word} {major}", word


_SORTS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFSOCK: "socket file",
}


def _nameless(link: bytes) -> str:
    """``pipe`` of ``pipe:[4711]``, and all of ``anon_inode:[eventfd]``."""
    kind, _, number = link.partition(b":")
    return (kind if number[1:-1].isdigit() else link).decode("utf-8", "backslashreplace")


class Collected(NamedTuple):
    """An open file description: its id, one descriptor that leads to it, and what its kind has found out."""

    id: int
    kind: FileKind
    file: OpenFile
    facts: Any


@dataclass
class FileImages:
    """The images of a dump that are about files.

    ``files`` is by file id, ``fdinfo`` by files_id, ``files_ids`` by pid, pipe content by pipe_id.
    """

    files: dict[int, fdtable_pb2.file_entry] = field(default_factory=dict)
    fdinfo: dict[int, list[fdtable_pb2.fdinfo_entry]] = field(default_factory=dict)
    files_ids: dict[int, int] = field(default_factory=dict)
    pipes_data: dict[int, PipeData] = field(default_factory=dict)
    fifo_data: dict[int, PipeData] = field(default_factory=dict)


class FileTable:
    """Every open file of one dump.  ``kinds`` are found by the words of `OpenFile.sorts`."""

    def __init__(self, kinds: Mapping[str, FileKind]) -> None:
        self._kinds = kinds
        self._last = 0
        self._collected: list[Collected] = []
        self._shared: dict[Hashable, list[Collected]] = {}
        self._descriptors: dict[int, list[tuple[OpenFile, Collected]]] = {}
        self._paths: dict[int, tuple[bytes, os.stat_result, int, str]] = {}
        self._path_ids: dict[Hashable, int] = {}
        self._seen: set[Hashable] = set()
        self._ahead: dict[int, _Ahead] = {}

    def new_id(self) -> int:
        self._last += 1
        return self._last

    def first(self, key: Hashable) -> bool:
        """Whether ``key`` is asked about for the first time in this dump."""
        seen = key in self._seen
        self._seen.add(key)
        return not seen

    def look_ahead(self, pid: int) -> None:
        """Before the freeze: opens what is going to be read then, which is half of the work."""
        with suppress(FileNotFoundError, ProcessLookupError):  # the freeze will say that the task is gone
            self._ahead[pid] = _Ahead(pid)

    def descriptors(self, process: FrozenProcess, ask: SyscallBatch | None = None) -> Callable[[Any], None]:
        """Collects all descriptors of a frozen task; nothing has to be asked inside it.

        Raises `NotDumpable` for what has appeared since the first look.
        """
        found = self._descriptors.setdefault(process.pid, [])
        obstacles: list[Obstacle] = []
        ahead = self._ahead.pop(process.pid, None)
        for file in open_files(process.pid, ahead):
            kind = find_kind(self._kinds, file)
            gone = file.stat is not None and not file.stat.st_nlink
            if gone or b"lock:" in file.info.rest or any(kind.obstacles(file)):
                obstacles += _obstacles(self._kinds, file, _comm(process.pid))
            else:
                found.append((file, self._description(kind, file)))
        if obstacles:
            raise NotDumpable(obstacles)
        return lambda _results: None

    def mapped(self, pid: int, start: int, end: int) -> int:
        """File id of the file that is mapped at [start, end) of a frozen task."""
        return self._path(pid, f"map_files/{start:x}-{end:x}", f"mapping {start:#x}")

    def link(self, pid: int, name: str) -> int:
        """File id of ``exe``, ``cwd`` or ``root`` of a frozen task."""
        return self._path(pid, name, name)

    def encode(self) -> FileImages:
        """The messages.  Raises `NotDumpable` when a name leads elsewhere by now."""
        obstacles = [*self._misnamed()]
        if obstacles:
            raise NotDumpable(obstacles)
        images = FileImages()
        for one in self._collected:
            entry = images.files[one.id] = fdtable_pb2.file_entry(type=one.kind.type, id=one.id)
            one.kind.encode(one, entry, images)
        for file_id, (name, found, _, _) in self._paths.items():
            images.files[file_id] = path_entry(file_id, name, found)
        images.files = dict(sorted(images.files.items()))
        for number, (pid, found_files) in enumerate(self._descriptors.items(), FIRST_FILES_ID):
            images.files_ids[pid] = number
            images.fdinfo[number] = [
                fdtable_pb2.fdinfo_entry(id=one.id, flags=int(file.cloexec), type=one.kind.type, fd=file.fd)
                for file, one in found_files
            ]
        return images

    def _misnamed(self) -> Iterator[Obstacle]:
        """What cannot be opened again by its name."""
        opened = (
            (one.file.link, one.file.stat, one.file.pid, f"fd {one.file.fd} ({one.kind.name})")
            for one in self._collected
            if one.file.stat
        )
        for name, found, pid, what in (*opened, *self._paths.values()):
            problem = name_problem(name, found)
            if problem:
                yield Obstacle(pid, _comm(pid), f"{what}, {os.fsdecode(name)}", *problem)

    def _description(self, kind: FileKind, file: OpenFile) -> Collected:
        """The open file description behind a descriptor: one that is known already, or a new one.

        Only files that look the same are compared, and those by binary search in the order that kcmp gives.
        """
        known = self._shared.setdefault((kind.name, file.link, file.flags, *kind.identity(file)), [])
        low, high = 0, len(known)
        while low < high:
            middle = (low + high) // 2
            other = known[middle].file
            match syscalls.kcmp_file(file.pid, other.pid, file.fd, other.fd):
                case 0:
                    return known[middle]
                case 1:
                    high = middle
                case _:
                    low = middle + 1
        one = Collected(self.new_id(), kind, file, kind.collect(file, self))
        known.insert(low, one)
        self._collected.append(one)
        return one

    def _path(self, pid: int, link: str, what: str) -> int:
        """Equal regular files share an id; directories and devices never do."""
        where = f"/proc/{pid}/{link}"
        name, found = os.readlink(os.fsencode(where)), os.stat(where)
        key = (found.st_dev, found.st_ino, name)
        if stat.S_ISREG(found.st_mode) and key in self._path_ids:
            return self._path_ids[key]
        file_id = self._path_ids[key] = self.new_id()
        self._paths[file_id] = (name, found, pid, what)
        return file_id


class _Ahead:
    """fdinfo files that are open already, and what they and the links said.

    A fdinfo file shows what its number means when it is read, so it may be opened long before.  When it still says the
    same, the link still leads to the same file; its name is looked at in the end anyway.  Only of an anonymous inode
    without lines of its own there is no saying.
    """

    def __init__(self, pid: int) -> None:
        self.handles: dict[int, int] = {}
        self.said: dict[int, tuple[bytes, fdinfo.FdInfo, bytes]] = {}
        weakref.finalize(self, _close_all, self.handles)
        with _directory(f"/proc/{pid}/fd") as links, _directory(f"/proc/{pid}/fdinfo") as infos:
            numbers = [int(name) for name in os.listdir(links)]
            for fd in numbers[: _spare_descriptors(len(numbers))]:
                with suppress(FileNotFoundError):
                    self._open(fd, links, infos)

    def _open(self, fd: int, links: int, infos: int) -> None:
        name = b"%d" % fd
        self.handles[fd] = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=infos)
        text = _text(self.handles[fd])
        info, link = fdinfo.parse(text), os.readlink(name, dir_fd=links)
        if info.ino and (info.rest or not link.startswith(b"anon_inode:")):
            self.said[fd] = (text, info, link)


def _close_all(handles: dict[int, int]) -> None:
    for handle in handles.values():
        os.close(handle)


def _spare_descriptors(wanted: int) -> int:
    """How many of ``wanted`` descriptors this process can have open; its soft limit is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_DESCRIPTORS
    if needed > soft:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft - _OTHER_DESCRIPTORS)


def open_files(pid: int, ahead: _Ahead | None = None) -> Iterator[OpenFile]:
    """The descriptors of a task by number; one that is closed meanwhile is left out."""
    pidfd = os.pidfd_open(pid)
    try:
        with _directory(f"/proc/{pid}/fd") as links, _directory(f"/proc/{pid}/fdinfo") as infos:
            for fd in sorted(map(int, os.listdir(links))):
                try:
                    own = syscalls.pidfd_getfd(pidfd, fd)
                except OSError as error:
                    if error.errno != errno.EBADF:
                        raise
                    continue
                try:
                    yield _open_file(pid, fd, own, links, infos, ahead)
                except FileNotFoundError:
                    continue
                finally:
                    os.close(own)
    finally:
        os.close(pidfd)


@contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_file(pid: int, fd: int, own: int, links: int, infos: int, ahead: _Ahead | None) -> OpenFile:
    handle = None if ahead is None else ahead.handles.get(fd)
    text = _read(b"%d" % fd, infos) if handle is None else _text(handle)
    said = None if ahead is None else ahead.said.get(fd)
    if said is not None and said[0] == text:
        _, info, link = said
    else:
        info, link = fdinfo.parse(text), os.readlink(b"%d" % fd, dir_fd=links)
    found = os.fstat(own) if link.startswith((b"/", _UNREACHABLE)) else None
    owner = NOBODY if info.flags & os.O_PATH else _owner(own)
    return OpenFile(pid, fd, link, info, found, owner, own)


def _read(name: bytes, directory: int) -> bytes:
    handle = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return _text(handle)
    finally:
        os.close(handle)


def _text(handle: int) -> bytes:
    text = os.pread(handle, 4096, 0)
    while text and len(text) % 4096 == 0 and (more := os.pread(handle, 1 << 20, len(text))):
        text += more
    return text


def _owner(own: int) -> Owner:
    """Source: Linux fs/fcntl.c, ``f_getown_ex`` and ``f_getowner_uids``."""
    signum = fcntl.fcntl(own, _F_GETSIG)
    owner = fcntl.fcntl(own, _F_GETOWN_EX, _NO_OWNER)
    if owner == _NO_OWNER:
        return NOBODY._replace(signum=signum) if signum else NOBODY
    pid_type, pid = struct.unpack("ii", owner)
    if not pid:
        return NOBODY._replace(signum=signum) if signum else NOBODY
    uid, euid = struct.unpack("II", fcntl.fcntl(own, _F_GETOWNER_UIDS, bytes(8)))
    return Owner(uid, euid, signum, pid_type, pid)


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
    if stat.S_ISREG(found.st_mode):
        if not (flags & os.O_APPEND and flags & os.O_ACCMODE == os.O_WRONLY):
            reg.size = found.st_size
        if found.st_blocks:
            reg.build_id.extend(elf.build_id_words(name))
    return entry


def name_problem(name: bytes, found: os.stat_result) -> tuple[str, str] | None:
    """Why an open file cannot be opened again by its name, and a way out; None if it can.

    ``found`` is the open file's own stat.
    """
    if name.startswith(_UNREACHABLE):
        return "it lies outside of what criupy can see", "run criupy in the mount namespace of the task"
    if not found.st_nlink:
        return (
            "it was deleted",
            "deleted files cannot be dumped yet: keep it until the dump is done, or close it",
        )
    try:
        named = os.lstat(name) if stat.S_ISLNK(found.st_mode) else os.stat(name)
    except FileNotFoundError:
        gone = name.removesuffix(_DELETED).decode("utf-8", "backslashreplace")
        return f"its name {gone} is gone", "put it back (ln), or close it"
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


def obstacles(kinds: Mapping[str, FileKind], pid: int) -> Iterator[Obstacle]:
    """Everything about the files of a running task that cannot be dumped."""
    comm = _comm(pid)
    for file in open_files(pid):
        yield from _obstacles(kinds, file, comm)
    for name in ("exe", "cwd", "root"):
        problem = name_problem(os.readlink(f"/proc/{pid}/{name}".encode()), os.stat(f"/proc/{pid}/{name}"))
        if problem:
            yield Obstacle(pid, comm, name, *problem)
    yield from _separate_threads(pid, comm)


_TABLES = {syscalls.KCMP_FILES: "descriptors", syscalls.KCMP_FS: "a working directory, root and umask"}


def _separate_threads(pid: int, comm: str) -> Iterator[Obstacle]:
    """Threads that have taken leave of what threads share, with unshare(2)."""
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        for what, name in _TABLES.items():
            with suppress(ProcessLookupError):  # a thread that has ended meanwhile
                if syscalls.kcmp_table(pid, tid, what):
                    why = f"it has {name} of its own, which cannot be dumped yet"
                    yield Obstacle(
                        pid, comm, f"thread {tid}", why, "stop what makes it leave the others (unshare)"
                    )


def _obstacles(kinds: Mapping[str, FileKind], file: OpenFile, comm: str) -> Iterator[Obstacle]:
    kind = find_kind(kinds, file)
    shown = f" {file.link.removesuffix(_DELETED).decode('utf-8', 'backslashreplace')}" if file.stat else ""
    what = f"fd {file.fd} ({kind.name}{shown})"
    found = [*kind.obstacles(file)]
    if kind.type != fdtable_pb2.UND:
        if file.stat and (problem := name_problem(file.link, file.stat)):
            found.append(problem)
        found += [_lock_problem(lock) for lock in fdinfo.locks(file.info.rest)]
        if not _owned_within(file.pid, file.owner):
            why = f"its signals go to {_OWNERS.get(file.owner.pid_type, 'pid')} {file.owner.pid}, which is not dumped"
            found.append((why, "let the program take it back: fcntl(fd, F_SETOWN, 0)"))
    for why, hint in found:
        yield Obstacle(file.pid, comm, what, why, hint)


def _lock_problem(lock: bytes) -> tuple[str, str]:
    kind, _, mode, *_ = lock.decode().split()
    why = f"it holds a lock ({kind.lower()}, {mode.lower()}), and locks cannot be dumped yet"
    return why, "let the program release its locks first (lslocks shows them)"


_OWNERS = {0: "thread", 1: "process", 2: "process group"}


def _owned_within(pid: int, owner: Owner) -> bool:
    if not owner.pid:
        return True
    if _OWNERS.get(owner.pid_type) == "process group":
        return owner.pid == os.getpgid(pid)
    return os.path.exists(f"/proc/{pid}/task/{owner.pid}")


def _comm(pid: int) -> str:
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read().rstrip(b"\n").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Refused:
    """A kind of file that cannot be dumped, and what to do about it: a `FileKind` that says no."""

    name: str
    match: tuple[str, ...]
    hint: str = "close it before the dump, or stop what uses it"

    @property
    def type(self) -> fdtable_pb2.fd_types:
        return fdtable_pb2.UND

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return (file.fd,)

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        yield "descriptors of this kind cannot be dumped yet", self.hint

    def collect(self, file: OpenFile, table: FileTable) -> Any:
        raise NotDumpable([*_obstacles(dict.fromkeys(self.match, self), file, _comm(file.pid))])

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        raise AssertionError(f"{self.name} was collected")

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        raise ImageError("files.img", f"file {entry.id:#x} has no type")

    def complete(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        return iter(())
