"""Names of watched inodes: a watch knows an inode, and only by a name can it be set up again.

The kernel tells a file handle, which leads to a name on most file systems (open_by_handle_at(2)).  Where it does not
(overlayfs, procfs, a file whose name has left the cache), names are looked for where a program has what it watches: its
open files, its working directory, what is beside and above these, and then all of the file system, up to a limit.

Whatever is found is tried: a watch of our own has to show the same inode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from criupy.errors import ImageError
from criupy.images.pb import files_pb2
from criupy.linux import syscalls
from criupy.linux.procfs import fdinfo, mountinfo
from criupy.linux.procfs.fdinfo import Inode

_MOST_ENTRIES = 300_000
_HANDLE_WORDS = 16
LOST = (
    "what it watches ({}) has no name that could be found",
    "let the program end this watch, or keep the file where criupy sees it",
)
"""Why, to be completed by what is known, and a hint."""


def names(inodes: Sequence[Inode], pid: int) -> list[bytes | None]:
    """A name for each of what the task ``pid`` watches, None for what has none that leads there."""
    with ExitStack() as stack:
        search = _Search(pid, stack)
        return [search.name(inode) for inode in inodes]


def mount_point(mount: int | None, device: int) -> bytes | None:
    """Where a mount is, or (without one) any of a file system; None if there is none, or something covers it."""
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = mountinfo.parse(file.read())
    wanted = (device >> 20, device & 0xFFFFF)
    for one in mounts:
        fits = one.id == mount if mount is not None else one.device == wanted
        if fits and _mount_at(one.point) == one.id:
            return one.point
    return None


def _mount_at(name: bytes) -> int | None:
    """The id of the mount that a name leads to."""
    try:
        found = os.open(name, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with open(f"/proc/self/fdinfo/{found}", "rb") as file:
            return fdinfo.parse(file.read()).mnt_id
    finally:
        os.close(found)


def lost(inode: Inode) -> tuple[str, str]:
    """What to say of an inode without a name."""
    why, hint = LOST
    device = f"{inode.device >> 20}:{inode.device & 0xFFFFF}"
    return why.format(f"inode {inode.ino} of device {device}"), hint


class _Search:
    """Some lookups for one task, with what they need open until ``stack`` is closed."""

    def __init__(self, pid: int, stack: ExitStack) -> None:
        self._pid = pid
        self._stack = stack
        self._own = syscalls.inotify_init()
        stack.callback(os.close, self._own)
        with open("/proc/self/mountinfo", "rb") as file:
            self._mounts = mountinfo.parse(file.read())
        self._roots: dict[int, list[int]] = {}
        self._near: list[bytes] | None = None

    def name(self, inode: Inode) -> bytes | None:
        for candidates in (self._by_handle, self._near_by, self._anywhere):
            for name in candidates(inode):
                if self._leads_to(name, inode):
                    return name
        return None

    def _leads_to(self, name: bytes, inode: Inode) -> bool:
        """Whether a watch by this name is one of the inode."""
        try:
            wd = syscalls.inotify_add_watch(
                self._own, name, syscalls.IN_DELETE_SELF | syscalls.IN_DONT_FOLLOW
            )
        except OSError:
            return False
        with open(f"/proc/self/fdinfo/{self._own}", "rb") as file:
            found = [*fdinfo.inotify_watches(fdinfo.parse(file.read()).rest)]
        with suppress(OSError):  # it is gone already when the file is
            syscalls.inotify_rm_watch(self._own, wd)
        return [watch.inode for watch in found] == [inode]

    def _by_handle(self, inode: Inode) -> Iterator[bytes]:
        for root in self._roots_of(inode.device) if inode.handle else ():
            try:
                found = syscalls.open_by_handle_at(root, inode.handle_type, inode.handle)
            except OSError:
                continue  # this mount does not show it, or the file system cannot tell
            try:
                yield os.readlink(b"/proc/self/fd/%d" % found)
            finally:
                os.close(found)

    def _roots_of(self, device: int) -> list[int]:
        """A descriptor for each place where a file system is mounted and not covered."""
        if device not in self._roots:
            self._roots[device] = []
            for point in self._points(device):
                with suppress(OSError):
                    root = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    self._stack.callback(os.close, root)
                    self._roots[device].append(root)
        return self._roots[device]

    def _points(self, device: int) -> list[bytes]:
        wanted = (device >> 20, device & 0xFFFFF)
        return [mount.point for mount in self._mounts if mount.device == wanted]

    def _near_by(self, inode: Inode) -> Iterator[bytes]:
        """Open files, and the directories they are in; then what is in these directories."""
        if self._near is None:
            self._near = [*dict.fromkeys(_of_task(self._pid))]
        yield from self._near
        for directory in self._near:
            yield from (entry.path for entry, number in _entries(directory) if number == inode.ino)

    def _anywhere(self, inode: Inode) -> Iterator[bytes]:
        left = _MOST_ENTRIES
        for root in self._points(inode.device):
            waiting, device = [root], _device(root)
            while waiting and left > 0:
                directory = waiting.pop()
                if _device(directory) != device:
                    continue
                for entry, number in _entries(directory):
                    left -= 1
                    if number == inode.ino:
                        yield entry.path
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)


def _entries(directory: bytes) -> Iterator[tuple[os.DirEntry[bytes], int]]:
    """What is in a directory, with inode numbers as stat(2) has them: overlayfs lists other ones."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):  # it is gone again
                yield entry, entry.stat(follow_symlinks=False).st_ino


def _device(name: bytes) -> int:
    """0 for what is gone."""
    try:
        return os.lstat(name).st_dev
    except OSError:
        return 0


def _of_task(pid: int) -> Iterator[bytes]:
    """Names of what a task has open, runs, and stands in, each with the directory above."""
    links = [f"/proc/{pid}/cwd", f"/proc/{pid}/exe", f"/proc/{pid}/root"]
    with suppress(OSError):
        links += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    for link in links:
        with suppress(OSError):
            name = os.readlink(os.fsencode(link))
            if name.startswith(b"/"):
                yield name
                if not stat.S_ISDIR(os.stat(name).st_mode):
                    yield os.path.dirname(name)


def handle_entry(inode: Inode, name: bytes) -> files_pb2.fh_entry:
    """The message of a handle and of the name that was found."""
    padded = inode.handle.ljust(8 * _HANDLE_WORDS, b"\0")
    words = (int.from_bytes(padded[at : at + 8], "little") for at in range(0, len(padded), 8))
    return files_pb2.fh_entry(bytes=len(inode.handle), type=inode.handle_type, handle=words, path=name)


def absolute(name: bytes) -> bytes:
    """The name in a message.  ImageError if it cannot be used."""
    if not name.startswith(b"/") or b"\0" in name:
        raise ImageError("files.img", "a watch has no absolute path")
    return name
