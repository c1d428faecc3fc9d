"""How a tree is grown: who is born of whom, and in which order, so that sessions and groups come out right.

A task has the session of who made it, or one of its own by setsid(2); so children from before their parent's setsid
are made before it.  What became an orphan was made by somebody else than its parent: it is made by a member of its
session that is another child of its parent (CLONE_PARENT), or by a passing task under its session's leader, at whose
end the parent, a subreaper for the moment, adopts it.  A leader that is dead is stood in for by a helper with its pid.

Source: Linux kernel/fork.c, kernel/exit.c (``find_new_reaper``), kernel/sys.c (setsid, setpgid).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from criupy.errors import ImageError
from criupy.linux.abi import WALL
from criupy.linux.prctl import PR_SET_CHILD_SUBREAPER
from criupy.model.plan import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_IO,
    CLONE_NEWPID,
    CLONE_PARENT,
    CLONE_SIGHAND,
    CLONE_VM,
    NURSERY,
    SIGCHLD,
    Arg,
    Ref,
    Stage,
    Step,
    clone_args,
    data,
    path,
)

PASSING = 1 << 40
"""From here on: tasks whose pid is the kernel's choice, in the order of their births."""


_AT_FDCWD = -100
_LAST_PID = b"/proc/sys/kernel/ns_last_pid"
_UNAVAILABLE = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EBADF, errno.EINVAL})
_IOPRIO_WHO_PROCESS, _BEST_EFFORT = 1, 2 << 13 | 4


class Kinsman(NamedTuple):
    """A process of the tree as its image has it; equal ids mean one kernel object, those of a zombie are 0."""

    pid: int
    ppid: int
    pgid: int
    sid: int
    files_id: int
    fs_id: int = 0
    vm_id: int = 0
    sighand_id: int = 0
    shares_io: bool = False

    @property
    def leads(self) -> bool:
        """Whether it is a session leader."""
        return self.pid == self.sid


_SHARED = {
    "files_id": (CLONE_FILES, "its descriptors"),
    "fs_id": (CLONE_FS, "root and working directory"),
    "vm_id": (CLONE_VM, "its address space"),
    "sighand_id": (CLONE_SIGHAND, "its signal actions"),
}


class Growth(NamedTuple):
    """The steps in their order, the pids that are needed for a moment, and those who are told of a helper's end."""

    steps: tuple[Step, ...]
    helpers: tuple[int, ...]
    told: frozenset[int]


def grow(tasks: Sequence[Kinsman], *, last_pid: int = 0) -> Growth:
    """The births of ``tasks``, which has parents first.

    ``last_pid``: if not 0, the root is the init of a new pid namespace, and that is the highest number in it.
    ImageError for relations that no sequence of system calls can bring about.
    """
    return _Tree(tasks).grow(last_pid)


