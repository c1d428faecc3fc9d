"""Signal actions, queues, masks and stacks."""

from __future__ import annotations

import struct

import pytest

from criupy.errors import ImageError
from criupy.images.pb.core_pb2 import core_entry
from criupy.resources.task.signals import (
    SIGACTION,
    SIGNALS,
    STACK,
    ProcessSignalFacts,
    ProcessSignals,
    ThreadSignals,
    _complete,
)

DEFAULT = SIGACTION.pack(0, 0, 0, 0)


def siginfo(signo: int, code: int, rest: bytes = b"") -> bytes:
    return (struct.pack("<3i", signo, 0, code) + rest).ljust(128, b"\0")


def test_actions_are_asked_for_in_the_order_of_the_image(frozen, kernel, sink) -> None:
    subject = frozen()
    subject.thread.peek_siginfo = lambda *, shared: [siginfo(15, 0), siginfo(41, -1)] if shared else []
    finish = ProcessSignals().collect(subject, kernel.batch)
    assert kernel.calls[0] == "rt_sigaction(1, 0, &out0, 8)"
    assert kernel.calls[8].startswith("rt_sigaction(10,")
    assert kernel.calls[61].startswith("rt_sigaction(64,")
    assert len(kernel.calls) == 62
    actions = [DEFAULT] * 61 + [SIGACTION.pack(0x1234, 0x14000000, 0x5678, 2)]
    core = core_entry()
    ProcessSignals().encode(finish(kernel.answer(*actions)), core, sink)
    last = core.tc.sigactions[61]
    assert (last.sigaction, last.flags, last.restorer, last.mask) == (0x1234, 0x14000000, 0x5678, 2)
    assert last.HasField("compat_sigaction")
    assert [entry.siginfo[0] for entry in core.tc.signals_s.signals] == [15, 41]


def test_no_queue_is_read_where_nothing_waits(frozen, kernel, status) -> None:
    subject = frozen(status=status.replace(b"0000010000004000", b"0" * 16))
    facts = ProcessSignals().collect(subject, kernel.batch)(kernel.answer(*[DEFAULT] * 62))
    assert facts.pending == ()


def test_signals_that_found_no_room_in_the_queue_are_not_lost() -> None:
    queued = siginfo(41, -1)
    assert _complete([queued], 1 << 40) == (queued,)
    assert _complete([queued], 1 << 40 | 1 << 14) == (queued, siginfo(15, 0))


def test_actions_and_process_signals_plan(planning) -> None:
    tc = planning.core().tc
    for _ in SIGNALS:
        tc.sigactions.add(sigaction=0, flags=0, restorer=0, mask=0)
    tc.sigactions[0].sigaction, tc.sigactions[0].flags, tc.sigactions[0].mask = 0x401000, 0x14000004, 2
    tc.sigactions[8].sigaction = 1
    tc.sigactions[61].mask = 1
    tc.signals_s.signals.add(siginfo=siginfo(15, 0))
    tc.signals_s.signals.add(siginfo=siginfo(41, -1))
    assert planning.lines(ProcessSignals()) == [
        "ATTRIBUTES 7 rt_sigaction(1, {0x401000, flags 0x14000004, mask 0x2}, 0, 8)",
        "ATTRIBUTES 7 rt_sigaction(10, {SIG_IGN, flags 0x0, mask 0x0}, 0, 8)",
        "ATTRIBUTES 7 rt_sigaction(64, {SIG_DFL, flags 0x0, mask 0x1}, 0, 8)",
        "SIGNALS 7 rt_sigqueueinfo(7, 15, {si_code 0})",
        "SIGNALS 7 rt_sigqueueinfo(7, 41, {si_code -1})",
    ]


