"""Files of ``/proc/PID`` and ``/proc/PID/task/TID`` about tasks: parsers, pure on bytes.

Names of tasks hold any byte but NUL: a ``)``, a space, a newline.  All numbers are as the kernel prints them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from criupy.linux.abi import device_number

RLIM_INFINITY = (1 << 64) - 1


class Stat(NamedTuple):
    """``stat``: ``comm`` and the fields from the third on.  Source: Linux fs/proc/array.c, do_task_stat."""

    pid: int
    comm: bytes
    rest: tuple[bytes, ...]

    def number(self, field: int) -> int:
        """A field by its number in proc(5), 4 to 52."""
        return int(self.rest[field - 3])

    @property
    def state(self) -> str:
        return self.rest[0].decode()

    @property
    def ppid(self) -> int:
        return self.number(4)

    @property
    def pgrp(self) -> int:
        return self.number(5)

    @property
    def session(self) -> int:
        return self.number(6)

    @property
    def terminal(self) -> int:
        """The device number of the controlling terminal, 0 if there is none."""
        return device_number(self.number(7) & 0xFFFF_FFFF)

    @property
    def foreground(self) -> int:
        """The foreground process group of the controlling terminal, -1 if there is none."""
        return self.number(8)

    @property
    def flags(self) -> int:
        """PF_* of the kernel."""
        return self.number(9)

    @property
    def threads(self) -> int:
        """How many there are; none is left of a process that has been waited for."""
        return self.number(20)

    @property
    def start_time(self) -> int:
        """Since boot, in clock ticks."""
        return self.number(22)

    @property
    def exit_code(self) -> int:
        """The wait status of a zombie; 0 without the right to trace the task."""
        return self.number(52)


def stat(text: bytes) -> Stat:
    """ValueError: not the text of a ``stat`` file."""
    head, closing, tail = text.rpartition(b")")
    pid, opening, comm = head.partition(b"(")
    fields = tail.split()
    if not closing or not opening or len(fields) < 50:
        raise ValueError(f"not a stat file: {text[:80]!r}")
    return Stat(int(pid), comm, tuple(fields))


class NsNumbers(NamedTuple):
    """The numbers in ``status``, from the pid namespace of /proc down to the thread's own; 0: not seen there."""

    process: tuple[int, ...]
    thread: tuple[int, ...]
    group: tuple[int, ...]
    session: tuple[int, ...]


_NS_NUMBERS = re.compile(rb"\nNStgid:\t(.*)\nNSpid:\t(.*)\nNSpgid:\t(.*)\nNSsid:\t(.*)\n")


def ns_numbers(text: bytes) -> NsNumbers:
    """Source: Linux fs/proc/array.c, task_state."""
    found = _NS_NUMBERS.search(text)
    if found is None:
        raise ValueError(f"not a status file: {text[:80]!r}")
    return NsNumbers(*(tuple(map(int, words.split())) for words in found.groups()))


class Credentials(NamedTuple):
    """Ids are (real, effective, saved, filesystem); capabilities are bit masks."""

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    cap_inheritable: int
    cap_permitted: int
    cap_effective: int
    cap_bounding: int
    cap_ambient: int
    no_new_privs: bool


_IDS = re.compile(rb"\nUid:\t(.*)\nGid:\t(.*)\n(?:FDSize:.*\n)?Groups:(.*)\n")
_POWERS = re.compile(
    rb"\nCapInh:\t(.*)\nCapPrm:\t(.*)\nCapEff:\t(.*)\nCapBnd:\t(.*)\nCapAmb:\t(.*)\nNoNewPrivs:\t(.*)\n"
)


def credentials(text: bytes) -> Credentials:
    """The credentials in ``status``.  Source: Linux fs/proc/array.c, proc_pid_status."""
    ids, powers = _IDS.search(text), _POWERS.search(text)
    if ids is None or powers is None:
        raise ValueError(f"not a status file: {text[:80]!r}")
    return _credentials(ids.groups(), powers.groups())


@lru_cache(maxsize=64)
def _credentials(ids: tuple[bytes, ...], powers: tuple[bytes, ...]) -> Credentials:
    """Threads mostly have the same, and are many."""
    uids, gids, groups = (tuple(map(int, words.split())) for words in ids)
    inheritable, permitted, effective, bounding, ambient, no_new_privs = (int(word, 16) for word in powers)
    return Credentials(
        uids,
        gids,
        groups,
        inheritable,
        permitted,
        effective,
        bounding,
        ambient,
        no_new_privs=bool(no_new_privs),
    )


