"""unix(7): stream, datagram and packet sockets of this machine, their names, connections and queues.

Image: ``unix_sk_entry`` in ``files.img``, queues in ``sk-queues.img``.  What sock_diag(7) tells is asked for once, for
all sockets of the network namespace.  Sockets refer to each other by their inodes.

Not kept: where in a stream the bytes begin that files came with (they come with all that is read up to these); an error
that is pending (SO_ERROR); an empty datagram behind others that an earlier dump has seen; the name of an accepted
connection whose listener is not dumped.

Refused: urgent data (MSG_OOB), eBPF filters, what was sent before the connection was accepted, connections to others
(but see --ext-unix-sk and --external unix[INODE]), paths that lead elsewhere.

Source: Linux net/unix/af_unix.c.
"""

from __future__ import annotations

import enum
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from criupy.errors import Obstacle, TraceeError
from criupy.images.pb import fdtable_pb2, sockets_pb2
from criupy.linux import family, processes, sockdiag
from criupy.linux.sockdiag import ESTABLISHED, LISTEN, UnixSocket
from criupy.model.plan import Step
from criupy.options import Outside
from criupy.resources import sockopts
from criupy.resources.fileplan import TablePlan
from criupy.resources.files import unixmaking, unixqueue
from criupy.resources.filetable import Collected, FileImages, FileTable, comm_of
from criupy.resources.kind import FileKind
from criupy.resources.openfile import NOBODY, OpenFile
from criupy.resources.sockopts import SOL_SOCKET

_SIOCUNIXFILE = 0x89E0
_SO_PEERCRED = 17
_STREAM, _DGRAM = 1, 2
_NOBODY = 0xFFFF_FFFF
_SHUTDOWNS = (sockets_pb2.NONE, sockets_pb2.READ, sockets_pb2.WRITE, sockets_pb2.BOTH)
_BOTH = 3
_DELETED = b" (deleted)"


class Place(NamedTuple):
    """The path that a socket is bound to.  ``directory``: where a relative one begins, else empty."""

    directory: bytes
    deleted: bool
    mode: int
    uid: int
    gid: int


class UnixFacts(NamedTuple):
    """``diag`` is None for a socket of another network namespace; ``peer``: pid, uid and gid of SO_PEERCRED."""

    diag: UnixSocket | None
    options: sockopts.SocketOptions
    packets: list[unixqueue.Packet]
    peer: tuple[int, int, int]
    place: Place | None
    known: KnownSockets


class WayOut(enum.Enum):
    """How a connection to others is restored: it is connected to the same name again, or its peer is gone."""

    BY_NAME = enum.auto()
    CUT = enum.auto()


@dataclass
class KnownSockets:
    """All sockets by inode, who waits for which listener, and the inodes of those that are dumped."""

    all: dict[int, UnixSocket]
    allowed: Outside
    namespace: int
    """Inode number of the network namespace that they are in."""
    new_id: Callable[[], int]
    dumped: set[int] = field(default_factory=set)
    others: dict[int, int] = field(default_factory=dict)
    """File ids of sockets of others, by inode."""

    def __post_init__(self) -> None:
        self.waiting = {
            ino: one.ino for one in self.all.values() if one.state == LISTEN for ino in one.pending if ino
        }

    def peer(self, one: UnixSocket) -> int:
        """The inode of the other end; of who is not accepted yet, that of the listener."""
        return one.peer or self.waiting.get(one.ino, 0)

    def way_out(self, one: UnixSocket, peer: UnixSocket | None) -> WayOut | None:
        """What becomes of a connection to somebody who is not dumped; None: it may not be."""
        if f"unix[{one.ino}]" in self.allowed.external:
            return WayOut.CUT
        has_name = peer is not None and peer.name[:1] in (b"/", b"\0")
        if self.allowed.named_datagrams and one.type == _DGRAM and has_name:
            return WayOut.BY_NAME
        return None


def _known_sockets(allowed: Outside, new_id: Callable[[], int]) -> KnownSockets:
    own = os.stat("/proc/self/ns/net").st_ino
    return KnownSockets(sockdiag.unix_sockets(), allowed, own, new_id)


def _guard(table: FileTable) -> unixqueue.Guard:
    """One for all sockets, since it takes a process."""
    return table.once("guard of unix sockets", lambda: table.until_the_end.enter_context(unixqueue.Guard()))


