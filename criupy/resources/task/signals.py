"""Signals: what a process does on them, which wait, which are blocked, and the stack for handlers."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError
from criupy.linux.abi import SIGINFO_SIZE
from criupy.linux.procfs import task as procfs
from criupy.linux.syscalls import PIDFD_SIGNAL_THREAD_GROUP, PIDFD_THREAD
from criupy.model.plan import Data, Ref, Stage, Step, data
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry, sa_entry, signal_queue_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject
    from criupy.tracee.batch import Results

SIGKILL, SIGSTOP, LAST_SIGNAL = 9, 19, 64
SIGNALS = tuple(signo for signo in range(1, LAST_SIGNAL + 1) if signo not in (SIGKILL, SIGSTOP))
"""Those that have an action, in the order of the image."""
SIGSET_SIZE = 8
SIGACTION = struct.Struct("<4Q")
"""struct sigaction of the kernel: handler, flags, restorer, mask.  Source: Linux include/linux/signal_types.h."""
STACK = struct.Struct("<Qi4xQ")
"""stack_t: address, flags, size."""
SS_ONSTACK, SS_DISABLE = 1, 2
SI_TIMER = -2
_SIGINFO = struct.Struct("<3i")
_TIMER_PRIVATE = slice(32, 36)
"""si_sys_private of a siginfo_t of a timer.  Source: Linux include/uapi/asm-generic/siginfo.h."""


class ProcessSignalFacts(NamedTuple):
    """``actions`` in the order of `SIGNALS`, as the kernel has them; ``pending`` siginfos, oldest first."""

    actions: tuple[bytes, ...]
    pending: tuple[bytes, ...]


class ProcessSignals(Dumpable):
    """Image: ``tc.sigactions`` and ``tc.signals_s``."""

    name = "signal actions"
    per_thread = False

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        actions = [ask.out(SIGACTION.size) for _ in SIGNALS]
        for signo, action in zip(SIGNALS, actions, strict=True):
            ask.call("rt_sigaction", signo, 0, action, SIGSET_SIZE)
        _, waiting = procfs.pending(subject.read("status"))
        queue = _complete(subject.thread.peek_siginfo(shared=True), waiting) if waiting else ()

        def finish(results: Results) -> ProcessSignalFacts:
            return ProcessSignalFacts(tuple(map(results.bytes, actions)), queue)

        return finish

    def encode(self, facts: ProcessSignalFacts, core: core_entry, sink: DumpSink) -> None:
        for action in facts.actions:
            handler, flags, restorer, mask = SIGACTION.unpack(action)
            core.tc.sigactions.add(
                sigaction=handler, flags=flags, restorer=restorer, mask=mask, compat_sigaction=False
            )
        _encode_queue(facts.pending, core.tc.signals_s)

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        file, tid = f"core-{subject.tid}.img", subject.tid
        if len(core.tc.sigactions) != len(SIGNALS):
            raise ImageError(file, f"{len(core.tc.sigactions)} signal actions, {len(SIGNALS)} were expected")
        actions = () if "sighand_id" in subject.shared else zip(SIGNALS, core.tc.sigactions, strict=True)
        for signo, action in actions:
            if action.sigaction or action.flags or action.mask:  # a new task has the defaults
                # Before the signals of any thread: an action that ignores one drops it from all queues.
                yield Step(tid, Stage.ATTRIBUTES, "rt_sigaction", (signo, _sigaction(action), 0, SIGSET_SIZE))
        pending = [*_queue(core.tc.signals_s, file)]
        if pending and subject.task.lost_its_leader:
            yield from _queue_without_leader(subject.task.living[0], pending)
            return
        for signo, siginfo in pending:
            yield Step(tid, Stage.SIGNALS, "rt_sigqueueinfo", (subject.task.pid, signo, siginfo))


def _queue_without_leader(tid: int, pending: Iterable[tuple[int, Data]]) -> Iterator[Step]:
    """Only a thread may send itself, by its own number, signals as the kernel sends them; here for its process.

    Source: Linux kernel/signal.c, ``do_pidfd_send_signal``; since v6.9.
    """
    pidfd = Ref("pidfd", tid)
    yield Step(tid, Stage.SIGNALS, "pidfd_open", (tid, PIDFD_THREAD), gives=pidfd)
    for signo, siginfo in pending:
        yield Step(
            tid, Stage.SIGNALS, "pidfd_send_signal", (pidfd, signo, siginfo, PIDFD_SIGNAL_THREAD_GROUP)
        )
    yield Step(tid, Stage.SIGNALS, "close", (pidfd,))


def _sigaction(action: sa_entry) -> Data:
    content = SIGACTION.pack(action.sigaction, action.flags, action.restorer, action.mask)
    handler = {0: "SIG_DFL", 1: "SIG_IGN"}.get(action.sigaction, f"{action.sigaction:#x}")
    return data(content, f"{{{handler}, flags {action.flags:#x}, mask {action.mask:#x}}}")


class ThreadSignalFacts(NamedTuple):
    """``blocked``: bit signo - 1; ``alternate``: a stack_t; ``pending`` siginfos of the thread, oldest first."""

    blocked: int
    alternate: bytes
    pending: tuple[bytes, ...]
    is_leader: bool


class ThreadSignals(Dumpable):
    """Image: ``thread_core.sas``, ``signals_p`` and ``blk_sigset``, which is in ``tc`` for a leader.

    The mask is given back with the registers.
    """

    name = "signals"
    per_thread = True

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        thread, leader = subject.thread, subject.is_leader
        stack = ask.out(STACK.size)
        ask.call("sigaltstack", 0, stack)
        waiting, _ = procfs.pending(subject.read("status"))
        queue = _complete(thread.peek_siginfo(shared=False), waiting) if waiting else ()
        blocked = thread.sigmask()
        return lambda results: ThreadSignalFacts(blocked, results.bytes(stack), queue, leader)

    def encode(self, facts: ThreadSignalFacts, core: core_entry, sink: DumpSink) -> None:
        if facts.is_leader:
            core.tc.blk_sigset = facts.blocked
        else:
            core.thread_core.blk_sigset = facts.blocked
        stack = core.thread_core.sas
        stack.ss_sp, flags, stack.ss_size = STACK.unpack(facts.alternate)
        stack.ss_flags = flags & 0xFFFFFFFF
        _encode_queue(facts.pending, core.thread_core.signals_p)

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        tid, stack = subject.tid, core.thread_core.sas
        if core.thread_core.HasField("sas") and not stack.ss_flags & SS_DISABLE:
            # Whether the thread is on it shows in its stack pointer; it comes later, so the kernel does not mind.
            flags = stack.ss_flags & ~SS_ONSTACK
            content = STACK.pack(stack.ss_sp, flags - (flags >> 31 << 32), stack.ss_size)
            text = f"{{{stack.ss_sp:#x}, flags {flags:#x}, size {stack.ss_size:#x}}}"
            yield Step(tid, Stage.SIGNALS, "sigaltstack", (data(content, text), 0))
        for signo, siginfo in _queue(core.thread_core.signals_p, f"core-{tid}.img"):
            target = (subject.task.pid, tid, signo, siginfo)
            yield Step(tid, Stage.SIGNALS, "rt_tgsigqueueinfo", target)


def _complete(queue: Iterable[bytes], waiting: int) -> tuple[bytes, ...]:
    """The queue, and a siginfo for each waiting signal that found no room in it.

    Such a one is delivered as sent by nobody.  Source: Linux kernel/signal.c, collect_signal.
    """
    found = tuple(queue)
    queued = {int.from_bytes(siginfo[:4], "little") for siginfo in found}
    lost = [
        signo for signo in range(1, LAST_SIGNAL + 1) if waiting >> (signo - 1) & 1 and signo not in queued
    ]
    return found + tuple(signo.to_bytes(4, "little").ljust(SIGINFO_SIZE, b"\0") for signo in lost)


def _encode_queue(siginfos: Sequence[bytes], queue: signal_queue_entry) -> None:
    queue.SetInParent()
    for siginfo in siginfos:
        queue.signals.add(siginfo=siginfo)


def _queue(queue: signal_queue_entry, file: str) -> Iterator[tuple[int, Data]]:
    """The signals of a queue with what rt_sigqueueinfo(2) takes."""
    for entry in queue.signals:
        if len(entry.siginfo) != SIGINFO_SIZE:
            raise ImageError(file, f"a siginfo of {len(entry.siginfo)} bytes, {SIGINFO_SIZE} were expected")
        signo, _, code = _SIGINFO.unpack_from(entry.siginfo)
        if not 0 < signo <= LAST_SIGNAL:
            raise ImageError(file, f"a pending signal {signo}")
        siginfo = bytearray(entry.siginfo)
        if code == SI_TIMER:
            siginfo[_TIMER_PRIVATE] = bytes(4)  # would be taken for a timer of now
        yield signo, data(bytes(siginfo), f"{{si_code {code}}}")
