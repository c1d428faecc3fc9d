"""What a thread library registers with the kernel for each thread: the tid address and the robust futex list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.linux import syscalls
from criupy.linux.prctl import PR_GET_TID_ADDRESS
from criupy.model.plan import Stage, Step
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject


class ThreadingFacts(NamedTuple):
    """Addresses, 0 for none; ``robust_length`` in bytes."""

    tid_address: int
    robust_list: int
    robust_length: int


class Threading(Dumpable):
    """set_tid_address(2), set_robust_list(2).  Image: ``clear_tid_addr``, ``futex_rla``, ``futex_rla_len``.

    Source: Linux kernel/fork.c, kernel/futex/syscalls.c.
    """

    name = "threading"
    per_thread = True

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        address = ask.out(8)
        ask.call("prctl", PR_GET_TID_ADDRESS, address)
        robust = syscalls.get_robust_list(subject.tid)
        return lambda results: ThreadingFacts(int.from_bytes(results.bytes(address), "little"), *robust)

    def encode(self, facts: ThreadingFacts, core: core_entry, sink: DumpSink) -> None:
        core.thread_info.clear_tid_addr = facts.tid_address
        core.thread_core.futex_rla = facts.robust_list
        core.thread_core.futex_rla_len = facts.robust_length

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        yield Step(subject.tid, Stage.ATTRIBUTES, "set_tid_address", (core.thread_info.clear_tid_addr,))
        thread = core.thread_core
        if thread.futex_rla_len:
            robust = (thread.futex_rla, thread.futex_rla_len)
            # As late as can be: if the restore fails after this, the kernel marks futexes of the list as abandoned,
            # also those in memory that is shared with others.
            yield Step(subject.tid, Stage.TIMERS, "set_robust_list", robust)
