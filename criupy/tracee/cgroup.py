"""Freezing by a cgroup: everyone in it stands at the same moment, before the first thread is asked to stop.

The cgroup is frozen, its threads are seized and asked to stop, and it is thawed again: every thread comes to its
ptrace-stop before it runs any code of its own.  So it has to be with both freezers.  With v1 a frozen thread sleeps
where it is and comes to no other stop before it is thawed.  With v2 it does come to its ptrace-stop, but from there
goes back to be frozen, so that no batch would ever run.  Source: Linux kernel/freezer.c, kernel/signal.c
(``get_signal``, ``do_freezer_trap``).

A cgroup stays frozen whatever becomes of who froze it, so a guardian process gives it back when criupy is killed.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from criupy.errors import FreezeError, TraceeError, UsageError
from criupy.linux.cgroup import V1, Cgroup
from criupy.linux.family import Member
from criupy.tracee import guardian
from criupy.tracee.ptrace import Step, held_signals, nothing

_PATIENCE = 0.1
_GRACE, _LONGEST = 0.5, 1e6
_THAWED, _DONE = b"t", b"."
_CAUGHT = "__refrigerator"
"""Where the v1 freezer holds a thread that was on its way to user mode."""
_MAY_EXECUTE = frozenset({"running", "59", "322"})  # execve, execveat


def check(cgroup: Cgroup) -> None:
    """`UsageError` when criupy would freeze itself, `FreezeError` when a cgroup above keeps this one frozen."""
    if os.getpid() in cgroup.tids():
        raise UsageError(
            f"criupy itself is in {cgroup.path}, and would be frozen with it",
            hint="run criupy in another cgroup, or name one that has the tree alone",
        )
    for above in cgroup.above():
        if above.was_ordered():
            raise FreezeError(
                f"{cgroup.path} is kept frozen by {above.path} above it",
                hint=f"thaw that one first, or name it: --freeze-cgroup {above.path}",
            )


def seizable(cgroup: Cgroup, members: Iterable[Member]) -> list[Member]:
    """The members with those of their threads that can be seized while the cgroup is frozen, or is on its way.

    To seize some threads takes as long as the freezer holds them or others; they can be seized after the thaw.
    """
    of_process = _all_standing if cgroup.is_frozen() else _some_standing
    return [member._replace(tids=frozenset(of_process(cgroup, member))) for member in members]


def _all_standing(cgroup: Cgroup, member: Member) -> Iterable[int]:
    """Not whom a signal has stopped, with v1: seizing waits for the change to a ptrace-stop, and v1 allows none.

    Its state does not show (since v6.1).  A kernel without symbols says 0, and that may be a stop.
    Source: Linux kernel/ptrace.c, ``ptrace_attach``; kernel/freezer.c, ``__set_task_frozen``.
    """
    if cgroup.freezer is not V1:
        return member.tids
    return (tid for tid in member.tids if _wchan(member.pid, tid) not in ("do_signal_stop", "0"))


def _some_standing(cgroup: Cgroup, member: Member) -> Iterable[int]:
    """Who is known to stand; and nobody whose process may be executing a program.

    Seizing waits for the end of that, which waits for the other threads to die, which a v1 freezer does not allow.
    Source: Linux kernel/ptrace.c, ``ptrace_attach``; fs/exec.c, ``de_thread``.
    """
    caught = {tid for tid in member.tids if _wchan(member.pid, tid) == _CAUGHT}
    if any(_syscall(member.pid, tid) in _MAY_EXECUTE for tid in member.tids - caught):
        return ()
    return caught if cgroup.freezer is V1 else member.tids


def _wchan(pid: int, tid: int) -> str:
    """Where in the kernel a thread sleeps."""
    return _read(f"/proc/{pid}/task/{tid}/wchan")


def _syscall(pid: int, tid: int) -> str:
    """The number of the call that a thread sleeps in; it may be running."""
    return _read(f"/proc/{pid}/task/{tid}/syscall").split(maxsplit=1)[0]


def _read(path: str) -> str:
    """Something that says nothing for a thread that is gone."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read() or "0"
    except (FileNotFoundError, ProcessLookupError):
        return "0"


