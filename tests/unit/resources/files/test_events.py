"""Descriptors of watches, processes and namespaces: lines of fdinfo as Linux 6.18 writes them, plans, broken images."""

from __future__ import annotations

import os
from typing import Any

import pytest
from unit.resources.files.test_fileplan import NOBODY, PID, plan, snapshot

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux.procfs import fdinfo
from criupy.linux.procfs.fdinfo import Inode, InotifyWatch
from criupy.resources import watched

INOTIFY = (
    b"inotify wd:2a ino:216021 sdev:fe00000 mask:84000002 ignored_mask:0 "
    b"fhandle-bytes:8 fhandle-type:1 f_handle:21602100246e14d9\n"
    b"inotify wd:1 ino:1 sdev:16 mask:2 ignored_mask:0\n"
)


def inotify(*watches: tuple[int, int, bytes]) -> fdtable_pb2.file_entry:
    """``watches``: number, mask, name."""
    body = files_pb2.inotify_file_entry(id=0, flags=os.O_NONBLOCK, fown=NOBODY)
    for wd, mask, name in watches:
        handle = files_pb2.fh_entry(bytes=0, type=0, path=name)
        body.wd.add(id=0, i_ino=1, mask=mask, ignored_mask=0, s_dev=1, wd=wd, f_handle=handle)
    return fdtable_pb2.file_entry(type=fdtable_pb2.INOTIFY, id=0, ify=body)


def pidfd(nspid: int, ino: int = 5, flags: int = 0) -> fdtable_pb2.file_entry:
    body = files_pb2.pidfd_entry(id=0, ino=ino, flags=flags, nspid=nspid, fown=NOBODY)
    return fdtable_pb2.file_entry(type=fdtable_pb2.PIDFD, id=0, pidfd=body)


def namespace(ns_id: int, flag: int) -> fdtable_pb2.file_entry:
    body = files_pb2.ns_file_entry(id=0, ns_id=ns_id, ns_cflag=flag, flags=0o100000)
    return fdtable_pb2.file_entry(type=fdtable_pb2.NS, id=0, nsf=body)


def steps(files: list[fdtable_pb2.file_entry], table: dict[int, Any]) -> list[str]:
    return [line for line in plan(snapshot(files, table))[0] if not line.startswith("filesystem")]


def test_lines_of_inotify() -> None:
    handle = bytes.fromhex("21602100246e14d9")
    assert list(fdinfo.inotify_watches(INOTIFY)) == [
        InotifyWatch(0x2A, 0x84000002, Inode(0x216021, 0xFE00000, 1, handle)),
        InotifyWatch(1, 2, Inode(1, 0x16, 0, b"")),
    ]


def test_line_of_a_pidfd() -> None:
    assert fdinfo.pidfd_pid(b"Pid:\t21040\nNSpid:\t21040\t7\n") == 21040
    assert fdinfo.pidfd_pid(b"Pid:\t-1\nNSpid:\t-1\n") == -1


def test_message_of_a_handle() -> None:
    entry = watched.handle_entry(Inode(1, 2, 0x81, bytes(range(1, 13))), b"/name")
    assert (entry.bytes, entry.type, entry.path) == (12, 0x81, b"/name")
    assert list(entry.handle) == [0x0807060504030201, 0x0C0B0A09, *[0] * 14]


def test_watches_come_last_and_keep_their_numbers() -> None:
    assert steps([inotify((44, 2, b"/b"), (1, 0x80000FFF, b"/a"), (45, 0x40000002, b"/c"))], {3: 0}) == [
        "hold: inotify_init1(2048) -> 1",
        'timers: inotify_add_watch(1, "/a", 0x82000fff) -> 1',
        "timers: ioctl(1, 0x40044900, 44)",
        'timers: inotify_add_watch(1, "/b", 0x2000002) -> 44',
        'timers: inotify_add_watch(1, "/c", 0x2000002) -> 45',
        "pidfd_getfd(90, 1, 0) -> 0",
        "dup3(0, 3, 0)",
        "close(0)",
    ]


@pytest.mark.parametrize(
    "watches",
    [
        [(0, 2, b"/a")],
        [(1 << 31, 2, b"/a")],
        [(5, 2, b"/a"), (5, 2, b"/b")],
        [(1, 2, b"")],
        [(1, 2, b"a")],
        [(1, 2, b"/a\0b")],
    ],
)
def test_impossible_watches(watches: list[tuple[int, int, bytes]]) -> None:
    with pytest.raises(ImageError):
        steps([inotify(*watches)], {3: 0})


def test_the_living_and_the_dead() -> None:
    files = [pidfd(PID, flags=os.O_NONBLOCK), pidfd(-1), pidfd(-1, flags=os.O_EXCL), pidfd(-1, ino=6)]
    passing, other = hex((1 << 41) + 5), hex((1 << 41) + 6)
    assert steps(files, {0: 0, 1: 1, 2: 2, 3: (3, 1)}) == [
        f"tree: clone3({{}}, 88) = <task {passing}>",
        f"tree: pidfd_open(<task {passing}>, 0) -> 1",
        f"tree: pidfd_open(<task {passing}>, 128) -> 2",
        "tree: exit_group(0)",
        f"tree: wait4(<task {passing}>, 0, 0x40000000, 0)",
        f"tree: clone3({{}}, 88) = <task {other}>",
        f"tree: pidfd_open(<task {other}>, 0) -> 3",
        "tree: exit_group(0)",
        f"tree: wait4(<task {other}>, 0, 0x40000000, 0)",
        f"pidfd_open({PID}, 2048) -> 0",
        "fcntl(0, 2, 0)",
        "pidfd_getfd(90, 1, 0) -> 1",
        "fcntl(1, 2, 0)",
        "pidfd_getfd(90, 2, 0) -> 2",
        "fcntl(2, 2, 0)",
        "pidfd_getfd(90, 3, 0) -> 3",
    ]


