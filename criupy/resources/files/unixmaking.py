"""How unix sockets are made anew: all of a tree by the nursery, connected as they were, with what waits in them.

What can be is done the way that the program did it.  Who was accepted is accepted again, by the listener itself, so
that both ends have the names of then; pairs without names are made by socketpair(2).  Who makes a connection has for
that moment the ids that SO_PEERCRED shall give.  Nothing blocks: a call that would have to wait fails.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError, RestoreError, UsageError
from criupy.images.pb import fdtable_pb2, sockets_pb2
from criupy.linux import sockdiag
from criupy.linux.sockdiag import ESTABLISHED, LISTEN
from criupy.model.plan import NURSERY, Arg, Data, Out, Ref, Step, data, path
from criupy.resources import sockopts
from criupy.resources.fileplan import F_SETFL, SETTABLE, TablePlan
from criupy.resources.files import unixqueue
from criupy.resources.sockopts import SOL_SOCKET

if TYPE_CHECKING:
    from criupy.model.snapshot import Snapshot, SocketPacket, TaskImages
    from criupy.options import Outside

AF_UNIX, _STREAM, _DGRAM = 1, 1, 2
_SOCK_NONBLOCK = os.O_NONBLOCK
_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 28, 4
_KEEP = 0xFFFF_FFFF
_ENOENT = 2
_SUN_PATH = 108
EXTERN = 1
"""In ``uflags``: a socket of somebody else."""
_DEFAULT_BUFFER = 100_000
"""What a send buffer holds without having been made larger, in any kernel."""
_OVERHEAD = 4096
"""Of one message, more than the kernel takes for it."""
_LONGEST_WRITE = 1 << 16
_PAIRS = 126
"""In a message can be 253 files.  Source: Linux include/net/scm.h, ``SCM_MAX_FD``."""
_MAILBOX = -1
"""In place of a file id."""

Usk = sockets_pb2.unix_sk_entry


def plan(entries: Iterable[fdtable_pb2.file_entry], table: TablePlan) -> Iterator[Step]:
    """Every socket, with names, connections, queues and options."""
    return _Making([entry.usk for entry in entries], table).plan()


class Who(NamedTuple):
    """What SO_PEERCRED gives: a living task of the tree, or the nursery for one who is not; user and group."""

    pid: int
    uid: int
    gid: int


ROOT = Who(NURSERY, 0, 0)


def _effective(task: TaskImages) -> Who:
    creds = task.core.thread_core.creds
    return Who(task.pid, creds.euid, creds.egid)


class _World:
    """Sockets that refer to each other."""

    def __init__(self, socks: Sequence[Usk]) -> None:
        self.by_ino = {usk.ino: usk for usk in socks}
        self._listeners = {(usk.name, usk.name_dir): usk for usk in socks if usk.state == LISTEN}

    def listener_of(self, usk: Usk) -> Usk | None:
        """The listener that a connection has its name from."""
        if not usk.name or usk.type == _DGRAM:
            return None
        found = self._listeners.get((usk.name, usk.name_dir))
        return found if found is not None and found is not usk and found.type == usk.type else None

    def binds(self, usk: Usk) -> bool:
        """Whether its name is its own: one end of a connection has that of the listener, who may be somebody else."""
        if not usk.name:
            return False
        if usk.type == _DGRAM or usk.state != ESTABLISHED:
            return True
        if path_of(usk) and not usk.HasField("file_perms"):
            return False
        peer = self.by_ino.get(usk.peer)
        accepts = peer is not None and (peer.state == LISTEN or self.listener_of(peer) is not None)
        return accepts and self.listener_of(usk) is None


class _Making:
    def __init__(self, socks: Sequence[Usk], table: TablePlan) -> None:
        self.socks = socks
        self.table = table
        self.world = _World(socks)
        self.queues: dict[int, list[SocketPacket]] = {}
        for packet in table.snapshot.sk_queues:
            self.queues.setdefault(packet.entry.id_for, []).append(packet)
        self.others = {usk.ino: usk for usk in _of_others(table.snapshot)}
        self.holders = _first_holders(table)
        self.living = {task.pid for task in table.snapshot.tasks if not task.zombie}
        self.temporary: dict[int, int] = {}
        """Other ends of sockets whose peers are gone, by file id."""
        self.stranger: int | None = None
        """Sends what was sent by sockets that are gone."""
        self.mailbox: tuple[int, int] | None = None
        """By the second of these tasks send what they have made, to the first."""
        self.bound: list[Usk] = []

    def plan(self) -> Iterator[Step]:
        pairs = [*self._pairs()]
        paired = {usk.id for pair in pairs for usk in pair}
        alone = [usk for usk in self.socks if usk.id not in paired]
        orphans = [usk for usk in alone if self._is_orphan(usk)]
        others = [usk for usk in alone if not self._is_orphan(usk)]
        others.sort(key=lambda usk: not usk.deleted)  # so that whoever has the name now takes it
        for usk in others:
            yield self._socket(usk)
            yield from self._bind(usk)
        for usk in others:
            if usk.state == LISTEN:
                yield from self._listen(usk)
        yield from self._make_pairs(
            [pair for pair in pairs if self.world.listener_of(pair[0]) is None], orphans
        )
        for one, other in pairs:
            listener = self.world.listener_of(one)
            if listener is not None:
                yield from self._accept(one, other, listener)
        yield from self._connect_pending(others)
        for usk in self.socks:
            yield from self._fill(usk)
        for usk in others:
            if usk.type == _DGRAM and usk.peer:
                yield from self._connect(usk, self._target(usk), ROOT)
        yield from self._finish()

    # What is connected to what

    def _pairs(self) -> Iterator[tuple[Usk, Usk]]:
        """Those that have each other, the one first that may have been accepted."""
        for usk in self.socks:
            peer = self.world.by_ino.get(usk.peer)
            if peer is None or peer.peer != usk.ino or usk.id > peer.id:
                continue
            if usk is peer or usk.type != peer.type:
                raise ImageError("files.img", f"{_about(usk)} cannot be the peer of {_about(peer)}")
            yield (peer, usk) if self.world.listener_of(peer) is not None else (usk, peer)

    def _is_orphan(self, usk: Usk) -> bool:
        """Whether its peer is gone.  A datagram socket is called established also when others have connected to it."""
        if usk.state != ESTABLISHED or usk.peer:
            return False
        return bool(usk.type != _DGRAM or usk.peer_is_gone or (usk.id in self.queues and not usk.name))

    def _target(self, usk: Usk) -> Usk:
        target = self.world.by_ino.get(usk.peer) or self.others.get(usk.peer)
        if target is None or not target.name or target.type != usk.type:
            reason = f"{_about(usk)} is connected to {usk.peer}, which is not there or has no name"
            raise ImageError("files.img", reason)
        if any(
            usk.name == target.name and usk.name_dir == target.name_dir and usk is not target
            for usk in self.bound
        ):
            raise ImageError(
                "files.img", f"{_about(target)}: somebody else has its name, nobody can connect to it"
            )
        return target

    # Making

    def _listen(self, usk: Usk) -> Iterator[Step]:
        if not usk.name:
            raise ImageError("files.img", f"{_about(usk)} listens without a name")
        yield from self._as(self._who(usk, usk), usk, "listen", min(usk.backlog, 0x7FFF_FFFF))

    def _socket(self, usk: Usk) -> Step:
        return self.table.opens(usk.id, "socket", AF_UNIX, usk.type | _SOCK_NONBLOCK, 0, about=_about(usk))

    def _bind(self, usk: Usk) -> Iterator[Step]:
        """A path is made anew."""
        if not self.world.binds(usk):
            return
        table, about = self.table, _about(usk)
        name = path_of(usk)
        yield from self._enter(usk)
        if name:
            yield table.step("unlink", path(name), about=about)._replace(tolerate=frozenset({_ENOENT}))
        yield table.step("bind", table.at[usk.id], *_address(usk), about=about)
        if name:
            self.bound.append(usk)
            if usk.HasField("file_perms"):
                perms = usk.file_perms
                yield table.step("lchown", path(name), perms.uid, perms.gid, about=about)
                yield table.step("chmod", path(name), perms.mode & 0o7777, about=about)

    def _enter(self, usk: Usk) -> Iterator[Step]:
        """Stands where a relative path begins."""
        name = path_of(usk)
        if name and not name.startswith(b"/"):
            if not usk.name_dir:
                raise ImageError("files.img", f"{_about(usk)} has a relative path, and no directory for it")
            yield self.table.step("chdir", path(usk.name_dir), about=_about(usk))

    def _accept(self, one: Usk, other: Usk, listener: Usk) -> Iterator[Step]:
        """``one`` is accepted by its listener."""
        table = self.table
        yield self._socket(other)
        yield from self._bind(other)
        yield from self._connect(other, listener, self._who(one, other))
        waiting = table.at[listener.id]
        yield table.opens(one.id, "accept4", waiting, 0, 0, _SOCK_NONBLOCK, about=_about(one))

    def _make_pairs(self, pairs: Iterable[tuple[Usk, Usk]], orphans: Iterable[Usk]) -> Iterator[Step]:
        """Who has nobody at the other end has somebody there as long as something has to be sent to it."""
        wanted: dict[Who, list[tuple[Usk, Usk | None]]] = {}
        for one, other in pairs:
            wanted.setdefault(self._who(one, other), []).append((one, other))
        for one in orphans:
            wanted.setdefault(self._who(one, one), []).append((one, None))
        for who, own in wanted.items():
            for at in range(0, len(own), _PAIRS):
                some = own[at : at + _PAIRS]
                yield from self._socketpairs(who, [one for one, _ in some])
                for ends in some:
                    numbers = self.table.numbers.take(), self.table.numbers.take()
                    yield from self._settle(ends, numbers)

    def _settle(self, ends: tuple[Usk, Usk | None], numbers: tuple[int, int]) -> Iterator[Step]:
        for usk, number in zip(ends, numbers, strict=True):
            if usk is None:
                assert ends[0] is not None
                self.temporary[ends[0].id] = number
            else:
                self.table.settle(usk.id, number)
                yield from self._bind(usk)

    def _connect_pending(self, others: Iterable[Usk]) -> Iterator[Step]:
        """Who waits to be accepted, in the order in which they came."""
        waiting = [usk for usk in others if usk.type != _DGRAM and usk.state == ESTABLISHED]
        place = {ino: at for usk in self.socks for at, ino in enumerate(usk.pending)}
        for usk in sorted(waiting, key=lambda usk: place.get(usk.ino, len(place))):
            target = self._target(usk)
            if target.state != LISTEN:
                raise ImageError(
                    "files.img", f"{_about(usk)} waits for {_about(target)}, which does not listen"
                )
            yield from self._connect(usk, target, self._waits(usk))

    def _connect(self, usk: Usk, target: Usk, who: Who) -> Iterator[Step]:
        yield from self._enter(target)
        if path_of(target) and not path_of(target).startswith(b"/"):
            who = who._replace(pid=NURSERY)  # others stand elsewhere
        yield from self._as(who, usk, "connect", *_address(target))

    # Who it was

    def _who(self, seen_by: Usk, maker: Usk) -> Who:
        """What SO_PEERCRED of ``seen_by`` gives; CRIU's images leave it to who has the socket ``maker``."""
        holder = self.holders.get(maker.id)
        if seen_by.HasField("peer_uid"):
            pid = seen_by.peer_pid
            return Who(pid if pid in self.living else NURSERY, seen_by.peer_uid, seen_by.peer_gid)
        return ROOT if holder is None else _effective(holder)

    def _waits(self, usk: Usk) -> Who:
        """Who is going to be accepted; no image says it but by who has the socket."""
        holder = self.holders.get(usk.id)
        return ROOT if holder is None else _effective(holder)

    def _as(self, who: Who, usk: Usk, call: str, *args: Arg) -> Iterator[Step]:
        """Something that is done to a socket by a task of the tree, if that is still there, else by the nursery."""
        table, about = self.table, _about(usk)
        number = table.at[usk.id]
        if who.pid != NURSERY:
            yield self._borrow(who, number, 0, about)
            number = 0
        yield from self._with_ids(who, [table.step(call, number, *args, about=about)])
        if who.pid != NURSERY:
            yield table.step("close", number, about=about)._replace(tid=who.pid)

    def _socketpairs(self, who: Who, socks: Sequence[Usk]) -> Iterator[Step]:
        """Pairs that a task makes; the nursery takes them over by a message, and has them at the next numbers."""
        table, about = self.table, "pairs of unix sockets"
        steps = [
            table.step(
                "socketpair",
                AF_UNIX,
                usk.type | _SOCK_NONBLOCK,
                0,
                Out(Ref("socketpair", usk.id), 8),
                expect=0,
                about=_about(usk),
            )
            for usk in socks
        ]
        if who.pid == NURSERY:
            yield from self._with_ids(who, steps)
            return
        if self.mailbox is None:
            ends = Out(Ref("socketpair", _MAILBOX), 8)
            yield table.step(
                "socketpair", AF_UNIX, _DGRAM, 0, ends, expect=0, about="a way from task to nursery"
            )
            self.mailbox = table.numbers.take(), table.numbers.take()
        mine, theirs = self.mailbox
        flags, count = unixqueue.MSG_DONTWAIT, 2 * len(socks)
        numbers = self._numbers_of_a_task(1 + count)
        sent = unixqueue.message(b"", numbers[1:], None, b"")
        yield self._borrow(who, theirs, 0, about)
        yield from self._with_ids(who, steps)
        yield table.step("sendmsg", 0, sent, flags, expect=0, about=about)._replace(tid=who.pid)
        yield from self._close(who, numbers)
        room = unixqueue.message(b"", [0] * count, None, b"")
        yield table.step("recvmsg", mine, room, flags, expect=0, about=about)

    def _numbers_of_a_task(self, count: int) -> list[int]:
        """What it gets that has no descriptor yet but that of the nursery."""
        taken = self.table.subject.stub.nursery_fd
        return [number for number in range(count + 1) if number != taken][:count]

    def _close(self, who: Who, numbers: Sequence[int]) -> Iterator[Step]:
        """All of a task's but that of the nursery."""
        taken = self.table.subject.stub.nursery_fd
        for first, last in ((0, min(taken - 1, numbers[-1])), (taken + 1, numbers[-1])):
            if first <= last:
                yield self.table.step("close_range", first, last, 0, about="what was lent")._replace(
                    tid=who.pid
                )

    def _borrow(self, who: Who, number: int, place: int, about: str) -> Step:
        """A task gets what the nursery has at ``number``."""
        nursery = self.table.subject.stub.nursery_fd
        step = self.table.step("pidfd_getfd", nursery, number, 0, expect=place, about=about)
        return step._replace(tid=who.pid)

    def _with_ids(self, who: Who, steps: Sequence[Step]) -> Iterator[Step]:
        """With every capability, whoever it is."""
        before: list[Step] = []
        after: list[Step] = []
        if (who.uid, who.gid) != (0, 0):
            ids = [("setresgid", who.gid), ("setresuid", who.uid)]
            before = [
                self.table.step("prctl", _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0),
                *(self.table.step(call, _KEEP, number, _KEEP) for call, number in ids),
            ]
            after = [
                *(self.table.step(call, _KEEP, 0, _KEEP) for call, _ in reversed(ids)),
                self.table.step("prctl", _PR_SET_SECUREBITS, 0, 0, 0, 0),
            ]
        for each in (*before, *steps, *after):
            yield each._replace(tid=who.pid, about=each.about or "ids for SO_PEERCRED")

    # What waits in them

    def _fill(self, usk: Usk) -> Iterator[Step]:
        packets = self.queues.get(usk.id, [])
        if not packets:
            return
        if usk.state == LISTEN:
            raise ImageError("sk-queues.img", f"{_about(usk)} listens, and nothing can be sent to it")
        ways = [self._way(usk, packet.entry.sender) for packet in packets]
        if None in ways and self.stranger is None:
            self.stranger = self.table.numbers.take()
            kind = _DGRAM | _SOCK_NONBLOCK
            yield self.table.step(
                "socket", AF_UNIX, kind, 0, expect=self.stranger, about="a sender who is gone"
            )
        senders = [self.stranger if way is None else way for way in ways]
        by_sender: dict[int | None, list[SocketPacket]] = {}
        for sender, packet in zip(senders, packets, strict=True):
            by_sender.setdefault(sender, []).append(packet)
        for sender, sent in by_sender.items():
            assert sender is not None
            yield from self._make_room(sender, sent)
        straight = usk.type != _DGRAM or self._counterpart(usk) is not None
        if not straight:
            yield from self._enter(usk)
        for sender, packet in zip(senders, packets, strict=True):
            assert sender is not None
            yield from self._send(usk, sender, b"" if straight else _sockaddr(usk), packet)

    def _counterpart(self, usk: Usk) -> int | None:
        """The number of who is connected to a socket, and it to that."""
        peer = self.world.by_ino.get(usk.peer)
        if peer is not None and peer.peer == usk.ino:
            return self.table.at[peer.id]
        return self.temporary.get(usk.id)

    def _way(self, usk: Usk, name: bytes) -> int | None:
        """The number of who sends to a socket; None: somebody who has no name."""
        counterpart = self._counterpart(usk)
        if counterpart is not None:
            return counterpart
        if not usk.name or usk.type != _DGRAM:
            raise ImageError("sk-queues.img", f"nobody can send to {_about(usk)}")
        sender = next(
            (one for one in self.socks if name and one.type == _DGRAM and _plain(one) == name), None
        )
        return None if sender is None else self.table.at[sender.id]

    def _make_room(self, sender: int, packets: Sequence[SocketPacket]) -> Iterator[Step]:
        """What is sent and not received is in the send buffer, which gets its own size in the end."""
        needed = sum(2 * len(packet.content) + _OVERHEAD for packet in packets)
        if needed > _DEFAULT_BUFFER:
            option, size = sockopts.send_buffer(self.table), sockopts.integer(min(needed, 1 << 30))
            yield self.table.step("setsockopt", sender, SOL_SOCKET, option, size, 4, about="room for a queue")

    def _send(self, usk: Usk, sender: int, address: bytes, packet: SocketPacket) -> Iterator[Step]:
        """A message; a run of bytes in as many as the kernel would make of it.  Who vouches for it sends it."""
        content, about = packet.content, _about(usk)
        who, creds = self._creds(packet)
        rights = [self.table.at[file_id] for scm in packet.entry.scm for file_id in scm.rights]
        if who.pid != NURSERY:
            numbers = self._numbers_of_a_task(1 + len(rights))
            for number, place in zip((sender, *rights), numbers, strict=True):
                yield self._borrow(who, number, place, about)
            sender, rights = numbers[0], numbers[1:]
        size = _LONGEST_WRITE if usk.type == _STREAM else max(len(content), 1)
        for at in range(0, max(len(content), 1), size):
            part = content[at : at + size]
            sent = unixqueue.message(part, rights if not at else [], creds, address)
            flags = unixqueue.MSG_DONTWAIT | unixqueue.MSG_NOSIGNAL
            step = self.table.step("sendmsg", sender, sent, flags, expect=len(part), about=about)
            yield step._replace(tid=who.pid)
        if who.pid != NURSERY:
            yield from self._close(who, numbers)

    def _creds(self, packet: SocketPacket) -> tuple[Who, tuple[int, int, int] | None]:
        """The kernel takes the pid of a living task only."""
        entry = packet.entry
        if not entry.HasField("creds_pid"):
            return ROOT, None
        pid = entry.creds_pid
        if pid not in self.living:
            pid = self.table.snapshot.root.pid
            self.table.warn(f"a message of task {entry.creds_pid}, which is gone, will be one of task {pid}")
        return ROOT._replace(pid=pid), (pid, entry.creds_uid, entry.creds_gid)

    # The end

    def _finish(self) -> Iterator[Step]:
        table = self.table
        for usk in self.socks:
            if usk.shutdown and not (usk.id in self.temporary and usk.type != _DGRAM):
                how = _SHUTDOWNS[usk.shutdown]
                yield table.step("shutdown", table.at[usk.id], how, about=_about(usk))
        stranger = [] if self.stranger is None else [self.stranger]
        for number in (*self.temporary.values(), *stranger, *(self.mailbox or ())):
            yield table.close(number)
        kept = {(usk.name, usk.name_dir) for usk in self.bound if not usk.deleted}
        for usk in self.bound:
            if usk.deleted and (usk.name, usk.name_dir) not in kept:
                yield from self._enter(usk)
                yield table.step("unlink", path(path_of(usk)), about=_about(usk))
        for usk in self.socks:
            number = table.at[usk.id]
            yield from sockopts.plan(number, usk.opts, table, _about(usk))
            if usk.flags & SETTABLE != os.O_NONBLOCK:
                yield table.step(
                    "fcntl", number, F_SETFL, usk.flags & SETTABLE & ~os.O_ASYNC, about=_about(usk)
                )