class _Tree:
    def __init__(self, tasks: Sequence[Kinsman]) -> None:
        self.tasks = {task.pid: task for task in tasks}
        self.root = tasks[0]
        self.children: dict[int, list[Kinsman]] = {task.pid: [] for task in tasks}
        for task in tasks[1:]:
            self.children[task.ppid].append(task)
        self.helpers: dict[int, int] = {}
        """By pid, who is the parent of a helper that leads a session or group."""
        self.born = self._born_sessions(tasks)
        """By pid, the session that a task is born in."""
        self.steps: list[Step] = []
        self.told: set[int] = set()
        self.made: set[int] = set()
        self.shared = {name: {getattr(self.root, name)} for name in _SHARED}
        """The ids that somebody has."""
        self.places = self._places_of_helpers(tasks[1:])
        self.passing = 0

    def grow(self, last_pid: int) -> Growth:
        root = self.root.pid
        self.made.add(root)
        flags = CLONE_PARENT | (CLONE_NEWPID if last_pid else 0)
        answer = None if last_pid else root  # the nursery is told the number outside
        self._step(NURSERY, "clone3", *clone_args(flags, root), expect=answer, gives=_task(root))
        if last_pid:
            self._count_from(last_pid)
        orphans = list(self._raise(self.root))
        while orphans:
            left = list(self._adopt(orphans))
            if len(left) >= len(orphans):
                one = left[0]
                raise ImageError(
                    "pstree.img",
                    f"task {one.pid} cannot have the session {one.sid} below its parent {one.ppid}",
                )
            orphans = left
        self._join_groups()
        self._end_helpers()
        return Growth(tuple(self.steps), tuple(self.helpers), frozenset(self.told))

    def _step(
        self, tid: int, call: str, *args: Arg, expect: int | None = None, gives: Ref | None = None
    ) -> None:
        self.steps.append(Step(tid, Stage.TREE, call, args, expect=expect, gives=gives))

    def _count_from(self, last_pid: int) -> None:
        """Numbers of the kernel's choice come after all others, as they did.

        If that cannot be had (/proc/sys is read-only, say), they are the lowest that are free.  Source: Linux
        kernel/pid_namespace.c, ``pid_ns_ctl_handler``.
        """
        text = b"%d" % last_pid
        for call, args, expect in (
            ("openat", (_AT_FDCWD, path(_LAST_PID), os.O_WRONLY, 0), 0),
            ("write", (0, data(text, f'"{last_pid}"'), len(text)), len(text)),
            ("close", (0,), 0),
        ):
            self.steps.append(
                Step(self.root.pid, Stage.TREE, call, args, expect=expect, tolerate=_UNAVAILABLE)
            )

    def _born_sessions(self, tasks: Sequence[Kinsman]) -> dict[int, int]:
        """A leader was born in a session that its own children still have, if they have none of hers."""
        needed: dict[int, set[int]] = {}
        for task in reversed(tasks):
            below = set[int]().union(*(needed[child.pid] for child in self.children[task.pid]))
            needed[task.pid] = {task.sid}
            if task.leads:
                needed[task.pid] = {sid for sid in below - {task.sid} if task.pid not in self._ancestors(sid)}
        born = {self.root.pid: self.root.sid}
        for task in tasks[1:]:
            parent = self.tasks[task.ppid]
            at_hand = {parent.sid, born[parent.pid]} & needed[task.pid]
            born[task.pid] = min(at_hand or needed[task.pid], default=parent.sid)
        return born

    def _is_orphan(self, task: Kinsman) -> bool:
        """Whether its parent never was in the session that it is born in."""
        return self.born[task.pid] not in (self.tasks[task.ppid].sid, self.born[task.ppid])

    def _places_of_helpers(self, tasks: Sequence[Kinsman]) -> dict[int, int]:
        """Below whom the helper of each session lives: the lowest of the parents of its orphans."""
        places: dict[int, int] = {}
        for task in filter(self._is_orphan, tasks):
            sid = self.born[task.pid]
            if sid not in self.tasks and (sid not in places or places[sid] in self._ancestors(task.ppid)):
                places[sid] = task.ppid
        return places

    # Births

    def _raise(self, task: Kinsman) -> Iterator[Kinsman]:
        """Below a task that exists: who can be born of their parents.  The rest are orphans."""
        stack = [task]
        while stack:
            parent = stack.pop()
            children = [child for child in self.children[parent.pid] if not self._is_orphan(child)]
            yield from filter(self._is_orphan, self.children[parent.pid])
            after = [child for child in children if self.born[child.pid] == parent.sid]
            before = [child for child in children if self.born[child.pid] != parent.sid]
            for child in before:
                self._bear(parent.pid, child)
            if parent.leads:
                self._step(parent.pid, "setsid", expect=parent.pid)
            for child in after:
                self._bear(parent.pid, child)
            stack.extend(reversed([*before, *after]))

    def _bear(self, maker: int, child: Kinsman, *, flags: int = 0) -> None:
        """With CLONE_PARENT it is told of the end of its maker's kind, which is SIGCHLD too."""
        flags |= self._shared(child, self.tasks.get(maker))
        if flags & CLONE_IO:  # there has to be something to share; its own priority comes later
            self._step(maker, "ioprio_set", _IOPRIO_WHO_PROCESS, 0, _BEST_EFFORT)
        self.made.add(child.pid)
        signal = 0 if flags & CLONE_PARENT else SIGCHLD
        args = clone_args(flags, child.pid, signal)
        self._step(maker, "clone3", *args, expect=child.pid, gives=_task(child.pid))

    def _shared(self, child: Kinsman, maker: Kinsman | None) -> int:
        """The flags for what a task shares; it can only do so with who makes it."""
        flags = CLONE_IO if child.shares_io and maker is not None and maker.pid == child.ppid else 0
        for name, (flag, what) in _SHARED.items():
            mine, its = getattr(child, name), getattr(maker, name, 0)
            if mine and mine == its:
                flags |= flag
            elif mine and mine in self.shared[name]:
                raise ImageError("pstree.img", f"task {child.pid} shares {what} with others than its parent")
            self.shared[name].add(mine)
        if flags & CLONE_SIGHAND and not flags & CLONE_VM:
            raise ImageError(
                "pstree.img", f"task {child.pid} shares signal actions, but not its address space"
            )
        return flags

    # Orphans

    def _adopt(self, orphans: list[Kinsman]) -> Iterator[Kinsman]:
        """Those who can be made now; gives back who cannot, and who is an orphan below them."""
        for orphan in orphans:
            sid = self.born[orphan.pid]
            if sid in self.places and sid not in self.helpers and self._exists(self.places[sid]):
                self._bring_helper(sid, self.places[sid], CLONE_PARENT)
                self._step(sid, "setsid", expect=sid)
            if self._make_orphan(orphan, sid):
                yield from self._raise(orphan)
            else:
                yield orphan

    def _make_orphan(self, orphan: Kinsman, leader: int) -> bool:
        """By the leader of the session that it is born in, for its parent."""
        parent = orphan.ppid
        if not self._exists(leader) or parent not in self._ancestors(leader):
            return False
        if self._parent(leader) == parent:
            self._bear(leader, orphan, flags=CLONE_PARENT)
            return True
        self.passing += 1
        between = PASSING + self.passing
        self._step(leader, "clone3", *clone_args(0, None), gives=_task(between))
        self._step(parent, "prctl", PR_SET_CHILD_SUBREAPER, 1)
        self._bear(between, orphan)
        self._step(between, "exit_group", 0)
        self._step(leader, "wait4", _task(between), 0, WALL, 0)
        self._step(parent, "prctl", PR_SET_CHILD_SUBREAPER, 0)
        return True

    def _exists(self, pid: int) -> bool:
        return pid in self.helpers or pid in self.made

    def _parent(self, pid: int) -> int:
        return self.helpers[pid] if pid in self.helpers else self.tasks[pid].ppid

    def _ancestors(self, pid: int) -> list[int]:
        """None of who is neither in the tree nor a helper."""
        found: list[int] = []
        while pid != self.root.pid and (pid in self.helpers or pid in self.tasks):
            pid = self._parent(pid)
            found.append(pid)
        return found

    # Helpers and groups

    def _bring_helper(self, pid: int, parent: int, kind: int) -> None:
        """CLONE_PARENT: for children that it gives to its parent, who have its signal."""
        self.helpers[pid] = parent
        if kind == CLONE_PARENT:
            self.told.add(parent)
        args = clone_args(0, pid, SIGCHLD if kind == CLONE_PARENT else 0)
        self._step(parent, "clone3", *args, expect=pid, gives=_task(pid))

    def _join_groups(self) -> None:
        """First groups are founded, last those go who have founded one and left it."""
        members = [task for task in self.tasks.values() if not task.leads and task.pgid]
        founded = {task.pgid for task in members}
        founders = [task for task in members if task.pid in founded]
        for task in founders:
            self._step(task.pid, "setpgid", 0, 0)
        others = [task for task in members if task.pid not in founded]
        for task in (*others, *(task for task in founders if task.pgid != task.pid)):
            if self._is_outside(task):
                continue
            if task.pgid not in self.tasks and task.pgid not in self.helpers:
                self._bring_helper(task.pgid, task.pid, 0)
                self._step(task.pgid, "setpgid", 0, 0)
            self._step(task.pid, "setpgid", 0, task.pgid)

    def _is_outside(self, task: Kinsman) -> bool:
        """In the group in which criupy itself runs: that of a shell's job which the root does not lead."""
        return (
            not self.root.leads
            and task.sid == self.root.sid
            and task.pgid in (self.root.pgid, self.root.sid)
            and (task.pgid not in self.tasks)
        )

    def _end_helpers(self) -> None:
        for pid in reversed(self.helpers):
            self._step(pid, "exit_group", 0)
            self._step(self.helpers[pid], "wait4", pid, 0, WALL, 0, expect=pid)


def _task(pid: int) -> Ref:
    return Ref("task", pid)
