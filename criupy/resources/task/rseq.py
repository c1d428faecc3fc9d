"""Restartable sequences: the registration, and threads that are stopped inside a critical section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import TraceeError
from criupy.linux.abi import RSEQ_CRITICAL_SECTION
from criupy.model.plan import Stage, Step
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject
    from criupy.tracee.ptrace import Tracee

_CRITICAL_SECTION_POINTER = 8
"""offsetof(struct rseq, rseq_cs).  Source: Linux include/uapi/linux/rseq.h."""
_NO_RESTART_ON_SIGNAL = 2
_IN_SYSCALL = (1 << 63) - 1


class RseqFacts(NamedTuple):
    """``pointer`` is 0 without a registration; ``section``: (address, flags, abort address) of the critical section
    that the thread is in."""

    pointer: int
    size: int
    signature: int
    section: tuple[int, int, int] | None = None


class Rseq(Dumpable):
    """rseq(2).  Image: ``thread_core.rseq_entry``.

    A thread stopped inside a critical section goes on at its abort address, as after any preemption; only a
    section that asks not to be restarted on signals is kept (kernels since v6.1 know no such).  Must be encoded
    after the registers.
    """

    name = "rseq"
    per_thread = True

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        pointer, size, signature, _ = subject.thread.rseq()
        section = _critical_section(subject.thread, pointer) if pointer else None
        return lambda _: RseqFacts(int(pointer), size, signature, section)

    def encode(self, facts: RseqFacts, core: core_entry, sink: DumpSink) -> None:
        entry = core.thread_core.rseq_entry
        entry.rseq_abi_pointer, entry.rseq_abi_size, entry.signature = (
            facts.pointer,
            facts.size,
            facts.signature,
        )
        if facts.section is not None:
            address, flags, abort = facts.section
            if flags & _NO_RESTART_ON_SIGNAL:
                entry.rseq_cs_pointer = address
            else:
                core.thread_info.gpregs.ip = abort

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        entry = core.thread_core.rseq_entry
        if not entry.rseq_abi_pointer:
            return
        if entry.HasField("rseq_cs_pointer"):
            subject.warn(f"thread {subject.tid} goes on in an rseq critical section that is not restarted")
        registration = (entry.rseq_abi_pointer, entry.rseq_abi_size, 0, entry.signature)
        yield Step(subject.tid, Stage.ATTRIBUTES, "rseq", registration)


def _critical_section(thread: Tracee, pointer: int) -> tuple[int, int, int] | None:
    """The critical section that the thread is in: nobody is in one inside a system call.

    Source: Linux kernel/rseq.c, rseq_ip_fixup.
    """
    registers = thread.regs()
    if registers.orig_rax <= _IN_SYSCALL:
        return None
    try:
        address = int.from_bytes(thread.memory.read(pointer + _CRITICAL_SECTION_POINTER, 8), "little")
        if not address:
            return None
        content = thread.memory.read(address, RSEQ_CRITICAL_SECTION.size)
    except TraceeError:
        return None  # a registration that leads nowhere: the kernel would end the task for it, not the dump
    _, flags, start, length, abort = RSEQ_CRITICAL_SECTION.unpack(content)
    return (address, flags, abort) if 0 <= registers.rip - start < length else None
