"""A restore, written down before it happens: steps, what they give and need, and their order.

A `Step` is one system call in one restored task.  Arguments are numbers, memory that the call reads (`Data`) or
writes (`Out`), and answers of earlier steps (`Ref`, `Field`).  Nothing here touches the kernel: a plan can be made,
printed and compared without privileges.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from criupy.errors import ImageError
from criupy.images.pages import PagesFile

NURSERY = 0
"""Stands for a tid: the process that makes the root of the tree and holds what tasks share until they have it."""


class Stage(enum.IntEnum):
    """The phases of a restore, in order; a task finishes one before it starts the next.

    Those up to `HOLD` are over for everyone before anyone goes on, and so are the ones up to `CONTENT` and `ZOMBIES`.
    """

    NURSERY = 1
    """Namespaces that the tree will live in."""
    TREE = 2
    """Processes are born, in the order of the steps, with their sessions and groups."""
    HOLD = 5
    """Files that several tasks share are opened, in the nursery."""
    FILES = 10
    """Descriptors, at their final numbers; files are opened seen from the root of the mount namespace."""
    MAPPINGS = 20
    """Memory areas at their final addresses, still writable where content comes."""
    THREADS = 30
    """All threads exist (made by the engine, not by steps)."""
    CONTENT = 40
    """Page contents.  Steps of this stage are independent of each other and may run side by side."""
    ZOMBIES = 45
    """Those who are dead in the images die, and their parents forget that they were told."""
    PROTECTION = 50
    """Final protections, advice, locks, guard regions."""
    LAYOUT = 60
    """mm layout and the exe link (PR_SET_MM_MAP)."""
    FILESYSTEM = 70
    """Root, working directory, umask; from here on no path of the image is opened."""
    LIMITS = 80
    ATTRIBUTES = 90
    """Names, scheduling, per-thread registrations, everything that neither needs nor drops a privilege."""
    SIGNALS = 100
    """Actions first, then pending signals; all signals are blocked meanwhile."""
    SECCOMP = 110
    """Filters; suspended until the task is released."""
    CREDENTIALS = 120
    """The last privileges go; what a change of ids resets (dumpable, pdeath_sig) comes after it in here."""
    TIMERS = 130
    """Timers start to run."""


class Ref(NamedTuple):
    """The answer of a step, by name: ``Ref("file", 2)`` prints as ``<file 0x2>``."""

    kind: str
    key: int

    def __str__(self) -> str:
        return f"<{self.kind} {self.key:#x}>"


def outer_pid(pid: int) -> Ref:
    """The number that a process of the tree has for the nursery, which lives outside: the engine gives it."""
    return Ref("process", pid)


class Data(NamedTuple):
    """Memory that a call reads: bytes, with the address of other memory in between where a part is a `Data`."""

    parts: tuple[bytes | Data, ...]
    text: str = ""
    """What to print instead of the bytes."""

    def __str__(self) -> str:
        if self.text:
            return self.text
        inner = ", ".join(
            str(part) if isinstance(part, Data) else f"{len(part)} bytes" for part in self.parts
        )
        return f"&[{inner}]"


def path(name: bytes) -> Data:
    """A NUL-terminated path as an argument."""
    return Data((name + b"\0",), text='"' + name.decode("utf-8", "backslashreplace") + '"')


def data(content: bytes, text: str = "") -> Data:
    """Plain memory as an argument."""
    return Data((content,), text)


class Out(NamedTuple):
    """Memory that a call writes, ``size`` bytes, zero before; later steps read it as `Field`."""

    ref: Ref
    size: int

    def __str__(self) -> str:
        return f"&{self.ref}"


class Field(NamedTuple):
    """The 32 bits at ``offset`` of an `Out` of the same task, as an unsigned number."""

    ref: Ref
    offset: int

    def __str__(self) -> str:
        return f"{self.ref}[{self.offset}]"


Arg = int | Ref | Data | Out | Field


SIGCHLD = 17
CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND = 0x100, 0x200, 0x400, 0x800
CLONE_PARENT, CLONE_NEWPID, CLONE_IO = 0x8000, 0x2000_0000, 0x8000_0000
_CLONE_FLAGS = {
    CLONE_VM: "CLONE_VM",
    CLONE_FS: "CLONE_FS",
    CLONE_FILES: "CLONE_FILES",
    CLONE_SIGHAND: "CLONE_SIGHAND",
    CLONE_PARENT: "CLONE_PARENT",
    CLONE_NEWPID: "CLONE_NEWPID",
    CLONE_IO: "CLONE_IO",
}


def clone_args(flags: int, tid: int | None, signal: int = 0) -> tuple[Data, int]:
    """The arguments of clone3(2): ``tid`` is what the new task shall have, ``signal`` what its end is told by.

    Source: Linux include/uapi/linux/sched.h, ``struct clone_args``.
    """
    head = struct.pack("<8Q", flags, 0, 0, 0, signal, 0, 0, 0)
    names = "|".join(name for bit, name in _CLONE_FLAGS.items() if flags & bit)
    words = [names] if names else []
    if tid is None:
        return Data((head + bytes(24),), f"{{{', '.join(words)}}}"), 88
    words.append(f"set_tid={tid}")
    wanted = Data((struct.pack("<i", tid),), f"[{tid}]")
    return Data((head, wanted, struct.pack("<2Q", 1, 0)), f"{{{', '.join(words)}}}"), 88


class Step(NamedTuple):
    """One system call in the task ``tid``.

    ``gives`` names the answer; ``tolerate`` holds the errnos that are no failure; ``expect`` is the only answer that
    is one not (a short read is a failure).  ``about`` names the object for the error message: ``fd 7 (eventfd)``.
    """

    tid: int
    stage: Stage
    call: str
    args: tuple[Arg, ...] = ()
    gives: Ref | None = None
    tolerate: frozenset[int] = frozenset()
    expect: int | None = None
    about: str = ""

    def needs(self) -> Iterator[Ref]:
        """The answers that this step uses."""
        for arg in self.args:
            if isinstance(arg, Ref):
                yield arg
            elif isinstance(arg, Field):
                yield arg.ref

    def made(self) -> Iterator[Ref]:
        """The answers that this step gives."""
        if self.gives is not None:
            yield self.gives
        for arg in self.args:
            if isinstance(arg, Out):
                yield arg.ref

    def __str__(self) -> str:
        def show(arg: Arg) -> str:
            return (hex(arg) if arg > 4096 else str(arg)) if isinstance(arg, int) else str(arg)

        result = f" = {self.gives}" if self.gives is not None else ""
        return f"{self.call}({', '.join(map(show, self.args))}){result}"


class ThreadState(NamedTuple):
    """What ptrace gives a restored thread at the very end.

    ``registers``: the 27 words of ``user_regs_struct`` in kernel order; ``xstate``: an NT_X86_XSTATE area in the
    standard format of the size that this processor has; ``sigmask``: bit signo-1.
    """

    tid: int
    registers: tuple[int, ...]
    xstate: bytes
    sigmask: int


class TaskPlan(NamedTuple):
    """One living process: its threads (leader first, unless that has ended) and the states they start to run with."""

    pid: int
    threads: tuple[ThreadState, ...]
    stopped: bool = False
    """Whether the task was in a job-control stop."""
    descriptors: int = 0
    """Its descriptor table: the same number means that tasks share one."""
    directories: int = 0
    """The same of root, working directory and umask."""
    memory: int = 0
    """The same of its address space."""

    @property
    def tids(self) -> tuple[int, ...]:
        """Of its threads."""
        return tuple(thread.tid for thread in self.threads)


class Revived(NamedTuple):
    """A file without a name, open in the nursery: what a remap leads to, the name that it had, and how it is open."""

    kind: int
    number: int
    name: bytes
    flags: int


class Terminal(NamedTuple):
    """Something of a terminal that the nursery is given; what ``number`` is depends on the ``kind``.

    See `criupy.resources.terminalrestore`.
    """

    kind: str
    number: int


class StubPlan(NamedTuple):
    """What all tasks have in common while they are being built."""

    base: int
    """A page-aligned address range of `STUB_SPACE` bytes that no area of the images touches."""
    meeting_signal: int = 23
    """A signal that nothing in the images has pending or about to come: stub threads meet the tracer with it."""
    nursery_fd: int = 0
    """The number of a descriptor that every task has for the nursery, above all of its own."""
    pages: tuple[PagesFile, ...] = ()
    """The pages files; the nursery has them open at their places in here."""
    terminals: tuple[Terminal, ...] = ()
    """What it has open at the numbers after those."""
    revived: tuple[Revived, ...] = ()
    """What it has open after them."""
    helpers: tuple[int, ...] = ()
    """Pids that are needed for a moment: of leaders of sessions and groups who are dead."""
    own_pids: bool = False
    """Whether the tree is born in a pid namespace of its own: all numbers are those inside, the root's is 1."""

    @property
    def given(self) -> int:
        """How many descriptors the nursery has from the beginning, at the numbers from 0 on."""
        return len(self.pages) + len(self.terminals) + len(self.revived)


