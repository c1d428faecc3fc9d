"""What prctl(2) keeps for a thread or a process and no other kind looks after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError
from criupy.linux.prctl import (
    PR_GET_CHILD_SUBREAPER,
    PR_GET_DUMPABLE,
    PR_GET_PDEATHSIG,
    PR_GET_THP_DISABLE,
    PR_GET_TIMERSLACK,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    PR_SET_THP_DISABLE,
    PR_SET_TIMERSLACK,
)
from criupy.model.plan import Stage, Step
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.images.pb.memory_pb2 import mm_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject
    from criupy.tracee.batch import Results

_LAST_SIGNAL = 64


class ThreadPrctlFacts(NamedTuple):
    """``death_signal`` is 0 for none, ``timer_slack`` in ns."""

    death_signal: int
    timer_slack: int


class ThreadPrctls(Dumpable):
    """Image: ``thread_core.pdeath_sig``, own field ``timer_slack_ns``.  Planned after the credentials."""

    name = "thread attributes"
    per_thread = True

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        signal = ask.out(4)
        ask.call("prctl", PR_GET_PDEATHSIG, signal)
        slack = ask.call("prctl", PR_GET_TIMERSLACK)

        def finish(results: Results) -> ThreadPrctlFacts:
            return ThreadPrctlFacts(int.from_bytes(results.bytes(signal), "little"), results[slack])

        return finish

    def encode(self, facts: ThreadPrctlFacts, core: core_entry, sink: DumpSink) -> None:
        if facts.death_signal:
            core.thread_core.pdeath_sig = facts.death_signal
        core.thread_core.timer_slack_ns = facts.timer_slack

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        thread, tid = core.thread_core, subject.tid
        if thread.timer_slack_ns not in (0, subject.features.timer_slack_ns):
            yield Step(tid, Stage.ATTRIBUTES, "prctl", (PR_SET_TIMERSLACK, thread.timer_slack_ns))
        if thread.pdeath_sig > _LAST_SIGNAL:
            raise ImageError(f"core-{tid}.img", f"pdeath_sig is {thread.pdeath_sig}")
        if thread.pdeath_sig:  # a change of ids would have reset it
            if not subject.task.pstree.ppid:
                subject.warn(
                    f"thread {tid}: criupy is its parent now, whose end sends it signal {thread.pdeath_sig}"
                )
            yield Step(tid, Stage.CREDENTIALS, "prctl", (PR_SET_PDEATHSIG, thread.pdeath_sig))


class ProcessPrctlFacts(NamedTuple):
    """``dumpable`` as PR_GET_DUMPABLE has it: 0 no, 1 yes, 2 by root only."""

    child_subreaper: bool
    dumpable: int
    thp_disabled: bool


class ProcessPrctls(Dumpable):
    """Image: ``tc.child_subreaper``; ``dumpable`` and ``thp_disabled`` of ``mm_entry`` (`encode_mm`)."""

    name = "process attributes"
    per_thread = False

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        reaper = ask.out(4)
        ask.call("prctl", PR_GET_CHILD_SUBREAPER, reaper)
        dumpable = ask.call("prctl", PR_GET_DUMPABLE)
        thp = ask.call("prctl", PR_GET_THP_DISABLE, 0, 0, 0, 0)

        def finish(results: Results) -> ProcessPrctlFacts:
            return ProcessPrctlFacts(any(results.bytes(reaper)), results[dumpable], bool(results[thp]))

        return finish

    def encode(self, facts: ProcessPrctlFacts, core: core_entry, sink: DumpSink) -> None:
        core.tc.child_subreaper = facts.child_subreaper

    def encode_mm(self, facts: ProcessPrctlFacts, mm: mm_entry) -> None:
        """Fill the part that the image has in mm-PID.img."""
        mm.dumpable = facts.dumpable
        mm.thp_disabled = facts.thp_disabled

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        tid, mm = subject.tid, subject.task.mm
        if core.tc.child_subreaper:
            yield Step(tid, Stage.ATTRIBUTES, "prctl", (PR_SET_CHILD_SUBREAPER, 1))
        if mm is None:
            return
        # Before there is content that could get huge pages.
        yield Step(tid, Stage.MAPPINGS, "prctl", (PR_SET_THP_DISABLE, int(mm.thp_disabled), 0, 0, 0))
        if mm.HasField("dumpable"):
            # A change of ids by any thread resets it, so all of them are over; nobody can ask for 2.
            yield Step(tid, Stage.TIMERS, "prctl", (PR_SET_DUMPABLE, int(mm.dumpable == 1)))
