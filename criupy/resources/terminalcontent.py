"""What is in a pair of pseudo terminals: typed, and not read by the slave; printed, and not read by the master.

The kernel shows it only to who takes it out, so it is put back at once.  Bytes are put back where the line discipline
has them (TIOCSTI), with attributes under which it leaves them as they are; what exceeds its buffer goes through the
other end and waits before it, as it did.

Not kept: a status of packet mode that the master has not read.

Source: Linux drivers/tty/n_tty.c, pty.c, tty_buffer.c.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from criupy.errors import TraceeError
from criupy.linux import tty
from criupy.linux.tty import Termios
from criupy.tracee import guardian

LARGEST = 1 << 16
"""More bytes than a pair holds in one direction."""
_PATIENCE = 10.0
"""Seconds until what was written must have found room."""
_END, _STOP = 0x04, 0x13
_VSTOP, _VMIN = 9, 6
_IXON = 0o2000


class Content(NamedTuple):
    """Bytes that nobody has read; ``ends`` are the places in it where an end of file was typed."""

    data: bytes = b""
    ends: tuple[int, ...] = ()


NOTHING = Content()


class Held(NamedTuple):
    """What is in a pair, and whether its output is stopped (Ctrl-S)."""

    printed: Content = NOTHING
    typed: Content = NOTHING
    stopped: bool = False


class Pair(NamedTuple):
    """Descriptors of both ends, ``slave`` None where it is open nowhere; ``termios`` are its attributes."""

    master: int
    slave: int | None
    termios: Termios
    locked: bool = False
    packet_mode: bool = False


def take(pairs: Sequence[Pair]) -> list[Held]:
    """What is in them; it stays there, also when criupy is killed meanwhile.  Nobody else may use them.

    A line that is being typed cannot be seen from outside: where there may be one, a look is taken inside as well.
    """
    found = [Held(stopped=_is_stopped(pair)) for pair in pairs]
    inside = [at for at, pair in enumerate(pairs) if _may_hold(pair)]
    if inside:
        report = os.memfd_create("criupy-terminals")
        try:
            guardian.finish(lambda: _take_all([pairs[at] for at in inside], report))
            answers = _Report(report).read()
        finally:
            os.close(report)
        if len(answers) != len(inside):
            raise TraceeError("what is in a terminal cannot be read", hint="the guardian says why above")
        for at, held in zip(inside, answers, strict=True):
            found[at] = held
    return found


def _may_hold(pair: Pair) -> bool:
    if tty.events(pair.master) & select.POLLIN and _has_data(pair.master):
        return True
    return pair.slave is not None and (pair.termios.canonical or bool(tty.events(pair.slave) & select.POLLIN))


def _has_data(master: int) -> bool:
    """It is readable also for a status of packet mode."""
    return tty.number(master, tty.FIONREAD) > 0


def _is_stopped(pair: Pair) -> bool:
    """A slave cannot be written to when its output is stopped, or when there is no room."""
    return pair.slave is not None and not tty.events(pair.slave) & select.POLLOUT


class _Report:
    """What the guardian has found, in a file."""

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, found: Sequence[Held]) -> None:
        plain = [(*held.printed, *held.typed, held.stopped) for held in found]
        os.pwrite(self._file, json.dumps(plain, default=bytes.hex).encode(), 0)

    def read(self) -> list[Held]:
        text = os.pread(self._file, os.fstat(self._file).st_size, 0)
        return [
            Held(_content(printed, ends), _content(typed, typed_ends), stopped)
            for printed, ends, typed, typed_ends, stopped in json.loads(text or b"[]")
        ]


def _content(data: str, ends: list[int]) -> Content:
    return Content(bytes.fromhex(data), tuple(ends))


def _take_all(pairs: Sequence[Pair], report: int) -> None:
    """In the guardian."""
    for signo in (signal.SIGTTIN, signal.SIGTTOU):  # one of them may control us
        signal.signal(signo, signal.SIG_IGN)
    _Report(report).write([_take(pair) for pair in pairs])


def _take(pair: Pair) -> Held:
    with _plain(pair) as slave:
        held = Held()
        try:
            held = held._replace(printed=Content(_drain(pair.master)))
            if slave is not None:
                held = held._replace(stopped=_is_stopped(pair._replace(slave=slave)))
                held = held._replace(typed=_drain_typed(slave, pair.termios))
        finally:
            put(pair._replace(slave=slave), held)
        return held


@contextmanager
def _plain(pair: Pair) -> Iterator[int | None]:
    """The slave, open for us alone and without blocking; no packets meanwhile."""
    if pair.packet_mode:
        tty.set_number(pair.master, tty.TIOCPKT, 0)
    slave = None
    try:
        if pair.slave is not None:
            slave = open_slave(pair.master, locked=pair.locked)
        yield slave
    finally:
        if slave is not None:
            os.close(slave)
        if pair.packet_mode:
            tty.set_number(pair.master, tty.TIOCPKT, 1)


def open_slave(master: int, *, locked: bool = False) -> int:
    """The slave, not blocking."""
    if not locked:
        return tty.peer(master, os.O_RDWR | os.O_NONBLOCK)
    tty.set_number(master, tty.TIOCSPTLCK, 0)
    try:
        return tty.peer(master, os.O_RDWR | os.O_NONBLOCK)
    finally:
        tty.set_number(master, tty.TIOCSPTLCK, 1)


def _drain(end: int) -> bytes:
    """All that can be read at once; reading fetches what is on its way."""
    content = b""
    while len(content) < LARGEST and tty.events(end) & select.POLLIN:
        with suppress(BlockingIOError):
            piece = os.read(end, LARGEST)
            if not piece:
                break
            content += piece
    return content


def _drain_typed(slave: int, termios: Termios) -> Content:
    """Lines first, as long as they are such, then the one that has no end yet."""
    content, ends = b"", []
    tty.set_termios(slave, _quiet(termios))
    try:
        while termios.canonical and len(content) < LARGEST:
            try:
                line = os.read(slave, LARGEST)
            except BlockingIOError:
                break
            content += line
            if not line.endswith(b"\n"):
                ends.append(len(content))
        if termios.canonical:
            tty.set_termios(slave, _quiet(termios, lflag=0))
        return Content(content + _drain(slave), tuple(ends))
    finally:
        tty.set_termios(slave, termios)


def _quiet(termios: Termios, *, lflag: int = tty.ICANON, end: int = 0) -> Termios:
    """Attributes under which bytes come as they are, in lines or not, and nothing is echoed.

    To take IXON away would start what is stopped.
    """
    cc = bytearray(tty.NCCS)
    cc[tty.VEOF], cc[_VMIN] = end, 1
    return termios._replace(
        iflag=termios.iflag & _IXON, oflag=0, lflag=termios.lflag & lflag & tty.ICANON, cc=bytes(cc)
    )


def put(pair: Pair, held: Held) -> None:
    """Fills a pair in which nothing is; its slave has the attributes of ``pair`` afterwards."""
    printed, more_printed = _split(held.printed.data)
    typed, more_typed = _split(held.typed.data)
    tty.type_in(pair.master, printed)
    if pair.slave is not None:
        _type(pair.slave, pair.termios, Content(typed, held.typed.ends))
        if more_printed:
            if held.stopped:
                _start(pair.slave)
            tty.set_termios(pair.slave, pair.termios._replace(oflag=pair.termios.oflag & ~tty.OPOST))
            _write(pair.slave, more_printed)
            tty.set_termios(pair.slave, pair.termios)
            if held.stopped:
                stop(pair.slave, pair.termios)
        if more_typed:
            _write(pair.master, more_typed)


def _split(content: bytes) -> tuple[bytes, bytes]:
    return content[: tty.LINE_ROOM], content[tty.LINE_ROOM :]


def _type(slave: int, termios: Termios, content: Content) -> None:
    place = 0
    for end in content.ends:
        tty.set_termios(slave, _quiet(termios))
        tty.type_in(slave, content.data[place:end])
        tty.set_termios(slave, _quiet(termios, end=_END))
        tty.type_in(slave, bytes([_END]))
        place = end
    tty.set_termios(slave, _quiet(termios))
    tty.type_in(slave, content.data[place:])
    tty.set_termios(slave, termios)


def stop(slave: int, termios: Termios) -> None:
    """Stops the output as Ctrl-S does, so that Ctrl-Q lets it go on."""
    cc = bytearray(tty.NCCS)
    cc[_VSTOP], cc[_VMIN] = _STOP, 1
    tty.set_termios(slave, termios._replace(iflag=_IXON, lflag=termios.lflag & tty.ICANON, cc=bytes(cc)))
    tty.type_in(slave, bytes([_STOP]))
    # to take IXON away would start it again
    tty.set_termios(slave, termios._replace(iflag=termios.iflag | _IXON))
    if not termios.iflag & _IXON:
        tty.set_termios(slave, termios)
        fcntl.ioctl(slave, tty.TCXONC, tty.TCOOFF)


def _start(slave: int) -> None:
    """Whoever stopped it.  Source: Linux drivers/tty/tty_io.c, ``__start_tty``."""
    fcntl.ioctl(slave, tty.TCXONC, tty.TCOOFF)
    fcntl.ioctl(slave, tty.TCXONC, tty.TCOON)


def _write(end: int, content: bytes) -> None:
    """Writes into a pair that has had room for it before."""
    deadline = time.monotonic() + _PATIENCE
    while content:
        if tty.events(end) & select.POLLOUT:
            with suppress(BlockingIOError):
                content = content[os.write(end, content[:1024]) :]
        elif time.monotonic() > deadline:
            raise TraceeError(f"there is no room for {len(content)} bytes in a terminal")
        else:
            time.sleep(0.001)