@pytest.mark.parametrize("pid", [0, 1, -2, PID + 1, 1 << 30])
def test_strangers_are_never_opened(pid: int) -> None:
    with pytest.raises(ImageError, match="which is not in the image set"):
        steps([pidfd(pid)], {3: 0})


def test_namespaces() -> None:
    saved = snapshot([namespace(7, 0x40000000)], {3: 0})
    assert saved.root.ids is not None
    saved.root.ids.net_ns_id, saved.root.ids.uts_ns_id = 7, 8
    assert plan(saved)[0][0] == 'openat(-100, "/proc/self/ns/net", 0x8000, 0) -> 0'
    for ns_id, flag in ((8, 0x40000000), (7, 0x4000000), (7, 0), (7, 0x40000001)):
        saved.files[0].nsf.ns_id, saved.files[0].nsf.ns_cflag = ns_id, flag
        with pytest.raises(ImageError, match="in which no task lives"):
            plan(saved)


FANOTIFY = (
    b"fanotify flags:2 event-flags:8002\n"
    b"fanotify sdev:1b mflags:0 mask:8 ignored_mask:0\n"
    b"fanotify mnt_id:1b mflags:0 mask:2 ignored_mask:0\n"
    b"fanotify ino:216005 sdev:fe00000 mflags:40 mask:8000002 ignored_mask:10 "
    b"fhandle-bytes:8 fhandle-type:1 f_handle:05602100fac6e19f\n"
)


def fanotify(*marks: files_pb2.fanotify_mark_entry, faflags: int = 2) -> fdtable_pb2.file_entry:
    body = files_pb2.fanotify_file_entry(
        id=0, flags=os.O_RDWR | os.O_NONBLOCK, fown=NOBODY, faflags=faflags, evflags=0o100000, mark=marks
    )
    return fdtable_pb2.file_entry(type=fdtable_pb2.FANOTIFY, id=0, ffy=body)


def mark(
    name: bytes, kind: files_pb2.mark_type = files_pb2.INODE, **numbers: int
) -> files_pb2.fanotify_mark_entry:
    given = dict.fromkeys(("mflags", "mask", "ignored_mask"), 0) | numbers
    entry = files_pb2.fanotify_mark_entry(id=0, type=kind, s_dev=1, **given)
    if kind == files_pb2.INODE:
        entry.ie.i_ino = 1
        entry.ie.f_handle.CopyFrom(files_pb2.fh_entry(bytes=0, type=0, path=name))
    else:
        entry.me.mnt_id, entry.me.path = 7, name
    return entry


def test_lines_of_fanotify() -> None:
    handle = bytes.fromhex("05602100fac6e19f")
    found = fdinfo.fanotify(FANOTIFY)
    assert found == (
        2,
        0o100002,
        (
            (0, 8, 0, None, None, 0x1B),
            (0, 2, 0, None, 0x1B, 0),
            (0x40, 0x8000002, 0x10, Inode(0x216005, 0xFE00000, 1, handle), None, 0xFE00000),
        ),
        (),
    )
    newer = b"fanotify mnt_ns:4026531841 mflags:0 mask:1 ignored_mask:0"
    assert fdinfo.fanotify(FANOTIFY + newer).unknown == (newer,)


def test_marks() -> None:
    filesystem = mark(b"/fs", files_pb2.MOUNT, mask=8, mflags=0x200)
    filesystem.me.filesystem = True
    marks = [
        filesystem,
        mark(b"/mount", files_pb2.MOUNT, mask=2),
        mark(b"/both", mask=0x8000002, ignored_mask=0x10, mflags=0x40),
        mark(b"/ignored", mask=0x8000000, ignored_mask=0x10, mflags=0x440),
    ]
    assert steps([fanotify(*marks, faflags=3)], {0: 0}) == [
        "hold: fanotify_init(2, 0x8000) -> 1",
        'timers: fanotify_mark(1, 1093, 16, -100, "/ignored")',
        'timers: fanotify_mark(1, 5, 0x8000002, -100, "/both")',
        'timers: fanotify_mark(1, 101, 16, -100, "/both")',
        'timers: fanotify_mark(1, 17, 2, -100, "/mount")',
        'timers: fanotify_mark(1, 769, 8, -100, "/fs")',
        "pidfd_getfd(90, 1, 0) -> 0",
        "fcntl(0, 2, 0)",
    ]


@pytest.mark.parametrize(
    "entry", [fanotify(faflags=4), fanotify(mark(b"relative", mask=2)), fanotify(mark(b"", files_pb2.MOUNT))]
)
def test_impossible_groups(entry: fdtable_pb2.file_entry) -> None:
    with pytest.raises(ImageError):
        steps([entry], {0: 0})
