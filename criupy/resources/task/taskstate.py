"""Whether a process runs, is stopped or is dead, and its flags and personality."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError
from criupy.linux.abi import SIGINFO_SIZE
from criupy.linux.prctl import PR_SET_DUMPABLE, PR_SET_NAME
from criupy.linux.procfs import task as procfs
from criupy.linux.syscalls import SIG_SETMASK
from criupy.model.plan import Stage, Step, data, path
from criupy.resources.pidnumbers import own_number
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject
    from criupy.tracee.batch import Out, Results

ALIVE, DEAD, STOPPED = 1, 2, 3
LAST_SIGNAL = 64
_P_PID = 1
_STOPPED_NOW = os.WSTOPPED | os.WNOHANG
_SI_PID = slice(16, 20)
"""si_pid of a siginfo_t.  Source: Linux include/uapi/asm-generic/siginfo.h."""
READ_IMPLIES_EXEC = 0x0400000
"""Source: Linux include/uapi/linux/personality.h."""


class TaskStateFacts(NamedTuple):
    """``stat`` and ``personality`` as read; ``stop_signal`` is 0 for a process that is not stopped.

    ``reported_stops``: stopped children of which wait(2) has told.
    """

    stat: bytes
    personality: bytes
    stop_signal: int
    reported_stops: tuple[int, ...] = ()


class TaskState(Dumpable):
    """Image: ``tc.task_state``, ``stop_signo``, ``exit_code``, ``flags``, ``personality``.

    The stop itself is given back with the registers, see `criupy.model.plan.TaskPlan`.
    """

    name = "task state"
    per_thread = False

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        facts = TaskStateFacts(
            subject.read("stat"), subject.read("personality"), subject.process.stopped_by or 0
        )
        told: dict[int, Out] = {}
        for child in map(own_number, subject.process.stopped_children):
            told[child] = ask.out(SIGINFO_SIZE)
            ask.call("waitid", _P_PID, child, told[child], _STOPPED_NOW | os.WNOWAIT, 0, tolerate=True)

        def finish(results: Results) -> TaskStateFacts:
            reported = (child for child, info in told.items() if not any(results.bytes(info)[_SI_PID]))
            return facts._replace(reported_stops=tuple(reported))

        return finish

    def encode(self, facts: TaskStateFacts, core: core_entry, sink: DumpSink) -> None:
        core.tc.task_state = STOPPED if facts.stop_signal else ALIVE
        if facts.stop_signal:
            core.tc.stop_signo = facts.stop_signal
        core.tc.exit_code = 0
        core.tc.reported_stops.extend(facts.reported_stops)
        stat = procfs.stat(facts.stat)
        core.tc.flags = stat.flags
        if not stat.terminal:
            core.tc.no_terminal = True
        core.tc.personality = _as_decimal(facts.personality)
        core.tc.true_personality = int(facts.personality, 16)

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        for child in core.tc.reported_stops:
            args = (_P_PID, child, 0, _STOPPED_NOW, 0)
            yield Step(subject.tid, Stage.ZOMBIES, "waitid", args, about=f"stop of child {child}")
        yield from self._plan_personality(core, subject)

    def _plan_personality(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        personality = _personality(core)
        if personality is None:
            return
        # Threads inherit it, except for what would change the protection of mappings to come.
        yield Step(subject.tid, Stage.FILES, "personality", (personality & ~READ_IMPLIES_EXEC,))
        if personality & READ_IMPLIES_EXEC:
            for tid in subject.task.threads:
                yield Step(tid, Stage.ATTRIBUTES, "personality", (personality,))


def _as_decimal(text: bytes) -> int:
    """The leading decimal digits of a hexadecimal text: what CRIU makes of it, and ignores when it restores."""
    digits = text.strip()
    end = next((index for index, digit in enumerate(digits) if digit not in b"0123456789"), len(digits))
    return int(digits[:end] or b"0")


def _personality(core: core_entry) -> int | None:
    """The number for personality(2); of an image of CRIU's, what the digits in it mean, if they can."""
    if core.tc.HasField("true_personality"):
        return core.tc.true_personality
    digits = str(core.tc.personality)
    return int(digits, 16) if len(digits) <= 8 else None


_EXIT, _NO_CALL, _ALL_SIGNALS = 60, (1 << 64) - 1, (1 << 64) - 1


def dead_leader(core: core_entry, first: core_entry, stat: bytes, system_call: int) -> None:
    """Complete the core of a leader that has ended while others go on, the first of which has the core ``first``.

    CRIU, which knows of no such thing, gets a thread whose first instruction, at ``system_call``, makes it end.
    """
    core.tc.dead_leader = procfs.stat(stat).exit_code
    core.tc.blk_sigset = _ALL_SIGNALS
    core.thread_core.futex_rla = core.thread_core.futex_rla_len = 0
    if system_call:
        core.thread_info.CopyFrom(first.thread_info)
        core.thread_info.clear_tid_addr = 0
        registers = core.thread_info.gpregs
        registers.ip, registers.ax, registers.orig_ax = system_call, _EXIT, _NO_CALL
        registers.di = core.tc.dead_leader >> 8


def plan_end_of_leader(core: core_entry, pid: int) -> Step:
    """The last step of a main thread that ends while others go on."""
    return Step(pid, Stage.ZOMBIES, "exit", (core.tc.dead_leader >> 8,), about="end of the main thread")


_TASK_COMM = 15
_NOT_FATAL = (17, 18, 19, 20, 21, 22, 23, 28)
"""Signals that end nobody by default.  Source: signal(7)."""


def plan_death(core: core_entry, pid: int) -> Iterator[Step]:
    """A task that is a zombie in the images dies as it did then; nobody has to dump its core again."""
    status, file = core.tc.exit_code, f"core-{pid}.img"
    signo, code = status & 0x7F, status >> 8 & 0xFF
    yield Step(pid, Stage.ZOMBIES, "prctl", (PR_SET_NAME, path(core.tc.comm[:_TASK_COMM])))
    if not signo:
        yield Step(pid, Stage.ZOMBIES, "exit_group", (code,))
        return
    if signo in _NOT_FATAL or signo > LAST_SIGNAL:
        raise ImageError(file, f"nobody dies of signal {signo}")
    yield Step(pid, Stage.ZOMBIES, "prctl", (PR_SET_DUMPABLE, 0))
    yield Step(pid, Stage.ZOMBIES, "rt_sigprocmask", (SIG_SETMASK, data(bytes(8), "{}"), 0, 8))
    yield Step(pid, Stage.ZOMBIES, "tgkill", (pid, pid, signo))


def zombie(core: core_entry, stat: bytes) -> None:
    """Fill the core of a dead process that waits for its parent, from its ``stat``.

    ``exit_code`` is the whole wait status; CRIU gives 7 bits of it back.
    """
    facts = procfs.stat(stat)
    core.mtype = core.X86_64
    core.tc.task_state = DEAD
    core.tc.exit_code = facts.exit_code
    core.tc.personality = 0
    core.tc.flags = facts.flags
    core.tc.blk_sigset = 0
    core.tc.comm = facts.comm
