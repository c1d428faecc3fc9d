"""Who descends from whom, as /proc says at this moment."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from criupy.linux.procfs import task as procfs

_MANY = 64
"""From so many threads on, one look at every process of the system may be less work than a look at every thread."""


class Member(NamedTuple):
    """A process of a tree, and its threads; a zombie has itself alone."""

    pid: int
    ppid: int
    tids: frozenset[int]


class Kin(NamedTuple):
    """The numbers by which somebody may mean the processes of a tree."""

    pids: frozenset[int]
    groups: frozenset[int]


def kin(pids: Iterable[int]) -> Kin:
    """Of living processes; one that is gone meanwhile is left out."""
    groups = {}
    for pid in pids:
        with suppress(ProcessLookupError):
            groups[pid] = os.getpgid(pid)
    return Kin(frozenset(groups), frozenset(groups.values()))


def walk(root: int, without_children: Collection[int] = ()) -> list[Member]:
    """The tree below ``root``, parents first; below ``without_children`` nothing is looked for.

    What moves may be missed, so a tree is known when two walks agree and everyone in it stands.  Empty when the root
    is gone.  Source: Linux fs/proc/array.c, ``get_children_pid``.
    """
    return list(_walk(root, _ppid(root), frozenset(without_children), _Parents()))


_PF_EXITING, _SIGKILL = 0x4, 1 << 8
"""Source: Linux include/linux/sched.h."""


def speaker(pid: int) -> int:
    """The thread by whose number /proc and the system calls tell of what the threads of a process share.

    That is its leader, or once that has ended (pthread_exit) the first of its threads that has not: of a dead thread
    there is neither memory nor descriptors.  The process itself when all of its threads are about to end.
    FileNotFoundError or ProcessLookupError when it is gone.
    """
    if not _has_ended(pid, pid):
        return pid
    return next((tid for tid in _tids(pid) if not is_ending_thread(pid, tid)), pid)


def is_zombie(member: Member) -> bool:
    """Whether a process is dead with all of its threads, and its parent has not waited for it."""
    try:
        return member.tids == {member.pid} and _has_no_other(member.pid, 1, states="ZX")
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_ending(pid: int) -> bool:
    """Whether a process is gone, or about to be, with all of its threads."""
    try:
        tids = _tids(pid)
        return all(is_ending_thread(pid, tid) for tid in tids) and _has_no_other(pid, len(tids))
    except (FileNotFoundError, ProcessLookupError):
        return True


def _has_no_other(pid: int, known: int, states: str = "") -> bool:
    """Whether a process has no more than the ``known`` threads; its leader is in one of ``states``, if that matters.

    A thread that executes a program when its leader is dead takes over the number of that, and may be in no listing.
    Source: Linux fs/exec.c, ``de_thread``.
    """
    with _opened(f"/proc/{pid}/stat") as file:
        stat = procfs.stat(os.read(file, 4096))
    return stat.threads <= known and (not states or stat.state in states)


def _tids(pid: int) -> list[int]:
    return sorted(map(int, os.listdir(f"/proc/{pid}/task")))


def _has_ended(pid: int, tid: int) -> bool:
    """Whether a thread is dead, or has begun to die."""
    with _opened(f"/proc/{pid}/task/{tid}/stat") as file:
        return bool(procfs.stat(os.read(file, 4096)).flags & _PF_EXITING)


def is_ending_thread(pid: int, tid: int) -> bool:
    """Whether a thread is dead, dies, or has to: who ends a process kills all of its threads.

    Source: Linux kernel/signal.c, ``zap_other_threads``.
    """
    try:
        if _has_ended(pid, tid):
            return True
        with _opened(f"/proc/{pid}/task/{tid}/status") as file:
            return bool(procfs.pending(os.read(file, 1 << 20))[0] & _SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return True


def descends(pid: int, ancestors: Collection[int]) -> bool:
    """Whether a process is one of ``ancestors``, or comes from one by a line of living parents."""
    while pid > 0:
        if pid in ancestors:
            return True
        pid = _ppid(pid)
    return False


def _walk(pid: int, ppid: int, closed: frozenset[int], parents: _Parents) -> Iterator[Member]:
    stack = [(pid, ppid)]
    while stack:
        pid, ppid = stack.pop()
        try:
            tids = frozenset(map(int, os.listdir(f"/proc/{pid}/task")))
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield Member(pid, ppid, tids)
        if pid not in closed:
            children = _children(pid, tids) if len(tids) < _MANY else parents.children(pid, tids)
            stack.extend((child, pid) for child in reversed(children))


def _children(pid: int, tids: Collection[int]) -> list[int]:
    """By the threads that made them, oldest first."""
    found: list[int] = []
    for tid in sorted(tids):
        with (
            suppress(FileNotFoundError, ProcessLookupError),
            _opened(f"/proc/{pid}/task/{tid}/children") as file,
        ):
            text = b""
            while piece := os.read(file, 1 << 16):
                text += piece
            found += map(int, text.split())
    return found


class _Parents:
    """The processes of the system by their parents, looked at once and when first needed."""

    def __init__(self) -> None:
        self._by_parent: dict[int, list[int]] | None = None

    def children(self, pid: int, tids: Collection[int]) -> list[int]:
        if self._by_parent is None:
            everyone = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
            if len(everyone) > len(tids):
                return _children(pid, tids)
            self._by_parent = {}
            for one in sorted(everyone):
                self._by_parent.setdefault(_ppid(one), []).append(one)
        return self._by_parent.get(pid, [])


def _ppid(pid: int) -> int:
    """0 for a process that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError), _opened(f"/proc/{pid}/stat") as file:
        return procfs.stat(os.read(file, 4096)).ppid
    return 0


class _opened:  # noqa: N801 - a context manager, at a tenth of what contextlib takes
    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
