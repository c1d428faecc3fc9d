"""What waits in a unix socket to be received, read without taking it out, and sent anew.

Image: ``sk_packet_entry`` in ``sk-queues.img`` with the bytes after it, with ``creds_*`` and ``sender`` of our own.

A look with MSG_PEEK sees the first message; those behind it take SO_PEEK_OFF, which belongs to the socket and is put
back, also when criupy is killed.  An empty message that is not the first is seen that way only once.

Source: Linux net/unix/af_unix.c, ``unix_stream_read_generic`` and ``__unix_dgram_recvmsg``; net/core/datagram.c.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Self

from criupy.errors import TraceeError
from criupy.images.pb import sockets_pb2
from criupy.linux.syscalls import SO_PEEK_OFF
from criupy.model.plan import Data, data
from criupy.model.snapshot import SocketPacket
from criupy.resources.pidnumbers import PidNumbers
from criupy.resources.sockopts import SOL_SOCKET
from criupy.tracee import guardian

SCM_RIGHTS, SCM_CREDENTIALS, _SCM_PIDFD = 1, 2, 4
_STREAM, _DGRAM, _SEQPACKET = 1, 2, 5
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_CONTROL = 4096
"""More than 253 descriptors, credentials and a label take."""
_MESSAGE, _LARGEST = 1 << 18, 1 << 30
_MANY = 1 << 20
_CREDENTIALS = struct.Struct("<iII")
_OFFSET = struct.Struct("<i")
MSG_DONTWAIT, MSG_NOSIGNAL = 0x40, 0x4000


class Packet(NamedTuple):
    """One message, or a run of bytes of a stream.

    ``rights``: descriptors of ours for the files in it; ``creds``: pid, uid and gid, if the socket receives them;
    ``sender``: the name that the socket of its sender has, as an address holds it.
    """

    content: bytes
    rights: tuple[int, ...] = ()
    creds: tuple[int, int, int] | None = None
    sender: bytes = b""


class Guard:
    """A child that puts the peek offset of a socket back when criupy is killed."""

    def __init__(self) -> None:
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def life(hearing: int) -> None:
            self._here.close()
            _keep(there, hearing)

        self._watch = guardian.Watch(life)
        there.close()

    def protect(self, sock: socket.SocketType, offset: int) -> None:
        """From now on it would be this one, with this offset."""
        socket.send_fds(self._here, [_OFFSET.pack(offset)], [sock.fileno()])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.tell(b"!")
        self._watch.finish()
        self._here.close()


def _keep(told: socket.socket, hearing: int) -> None:
    """The life of the child: the sockets that it is told of, until criupy ends, well (it says so) or not."""
    kept: list[tuple[int, int]] = []
    poll = select.poll()
    poll.register(told, select.POLLIN)
    poll.register(hearing, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if told.fileno() in ready:
            word, fds, _, _ = socket.recv_fds(told, _OFFSET.size, 1)
            if word:
                for fd, _ in kept:
                    os.close(fd)
                kept = [(fd, *_OFFSET.unpack(word)) for fd in fds]
                continue
            poll.unregister(told)
        if hearing in ready:
            if not os.read(hearing, 1):
                for fd, offset in kept:
                    with socket.socket(fileno=fd) as sock:
                        sock.setsockopt(SOL_SOCKET, SO_PEEK_OFF, offset)
            return


def collect(sock: socket.SocketType, guard: Callable[[], Guard]) -> list[Packet]:
    """All of the queue.  Raises `TraceeError` when a part of it cannot be read."""
    offset = _Offset(sock, sock.getsockopt(SOL_SOCKET, SO_PEEK_OFF), guard)
    read = _stream if sock.type == _STREAM else _messages
    if offset.before < 0:
        return read(sock, offset)
    with offset:  # the program has moved its own looks away from the start
        sock.setsockopt(SOL_SOCKET, SO_PEEK_OFF, -1)
        return read(sock, offset)


def obstacles(sock: socket.SocketType) -> Iterator[tuple[str, str]]:
    """(why, hint) for what is in a queue and cannot be dumped.  Source: ``unix_stream_recv_urg``."""
    if sock.type == _STREAM and _unread(sock):
        with suppress(OSError):  # there is none, or this kernel does not know of it
            if sock.recv(1, socket.MSG_OOB | socket.MSG_PEEK | socket.MSG_DONTWAIT):
                yield "urgent data (MSG_OOB) is in it, which cannot be dumped", "let the program receive it"


class _Offset(NamedTuple):
    """Lets looks begin behind the start, and in the end where they did ``before``."""

    sock: socket.SocketType
    before: int
    guard: Callable[[], Guard]

    def __enter__(self) -> None:
        self.guard().protect(self.sock, self.before)

    def __exit__(self, *_: object) -> None:
        self.sock.setsockopt(SOL_SOCKET, SO_PEEK_OFF, self.before)


def _stream(sock: socket.SocketType, offset: _Offset) -> list[Packet]:
    """A look ends behind the bytes that files came with, and where the credentials change.

    It does not tell where those bytes begin, so the files are taken to have come with all that it saw.
    """
    total = _unread(sock)
    first = _peek(sock, total) if total else None
    if first is None:
        return []
    packets = [first]
    place = len(first.content)
    if place < total:
        with offset:
            while place < total and (found := _peek_at(sock, place, total - place)) and found.content:
                packets.append(found)
                place += len(found.content)
    if place < total:
        raise TraceeError(f"of {total} bytes in a unix socket only {place} could be read")
    return packets


def _messages(sock: socket.SocketType, offset: _Offset) -> list[Packet]:
    first = _peek(sock)
    if first is None or _is_end(sock, first, 0):
        return []
    packets = [first]
    place = len(first.content)
    with offset:
        while (found := _peek_at(sock, place)) is not None and not _is_end(sock, found, place):
            packets.append(found)
            place += len(found.content)
            if len(packets) > _MANY:
                raise TraceeError("a unix socket has more messages than can be")
    return packets


def _is_end(sock: socket.SocketType, found: Packet, place: int) -> bool:
    """Whether nothing is nothing: a connection that is shut down reads as an empty message, again and again."""
    if sock.type != _SEQPACKET or found.content or found.rights:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0)) and place >= _unread(sock)


def _unread(sock: socket.SocketType) -> int:
    """Bytes; a listener has none.  Source: ``unix_inq_len``."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)), "little")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0