def test_without_its_leader_a_process_gets_its_signals_from_another_thread(planning) -> None:
    tc = planning.core().tc
    planning.core(8)
    tc.dead_leader = 0
    for _ in SIGNALS:
        tc.sigactions.add(sigaction=0, flags=0, restorer=0, mask=0)
    assert planning.lines(ProcessSignals()) == []
    tc.signals_s.signals.add(siginfo=siginfo(15, 0))
    assert planning.lines(ProcessSignals()) == [
        "SIGNALS 8 pidfd_open(8, 128) = <pidfd 0x8>",
        "SIGNALS 8 pidfd_send_signal(<pidfd 0x8>, 15, {si_code 0}, 2)",
        "SIGNALS 8 close(<pidfd 0x8>)",
    ]


@pytest.mark.parametrize("count", [0, 61, 63])
def test_another_number_of_actions_is_refused(planning, count: int) -> None:
    for _ in range(count):
        planning.core().tc.sigactions.add(sigaction=0, flags=0, restorer=0, mask=0)
    with pytest.raises(ImageError, match=f"core-7.img: {count} signal actions"):
        planning.lines(ProcessSignals())


@pytest.mark.parametrize(
    ("bad", "why"), [(b"\x01" * 127, "127 bytes"), (siginfo(65, 0), "signal 65"), (siginfo(0, 0), "signal 0")]
)
def test_bad_pending_signals_are_refused(planning, bad: bytes, why: str) -> None:
    planning.core(8).thread_core.signals_p.signals.add(siginfo=bad)
    with pytest.raises(ImageError, match=why):
        planning.lines(ThreadSignals(), 8)


def test_thread_signals(frozen, kernel, sink, planning) -> None:
    subject = frozen(9581)
    subject.thread.sigmask = lambda: 0x18000000200
    subject.thread.peek_siginfo = lambda *, shared: [] if shared else [siginfo(40, -1)]
    finish = ThreadSignals().collect(subject, kernel.batch)
    assert kernel.calls == ["sigaltstack(0, &out0)"]
    facts = finish(kernel.answer(STACK.pack(0x7000, 1 - (1 << 31), 0x10000)))
    core = core_entry()
    ThreadSignals().encode(facts, core, sink)
    assert core.thread_core.blk_sigset == 0x18000000200
    assert not core.HasField("tc")
    assert core.thread_core.sas.ss_flags == 0x80000001
    planning.cores[8] = core
    assert planning.lines(ThreadSignals(), 8) == [
        "SIGNALS 8 sigaltstack({0x7000, flags 0x80000000, size 0x10000}, 0)",
        "SIGNALS 8 rt_tgsigqueueinfo(7, 8, 40, {si_code -1})",
    ]


def test_the_mask_of_a_leader_is_elsewhere(frozen, kernel, sink, status) -> None:
    subject = frozen(status=status.replace(b"0000008000000000", b"0" * 16))
    subject.thread.sigmask = lambda: 0x4000
    facts = ThreadSignals().collect(subject, kernel.batch)(kernel.answer(STACK.pack(0, 2, 0)))
    core = core_entry()
    ThreadSignals().encode(facts, core, sink)
    assert core.tc.blk_sigset == 0x4000
    assert not core.thread_core.HasField("blk_sigset")
    assert core.thread_core.HasField("signals_p")


def test_a_thread_without_alternate_stack_needs_no_call(planning) -> None:
    planning.core().thread_core.sas.ss_flags = 2
    assert planning.lines(ThreadSignals()) == []


def test_the_kernel_s_mark_on_a_timer_signal_is_not_given_back(planning) -> None:
    info = bytearray(siginfo(14, -2, b"\x01" * 40))
    planning.core().thread_core.signals_p.signals.add(siginfo=bytes(info))
    (step,) = ThreadSignals().plan(planning.core(), planning.subject())
    (content,) = step.args[3].parts
    info[32:36] = bytes(4)
    assert content == bytes(info)


def test_facts_without_signals_still_leave_a_queue(sink) -> None:
    core = core_entry()
    ProcessSignals().encode(ProcessSignalFacts((), ()), core, sink)
    assert core.tc.HasField("signals_s")