class UnixSock(FileKind):
    name = "unix socket"
    match = ("unix socket",)
    type = fdtable_pb2.UNIXSK
    held = True
    carries = True

    def together(self, entry: fdtable_pb2.file_entry) -> Hashable:
        """All, for any of them may be connected to, or on its way through, any other."""
        return self.name

    def prepare(self, links: Iterable[bytes], table: FileTable) -> None:
        """The guard, if somebody is going to need it."""
        inodes = {_inode(link) for link in links if link.startswith(b"socket:[")}
        if inodes and any(
            one.ino in inodes and _has_messages(one) for one in sockdiag.unix_sockets().values()
        ):
            _guard(table)

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        with _socket(file.own) as sock:
            yield from sockopts.obstacles(sock)
            yield from unixqueue.obstacles(sock)
            if isinstance(name := sock.getsockname(), str) and name and not _is_connection(sock):
                try:
                    _place(sock, file.pid)
                except _Misnamed as error:
                    yield str(error), "let the program bind it anew, by a path that leads to it"

    def collect(self, file: OpenFile, table: FileTable) -> UnixFacts:
        known = table.once("unix sockets", lambda: _known_sockets(table.allowed, table.new_id))
        diag = known.all.get(_inode(file.link))
        if diag is not None:
            known.dumped.add(diag.ino)
        with _socket(file.own) as sock:
            receives = diag is not None and (diag.type == _DGRAM or diag.state == ESTABLISHED)
            packets = unixqueue.collect(sock, lambda: _guard(table)) if receives else []
            place = None
            if diag is not None and diag.file is not None:
                with suppress(_Misnamed):  # only of what has connected, and needs its name no more
                    place = _place(sock, file.pid)
            facts = UnixFacts(diag, sockopts.collect(sock), packets, _peer(sock), place, known)
        for packet in packets:
            table.receive(packet.rights)

        def look(_: Sequence[Collected]) -> Iterator[tuple[str, str]]:
            found = problem(diag, known, known.dumped.__contains__)
            if found is not None:
                yield found

        table.when_all_are_known(file, look)
        return facts

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        facts: UnixFacts = one.facts
        known, diag = facts.known, facts.diag
        assert diag is not None, "found out when all were known"
        usk = entry.usk
        usk.id, usk.ino, usk.type, usk.state = one.id, diag.ino, diag.type, diag.state
        usk.flags, usk.uflags, usk.backlog, usk.peer = one.file.flags, 0, diag.wqueue, known.peer(diag)
        if usk.peer and usk.peer not in known.dumped:
            _leave(diag, known, usk, images)
        usk.name = diag.name
        usk.ns_id = images.tree.namespace("net", known.namespace)
        usk.fown.CopyFrom(one.file.owner.message())
        usk.opts.CopyFrom(sockopts.encode(facts.options))
        if diag.shutdown and not usk.shutdown:
            usk.shutdown = _SHUTDOWNS[diag.shutdown & _BOTH]
        if facts.place is not None:
            _encode_place(facts.place, usk)
        if facts.peer[1] != _NOBODY:
            pid, usk.peer_uid, usk.peer_gid = facts.peer
            usk.peer_pid = images.tree.numbers.inside(pid)
        if diag.state == LISTEN:
            usk.pending.extend(diag.pending)
        if diag.peer == 0 and diag.type == _DGRAM:
            usk.peer_is_gone = True
        images.ranks[one.id] = _steps_to_target(diag, known)
        for packet in facts.packets:
            files = [images.received[fd] for fd in packet.rights]
            images.sk_queues.append(unixqueue.encode(packet, one.id, files, images.tree.numbers))

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        return unixmaking.plan(table.groups[self.together(entry)], table)