class BorrowedCgroup:
    """A cgroup whose freezer is ours until the end of the context: then it is as somebody had left it before.

    Those below that somebody has frozen are thawed and frozen again with it.  On entry: what `check` says.  If criupy
    should hang while it is frozen, it is thawed soon after ``deadline`` (`time.monotonic`).
    """

    def __init__(self, cgroup: Cgroup, deadline: float, *, step: Step = nothing) -> None:
        self.cgroup = cgroup
        self._deadline = deadline
        self._step = step
        self._ordered: list[Cgroup] = []

    def __enter__(self) -> Self:
        check(self.cgroup)
        self._ordered = [cgroup for cgroup in self.cgroup.subtree() if cgroup.was_ordered()]
        try:
            with held_signals():  # for good in the child
                self._guardian = guardian.Watch(self._guard)
        except OSError as error:
            raise TraceeError("starting a process that guards the cgroup", errno=error.errno or 0) from error
        self._step("start the guardian")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Threads that stand in a ptrace-stop now are frozen when they are let go of, and run nothing in between."""
        with held_signals():
            self._guardian.tell(_THAWED)  # or it might thaw what is frozen now
            self._give_back()
            self._step("give back the cgroup")
            self._guardian.tell(_DONE)
        self._guardian.finish()

    def stop(self, catch: Callable[[], None], come: Callable[[], None]) -> None:
        """Freeze all who are in it, let ``catch`` ask them to stop, thaw them.

        `FreezeError` when they do not all stand in time, `TraceeError` when the kernel refuses.
        With v1 it may take several attempts: a thread that executes a program waits for the others of its process to
        die, and who is frozen does not die.  At each those are caught who do stand, as some calls that the freezer
        interrupts have to be made to go on, and ``come`` waits for them.  Each has twice the time of the one before, as
        on a busy machine nobody is frozen before it has had a processor.
        """
        patience = _PATIENCE
        while not self._stop(catch, patience):
            patience *= 2
            if time.monotonic() > self._deadline:
                raise FreezeError(
                    f"not everyone in {self.cgroup.path} stands in time",
                    hint="allow more time (--timeout); who waits for a device or a server stands only after that",
                )
            come()
        # While it lives, every page of ours that changes is copied: done with it as soon as may be.
        self._guardian.tell(_THAWED if self._ordered else _DONE)

    def _stop(self, catch: Callable[[], None], patience: float) -> bool:
        with ExitStack() as way_out:
            way_out.callback(self._step, "thaw the cgroup")
            way_out.callback(self._thaw)
            _order(self.cgroup, frozen=True)
            self._step("freeze the cgroup")
            way_out.callback(catch)
            all_stand = _all_stand([self.cgroup], min(self._deadline, time.monotonic() + patience))
            self._step("wait for the cgroup")
        return all_stand

    def _guard(self, hearing: int) -> None:
        """The life of the guardian; should criupy hang in a call that only this ends, it thaws."""
        limit = min(max(0.0, self._deadline - time.monotonic()) + _GRACE, _LONGEST)
        poll = select.poll()
        poll.register(hearing, select.POLLIN)
        if not poll.poll(1000 * limit):
            self._thaw()
        while (word := os.read(hearing, 1)) == _THAWED:
            pass
        if word != _DONE:
            self._give_back()

    def _thaw(self) -> None:
        with held_signals():
            for cgroup in (self.cgroup, *self._ordered):
                _order(cgroup, frozen=False)

    def _give_back(self) -> None:
        for cgroup in self._ordered:
            _order(cgroup, frozen=True)
        if self.cgroup not in self._ordered:
            _order(self.cgroup, frozen=False)
        _all_stand(self._ordered, time.monotonic() + _PATIENCE)


def _all_stand(cgroups: Sequence[Cgroup], deadline: float) -> bool:
    """Wait until cgroups that were ordered to freeze are frozen; False: they are not before ``deadline``.

    The order is given again: v1 forgets it for a thread that is stopped by a signal just then.
    """
    pause = 0.0002
    while not all(cgroup.is_frozen() for cgroup in cgroups):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.01)
        for cgroup in cgroups:
            _order(cgroup, frozen=True)
    return True


def _order(cgroup: Cgroup, *, frozen: bool) -> None:
    try:
        (cgroup.freeze if frozen else cgroup.thaw)()
    except OSError as error:
        what = "freezing" if frozen else "thawing"
        raise TraceeError(f"{what} {cgroup.path}", errno=error.errno or 0) from error
