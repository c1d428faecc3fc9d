"""``/proc/PID/fdinfo/N``: what the kernel tells of an open file.  Source: Linux fs/proc/fd.c, ``seq_show``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

U64 = 0xFFFF_FFFF_FFFF_FFFF


class FdInfo(NamedTuple):
    """The four lines that every descriptor has, and the text of those that only its kind has.

    ``flags`` are open flags as the kernel keeps them, O_CLOEXEC of this one descriptor included; ``pos`` is unsigned,
    so that -1 is 2^64 - 1; ``ino`` is 0 on kernels before v5.14.
    """

    pos: int
    flags: int
    mnt_id: int
    ino: int
    rest: bytes


def parse(text: bytes) -> FdInfo:
    """The text of one fdinfo file.  Raises `ValueError` when it is none."""
    words = text.split(None, 8)
    if words[0:6:2] != [b"pos:", b"flags:", b"mnt_id:"]:
        raise ValueError(f"not a fdinfo text: {text[:60]!r}")
    pos, flags, mnt_id = int(words[1]) & U64, int(words[3], 8), int(words[5])
    if words[6:7] == [b"ino:"]:
        return FdInfo(pos, flags, mnt_id, int(words[7]), words[8] if len(words) > 8 else b"")
    return FdInfo(pos, flags, mnt_id, 0, b" ".join(words[6:]))


class Eventfd(NamedTuple):
    """An eventfd's lines.  ``id`` is unique to the open file while it lives; ``semaphore`` None before Linux v6.5.

    Source: Linux fs/eventfd.c, ``eventfd_show_fdinfo``.
    """

    counter: int
    id: int
    semaphore: bool | None


def eventfd(rest: bytes) -> Eventfd:
    """The counter is hexadecimal."""
    lines = _fields(rest)
    semaphore = lines.get(b"eventfd-semaphore")
    return Eventfd(
        counter=int(lines[b"eventfd-count"], 16),
        id=int(lines.get(b"eventfd-id", b"-1")),
        semaphore=None if semaphore is None else semaphore != b"0",
    )


class EpollTarget(NamedTuple):
    """One registration; ``tfd`` is the number that the file had when it was added, ``sdev`` major << 20 | minor."""

    tfd: int
    events: int
    data: int
    pos: int
    ino: int
    sdev: int


_TARGET = re.compile(
    rb"tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)\s+data:\s*([0-9a-f]+)"
    rb"\s+pos:(-?\d+)\s+ino:([0-9a-f]+)\s+sdev:([0-9a-f]+)"
)


def eventfd_id(rest: bytes) -> int:
    """The number alone, which is quicker; -1 before Linux v5.2."""
    match = _EVENTFD_ID.search(rest)
    return int(match[1]) if match else -1


_EVENTFD_ID = re.compile(rb"^eventfd-id:\s*(\d+)", re.MULTILINE)


def epoll_targets(rest: bytes) -> Iterator[EpollTarget]:
    """The registrations in the kernel's order.  Source: Linux fs/eventpoll.c, ``ep_show_fdinfo``."""
    for match in _TARGET.finditer(rest):
        tfd, events, data, pos, ino, sdev = match.groups()
        yield EpollTarget(
            int(tfd), int(events, 16), int(data, 16), int(pos) & U64, int(ino, 16), int(sdev, 16)
        )


def signalfd(rest: bytes) -> int:
    """The signals that are read from it, bit signo-1.  Source: Linux fs/signalfd.c, ``signalfd_show_fdinfo``."""
    return int(_fields(rest)[b"sigmask"], 16)


class Timerfd(NamedTuple):
    """A timerfd's lines; ``left`` until it expires and ``interval`` in nanoseconds, 0 for not armed and not periodic.

    ``ticks``: expirations that were not read.  Source: Linux fs/timerfd.c, ``timerfd_show``.
    """

    clock: int
    ticks: int
    flags: int
    left: int
    interval: int


def timerfd(rest: bytes) -> Timerfd:
    """Clock and ticks are decimal, flags octal, times (seconds, nanoseconds)."""
    lines = _fields(rest)
    return Timerfd(
        clock=int(lines[b"clockid"]),
        ticks=int(lines[b"ticks"]),
        flags=int(lines[b"settime flags"], 8),
        left=_nanoseconds(lines[b"it_value"]),
        interval=_nanoseconds(lines[b"it_interval"]),
    )


def _nanoseconds(pair: bytes) -> int:
    seconds, _, rest = pair.strip(b"()").partition(b",")
    return int(seconds) * 10**9 + int(rest)


class Inode(NamedTuple):
    """A watched inode.  ``device`` of its superblock is major << 20 | minor; ``handle`` is for open_by_handle_at(2), of
    ``handle_type``, and empty where the file system has none.

    Source: Linux fs/notify/fdinfo.c, ``show_mark_fhandle``.
    """

    ino: int
    device: int
    handle_type: int
    handle: bytes


class InotifyWatch(NamedTuple):
    """Source: Linux fs/notify/fdinfo.c, ``inotify_fdinfo``."""

    wd: int
    mask: int
    inode: Inode


_INOTIFY = re.compile(
    rb"^inotify wd:([0-9a-f]+) ino:([0-9a-f]+) sdev:([0-9a-f]+) mask:([0-9a-f]+) ignored_mask:[0-9a-f]+ ?"
    rb"(?:fhandle-bytes:[0-9a-f]+ fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]*))?$",
    re.MULTILINE,
)