def _peek_at(sock: socket.SocketType, place: int, size: int = _MESSAGE) -> Packet | None:
    sock.setsockopt(SOL_SOCKET, SO_PEEK_OFF, place)
    return _peek(sock, size, lambda: sock.setsockopt(SOL_SOCKET, SO_PEEK_OFF, place))


def _peek(
    sock: socket.SocketType, size: int = _MESSAGE, again: Callable[[], None] = lambda: None
) -> Packet | None:
    """One look; None when there is nothing.  ``again`` prepares for one with more room."""
    try:
        content, control, flags, address = sock.recvmsg(size, _CONTROL, _PEEK)
    except BlockingIOError:
        return None
    rights, creds = _control(control)
    if flags & socket.MSG_CTRUNC:
        _close(rights)
        raise TraceeError(
            "files in a unix socket cannot be received", hint="raise the limit of open files (ulimit -n)"
        )
    if flags & socket.MSG_TRUNC:
        _close(rights)
        if size >= _LARGEST:
            raise TraceeError("a message in a unix socket is larger than can be")
        again()
        return _peek(sock, size * 8, again)
    sender = os.fsencode(address) if isinstance(address, str) else address or b""
    return Packet(content, rights, creds, sender if sock.type == _DGRAM else b"")


def _control(
    control: Iterable[tuple[int, int, bytes]],
) -> tuple[tuple[int, ...], tuple[int, int, int] | None]:
    rights = array.array("i")
    creds = None
    for level, kind, content in control:
        if level != SOL_SOCKET:
            continue
        if kind == SCM_RIGHTS:
            rights.frombytes(content[: len(content) // 4 * 4])
        elif kind == SCM_CREDENTIALS:
            creds = _CREDENTIALS.unpack_from(content)
        elif kind == _SCM_PIDFD:
            _close(struct.unpack_from("i", content))
    return tuple(rights), creds


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def encode(packet: Packet, id_for: int, files: Sequence[int], numbers: PidNumbers) -> SocketPacket:
    """The message; ``files`` are the ids of what is in ``rights``."""
    entry = sockets_pb2.sk_packet_entry(id_for=id_for, length=len(packet.content))
    if files:
        entry.scm.add(type=SCM_RIGHTS, rights=files)
    if packet.creds is not None and packet.creds[0]:
        pid, entry.creds_uid, entry.creds_gid = packet.creds
        entry.creds_pid = numbers.inside(pid)
    if packet.sender:
        entry.sender = packet.sender
    return SocketPacket(entry, packet.content)


def message(
    content: bytes, rights: Sequence[int], creds: tuple[int, int, int] | None, address: bytes
) -> Data:
    """struct msghdr for sendmsg(2); ``rights`` are numbers of the sender, ``address`` a whole sockaddr or empty."""
    control = b""
    if rights:
        control += _cmsg(SCM_RIGHTS, struct.pack(f"<{len(rights)}i", *rights))
    if creds is not None:
        control += _cmsg(SCM_CREDENTIALS, _CREDENTIALS.pack(*creds))
    null = bytes(8)
    vector = Data((data(content) if content else null, struct.pack("<Q", len(content))))
    parts: tuple[bytes | Data, ...] = (
        data(address) if address else null,
        struct.pack("<II", len(address), 0),
        vector,
        struct.pack("<Q", 1),
        data(control) if control else null,
        struct.pack("<Qii", len(control), 0, 0),
    )
    words = [f"{len(content)} bytes"]
    words += [f"with {len(rights)} files"] if rights else []
    words += [f"of {creds[0]}:{creds[1]}:{creds[2]}"] if creds is not None else []
    return Data(parts, f"{{{', '.join(words)}}}")


def _cmsg(kind: int, content: bytes) -> bytes:
    head = struct.pack("<Qii", 16 + len(content), SOL_SOCKET, kind)
    return (head + content).ljust(-(-(16 + len(content)) // 8) * 8, b"\0")
