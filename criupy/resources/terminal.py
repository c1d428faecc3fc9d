"""Terminals, below the descriptors that lead to them: both ends of pseudo terminals, who they control, what is in them.

Image: ``tty-info.img``, one entry for each end that is open, and ``tty-data.img``.  An id is ``N << 1`` for the slave
of /dev/pts/N and one more for its master; /dev/tty, which is the slave of whoever opens it, has an id of its own.

What is in them has a home of its own, `terminalcontent`, and so has how they come back, `terminalrestore`.

Source: Linux drivers/tty/pty.c, tty_jobctrl.c.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from criupy.errors import NotDumpable, Obstacle
from criupy.images.pb import files_pb2
from criupy.linux import processes, syscalls, tty
from criupy.linux.abi import device_number
from criupy.linux.procfs import task as procfs
from criupy.linux.tty import Termios
from criupy.resources import terminalcontent
from criupy.resources.openfile import OpenFile
from criupy.resources.pidnumbers import PidNumbers
from criupy.resources.terminalcontent import NOTHING, Content, Pair

CURRENT_ID = 1006 << 1
"""Of /dev/tty.  Source: CRIU's images."""
_OTHER_IDS = {"console": 1002 << 1, "virtual console": 1004 << 1, "serial line": 1010 << 1}
_FURTHER = 1 << 24
"""Added to an id that another terminal has: of another console, or one that is gone and whose number is used again."""
MASTER, SLAVE, CURRENT, OTHER = "master", "slave", "current", "other"


class Lead(NamedTuple):
    """Where a descriptor leads: ``role`` MASTER, SLAVE, CURRENT (/dev/tty) or OTHER, and the device behind.

    ``device`` of a master is that of its slave.  ``hung_up``: there is no terminal any more.
    """

    role: str
    device: int
    hung_up: bool

    @property
    def pts(self) -> int | None:
        """N of /dev/pts/N."""
        return tty.pts_index(self.device)


def lead(device: int, own: int) -> Lead:
    """Of a descriptor of ours, of a file with this device number."""
    if device == tty.PTMX:
        return Lead(MASTER, tty.pts_device(tty.number(own, tty.TIOCGPTN)), hung_up=False)
    role = CURRENT if device == tty.CURRENT else OTHER if tty.pts_index(device) is None else SLAVE
    try:
        behind = device_number(tty.number(own, tty.TIOCGDEV))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return Lead(role, device, hung_up=True)
    return Lead(role, device if role == OTHER else behind, hung_up=False)


# Before the freeze


class Found(NamedTuple):
    """A descriptor of a terminal; ``closed``: the other end is open nowhere, and was so once."""

    pid: int
    fd: int
    link: bytes
    lead: Lead
    closed: bool

    def obstacle(self, why: str, hint: str) -> Obstacle:
        with open(f"/proc/{self.pid}/comm", "rb") as file:
            comm = file.read().rstrip(b"\n").decode("utf-8", "backslashreplace")
        what = f"fd {self.fd} (terminal {self.link.decode('utf-8', 'backslashreplace')})"
        return Obstacle(self.pid, comm, what, why, hint)


def find(pids: Iterable[int]) -> Iterator[Found]:
    """The terminals among the descriptors of running tasks, which may end meanwhile."""
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            yield from _find(pid)


def _find(pid: int) -> Iterator[Found]:
    pidfd = os.pidfd_open(pid)
    try:
        for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
            with suppress(FileNotFoundError):
                path = f"/proc/{pid}/fd/{name}"
                found = os.stat(path)
                if stat.S_ISCHR(found.st_mode) and tty.is_terminal(found.st_rdev):
                    link = os.readlink(os.fsencode(path))
                    yield from _found(pid, int(name), link, found.st_rdev, pidfd)
    finally:
        os.close(pidfd)