def inotify_watches(rest: bytes) -> Iterator[InotifyWatch]:
    """The watches in the kernel's order, the youngest first."""
    for match in _INOTIFY.finditer(rest):
        wd, ino, device, mask, kind, handle = match.groups(b"0")
        yield InotifyWatch(
            int(wd, 16), int(mask, 16), _inode(ino, device, kind, b"" if match[6] is None else handle)
        )


def _inode(ino: bytes, device: bytes, kind: bytes, handle: bytes) -> Inode:
    return Inode(int(ino, 16), int(device, 16), int(kind, 16), bytes.fromhex(handle.decode()))


class FanotifyMark(NamedTuple):
    """A mark on an inode, a mount or (neither is there) all of a file system; ``flags``: the FAN_MARK_* that last."""

    flags: int
    mask: int
    ignored: int
    inode: Inode | None
    mount: int | None
    device: int


class Fanotify(NamedTuple):
    """A group's lines; ``unknown`` are those of marks that newer kernels have.

    Source: Linux fs/notify/fdinfo.c, ``fanotify_show_fdinfo``.
    """

    flags: int
    event_flags: int
    marks: tuple[FanotifyMark, ...]
    unknown: tuple[bytes, ...]


_FANOTIFY_GROUP = re.compile(rb"fanotify flags:([0-9a-f]+) event-flags:([0-9a-f]+)")
_FANOTIFY_MARK = re.compile(
    rb"fanotify (?:ino:(?P<ino>[0-9a-f]+) )?(?:mnt_id:(?P<mount>[0-9a-f]+) )?(?:sdev:(?P<device>[0-9a-f]+) )?"
    rb"mflags:(?P<flags>[0-9a-f]+) mask:(?P<mask>[0-9a-f]+) ignored_mask:(?P<ignored>[0-9a-f]+) ?"
    rb"(?:fhandle-bytes:[0-9a-f]+ fhandle-type:(?P<kind>[0-9a-f]+) f_handle:(?P<handle>[0-9a-f]*))?"
)


def fanotify(rest: bytes) -> Fanotify:
    """The group and its marks in the kernel's order, the youngest of a kind first."""
    flags = event_flags = 0
    marks: list[FanotifyMark] = []
    unknown: list[bytes] = []
    for line in rest.splitlines():
        if group := _FANOTIFY_GROUP.fullmatch(line):
            flags, event_flags = int(group[1], 16), int(group[2], 16)
        elif (mark := _FANOTIFY_MARK.fullmatch(line)) and (mark["mount"] or mark["device"]):
            marks.append(_fanotify_mark(mark))
        elif line:
            unknown.append(line)
    return Fanotify(flags, event_flags, tuple(marks), tuple(unknown))


def _fanotify_mark(mark: re.Match[bytes]) -> FanotifyMark:
    device = mark["device"] or b"0"
    return FanotifyMark(
        flags=int(mark["flags"], 16),
        mask=int(mark["mask"], 16),
        ignored=int(mark["ignored"], 16),
        inode=_inode(mark["ino"], device, mark["kind"] or b"0", mark["handle"] or b"")
        if mark["ino"]
        else None,
        mount=int(mark["mount"], 16) if mark["mount"] else None,
        device=int(device, 16),
    )


def pidfd_pid(rest: bytes) -> int:
    """The process or thread that a pidfd leads to; -1 for one that is gone, 0 for one of a pid namespace out of sight.

    Source: Linux fs/pidfs.c, ``pidfd_show_fdinfo``.
    """
    return int(_fields(rest)[b"Pid"])


class Lock(NamedTuple):
    """A lock of a file: ``FLOCK ADVISORY WRITE``, ``LEASE BREAKING READ``; ``end`` is its last byte, None for EOF."""

    kind: str
    state: str
    access: str
    start: int
    end: int | None


class HeldLock(NamedTuple):
    """``pid`` is 0 or -1 where there is none to tell; ``inode`` is (major, minor, number)."""

    pid: int
    inode: tuple[int, int, int]
    lock: Lock


def locks(rest: bytes) -> list[Lock]:
    """The locks held through this descriptor.  Source: Linux fs/locks.c, ``show_fd_locks``."""
    if b"lock:" not in rest:
        return []
    lines = (line.split() for line in rest.splitlines() if line.startswith(b"lock:"))
    return [_held(words[2:]).lock for words in lines]


def held_locks(text: bytes) -> list[HeldLock]:
    """``/proc/locks``, without those who wait."""
    lines = (line.split() for line in text.splitlines())
    return [_held(words[1:]) for words in lines if len(words) > 7 and words[1] != b"->"]


def _held(words: list[bytes]) -> HeldLock:
    """``POSIX ADVISORY WRITE 4711 08:01:2 0 EOF``"""
    kind, state, access = (word.decode() for word in words[:3])
    major, minor, number = words[4].split(b":")
    lock = Lock(kind, state, access, int(words[5]), None if words[6] == b"EOF" else int(words[6]))
    return HeldLock(int(words[3]), (int(major, 16), int(minor, 16), int(number)), lock)


def _fields(rest: bytes) -> dict[bytes, bytes]:
    pairs = (line.partition(b":") for line in rest.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
