"""NETLINK_SOCK_DIAG: what is asked, and answers as a kernel has given them."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.linux import sockdiag
from criupy.linux.sockdiag import ESTABLISHED, LISTEN, UnixSocket, parse

# Linux 6.18: a listener in "x.sock" with a connection that waits, and the end of the answer.
LISTENER = bytes.fromhex(
    "54000000140002000100000011780000"  # nlmsghdr
    "01010a00477d93005c1c000000000000"  # unix_diag_msg
    "0b000000782e736f636b0000"  # UNIX_DIAG_NAME
    "0c0001001efe20000000e00f"  # UNIX_DIAG_VFS
    "08000300487d9300"  # UNIX_DIAG_ICONS
    "0c0004000100000005000000"  # UNIX_DIAG_RQLEN
    "0500060000000000"  # UNIX_DIAG_SHUTDOWN
)
DONE = bytes.fromhex("1400000003000200010000000100000000000000")


def attribute(kind: int, content: bytes) -> bytes:
    head = (4 + len(content)).to_bytes(2, "little") + kind.to_bytes(2, "little")
    return (head + content).ljust(-(-(4 + len(content)) // 4) * 4, b"\0")


def message(kind: int, body: bytes, flags: int = 2) -> bytes:
    length = 16 + len(body)
    head = length.to_bytes(4, "little") + kind.to_bytes(2, "little") + flags.to_bytes(2, "little") + bytes(8)
    return (head + body).ljust(-(-length // 4) * 4, b"\0")


def test_request():
    asked = sockdiag.request()
    assert len(asked) == 40
    assert asked.hex() == "2800000014000103010000000000000001000000ffffffff000000001f000000ffffffffffffffff"


def test_a_listener():
    part = parse(LISTENER + DONE)
    (found,) = part.sockets
    assert part.last
    assert part.consistent
    assert found == UnixSocket(
        ino=9665863,
        type=socket.SOCK_STREAM,
        state=LISTEN,
        name=b"x.sock\0",
        file=(2162206, 0x0FE00000),
        pending=(9665864,),
        rqueue=1,
        wqueue=5,
    )


def test_peers_of_three_sorts():
    """One that is there, one that is gone, none at all; the difference is whether the kernel tells of it."""
    head = bytes([1, 2, ESTABLISHED, 0]) + (7).to_bytes(4, "little") + bytes(8)
    for told, peer in ((attribute(2, b"\x09\0\0\0"), 9), (attribute(2, bytes(4)), 0), (b"", None)):
        (found,) = parse(message(20, head + told + attribute(6, b"\x03"))).sockets
        assert (found.peer, found.shutdown, found.name, found.file) == (peer, 3, b"", None)


def test_an_answer_in_parts():
    first, second = parse(LISTENER), parse(DONE)
    assert (len(first.sockets), first.last) == (1, False)
    assert (len(second.sockets), second.last) == (0, True)
    assert not parse(message(20, LISTENER[16:], flags=0x12)).consistent


def test_an_error_is_the_kernels():
    with pytest.raises(FileNotFoundError):
        parse(message(2, (-2 & 0xFFFFFFFF).to_bytes(4, "little")))


@pytest.mark.parametrize(
    "answer",
    [
        LISTENER[:-4],
        LISTENER[:10],
        bytes(16),
        message(20, b"short"),
        message(20, bytes(16) + b"\xff\x00\x00\x00"),
        message(20, bytes(16) + b"\x02\x00\x00\x00"),
    ],
)
def test_what_is_no_answer(answer):
    with pytest.raises(ValueError):
        parse(answer)


@given(st.binary(max_size=200))
def test_any_bytes_end_well(answer):
    try:
        parse(answer)
    except (ValueError, OSError):
        return


def test_our_own_sockets():
    """What the kernel says of sockets that this test has made."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        one.send(b"seven b")
        other.shutdown(socket.SHUT_WR)
        found = sockdiag.unix_sockets()
        inodes = [os.fstat(sock.fileno()).st_ino for sock in (one, other)]
        mine, theirs = (found[ino] for ino in inodes)
        assert (mine.peer, theirs.peer) == (theirs.ino, mine.ino)
        assert (mine.type, mine.state) == (socket.SOCK_SEQPACKET, ESTABLISHED)
        assert (mine.shutdown, theirs.shutdown, theirs.rqueue) == (1, 2, 7)
