"""Terminals as the kernel shows them: ioctl_tty(2).

Source: Linux drivers/tty/tty_io.c, tty_ioctl.c, pty.c, n_tty.c; include/uapi/asm-generic/ioctls.h, termbits.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from typing import NamedTuple

TCXONC, TIOCEXCL, TIOCSCTTY, TIOCGPGRP, TIOCSPGRP, TIOCSTI = 0x540A, 0x540C, 0x540E, 0x540F, 0x5410, 0x5412
TIOCGWINSZ, TIOCSWINSZ, FIONREAD, TIOCPKT, TIOCNOTTY = 0x5413, 0x5414, 0x541B, 0x5420, 0x5422
TIOCGETD, TIOCGSID, TIOCGPTPEER, TIOCGLCKTRMIOS, TIOCSLCKTRMIOS = 0x5424, 0x5429, 0x5441, 0x5456, 0x5457
TIOCSPTLCK, TIOCGPTN, TIOCGDEV, TIOCGPKT, TIOCGPTLCK, TIOCGEXCL = (
    0x40045431, 0x80045430, 0x80045432, 0x80045438, 0x80045439, 0x80045440,
)  # fmt: skip
TCGETS2, TCSETS2 = 0x802C542A, 0x402C542B
TCOOFF, TCOON = 0, 1
_KDGETMODE, _KDGKBMODE, _VT_GETMODE = 0x4B3B, 0x4B44, 0x5601
_KD_TEXT, _VT_AUTO = 0, 0
_K_CHARACTERS = (1, 3)

OPOST = 0o1
ICANON = 0o2
NCCS = 19
VEOF = 4

PTMX, CURRENT, CONSOLE = os.makedev(5, 2), os.makedev(5, 0), os.makedev(5, 1)
"""/dev/ptmx, of which each opening makes a pair; /dev/tty, whatever controls the one who opens it; /dev/console."""
VIRTUAL_MAJOR, PTS_MAJORS = 4, range(136, 144)
TTY_MAJORS = (VIRTUAL_MAJOR, 5, *PTS_MAJORS, 188, 204)
_SERIAL_MINOR = 64
_PTS_PER_MAJOR = 256

_TERMIOS2 = struct.Struct("<4IB19s2I")
_LOCKED_SIZE = 36
_WINSIZE = struct.Struct("<4H")


class Termios(NamedTuple):
    """struct termios2: ``cc`` has 19 characters, speeds are in bits per second."""

    iflag: int
    oflag: int
    cflag: int
    lflag: int
    line: int
    cc: bytes
    ispeed: int
    ospeed: int

    @property
    def canonical(self) -> bool:
        """Whether input comes line by line."""
        return bool(self.lflag & ICANON)


def number(fd: int, request: int) -> int:
    """What an ioctl with an ``int *`` answers, or OSError."""
    answer: int = struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0]
    return answer


def set_number(fd: int, request: int, value: int) -> None:
    """An ioctl that is given an ``int *``, or OSError."""
    fcntl.ioctl(fd, request, struct.pack("i", value))


def controlled(fd: int) -> tuple[int, int]:
    """The session that a terminal controls, and its foreground group; (0, 0) if there is none to be seen.

    A slave shows this to its own session, a master to everyone.
    """
    try:
        return number(fd, TIOCGSID), max(number(fd, TIOCGPGRP), 0)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        return 0, 0


def termios(fd: int) -> Termios:
    """The attributes; a master has those of its slave."""
    return Termios(*_TERMIOS2.unpack(fcntl.ioctl(fd, TCGETS2, bytes(_TERMIOS2.size))))


def set_termios(fd: int, wanted: Termios) -> None:
    """At once, whatever is on its way."""
    fcntl.ioctl(fd, TCSETS2, _TERMIOS2.pack(*wanted))


def locked_termios(fd: int) -> Termios:
    """Which of the attributes nobody may change, bit by bit."""
    return Termios(*_TERMIOS2.unpack(fcntl.ioctl(fd, TIOCGLCKTRMIOS, bytes(_LOCKED_SIZE)) + bytes(8)))


def lock_termios(fd: int, locked: Termios) -> None:
    fcntl.ioctl(fd, TIOCSLCKTRMIOS, _TERMIOS2.pack(*locked)[:_LOCKED_SIZE])


def window_size(fd: int) -> tuple[int, ...]:
    """Rows, columns, and both in pixels."""
    return _WINSIZE.unpack(fcntl.ioctl(fd, TIOCGWINSZ, bytes(_WINSIZE.size)))


def set_window_size(fd: int, size: tuple[int, ...]) -> None:
    """OSError; struct.error if a number does not fit."""
    fcntl.ioctl(fd, TIOCSWINSZ, _WINSIZE.pack(*size))


def type_in(fd: int, content: bytes) -> None:
    """Puts bytes where those who read from ``fd`` find them, at once, as if they had come from the other end.

    Takes CAP_SYS_ADMIN.  At most `LINE_ROOM` bytes fit.
    """
    for at in range(len(content)):
        fcntl.ioctl(fd, TIOCSTI, content[at : at + 1])


LINE_ROOM = 4095
"""What a line discipline holds; more waits before it.  Source: Linux drivers/tty/n_tty.c, N_TTY_BUF_SIZE."""


def peer(master: int, flags: int) -> int:
    """The slave of a master, opened anew; EIO while it is locked."""
    return fcntl.ioctl(master, TIOCGPTPEER, flags | os.O_NOCTTY | os.O_CLOEXEC)


def events(fd: int) -> int:
    """What poll(2) says at once.  Looking brings in what was on its way."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT | select.POLLPRI)
    return sum(found for _, found in poll.poll(0))


def is_terminal(device: int) -> bool:
    """Whether a character device with this number is one."""
    return os.major(device) in TTY_MAJORS


def pts_index(device: int) -> int | None:
    """N of /dev/pts/N; None for other devices."""
    if os.major(device) not in PTS_MAJORS:
        return None
    return (os.major(device) - PTS_MAJORS.start) * _PTS_PER_MAJOR + os.minor(device)


def pts_device(index: int) -> int:
    """The device number of /dev/pts/N."""
    major, minor = divmod(index, _PTS_PER_MAJOR)
    return os.makedev(PTS_MAJORS.start + major, minor)


def is_console(device: int) -> bool:
    """Whether it is /dev/console or a virtual console, which nobody has to look after."""
    return device == CONSOLE or noun(device) == "virtual console"


def plays_itself(fd: int) -> bool:
    """Whether a virtual console shows text, types characters, and is switched by the kernel: no X server has it.

    Source: Linux include/uapi/linux/kd.h, vt.h.
    """
    in_text = number(fd, _KDGETMODE) == _KD_TEXT and number(fd, _KDGKBMODE) in _K_CHARACTERS
    return in_text and fcntl.ioctl(fd, _VT_GETMODE, bytes(8))[0] == _VT_AUTO


def old_encoding(device: int) -> int:
    """A device number as CRIU's images have it.  Source: Linux include/linux/kdev_t.h, ``old_encode_dev``."""
    return os.major(device) << 8 | os.minor(device)


def noun(device: int) -> str:
    """What people call it."""
    if device == CONSOLE:
        return "console"
    if os.major(device) == VIRTUAL_MAJOR:
        return "virtual console" if os.minor(device) < _SERIAL_MINOR else "serial line"
    return "pseudo terminal" if device == PTMX or os.major(device) in PTS_MAJORS else "terminal"
