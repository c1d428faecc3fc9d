"""The descriptors of a task, one by one: where each leads, what the kernel says of it, and a duplicate to look into."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import stat
import struct
import termios
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from criupy.images.pb import core_pb2
from criupy.linux import syscalls
from criupy.linux.procfs import fdinfo

UNREACHABLE = b"(unreachable)"
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
    """One descriptor of a task; ``pid`` may be the number of a thread that speaks for it (`family.speaker`).

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
    family: str = ""
    """Of a socket: unix, inet..."""

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
            word = sort_of_link(self.link)
            return (f"{self.family} socket", word) if word == "socket" else (word,)
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


_SOL_SOCKET, _SO_DOMAIN = 1, 39
_FAMILIES: dict[int, str] = {
    socket.AF_UNIX: "unix",
    socket.AF_INET: "inet",
    socket.AF_INET6: "inet6",
    socket.AF_NETLINK: "netlink",
    socket.AF_PACKET: "packet",
}


def _family(own: int) -> str:
    sock = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, own)
    try:
        return _FAMILIES.get(sock.getsockopt(_SOL_SOCKET, _SO_DOMAIN), "other")
    finally:
        sock.detach()


def sort_of_link(link: bytes) -> str:
    """``pipe`` of ``pipe:[4711]``, and all of ``anon_inode:[eventfd]``."""
    kind, _, number = link.partition(b":")
    return (kind if number[1:-1].isdigit() else link).decode("utf-8", "backslashreplace")


def unread(own: int) -> int:
    """Bytes that can be read from a descriptor of ours (FIONREAD); 0 where the kernel does not tell."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(own, termios.FIONREAD, bytes(4)))[0])
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            raise
        return 0


class Ahead:
    """fdinfo files that are open already, and what they and the links said.

    A fdinfo file shows what its number means when it is read, so it may be opened long before.  When it still says the
    same, the link still leads to the same file; its name is looked at in the end anyway.  Only of an anonymous inode
    without lines of its own there is no saying.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
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


def open_files(pid: int, ahead: Ahead | None = None) -> Iterator[OpenFile]:
    """The descriptors of a task, or of a thread, by number; one that is closed meanwhile is left out."""
    pidfd = syscalls.pidfd_of(pid)
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


def received(own: int) -> OpenFile:
    """A file that has come to us in a message, by our descriptor."""
    with _directory("/proc/self/fd") as links, _directory("/proc/self/fdinfo") as infos:
        return _open_file(os.getpid(), own, own, links, infos, None)


@contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_file(pid: int, fd: int, own: int, links: int, infos: int, ahead: Ahead | None) -> OpenFile:
    handle = None if ahead is None else ahead.handles.get(fd)
    text = _read(b"%d" % fd, infos) if handle is None else _text(handle)
    said = None if ahead is None else ahead.said.get(fd)
    if said is not None and said[0] == text:
        _, info, link = said
    else:
        info, link = fdinfo.parse(text), os.readlink(b"%d" % fd, dir_fd=links)
    found = os.fstat(own) if link.startswith((b"/", UNREACHABLE)) else None
    owner = NOBODY if info.flags & os.O_PATH else _owner(own)
    family = _family(own) if link.startswith(b"socket:[") else ""
    return OpenFile(pid, fd, link, info, found, owner, own, family)


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