def _leave(diag: UnixSocket, known: KnownSockets, usk: Any, images: FileImages) -> None:
    """A connection that may lead out of the tree.  Of who is there CRIU has an entry that nobody has open."""
    if known.way_out(diag, known.all.get(usk.peer)) is WayOut.CUT:
        usk.peer = 0
        if diag.type == _DGRAM:
            usk.peer_is_gone = True
        else:
            usk.shutdown = sockets_pb2.BOTH
        return
    if usk.peer in known.others:
        return
    file_id = known.others[usk.peer] = known.new_id()
    entry = images.files[file_id] = fdtable_pb2.file_entry(type=fdtable_pb2.UNIXSK, id=file_id)
    other = entry.usk
    other.id, other.ino, other.type, other.state = file_id, usk.peer, diag.type, LISTEN
    other.flags, other.uflags, other.backlog, other.peer = os.O_RDWR, unixmaking.EXTERN, 0, 0
    other.name = known.all[usk.peer].name
    other.fown.CopyFrom(NOBODY.message())
    other.opts.CopyFrom(sockopts.NOTHING)


def _encode_place(place: Place, usk: Any) -> None:
    usk.file_perms.mode, usk.file_perms.uid, usk.file_perms.gid = place.mode, place.uid, place.gid
    if place.directory:
        usk.name_dir = place.directory
    if place.deleted:
        usk.deleted = True


class _Misnamed(Exception):
    """The path that a socket is bound to does not lead to it; the message says why."""


class _socket:  # noqa: N801 - a context manager, at a tenth of what contextlib takes
    """Python's face of a descriptor, which stays open."""

    def __init__(self, fd: int) -> None:
        self._sock = socket.SocketType(-1, -1, -1, fd)

    def __enter__(self) -> socket.SocketType:
        return self._sock

    def __exit__(self, *_: object) -> None:
        self._sock.detach()


def _has_messages(one: UnixSocket) -> bool:
    return one.type != _STREAM and one.state != LISTEN and one.rqueue > 0


def _inode(link: bytes) -> int:
    """Of ``socket:[4711]``."""
    return int(link[8:-1])


def _is_connection(sock: socket.SocketType) -> bool:
    """Whether it needs its name no more: nobody can connect to it."""
    if sock.type == _DGRAM:
        return False
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _peer(sock: socket.SocketType) -> tuple[int, int, int]:
    """Source: Linux net/core/sock.c, ``sk_getsockopt``; nobody has the ids -1."""
    pid, uid, gid = struct.unpack("<iII", sock.getsockopt(SOL_SOCKET, _SO_PEERCRED, 12))
    return max(pid, 0), uid, gid


def _place(sock: socket.SocketType, pid: int) -> Place | None:
    """Where a socket is in the file system, None if it is not there; `_Misnamed` where nobody would find it."""
    name = sock.getsockname()
    if not isinstance(name, str) or not name:
        return None
    try:
        node = fcntl.ioctl(sock.fileno(), _SIOCUNIXFILE)
    except OSError as error:
        message = f"the path of the unix socket {name} cannot be looked at"
        raise TraceeError(message, errno=error.errno or 0, hint="CAP_NET_ADMIN is needed") from error
    try:
        found, link = os.fstat(node), os.readlink(b"/proc/self/fd/%d" % node)
    finally:
        os.close(node)
    deleted = not found.st_nlink
    directory = _directory(os.fsencode(name), link.removesuffix(_DELETED) if deleted else link, pid)
    if not deleted:
        _check_name(os.path.join(directory, os.fsencode(name)), found)
    return Place(directory, deleted, found.st_mode, found.st_uid, found.st_gid)


def _directory(name: bytes, link: bytes, pid: int) -> bytes:
    """Where a relative name begins."""
    if name.startswith(b"/"):
        return b""
    if link.endswith(b"/" + name):
        return link[: -len(name) - 1] or b"/"
    return os.readlink(b"/proc/%d/cwd" % pid)


def _check_name(path: bytes, found: os.stat_result) -> None:
    shown = path.decode("utf-8", "backslashreplace")
    try:
        named = os.stat(path)
    except OSError as error:
        raise _Misnamed(f"it is bound to {shown}, where nothing can be found: {error.strerror}") from error
    if (named.st_dev, named.st_ino) != (found.st_dev, found.st_ino):
        raise _Misnamed(f"it is bound to {shown}, which leads to another file")


