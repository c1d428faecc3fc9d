"""Files that are open, mapped, run or stood in, and have no name any more by which they could be opened again.

What has no name at all is stored with the images, as a ghost; what only lost the name that it was opened by, and has
others, gets one more that the images lead to (``link_remap.N``).  Images: ``remap_file_path_entry`` in
``remap-fpath.img``, ``ghost-file-X.img``.

Source: Linux fs/d_path.c, which marks the name of such a file.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import TraceeError
from criupy.images import ghosts
from criupy.images.pb import fdtable_pb2
from criupy.images.pb.files_pb2 import GHOST, LINKED, ghost_file_entry, remap_file_path_entry
from criupy.linux.syscalls import (
    BPF_FS_MAGIC,
    CGROUP2_MAGIC,
    CGROUP_MAGIC,
    DEBUGFS_MAGIC,
    HUGETLBFS_MAGIC,
    NFS_MAGIC,
    OVERLAYFS_MAGIC,
    PROC_MAGIC,
    SYSFS_MAGIC,
    TRACEFS_MAGIC,
    file_system,
)
from criupy.options import FileOptions
from criupy.tracee import guardian

if TYPE_CHECKING:
    from criupy.images.directory import ImageWriter

DELETED = b" (deleted)"
_KEPT = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFLNK)
_BLOCK = 512
_SILLY = b".nfs"
_PSEUDO = (
    PROC_MAGIC,
    SYSFS_MAGIC,
    CGROUP_MAGIC,
    CGROUP2_MAGIC,
    DEBUGFS_MAGIC,
    TRACEFS_MAGIC,
    BPF_FS_MAGIC,
    HUGETLBFS_MAGIC,
)
"""File systems whose files are not what somebody has written there, or cannot be written."""
_Inode = tuple[int, int]


def is_ghost(way: str | int, link: bytes, found: os.stat_result) -> bool:
    """Whether nothing leads to a file but those who have it; ``way`` leads there, ``link`` is the name it had.

    In an overlay a file of the lower layer keeps its link there when it is deleted; who opens one for writing opens a
    copy in the upper layer.
    """
    if not found.st_nlink:
        return True
    if not link.endswith(DELETED) or found.st_nlink > 1 or _is_there(link, found):
        return False
    return _file_system(way) == OVERLAYFS_MAGIC and not _is_written(way)


def has_lost_its_name(way: str | int, link: bytes, found: os.stat_result) -> bool:
    """Whether a file has other names than the one that it was opened by, or one that goes with who has it open."""
    if os.path.basename(link).startswith(_SILLY) and _file_system(way) == NFS_MAGIC:
        return True
    return bool(found.st_nlink) and link.endswith(DELETED) and not _is_there(link, found)


def problem(
    way: str | int, link: bytes, found: os.stat_result, options: FileOptions
) -> tuple[str, str] | None:
    """Why such a file cannot be dumped, and a way out; None if it can, or is no such file."""
    if not link.startswith(b"/"):
        return None  # out of sight, which others see to
    is_deleted = is_ghost(way, link, found)
    if not is_deleted and not has_lost_its_name(way, link, found):
        return None
    if _file_system(way) in _PSEUDO or stat.S_IFMT(found.st_mode) not in _KEPT:
        return "it was deleted, and nobody can make its like again", "close it"
    return _ghost_problem(found, options) if is_deleted else _link_problem(found, options)


def _ghost_problem(found: os.stat_result, options: FileOptions) -> tuple[str, str] | None:
    size = found.st_blocks * _BLOCK
    if not stat.S_ISREG(found.st_mode) or size <= options.ghost_limit:
        return None
    why = f"it was deleted, and its {size} bytes are more than the images may take ({options.ghost_limit})"
    return why, f"allow more: --ghost-limit {_rounded(size)}"


def _link_problem(found: os.stat_result, options: FileOptions) -> tuple[str, str] | None:
    if stat.S_ISDIR(found.st_mode):
        return "its name is gone", "close it"
    if options.link_remap:
        return None
    others = f"has {found.st_nlink} name{'s' * (found.st_nlink > 1)} elsewhere"
    return f"its name is gone, while it {others}", "let criupy give it one beside: --link-remap"


def _rounded(size: int) -> str:
    return f"{-(-size // (1 << 20))}M"


def _file_system(way: str | int) -> int:
    fd = os.open(f"/proc/self/fd/{way}" if isinstance(way, int) else way, os.O_PATH | os.O_CLOEXEC)
    try:
        return file_system(fd)
    finally:
        os.close(fd)


def _is_written(way: str | int) -> bool:
    """Whether a descriptor, or a mapping, was opened for writing."""
    if isinstance(way, int):
        return fcntl.fcntl(way, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return "/map_files/" in way and bool(os.lstat(way).st_mode & stat.S_IWUSR)


def _is_there(link: bytes, found: os.stat_result) -> bool:
    """Whether it is a file whose name ends like that."""
    with suppress(FileNotFoundError, NotADirectoryError):
        named = os.lstat(link)
        return (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino)
    return False


def _directory_of(link: bytes) -> bytes:
    """The nearest directory that is there."""
    place = os.path.dirname(link)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return place


class _Ghost(NamedTuple):
    """``fd`` of ours leads to it; a symbolic link says ``target``."""

    number: int
    fd: int
    stat: os.stat_result
    target: bytes


@dataclass
class _Link:
    """``fd`` of ours leads to a file that gets the name ``name``, whose entry has ``file_id``."""

    fd: int
    stat: os.stat_result
    file_id: int
    name: bytes


@dataclass
class Nameless:
    """All such files of one dump, open until `close`."""

    options: FileOptions
    new_id: Callable[[], int]
    _ghosts: dict[_Inode, _Ghost] = field(default_factory=dict)
    _links: dict[_Inode, _Link] = field(default_factory=dict)
    _remaps: dict[int, _Inode] = field(default_factory=dict)

    def __contains__(self, file_id: object) -> bool:
        return file_id in self._remaps

    def add(self, file_id: int, way: str | int, link: bytes, found: os.stat_result) -> None:
        """Notes that the entry ``file_id`` is of such a file, if it is one, while nobody runs.

        ``way`` is a path or descriptor that leads to it; what `problem` finds has been looked for before.
        """
        if found.st_nlink and not link.endswith(DELETED) and _SILLY not in link:
            return  # as nearly all are
        if not link.startswith(b"/"):
            return
        key = found.st_dev, found.st_ino
        if key not in self._ghosts and key not in self._links:
            if is_ghost(way, link, found):
                fd = _open(way, os.O_RDONLY if stat.S_ISREG(found.st_mode) else os.O_PATH | os.O_NOFOLLOW)
                target = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(found.st_mode) else b""
                self._ghosts[key] = _Ghost(len(self._ghosts) + 1, fd, found, target)
            elif has_lost_its_name(way, link, found):
                number = self.new_id()
                self._links[key] = _Link(_open(way, os.O_PATH), found, number, _free_name(link, number))
            else:
                return
        self._remaps[file_id] = key

    def copy(self, writer: ImageWriter) -> None:
        """Stores what is in the ghosts, while nobody runs."""
        for ghost in self._ghosts.values():
            regular = stat.S_ISREG(ghost.stat.st_mode)
            # a shared mapping may have grown since, but no file does while nobody runs
            size = os.fstat(ghost.fd).st_size if regular else 0
            ghosts.write(writer, ghost.number, ghost_entry(ghost.stat, ghost.target), ghost.fd, size)

    def linked(self, writer: ImageWriter) -> AbstractContextManager[list[bytes]]:
        """Gives names to files that have others; they stay if the images are whole in the end, whatever ends this."""
        return self._linked(writer) if self._links else nullcontext([])

    @contextmanager
    def _linked(self, writer: ImageWriter) -> Iterator[list[bytes]]:
        def undo() -> None:
            if not writer.is_whole():
                self._unlink()

        with guardian.unless_done(undo):
            for link in self._links.values():
                _link(link)
            yield [link.name for link in self._links.values()]

    def _unlink(self) -> None:
        for link in self._links.values():
            with suppress(FileNotFoundError):
                named = os.lstat(link.name)
                if (named.st_dev, named.st_ino) == (link.stat.st_dev, link.stat.st_ino):
                    os.unlink(link.name)

    @property
    def last(self) -> int:
        """The highest number of a ghost."""
        return len(self._ghosts)

    def remaps(self) -> list[remap_file_path_entry]:
        """The messages."""
        found = []
        for file_id, key in sorted(self._remaps.items()):
            ghost = self._ghosts.get(key)
            number = ghost.number if ghost else self._links[key].file_id
            kind = GHOST if ghost else LINKED
            found.append(remap_file_path_entry(orig_id=file_id, remap_id=number, remap_type=kind))
        return found

    def entries(self) -> Iterator[fdtable_pb2.file_entry]:
        """Of the names that `linked` gives."""
        for link in self._links.values():
            entry = fdtable_pb2.file_entry(type=fdtable_pb2.REG, id=link.file_id)
            reg = entry.reg
            reg.id, reg.flags, reg.pos, reg.name = link.file_id, 0, 0, link.name
            reg.fown.uid = reg.fown.euid = reg.fown.signum = reg.fown.pid_type = reg.fown.pid = 0
            yield entry

    def close(self) -> None:
        for fd in [
            *(ghost.fd for ghost in self._ghosts.values()),
            *(link.fd for link in self._links.values()),
        ]:
            os.close(fd)
        self._ghosts.clear()
        self._links.clear()


def _open(way: str | int, flags: int) -> int:
    """A description of our own: looking for data moves its position."""
    if isinstance(way, int) and flags & os.O_NOFOLLOW:
        return os.dup(way)  # it may be a symbolic link itself
    path = f"/proc/self/fd/{way}" if isinstance(way, int) else way
    return os.open(path, flags & ~os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _free_name(link: bytes, number: int) -> bytes:
    """A name that nobody has; another image set may need one like it."""
    base = os.path.join(_directory_of(link), b"link_remap.%d" % number)
    name, attempt = base, 0
    while os.path.lexists(name):
        attempt += 1
        name = b"%s.%d" % (base, attempt)
    return name


def _link(link: _Link) -> None:
    try:
        # with a directory, for then it is linkat(2), which follows the link of /proc
        directory = os.open(os.path.dirname(link.name), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(
                f"/proc/self/fd/{link.fd}",
                os.path.basename(link.name),
                dst_dir_fd=directory,
                follow_symlinks=True,
            )
        finally:
            os.close(directory)
    except OSError as error:
        shown = os.fsdecode(link.name)
        raise TraceeError(f"a file cannot be named {shown}", errno=error.errno or 0) from error


def embed(writer: ImageWriter, number: int, name: bytes, found: os.stat_result) -> None:
    """Stores a file that has its name, as the ghost ``number``.  Raises `TraceeError` if it is another by now."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        named = os.fstat(fd)
        facts = [(one.st_size, one.st_mode, one.st_mtime_ns) for one in (named, found)]
        if facts[0] != facts[1]:
            raise TraceeError(f"{os.fsdecode(name)} was changed during the dump", hint="dump again")
        ghosts.write(writer, number, ghost_entry(named), fd, named.st_size)
    finally:
        os.close(fd)


def ghost_entry(found: os.stat_result, target: bytes = b"") -> ghost_file_entry:
    """What a ghost image says of a file; ``target`` of a symbolic link."""
    entry = ghost_file_entry(
        uid=found.st_uid,
        gid=found.st_gid,
        mode=found.st_mode,
        dev=os.major(found.st_dev) << 20 | os.minor(found.st_dev),
        ino=found.st_ino,
    )
    for timeval, nanoseconds in ((entry.atim, found.st_atime_ns), (entry.mtim, found.st_mtime_ns)):
        timeval.tv_sec, timeval.tv_usec = divmod(max(0, nanoseconds) // 1000, 1_000_000)
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        entry.rdev = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
    if target:
        entry.symlnk_target = target
    return entry
