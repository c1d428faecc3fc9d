"""Registrations for membarrier(2) commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from criupy.model.plan import Stage, Step
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject
    from criupy.tracee.batch import Results

GET_REGISTRATIONS = 1 << 9
"""MEMBARRIER_CMD_GET_REGISTRATIONS, since v6.3.  Source: Linux include/uapi/linux/membarrier.h."""


class Membarrier(Dumpable):
    """Image: ``tc.membarrier_registration_mask``, a bit for each MEMBARRIER_CMD_REGISTER_* in force."""

    name = "membarrier"
    per_thread = False

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        slot = ask.call("membarrier", GET_REGISTRATIONS, 0, 0, tolerate=True)

        def finish(results: Results) -> int:
            return max(0, results[slot])  # an older kernel cannot tell

        return finish

    def encode(self, facts: int, core: core_entry, sink: DumpSink) -> None:
        if facts:
            core.tc.membarrier_registration_mask = facts

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        mask = core.tc.membarrier_registration_mask
        for bit in range(mask.bit_length()):
            if mask >> bit & 1:
                yield Step(subject.tid, Stage.ATTRIBUTES, "membarrier", (1 << bit, 0, 0))