def problem(
    one: UnixSocket | None, known: KnownSockets, is_inside: Callable[[int], bool]
) -> tuple[str, str] | None:
    """(why, hint) if a socket cannot be dumped without others; ``is_inside``: whether an inode is dumped too."""
    if one is None:
        return "it belongs to another network namespace", "run criupy inside of that (nsenter --net)"
    if one.state == LISTEN:
        return _problem_of_pending(one, is_inside)
    ino = known.peer(one)
    if ino and not is_inside(ino):
        return _problem_of_stranger(one, ino, known)
    if one.ino in known.waiting and one.wqueue:
        why = "it has sent to a connection that is not accepted yet, and what it sent nobody can read"
        return why, "let the listener accept its connections first"
    if not ino and one.type != _DGRAM and one.state == ESTABLISHED and one.shutdown != _BOTH:
        return "it is connected to what cannot be seen from here", "let the listener accept it first"
    peer = known.all.get(ino)
    if peer is not None and peer.peer != one.ino and not peer.name:
        return f"it is connected to {_told(ino, peer)}, which has no name and another peer", "close it"
    return None


def _problem_of_stranger(one: UnixSocket, ino: int, known: KnownSockets) -> tuple[str, str] | None:
    peer = known.all.get(ino)
    if known.way_out(one, peer) is not None:
        return None
    hint = (
        f"dump who has that as well, close the connection, or let it be cut with --external unix[{one.ino}]"
    )
    if one.type == _DGRAM and peer is not None and peer.name:
        hint += "; with --ext-unix-sk it is connected to that name again"
    return f"it is connected to {_told(ino, peer)}, which is not dumped", hint


def _problem_of_pending(one: UnixSocket, is_inside: Callable[[int], bool]) -> tuple[str, str] | None:
    hint = "let the program accept its connections first"
    if 0 in one.pending:
        return (
            "who has connected to it went before that was accepted, and what they sent nobody can read",
            hint,
        )
    for ino in one.pending:
        if not is_inside(ino):
            return f"it has not yet accepted socket {ino}, which is not dumped", hint
    return None


def _told(ino: int, one: UnixSocket | None) -> str:
    """A socket, with its name."""
    if one is None or not one.name:
        return f"socket {ino}"
    text = one.name.rstrip(b"\0").decode("utf-8", "backslashreplace")
    return f"socket {ino} ({'@' + text[1:] if one.name.startswith(bytes(1)) else text})"


def _steps_to_target(one: UnixSocket, known: KnownSockets) -> int:
    """How many sockets have to be there before it: CRIU wants who is connected to without knowing of it first."""
    steps = 0
    while (peer := known.all.get(known.peer(one))) is not None and known.peer(peer) != one.ino:
        steps, one = steps + 1, peer
        if steps > len(known.all):
            break
    return steps


def _obstacle(pid: int, fd: int, why: str = "", hint: str = "") -> Obstacle:
    return Obstacle(pid, comm_of(pid), f"fd {fd} (unix socket)", why, hint)


def obstacles(pids: Iterable[int], allowed: Outside) -> Iterator[Obstacle]:
    """Sockets of running tasks that are connected to others.  Who is nobody's is on its way in some queue."""
    held: dict[int, tuple[int, int]] = {}
    for pid in pids:
        for fd, ino in _sockets_of(pid):
            held.setdefault(ino, (pid, fd))
    if not held:
        return
    known = _known_sockets(allowed, lambda: 0)
    strangers = cache(_holders)

    def is_inside(ino: int) -> bool:
        return ino in held or ino not in strangers()  # looks at everybody, so only where somebody is missing

    for ino, (pid, fd) in held.items():
        one = known.all.get(ino)
        found = problem(one, known, is_inside) if one is not None else None
        if one is not None and found is not None:
            with suppress(FileNotFoundError, ProcessLookupError):
                why, hint = found
                holder = strangers().get(known.peer(one))
                yield _obstacle(
                    pid, fd, f"{why}; {processes.describe(holder)} has it" if holder else why, hint
                )


def _sockets_of(pid: int) -> Iterator[tuple[int, int]]:
    """Descriptor and inode of each."""
    with suppress(FileNotFoundError, ProcessLookupError):
        directory = f"/proc/{family.speaker(pid)}/fd"
        for name in os.listdir(directory):
            with suppress(FileNotFoundError):
                link = os.readlink(os.fsencode(f"{directory}/{name}"))
                if link.startswith(b"socket:["):
                    yield int(name), _inode(link)


def _holders() -> dict[int, int]:
    """Who has which socket, of all processes that can be looked into."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(PermissionError):
                found.update((ino, int(name)) for _, ino in _sockets_of(int(name)))
    return found