_SHUTDOWNS = {sockets_pb2.READ: 0, sockets_pb2.WRITE: 1, sockets_pb2.BOTH: 2}


def path_of(usk: Usk) -> bytes:
    """Where it is bound in the file system, relative to ``name_dir``; empty for other names and none."""
    return b"" if usk.name.startswith(b"\0") else _plain(usk)


def _plain(usk: Usk) -> bytes:
    """The name as an address is shown: a path without its NUL."""
    name: bytes = usk.name if usk.name.startswith(b"\0") else usk.name.removesuffix(b"\0")
    if len(name) > _SUN_PATH or (b"\0" in name and not name.startswith(b"\0")):
        raise ImageError("files.img", f"file {usk.id:#x} is a unix socket with an impossible name")
    return name


def _sockaddr(usk: Usk) -> bytes:
    """struct sockaddr_un."""
    name = _plain(usk)
    end = b"\0" if path_of(usk) and len(name) < _SUN_PATH else b""
    return struct.pack("<H", AF_UNIX) + name + end


def _address(usk: Usk) -> tuple[Data, int]:
    """The two arguments."""
    content = _sockaddr(usk)
    return data(content, f"{{{_shown(usk)}}}"), len(content)


def _shown(usk: Usk) -> str:
    text = _plain(usk).decode("utf-8", "backslashreplace")
    return f"@{text[1:]}" if text.startswith("\0") else text