def _found(pid: int, fd: int, link: bytes, device: int, pidfd: int) -> Iterator[Found]:
    """Nothing for a mere place in the file system (O_PATH), nor for what is closed by now."""
    try:
        own = syscalls.pidfd_getfd(pidfd, fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return
    try:
        if not fcntl.fcntl(own, fcntl.F_GETFL) & os.O_PATH:
            key = lead(device, own)
            yield Found(pid, fd, link, key, closed=key.role == MASTER and _is_closed(own))
    finally:
        os.close(own)


def obstacles(ends: Iterable[Found], *, shell_job: bool) -> Iterator[Obstacle]:
    """Terminals that have their other end outside of the tree."""
    ends = list(ends)
    masters = {end.lead.pts for end in ends if end.lead.role == MASTER}
    slaves = {end.lead.pts for end in ends if end.lead.role != MASTER}
    outside = [
        end
        for end in ends
        if not end.lead.hung_up and end.lead.pts not in masters and not tty.is_console(end.lead.device)
    ]
    job = outside[0].lead.device if outside and shell_job else None
    for end in outside:
        if end.lead.device != job:
            yield _outsider(end, shell_job=shell_job)
    for end in ends:
        if end.lead.role == MASTER and not end.closed and end.lead.pts not in slaves:
            for pid in _holders(b"/dev/pts/%d" % (end.lead.pts or 0)):
                why = f"its other end is open in {processes.describe(pid)}, which is not dumped"
                yield end.obstacle(why, "dump the tree that has both, or end that process")


def warnings(pids: Iterable[int]) -> Iterator[str]:
    """Of sessions whose terminal nobody has open, so that it cannot be seen which one it is."""
    pids = list(pids)
    leaders = {pid: device for pid in pids if (device := _led(pid))}
    seen = {end.lead.device for end in find(pids)} if leaders else set()
    for pid, device in leaders.items():
        if device not in seen:
            yield f"task {pid}: nobody has the {tty.noun(device)} of its session open, so it comes back without one"


def _led(pid: int) -> int:
    """The terminal of the session that a task leads, if it does; 0 for none."""
    with (
        suppress(FileNotFoundError, ProcessLookupError),
        open(f"/proc/{pid}/stat", "rb", buffering=0) as file,
    ):
        task = procfs.stat(file.read())
        return task.terminal if task.session == pid else 0
    return 0


def _outsider(end: Found, *, shell_job: bool) -> Obstacle:
    noun = tty.noun(end.lead.device)
    if shell_job:
        why = f"it is another {noun} than the one that the tree is dumped for with --shell-job"
        return end.obstacle(why, "let the program close one of the two")
    why = f"it is a {noun} that somebody outside of the tree looks after"
    return end.obstacle(
        why,
        "dump and restore it with --shell-job, or start the program with its input and output on files or /dev/null",
    )


def _holders(link: bytes) -> Iterator[int]:
    """Processes that have a file open; it may be gone a moment later."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if any(os.readlink(entry.path) == os.fsdecode(link) for entry in os.scandir(f"/proc/{name}/fd")):
                yield int(name)


# Dump


class State(NamedTuple):
    """An end of a terminal as it was found."""

    lead: Lead
    rdev: int
    dev: int
    uid: int
    gid: int
    exclusive: bool = False
    locked: bool = False
    packet_mode: bool = False
    session: int = 0
    foreground: int = 0
    termios: Termios | None = None
    termios_locked: Termios | None = None
    window_size: tuple[int, ...] = ()


def _state(file: OpenFile, key: Lead) -> State:
    """Of an open descriptor; seen by the one who holds it, where it matters."""
    found, own = file.stat, file.own
    assert found is not None
    state = State(key, found.st_rdev, found.st_dev, found.st_uid, found.st_gid)
    if key.hung_up:
        return state
    master = key.role == MASTER
    session, foreground = tty.controlled(own) if master else _controlled_by(file.pid, key.device)
    return state._replace(
        exclusive=bool(tty.number(own, tty.TIOCGEXCL)),
        locked=master and bool(tty.number(own, tty.TIOCGPTLCK)),
        packet_mode=master and bool(tty.number(own, tty.TIOCGPKT)),
        session=session,
        foreground=foreground,
        termios=tty.termios(own),
        termios_locked=tty.locked_termios(own),
        window_size=tty.window_size(own),
    )


def _controlled_by(pid: int, device: int) -> tuple[int, int]:
    """The session and foreground group of a terminal, if it is the controlling one of a task."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        task = procfs.stat(file.read())
    if task.terminal != device:
        return 0, 0
    return task.session, max(task.foreground, 0)


@dataclass
class _End:
    """An end of a terminal, with a descriptor that leads to it."""

    found: Found
    state: State
    own: int
    unread: Content = NOTHING
    stopped: bool = False


class Terminals:
    """The terminals of one dump.

    ``shell_job``: one may be looked after from outside.
    """

    def __init__(self, *, shell_job: bool = False) -> None:
        self._shell_job = shell_job
        self._ends: dict[Lead, _End] = {}

    def add(self, file: OpenFile) -> Lead:
        """Take note of a descriptor of a frozen task; its `Lead` is the key to the rest."""
        assert file.stat is not None
        key = lead(file.stat.st_rdev, file.own)
        known = self._ends.get(key)
        if known is None:
            found = Found(file.pid, file.fd, file.link, key, closed=False)
            self._ends[key] = _End(found, _state(file, key), os.dup(file.own))
        elif key.role != MASTER and not key.hung_up and not known.state.session:
            session, foreground = _controlled_by(file.pid, key.device)
            known.state = known.state._replace(session=session, foreground=foreground)
        return key

    def close(self) -> None:
        """Lets go of the descriptors."""
        for end in self._ends.values():
            if end.own >= 0:
                os.close(end.own)
                end.own = -1

    def copy(self) -> None:
        """Takes what is in the pairs of a frozen tree.

        Raises `NotDumpable` for a terminal whose other end is outside by now.
        """
        for key, end in self._ends.items():
            if key.role == MASTER:
                end.found = end.found._replace(closed=_is_closed(end.own))
        blocking = list(obstacles((end.found for end in self._ends.values()), shell_job=self._shell_job))
        if blocking:
            raise NotDumpable(blocking)
        pairs = [(end, self._slave_of(end)) for key, end in self._ends.items() if key.role == MASTER]
        for (master, slave), held in zip(
            pairs, terminalcontent.take([_pair(*one) for one in pairs]), strict=True
        ):
            master.unread, master.stopped = held.printed, held.stopped
            if slave is not None:
                slave.unread, slave.stopped = held.typed, held.stopped
                session, foreground = master.state.session, master.state.foreground
                slave.state = slave.state._replace(session=session, foreground=foreground)

    def _slave_of(self, master: _End) -> _End | None:
        """By a descriptor of its own, or one of /dev/tty."""
        for role in (SLAVE, CURRENT):
            if found := self._ends.get(Lead(role, master.state.lead.device, hung_up=False)):
                return found
        return None

    def ids(self) -> dict[Lead, int]:
        """The ``tty_info_id`` of each."""
        found: dict[int, Lead] = {}
        for key in sorted(self._ends, key=lambda key: key.hung_up):
            number = _id(key)
            while number in found:
                number += _FURTHER
            found[number] = key
        return {key: number for number, key in found.items()}

    def entries(self, numbers: PidNumbers) -> dict[int, files_pb2.tty_info_entry]:
        """By id; sessions and groups have the ``numbers`` of the images."""
        return {number: _info(number, self._ends[key], numbers) for key, number in self.ids().items()}

    def unread(self) -> dict[int, files_pb2.tty_data_entry]:
        """By the id of the end that could have read it."""
        found = ((number, self._ends[key].unread) for key, number in self.ids().items())
        return {
            number: files_pb2.tty_data_entry(tty_id=number, data=unread.data, ends=unread.ends)
            for number, unread in found
            if unread != NOTHING
        }


def _id(key: Lead) -> int:
    if key.role == CURRENT:
        return CURRENT_ID
    if key.pts is None:
        return _OTHER_IDS.get(tty.noun(key.device), max(_OTHER_IDS.values()))
    return key.pts << 1 | (key.role == MASTER)


def _pair(master: _End, slave: _End | None) -> Pair:
    state = master.state
    assert state.termios is not None
    return Pair(master.own, slave.own if slave else None, state.termios, state.locked, state.packet_mode)


def _is_closed(master: int) -> bool:
    return bool(tty.events(master) & select.POLLHUP)


def _info(number: int, end: _End, numbers: PidNumbers) -> files_pb2.tty_info_entry:
    state = end.state
    entry = files_pb2.tty_info_entry(
        id=number,
        type=_type(state.lead),
        locked=state.locked,
        exclusive=state.exclusive,
        packet_mode=state.packet_mode,
        sid=numbers.inside(state.session),
        pgrp=numbers.inside(state.foreground),
        rdev=tty.old_encoding(state.rdev),
        dev=state.dev,
        uid=state.uid,
        gid=state.gid,
    )
    if entry.type == files_pb2.PTY:
        entry.pty.index = state.lead.pts or 0
    if state.termios is not None and state.termios_locked is not None:
        entry.termios.CopyFrom(_attributes(state.termios))
        entry.termios_locked.CopyFrom(_attributes(state.termios_locked))
        row, col, xpixel, ypixel = state.window_size
        entry.winsize.ws_row, entry.winsize.ws_col = row, col
        entry.winsize.ws_xpixel, entry.winsize.ws_ypixel = xpixel, ypixel
    if end.stopped:
        entry.stopped = True
    if end.found.closed:
        entry.peer_closed = True
    return entry


def _type(key: Lead) -> files_pb2.TtyType:
    if key.role == CURRENT:
        return files_pb2.CTTY
    if key.role != OTHER:
        return files_pb2.PTY
    if key.device == tty.CONSOLE:
        return files_pb2.CONSOLE
    return files_pb2.VT if tty.noun(key.device) == "virtual console" else files_pb2.SERIAL


def _attributes(termios: Termios) -> files_pb2.termios_entry:
    """``c_cc`` as CRIU has it: four characters to a word, and as many words as there are characters."""
    words = struct.unpack("<8I", termios.cc.ljust(32, b"\0"))
    return files_pb2.termios_entry(
        c_iflag=termios.iflag,
        c_oflag=termios.oflag,
        c_cflag=termios.cflag,
        c_lflag=termios.lflag,
        c_line=termios.line,
        c_ispeed=termios.ispeed,
        c_ospeed=termios.ospeed,
        c_cc=[*words, *bytes(tty.NCCS - len(words))],
    )
