"""Options of sockets: collected from real ones, encoded, and planned for new ones."""

from __future__ import annotations

import ctypes
import dataclasses
import socket
import struct
from typing import ClassVar

import pytest

from criupy.errors import ImageError
from criupy.images.pb import core_pb2, inventory_pb2, sockets_pb2
from criupy.linux.features import KernelFeatures
from criupy.model.plan import StubPlan
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.resources import sockopts
from criupy.resources.fileplan import TablePlan
from criupy.resources.kind import PlanSubject

FEATURES = KernelFeatures(capabilities=(1 << 41) - 1, pagemap_scan=True)
CODE = struct.pack("<HBBI", 0x80, 0, 0, 0) + struct.pack("<HBBI", 0x16, 1, 2, 0xFFFFFFFF)


def table(features=FEATURES):
    task = TaskImages(7, core_pb2.pstree_entry(pid=7, ppid=0, pgid=7, sid=7), core_pb2.core_entry())
    snapshot = Snapshot(inventory_pb2.inventory_entry(img_version=2), (task,), {}, {})
    return TablePlan(PlanSubject(7, task, snapshot, features, print, StubPlan(0)))


def planned(opts, features=FEATURES):
    return [str(step) for step in sockopts.plan(5, opts, table(features), "socket")]


@pytest.fixture
def sock():
    one, other = socket.socketpair()
    with one, other:
        yield one


def with_filter(sock):
    code = ctypes.create_string_buffer(CODE)
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("<HHIQ", 2, 0, 0, ctypes.addressof(code)))


def test_a_new_socket_needs_its_buffers_only(sock):
    opts = sockopts.encode(sockopts.collect(sock))
    assert not opts.HasField("so_mark")
    assert not opts.HasField("so_linger")
    assert not opts.HasField("so_peek_off")
    assert opts.HasField("so_passcred")
    half = opts.so_sndbuf // 2
    assert planned(opts) == [
        f"setsockopt(5, 1, 32, &{half}, 4)",
        f"setsockopt(5, 1, 33, &{opts.so_rcvbuf // 2}, 4)",
        "setsockopt(5, 1, 72, &0, 4)",
    ]


def test_what_is_set_is_kept(sock):
    for option, value in ((7, 9000), (12, 4), (18, 2), (9, 1), (16, 1), (36, 0xFFFFFFFF), (42, 3), (29, 1)):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("<I", value))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 11))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("qq", 5, 500000))
    with_filter(sock)
    opts = sockopts.encode(sockopts.collect(sock))
    assert (opts.so_mark, opts.so_linger, opts.so_peek_off, opts.so_buf_lock) == (0xFFFFFFFF, 11, 3, 1)
    assert list(opts.so_filter) == [0x80 << 48, 0x16 << 48 | 1 << 40 | 2 << 32 | 0xFFFFFFFF]
    steps = planned(opts)
    for step in (
        "setsockopt(5, 1, 32, &9000, 4)",
        "setsockopt(5, 1, 72, &1, 4)",
        "setsockopt(5, 1, 12, &4, 4)",
        "setsockopt(5, 1, 18, &2, 4)",
        "setsockopt(5, 1, 9, &1, 4)",
        "setsockopt(5, 1, 16, &1, 4)",
        "setsockopt(5, 1, 36, &4294967295, 4)",
        "setsockopt(5, 1, 42, &3, 4)",
        "setsockopt(5, 1, 29, &1, 4)",
        "setsockopt(5, 1, 13, {1, 11}, 8)",
        "setsockopt(5, 1, 21, {5 s, 500000 us}, 16)",
        "setsockopt(5, 1, 26, {2 instructions}, 16)",
    ):
        assert step in steps


def test_the_filter_is_the_same_again(sock):
    with_filter(sock)
    opts = sockopts.encode(sockopts.collect(sock))
    (step,) = (step for step in sockopts.plan(5, opts, table(), "socket") if step.args[2] == 26)
    length, code = step.args[3].parts
    assert struct.unpack("<HHI", length) == (2, 0, 0)
    assert code.parts == (CODE,)


def test_without_cap_net_admin_buffers_obey_the_limits(sock):
    weak = dataclasses.replace(FEATURES, capabilities=0)
    opts = sockopts.encode(sockopts.collect(sock))
    assert [step.split(", ")[2] for step in planned(opts, weak)] == ["7", "8", "72"]


class TestUntrusted:
    """What no socket has."""

    OPTS: ClassVar = {
        "so_sndbuf": 0,
        "so_rcvbuf": 0,
        "so_snd_tmo_sec": 0,
        "so_snd_tmo_usec": 0,
        "so_rcv_tmo_sec": 0,
        "so_rcv_tmo_usec": 0,
    }

    @pytest.mark.parametrize(
        ("more", "reason"),
        [
            ({"so_snd_tmo_usec": 1_000_000}, "is no timeout"),
            ({"so_rcv_tmo_sec": 1 << 63}, "is no timeout"),
            ({"so_bound_dev": b"x" * 16}, "too long a name"),
            ({"so_filter": [0] * 4097}, "4097 instructions"),
        ],
    )
    def test_is_refused(self, more, reason):
        with pytest.raises(ImageError, match=reason):
            planned(sockets_pb2.sk_opts_entry(**self.OPTS | more))

    def test_the_largest_buffers_fit(self):
        opts = sockets_pb2.sk_opts_entry(**self.OPTS | {"so_sndbuf": 0xFFFFFFFF, "so_buf_lock": 0xFFFFFFFF})
        assert planned(opts)[0] == f"setsockopt(5, 1, 32, &{1 << 30}, 4)"
        assert planned(opts)[2] == "setsockopt(5, 1, 72, &3, 4)"