STUB_SPACE = 1 << 30
"""Address space kept free for the restorer inside each task, in bytes; only a little of it is mapped."""


@dataclass(frozen=True)
class RestorePlan:
    """Everything that a restore will do, in order."""

    tasks: tuple[TaskPlan, ...]
    steps: tuple[Step, ...]
    stub: StubPlan
    warnings: tuple[str, ...] = field(default=())

    def stages(self) -> Iterator[tuple[Stage, list[Step]]]:
        """The steps stage by stage."""
        current: list[Step] = []
        for step in self.steps:
            if current and step.stage != current[0].stage:
                yield current[0].stage, current
                current = []
            current.append(step)
        if current:
            yield current[0].stage, current

    def __str__(self) -> str:
        lines = [f"{step.stage.name.lower():<12}{_who(step.tid):>7}  {step}" for step in self.steps]
        lines += [
            f"{'resume':<12}{thread.tid:>7}  registers, {len(thread.xstate)} bytes of xstate, mask"
            for task in self.tasks
            for thread in task.threads
        ]
        return "\n".join(lines)


def _who(tid: int) -> str:
    return str(tid) if tid else "nursery"


def order(steps: Iterable[Step], given: frozenset[Ref] = frozenset()) -> tuple[Step, ...]:
    """The steps by stage, then so that each comes after what it needs, otherwise as they were.

    ``given``: answers that the engine has before the first step.
    Raises `ImageError` for an answer that no step gives, and for steps that wait for each other.
    """
    staged = sorted(steps, key=attrgetter("stage"))
    if _is_in_order(staged, given):
        return tuple(staged)
    givers: dict[Ref, int] = {}
    for index, step in enumerate(staged):
        for ref in step.made():
            givers.setdefault(ref, index)
    done: list[Step] = []
    finished: set[int] = set()
    entered: set[int] = set()

    def visit(start: int) -> None:
        stack = [start]
        while stack:
            index = stack[-1]
            if index in finished:
                stack.pop()
                continue
            needs = (ref for ref in staged[index].needs() if ref not in given)
            waiting = [ref for ref in needs if _giver(givers, ref, staged[index]) not in finished]
            if not waiting:
                finished.add(index)
                done.append(staged[index])
                stack.pop()
                continue
            if index in entered:
                raise ImageError("restore plan", f"steps wait for each other at {staged[index]}")
            entered.add(index)
            stack.extend(givers[ref] for ref in waiting)

    for index in range(len(staged)):
        visit(index)
    return tuple(done)


def _is_in_order(steps: Iterable[Step], given: frozenset[Ref]) -> bool:
    """Whether every step comes after what it needs, as is mostly so."""
    there = set(given)
    for step in steps:
        for arg in step.args:
            if type(arg) is Ref:
                if arg not in there:
                    return False
            elif type(arg) is Field:
                if arg.ref not in there:
                    return False
            elif type(arg) is Out:
                there.add(arg.ref)
        if step.gives is not None:
            there.add(step.gives)
    return True


def _giver(givers: dict[Ref, int], ref: Ref, step: Step) -> int:
    if ref not in givers:
        raise ImageError("restore plan", f"{step} needs {ref}, which nothing in the image set gives")
    return givers[ref]
