"""The name of a thread, PR_SET_NAME: at most 15 bytes of anything but NUL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.linux.prctl import PR_SET_NAME
from criupy.linux.procfs import task as procfs
from criupy.model.plan import Stage, Step, path
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject

_SIZE = 16


class CommFacts(NamedTuple):
    """``status`` as read; the name is in there."""

    status: bytes
    is_leader: bool


class Comm(Dumpable):
    """Image: ``thread_core.comm``; for a leader ``tc.comm`` too, the name of threads that have none in old images."""

    name = "comm"
    per_thread = True
    outlives = True

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        status, leader = subject.read("status"), subject.is_leader
        return lambda _: CommFacts(status, leader)

    def encode(self, facts: CommFacts, core: core_entry, sink: DumpSink) -> None:
        name = procfs.comm(facts.status)
        core.thread_core.comm = name
        if facts.is_leader:
            core.tc.comm = name

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        comm = core.thread_core.comm if core.thread_core.HasField("comm") else subject.task.core.tc.comm
        yield Step(subject.tid, Stage.ATTRIBUTES, "prctl", (PR_SET_NAME, path(comm[: _SIZE - 1])))
