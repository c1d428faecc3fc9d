"""Pid namespaces: a tree that has one for itself is dumped from outside, with the numbers that count inside.

Images: numbers as their own namespace has them, ``pid_ns_id`` in ``ids-PID.img``; the root is the namespace's init.
A restore makes a new one, and the numbers outside are the kernel's choice.  Source: Linux kernel/pid_namespace.c.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from criupy.errors import ImageError, NotDumpable, Obstacle
from criupy.linux.procfs import task as procfs
from criupy.model.snapshot import Snapshot
from criupy.resources.pidnumbers import PidNumbers

INIT = 1
_WHAT = "pid namespace"
_PF_EXITING = 0x4  # Source: Linux include/linux/sched.h


# Dump


def is_nested(pid: int) -> bool:
    """Whether a task lives in another pid namespace than criupy."""
    return _inode(pid) != _inode(os.getpid())


def root_obstacles(root: int, comm: str) -> Iterator[Obstacle]:
    """Whether a tree can be dumped by the place of its root among the pid namespaces."""
    with open("/proc/self/status", "rb", buffering=0) as file:
        own = procfs.ns_numbers(file.readall())
    if len(own.process) > 1:
        why = "/proc shows another one than criupy runs in, so that nothing can be told apart"
        yield Obstacle(root, comm, _WHAT, why, "give criupy its own /proc (nsenter -m, unshare --mount-proc)")
        return
    depth, number = len(_numbers(root).process) - 1, _numbers(root).process[-1]
    if depth == 0 and number == INIT:
        yield Obstacle(root, comm, _WHAT, "it is the init of criupy's own", "run criupy outside of it")
    elif depth > 1:
        why = f"it lives {depth} namespaces below criupy, and only one can be dumped with a tree"
        yield Obstacle(root, comm, _WHAT, why, "run criupy in the one above it (nsenter -p -m)")
    elif depth and number != INIT:
        init = _init_above(root)
        other = f"dump it with the init of that ({init}), or " if init else ""
        why = "it lives in another one than criupy, and is not its init"
        yield Obstacle(root, comm, _WHAT, why, f"{other}run criupy inside (nsenter -t {root} -p -m)")


def _init_above(pid: int) -> int:
    """The ancestor that is the init of the task's namespace; 0 if it came from outside."""
    numbers = _numbers(pid)
    while len(numbers.process) == 2 and numbers.process[-1] != INIT:
        pid = procfs.stat(_read(pid, "stat")).ppid
        if pid <= 0:
            return 0
        numbers = _numbers(pid)
    return pid if len(numbers.process) == 2 else 0


def obstacles(pid: int, comm: str, root: int) -> Iterator[Obstacle]:
    """What of a task of the tree below ``root`` keeps it from living in one pid namespace with all others."""
    own = _inode(root)
    if _inode(pid) != own:
        why = f"it lives in another one than {root}, which cannot be dumped with it yet"
        yield Obstacle(pid, comm, _WHAT, why, "end it first, or dump it by itself")
        return
    if not _numbers(pid).session[-1]:
        why = "its leader is outside of the pid namespace of the tree"
        hint = "start the program with a session of its own: unshare --pid --fork setsid PROGRAM"
        yield Obstacle(pid, comm, "session", why, hint)
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        with suppress(ProcessLookupError, FileNotFoundError):
            yield from _children_elsewhere(pid, tid, own)


def obstacles_again(pids: Iterable[int]) -> Iterator[Obstacle]:
    """What may have changed until the tasks were stopped, and does not show in the numbers."""
    own = 0
    for pid in pids:  # the root comes first
        own = own or _inode(pid)
        yield from _children_elsewhere(pid, pid, own)