def _about(usk: Usk) -> str:
    return f"unix socket {usk.ino}{' ' if usk.name else ''}{_shown(usk)}"


def _of_others(snapshot: Snapshot) -> Iterator[Usk]:
    """Sockets that are not in the tree."""
    for entry in snapshot.files.values():
        if entry.type == fdtable_pb2.UNIXSK and entry.usk.uflags & EXTERN:
            yield entry.usk


def refuse_outside(snapshot: Snapshot, allowed: Outside) -> None:
    """As criu has it, who restores has to agree as well."""
    for usk in _of_others(snapshot):
        if not allowed.named_datagrams:
            message = f"the images have a connection to {_about(usk)}, which is not in them"
            raise UsageError(message, hint="let it be connected to what has that name now with --ext-unix-sk")


def aftermath(steps: Iterable[Step]) -> Callable[[], None] | None:
    """Removes paths that a restore which has failed may have made: those that are not there now."""
    names = [name for name in _bound_paths(steps) if not os.path.lexists(name)]

    def settle() -> None:
        for name in names:
            with suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(name).st_mode):
                    os.unlink(name)

    return settle if names else None


def _bound_paths(steps: Iterable[Step]) -> Iterator[bytes]:
    directory = b"/"
    for step in steps:
        if step.call == "chdir" and isinstance(step.args[0], Data):
            directory = _bytes(step.args[0]).removesuffix(b"\0")
        elif step.call == "bind" and isinstance(step.args[1], Data):
            name = _bytes(step.args[1])[2:]
            if name and not name.startswith(b"\0"):
                yield os.path.join(directory, name.removesuffix(b"\0"))


