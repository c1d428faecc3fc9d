"""Open files in words: every kind that images know, and what matters of it."""

from __future__ import annotations

import os

import pytest
from unit.images.built import file, least

from criupy.images.pb import fdtable_pb2, files_pb2, inventory_pb2
from criupy.model.descriptors import Describer, Description, signal_name
from criupy.model.integrity import FILE_FIELD
from criupy.model.snapshot import PipeData, Snapshot

T = fdtable_pb2
LOOPBACK = 0x0100007F
LOOPBACK6 = [0, 0, 0, 0x01000000]


def described(*entries, **parts) -> Description:
    """The description of the first file in a snapshot of these."""
    files = {entry.id: least(entry) for entry in entries}
    empty = least(inventory_pb2.inventory_entry())
    return Describer(Snapshot(empty, (), files, {}, **parts)).describe(entries[0].id)


def test_every_kind_has_a_description():
    for kind in FILE_FIELD:
        least_of_all = described(
            file(kind, 1), memfds={0: files_pb2.memfd_inode_entry(inode_id=0, name=b"m", size=0)}
        )
        assert least_of_all.kind
    assert set(Describer._KINDS) == set(FILE_FIELD.values())


def reg(mode: int, flags: int = 0, **fields):
    return file(T.REG, 1, name=b"/some/path", mode=mode, flags=flags, **fields)


def test_paths():
    assert described(reg(0o100644, pos=7, size=8192)) == ("file", "/some/path", "r", ("at 7 of 8,192 bytes",))
    assert described(reg(0o100644, os.O_WRONLY | os.O_APPEND, pos=7)) == (
        "file", "/some/path", "w", ("at 7 bytes", "O_APPEND")
    )  # fmt: skip
    assert described(reg(0o40755, pos=7)) == ("directory", "/some/path", "r", ())
    assert described(reg(0o20666, os.O_RDWR | os.O_NONBLOCK)) == (
        "device",
        "/some/path",
        "rw",
        ("O_NONBLOCK",),
    )
    assert described(reg(0o60660)).kind == "device"
    assert described(reg(0, os.O_PATH | os.O_RDWR, pos=(1 << 64) - 1)) == (
        "file",
        "/some/path",
        "",
        ("O_PATH",),
    )
    assert described(reg(0, ext=True)).notes == ("external",)


@pytest.mark.parametrize(
    ("kind", "number", "note"),
    [
        (files_pb2.GHOST, 5, "deleted, its content is in the images"),
        (files_pb2.LINKED, 2, "deleted, still there as /link_remap.2"),
        (files_pb2.PROCFS, 77, "of process 77, which is gone"),
    ],
)
def test_names_that_are_gone(kind, number, note):
    remap = files_pb2.remap_file_path_entry(orig_id=1, remap_id=number, remap_type=kind)
    link = file(T.REG, 2, name=b"/link_remap.2")
    assert described(reg(0o100644), link, remaps=[remap]).notes == (note,)


def test_pipes():
    entry = files_pb2.pipe_data_entry(pipe_id=9, bytes=3)
    full, empty = {9: PipeData(entry, b"abc")}, {9: PipeData(entry, b"")}
    pipe = file(T.PIPE, 1, pipe_id=9, flags=os.O_WRONLY)
    assert described(pipe, pipes_data=full) == ("pipe", "9", "w", ("3 bytes in it",))
    assert described(pipe, pipes_data=empty).notes == described(pipe).notes == ()
    fifo, path = file(T.FIFO, 1, pipe_id=9, regf_id=2), file(T.REG, 2, name=b"/fifo", flags=os.O_RDONLY)
    assert described(fifo, path, fifo_data=full) == ("fifo", "/fifo", "r", ("3 bytes in it",))
    assert described(file(T.FIFO, 1, pipe_id=9)).what == "9"


@pytest.mark.parametrize(
    ("fields", "kind", "what", "notes"),
    [
        (
            {"family": 2, "type": 1, "proto": 6, "state": 10, "src_port": 80, "src_addr": [LOOPBACK]},
            "tcp socket", "127.0.0.1:80", ("listening",),
        ),
        (
            {"family": 10, "type": 1, "proto": 6, "state": 1, "src_port": 80, "src_addr": LOOPBACK6,
             "dst_port": 9, "dst_addr": LOOPBACK6, "flags": os.O_NONBLOCK},
            "tcp socket", "[::1]:80 -> [::1]:9", ("established", "O_NONBLOCK"),
        ),
        ({"type": 2, "proto": 17, "state": 7, "src_addr": [0]}, "udp socket", "0.0.0.0:0", ()),
        ({"type": 3, "proto": 17, "src_addr": [0, 0]}, "raw socket", "?:0", ()),
        ({"type": 2, "proto": 99, "src_addr": [0]}, "inet socket", "0.0.0.0:0", ()),
    ],
)  # fmt: skip
def test_inet_sockets(fields, kind, what, notes):
    found = described(file(T.INETSK, 1, **fields))
    assert (found.kind, found.what, found.notes) == (kind, what, notes)