def cpus(text: bytes) -> int:
    """The CPUs in ``status`` that a thread may run on, bit by bit."""
    head, _, tail = text.partition(b"\nCpus_allowed:\t")
    if not tail:
        raise ValueError(f"not a status file: {head[:80]!r}")
    return int(tail.partition(b"\n")[0].replace(b",", b""), 16)


_COMM = re.compile(rb"Name:\t(.*)\n")


def comm(text: bytes) -> bytes:
    """The name in ``status``, where the kernel writes newlines as ``\\n`` and backslashes as ``\\\\``."""
    found = _COMM.match(text)
    if found is None:
        raise ValueError(f"not a status file: {text[:80]!r}")
    return re.sub(rb"\\(.)", lambda escape: b"\n" if escape[1] == b"n" else escape[1], found[1])


def pending(text: bytes) -> tuple[int, int]:
    """The signals of ``status`` that wait for the thread, and those that wait for the process.

    Cheap: every thread is asked while it is frozen.
    """
    at = text.find(b"\nSigPnd:\t") + 9
    return int(text[at : at + 16], 16), int(text[at + 25 : at + 41], 16)


def seccomp_mode(text: bytes) -> int:
    """The seccomp mode of ``status``: 0 none, 1 strict, 2 filter."""
    at = text.find(b"\nSeccomp:\t")
    return int(text[at + 10 : at + 11]) if at >= 0 else 0


def thread_features(text: bytes) -> frozenset[bytes]:
    """What arch_prctl has switched on: ``shstk``, ``wrss``.  Source: Linux arch/x86/kernel/cpu/proc.c."""
    _, _, tail = text.partition(b"\nx86_Thread_features:\t")
    return frozenset(tail.partition(b"\n")[0].split())


def limits(text: bytes) -> tuple[tuple[int, int], ...]:
    """(soft, hard) by RLIMIT_* number, infinity is 2^64 - 1.  Source: Linux fs/proc/base.c, proc_pid_limits."""
    lines = text.splitlines()[1:]
    if len(lines) < 16:
        raise ValueError(f"not a limits file: {text[:80]!r}")

    def value(column: bytes) -> int:
        word = column.strip()
        return RLIM_INFINITY if word == b"unlimited" else int(word)

    return tuple((value(line[26:47]), value(line[47:68])) for line in lines)


class PosixTimer(NamedTuple):
    """One timer of ``timers``: ``notify`` is SIGEV_* (without SIGEV_THREAD_ID), ``thread`` the tid that is
    signalled if it is directed at one; ``clock`` is negative for clocks of CPU time."""

    timer_id: int
    signal: int
    value: int
    notify: int
    thread: int | None
    clock: int


_TIMER = re.compile(
    rb"ID: (\d+)\nsignal: (\d+)/([0-9a-f]+)\nnotify: (signal|none|thread)/(pid|tid)\.(\d+)\nClockID: (-?\d+)\n"
)
_NOTIFY = {b"signal": 0, b"none": 1, b"thread": 2}


def timers(text: bytes) -> tuple[PosixTimer, ...]:
    """By timer id.  Source: Linux fs/proc/base.c, show_timer."""
    found = []
    position = 0
    for match in _TIMER.finditer(text):
        if match.start() != position:
            break
        position = match.end()
        number, signal, value, notify, kind, target, clock = match.groups()
        found.append(
            PosixTimer(
                timer_id=int(number),
                signal=int(signal),
                value=int(value, 16),
                notify=_NOTIFY[notify],
                thread=int(target) if kind == b"tid" else None,
                clock=int(clock),
            )
        )
    if position != len(text):
        raise ValueError(f"not a timers file: {text[position : position + 80]!r}")
    return tuple(sorted(found, key=lambda timer: timer.timer_id))


def timens_offsets(text: bytes) -> dict[str, int]:
    """By clock (``monotonic``, ``boottime``), in nanoseconds.  Source: Linux kernel/time/namespace.c, show_offset."""
    found = {}
    for line in text.splitlines():
        name, seconds, nanoseconds = line.split()
        found[name.decode()] = int(seconds) * 10**9 + int(nanoseconds)
    return found