def _children_elsewhere(pid: int, tid: int, own: int) -> Iterator[Obstacle]:
    """After unshare(2) or setns(2); nothing shows as long as the new one has no init, nor of who is dead.

    Source: Linux kernel/pid_namespace.c, ``pidns_for_children_get``.
    """
    try:
        same = os.stat(f"/proc/{pid}/task/{tid}/ns/pid_for_children").st_ino == own
    except FileNotFoundError:
        stat = procfs.stat(_read(pid, f"task/{tid}/stat"))
        same = stat.state in "ZX" or bool(stat.flags & _PF_EXITING)
    if not same:
        who = "children of it" if pid == tid else f"children of its thread {tid}"
        why = f"{who} would be born in another one (pid_for_children), which cannot be dumped yet"
        yield Obstacle(
            pid, _comm(pid), _WHAT, why, "dump it before it leaves for that, or its children by themselves"
        )


def strangers(root: int, members: Collection[int]) -> Iterator[Obstacle]:
    """Who is in the tree's own namespace without being of the tree, and would end with it."""
    if not is_nested(root):
        return
    inode = _inode(root)
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(FileNotFoundError, ProcessLookupError):
            if pid not in members and _inode(pid) == inode and _ancestors_are_not(pid, members):
                why = f"it came into that of {root} from outside, would end with it and is not dumped"
                hint = "end it first, or let the tree run on (--leave-running)"
                yield Obstacle(pid, _comm(pid), _WHAT, why, hint)


def _ancestors_are_not(pid: int, members: Collection[int]) -> bool:
    """A child of the tree's, which was born after the tree was walked through, is no stranger."""
    while pid > 0 and pid not in members:
        pid = procfs.stat(_read(pid, "stat")).ppid
    return pid not in members


def numbers(statuses: Iterable[bytes]) -> PidNumbers:
    """By the ``status`` of every thread and zombie of a tree that lives one pid namespace below criupy.

    `NotDumpable` for who lives elsewhere, or is in a session from outside.
    """
    inside: dict[int, int] = {}
    for text in statuses:
        found = procfs.ns_numbers(text)
        outer, inner = ([one[at] for one in found] for at in (0, -1))
        if len(found.process) != 2 or 0 in inner:
            comm = procfs.comm(text).decode("utf-8", "backslashreplace")
            why = "it, its group or its session is not in the one of its tree"
            raise NotDumpable([Obstacle(outer[0], comm, _WHAT, why, "try again: it was so a moment ago")])
        inside.update(zip(outer, inner, strict=True))
    return PidNumbers(inside)


def _numbers(pid: int) -> procfs.NsNumbers:
    return procfs.ns_numbers(_read(pid, "status"))


def _comm(pid: int) -> str:
    return procfs.stat(_read(pid, "stat")).comm.decode("utf-8", "backslashreplace")


def _inode(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/pid").st_ino


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.readall()


# Restore


def check(snapshot: Snapshot) -> None:
    """ImageError for a tree that no pid namespace can hold: an init without a new one, or the other way round."""
    root, name = snapshot.root, f"ids-{snapshot.root.pid}.img"
    if root.ids is None:
        return
    for task in snapshot.tasks:
        if task.ids is not None and task.ids.pid_ns_id != root.ids.pid_ns_id:
            raise ImageError(f"ids-{task.pid}.img", "is of another pid namespace than the root")
        if snapshot.has_own_pids and not task.pstree.sid:
            raise ImageError("pstree.img", f"the session of task {task.pid} is outside of its pid namespace")
    if snapshot.has_own_pids and root.pid != INIT:
        why = "the root has a pid namespace of its own and is not its init, which cannot be restored"
        raise ImageError(name, why)
    if root.pid == INIT and not snapshot.has_own_pids:
        raise ImageError(name, "the root is an init, but has no pid namespace of its own")


def highest(snapshot: Snapshot) -> int:
    """The highest of all numbers of tasks, threads, groups and sessions."""
    entries = [task.pstree for task in snapshot.tasks]
    named = (number for entry in entries for number in (entry.pid, entry.pgid, entry.sid))
    return max(*named, *(tid for task in snapshot.tasks for tid in task.threads))