@pytest.mark.parametrize(
    ("fields", "what", "notes"),
    [
        ({"type": 1, "ino": 7, "peer": 8}, "stream 7", ("peer 8",)),
        ({"type": 1, "ino": 7, "state": 10, "name": b"/run/x\0"}, "stream 7 /run/x", ("listening",)),
        ({"type": 5, "ino": 7, "name": b"\0abstract\0"}, "seqpacket 7 @abstract\0", ()),
        ({"type": 77, "ino": 7}, "type 77 7", ()),
    ],
)
def test_unix_sockets(fields, what, notes):
    found = described(file(T.UNIXSK, 1, **fields))
    assert (found.kind, found.what, found.notes) == ("unix socket", what, notes)


def test_other_sockets():
    assert described(file(T.NETLINKSK, 1, protocol=0, portid=5))[1:] == ("route", "r", ("port 5",))
    assert described(file(T.NETLINKSK, 1, protocol=99)).what == "protocol 99"
    assert described(file(T.PACKETSK, 1, type=3, protocol=0x300, ifindex=2))[1:] == (
        "raw, protocol 0x300", "r", ("interface 2",)
    )  # fmt: skip


def test_anonymous_files():
    assert described(file(T.EVENTFD, 1, counter=7, semaphore=True, flags=os.O_RDWR))[1:] == (
        "counter 7", "rw", ("semaphore",)
    )  # fmt: skip
    targets = [least(files_pb2.eventpoll_tfd_entry(tfd=fd)) for fd in (9, 3, 9)]
    assert described(file(T.EVENTPOLL, 1, tfd=targets)).what == "watches 3, 9"
    assert described(file(T.EVENTPOLL, 1)).what == "watches nothing"
    assert (
        described(file(T.SIGNALFD, 1, sigmask=1 << 9 | 1 << 11 | 1 << 39)).what
        == "SIGUSR1, SIGUSR2, signal 40"
    )
    assert described(file(T.TIMERFD, 1, clockid=1, vsec=2, vnsec=500000000, isec=3, ticks=4)) == (
        "timerfd", "CLOCK_MONOTONIC", "r", ("fires in 2.500 s", "every 3 s", "4 expirations unread")
    )  # fmt: skip
    assert described(file(T.TIMERFD, 1, clockid=9)).notes == ("not armed",)
    watch = files_pb2.inotify_wd_entry(i_ino=5, f_handle=files_pb2.fh_entry(path=b"/watched"))
    nameless = files_pb2.inotify_wd_entry(i_ino=6)
    assert described(file(T.INOTIFY, 1, wd=[watch, nameless])).what == "watches /watched, inode 6"
    assert described(file(T.PIDFD, 1, nspid=5)).what == "process 5"
    assert described(file(T.PIDFD, 1, nspid=-1)).what == "a process that is gone"
    assert described(file(T.NS, 1, ns_cflag=0x40000000, ns_id=10)).what == "net 10"
    assert described(file(T.NS, 1, ns_cflag=4, ns_id=10)).what == "0x4 10"
    assert described(file(T.TTY, 1, regf_id=2), file(T.REG, 2, name=b"/dev/pts/0")).what == "/dev/pts/0"
    assert described(file(T.TTY, 1, tty_info_id=3)).what == "3"


def test_memfds():
    inode = files_pb2.memfd_inode_entry(inode_id=4, name=b"secret", size=8192)
    assert described(file(T.MEMFD, 1, inode_id=4), memfds={4: inode})[1:] == ("secret", "r", ("8,192 bytes",))
    assert described(file(T.MEMFD, 1, inode_id=4, pos=5), memfds={4: inode}).notes == ("at 5 of 8,192 bytes",)


def test_signal_names():
    assert [signal_name(number) for number in (1, 34, 35, 64, 0, 500)] == [
        "SIGHUP", "SIGRTMIN", "signal 35", "SIGRTMAX", "signal 0", "signal 500"
    ]  # fmt: skip
