"""The unix sockets of our network namespace, as NETLINK_SOCK_DIAG lists them: one request for all.

Encoding and decoding are pure, on bytes.

Source: Linux include/uapi/linux/{netlink,sock_diag,unix_diag}.h, net/unix/diag.c.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from criupy.errors import KernelFeatureMissing, TraceeError

ESTABLISHED, CLOSE, LISTEN = 1, 7, 10
"""States of a socket.  Source: Linux include/net/tcp_states.h."""

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP_INTR = 0x10
_EVERYTHING = 0xFFFF_FFFF
_HEADER = struct.Struct("<IHHII")
_REQUEST = struct.Struct("<BBHIII8s")
"""struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie."""
_SOCKET = struct.Struct("<BBBBI8s")
"""struct unix_diag_msg: family, type, state, padding, inode, cookie."""
_ATTRIBUTE = struct.Struct("<HH")
_WORD, _PAIR = struct.Struct("<I"), struct.Struct("<II")
_NAME, _VFS, _PEER, _ICONS, _RQLEN, _, _SHUTDOWN = range(7)
_SHOW = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4
"""Name, file, peer, pending connections, queues; how it is shut down is always told."""
_BUFFER = 1 << 18
_ATTEMPTS = 10


class UnixSocket(NamedTuple):
    """One unix socket.

    ``file`` is (inode, device as the kernel has it: major << 20 | minor) of the path that it is bound to; ``peer`` an
    inode, 0 for one that is gone or that nobody has accepted yet, None where there never was one; ``pending`` the
    inodes of those who wait to be accepted, 0 for one who is gone.  ``rqueue`` and ``wqueue`` are bytes, of a listener
    connections and its backlog.  ``shutdown``: 1 to read, 2 to write.
    """

    ino: int
    type: int
    state: int
    name: bytes = b""
    file: tuple[int, int] | None = None
    peer: int | None = None
    pending: tuple[int, ...] = ()
    rqueue: int = 0
    wqueue: int = 0
    shutdown: int = 0


def unix_sockets() -> dict[int, UnixSocket]:
    """All of them, by inode.  `KernelFeatureMissing` without unix_diag, `TraceeError` for other refusals.

    While sockets come and go, a list may be one of different moments; then it is asked for again.
    """
    for _ in range(_ATTEMPTS):
        found, whole = _ask()
        if whole:
            return found
    raise TraceeError("the unix sockets change too fast to be listed", errno=errno.EAGAIN)


def _ask() -> tuple[dict[int, UnixSocket], bool]:
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        ) as asking:
            asking.send(request())
            found: dict[int, UnixSocket] = {}
            whole = True
            while True:
                part = parse(asking.recv(_BUFFER))
                found.update((one.ino, one) for one in part.sockets)
                whole = whole and part.consistent
                if part.last:
                    return found, whole
    except FileNotFoundError as error:
        what = "the kernel module unix_diag is needed to look into unix sockets"
        raise KernelFeatureMissing(what, hint="modprobe unix_diag") from error
    except OSError as error:
        raise TraceeError("the unix sockets cannot be listed", errno=error.errno or 0) from error


def request() -> bytes:
    """Asks for every unix socket there is."""
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, _EVERYTHING, 0, _SHOW, b"\xff" * 8)
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, flags, 1, 0) + body


class Part(NamedTuple):
    """One datagram of an answer; ``consistent``: nothing has changed since the one before."""

    sockets: tuple[UnixSocket, ...]
    last: bool
    consistent: bool


def parse(answer: bytes) -> Part:
    """Raises OSError with the kernel's error, ValueError for what is no answer."""
    sockets: list[UnixSocket] = []
    last, consistent = False, True
    while answer and not last:
        kind, flags, body, answer = _message(answer)
        consistent = consistent and not flags & _NLM_F_DUMP_INTR
        if kind == _NLMSG_ERROR:
            number = -struct.unpack_from("<i", body)[0]
            raise OSError(number, os.strerror(number))
        if kind == _NLMSG_DONE:
            last = True
        elif kind == _SOCK_DIAG_BY_FAMILY:
            sockets.append(_socket(body))
    return Part(tuple(sockets), last, consistent)


def _message(answer: bytes) -> tuple[int, int, bytes, bytes]:
    """Type, flags and body of the first message, and what follows it."""
    if len(answer) < _HEADER.size:
        raise ValueError("a netlink message is cut off")
    length, kind, flags, _, _ = _HEADER.unpack_from(answer)
    if not _HEADER.size <= length <= len(answer):
        raise ValueError(f"a netlink message of {length} bytes in {len(answer)}")
    return kind, flags, answer[_HEADER.size : length], answer[-(-length // 4) * 4 :]


def _socket(body: bytes) -> UnixSocket:
    if len(body) < _SOCKET.size:
        raise ValueError("a unix_diag message is cut off")
    _, kind, state, _, ino, _ = _SOCKET.unpack_from(body)
    found = dict(_attributes(body[_SOCKET.size :]))
    rqueue, wqueue = _PAIR.unpack(found[_RQLEN]) if _RQLEN in found else (0, 0)
    icons = found.get(_ICONS, b"")
    return UnixSocket(
        ino=ino,
        type=kind,
        state=state,
        name=found.get(_NAME, b""),
        file=_PAIR.unpack(found[_VFS]) if _VFS in found else None,
        peer=_WORD.unpack(found[_PEER])[0] if _PEER in found else None,
        pending=struct.unpack(f"<{len(icons) // 4}I", icons),
        rqueue=rqueue,
        wqueue=wqueue,
        shutdown=found.get(_SHUTDOWN, b"\0")[0],
    )


def _attributes(text: bytes) -> Iterator[tuple[int, bytes]]:
    while len(text) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(text)
        if not _ATTRIBUTE.size <= length <= len(text):
            raise ValueError(f"a netlink attribute of {length} bytes in {len(text)}")
        yield kind, text[_ATTRIBUTE.size : length]
        text = text[-(-length // 4) * 4 :]