def _bytes(content: Data) -> bytes:
    return b"".join(part for part in content.parts if isinstance(part, bytes))


class NameCheck(NamedTuple):
    """A name that a socket is going to be bound to: a path, or an abstract one; ``there``: the sockets of today."""

    name: bytes
    about: str
    there: Callable[[], Mapping[int, sockdiag.UnixSocket]]

    def run(self) -> None:
        """Raises `RestoreError`: only the socket that was left behind may be there, and a directory has to be."""
        if self.name.startswith(b"\0"):
            self._require_free(any(one.name == self.name for one in self.there().values()))
            return
        try:
            found = os.lstat(self.name)
        except FileNotFoundError:
            directory = os.path.dirname(self.name)
            if not os.path.isdir(directory or b"."):
                message = f"{self.about}: there is no directory {os.fsdecode(directory)}"
                raise RestoreError(message, hint="make it, with the owner and mode that it had") from None
            return
        except OSError as error:
            raise RestoreError(f"{self.about}: its path", errno=error.errno or 0) from error
        if not stat.S_ISSOCK(found.st_mode):
            raise RestoreError(f"{self.about}: another file has its path", hint="move that away")
        file = found.st_ino & 0xFFFF_FFFF, os.major(found.st_dev) << 20 | os.minor(found.st_dev)
        self._require_free(any(one.file == file for one in self.there().values()))

    def _require_free(self, is_taken: bool) -> None:
        if is_taken:
            message = f"{self.about}: somebody else has that name by now"
            raise RestoreError(message, hint="stop that program first (ss -xap names it)")


def checks(snapshot: Snapshot) -> Iterator[NameCheck]:
    """What has to hold before anything is created."""
    socks = [entry.usk for entry in snapshot.files.values() if entry.type == fdtable_pb2.UNIXSK]
    world = _World(socks)
    there = cache(sockdiag.unix_sockets)
    for usk in socks:
        if world.binds(usk) and not usk.uflags & EXTERN:
            name = path_of(usk)
            yield NameCheck(os.path.join(usk.name_dir, name) if name else usk.name, _about(usk), there)


def _first_holders(table: TablePlan) -> dict[int, TaskImages]:
    """Which task is the first to have a file."""
    found: dict[int, TaskImages] = {}
    for task in table.snapshot.tasks:
        for info in table.snapshot.fds(task):
            found.setdefault(info.id, task)
    return found
