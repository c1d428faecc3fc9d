"""What each thread has registered, how it is scheduled and named; what a process has beside."""

from __future__ import annotations

import dataclasses
import errno
import struct

import pytest

from criupy.errors import ImageError, TraceeError
from criupy.images.pb.core_pb2 import core_entry
from criupy.images.pb.memory_pb2 import mm_entry
from criupy.linux.abi import RSEQ_CRITICAL_SECTION
from criupy.resources.registry import THREAD_KINDS
from criupy.resources.task import taskstate
from criupy.resources.task.comm import Comm, CommFacts
from criupy.resources.task.membarrier import Membarrier
from criupy.resources.task.prctls import ProcessPrctls, ThreadPrctls
from criupy.resources.task.rseq import Rseq, RseqFacts
from criupy.resources.task.sched import RESET_ON_FORK, Sched, SchedFacts
from criupy.resources.task.taskstate import TaskState, TaskStateFacts
from criupy.resources.task.threading import Threading, ThreadingFacts

STAT = b"9580 (x) S 1 2 3 0 -1 4194304 " + b"0 " * 43


def test_names(sink, status, planning) -> None:
    core = planning.core()
    Comm().encode(CommFacts(status, is_leader=True), core, sink)
    assert core.thread_core.comm == core.tc.comm == b"od) (d\n\\x"
    thread = planning.core(8)
    Comm().encode(CommFacts(status.replace(b"od) (", b"w"), is_leader=False), thread, sink)
    assert not thread.HasField("tc")
    assert planning.lines(Comm(), 8) == ['ATTRIBUTES 8 prctl(15, "wd\n\\x")']
    planning.cores[9] = core_entry(mtype=core_entry.X86_64)
    (step,) = Comm().plan(planning.core(9), planning.subject(9))
    assert step.args[1].parts == (b"od) (d\n\\x\0",)


def test_a_name_is_cut_to_what_the_kernel_keeps(planning) -> None:
    planning.core().thread_core.comm = b"0123456789abcdef"
    (step,) = Comm().plan(planning.core(), planning.subject())
    assert step.args[1].parts == (b"0123456789abcde\0",)


def test_thread_registrations(sink, planning) -> None:
    core = planning.core()
    Threading().encode(ThreadingFacts(0x7F10, 0x7F20, 24), core, sink)
    assert planning.lines(Threading()) == [
        "ATTRIBUTES 7 set_tid_address(0x7f10)",
        "TIMERS 7 set_robust_list(0x7f20, 24)",
    ]
    Threading().encode(ThreadingFacts(0, 0, 0), core, sink)
    assert planning.lines(Threading()) == ["ATTRIBUTES 7 set_tid_address(0)"]


def test_membarrier(frozen, kernel, sink, planning) -> None:
    finish = Membarrier().collect(frozen(), kernel.batch)
    assert kernel.calls == ["membarrier(512, 0, 0)"]
    assert finish(kernel.answer(results={0: -errno.EINVAL})) == 0
    Membarrier().encode(0, planning.core(), sink)
    assert not planning.core().tc.HasField("membarrier_registration_mask")
    Membarrier().encode(finish(kernel.answer(results={0: 0x14})), planning.core(), sink)
    assert planning.lines(Membarrier()) == [
        "ATTRIBUTES 7 membarrier(4, 0, 0)",
        "ATTRIBUTES 7 membarrier(16, 0, 0)",
    ]


class Sections:
    """Memory with a struct rseq at 0x1000 whose critical section, described at 0x2000, is [0x400, 0x420)."""

    def __init__(self, *, flags: int = 0, active: int = 0x2000) -> None:
        self.flags, self.active = flags, active

    def read(self, address: int, size: int) -> bytes:
        if address == 0x1008:
            return struct.pack("<Q", self.active)
        if address == 0x2000:
            return RSEQ_CRITICAL_SECTION.pack(0, self.flags, 0x400, 0x20, 0x500)[:size]
        raise TraceeError("nothing there")


def rseq_facts(frozen, kernel, memory: Sections, *, ip: int, orig: int = (1 << 64) - 1) -> RseqFacts:
    subject = frozen()
    subject.thread.rseq = lambda: (0x1000, 32, 0x53053053, 0)
    subject.thread.memory = memory
    regs = type("Regs", (), {"rip": ip, "orig_rax": orig})()
    subject.thread.regs = lambda: regs
    return Rseq().collect(subject, kernel.batch)(kernel.answer())


@pytest.mark.parametrize(
    ("ip", "goes_on"), [(0x3FF, 0x3FF), (0x400, 0x500), (0x41F, 0x500), (0x420, 0x420), (0x500, 0x500)]
)
def test_a_critical_section_is_aborted(frozen, kernel, sink, ip: int, goes_on: int) -> None:
    core = core_entry()
    core.thread_info.gpregs.ip = ip
    Rseq().encode(rseq_facts(frozen, kernel, Sections(), ip=ip), core, sink)
    assert core.thread_info.gpregs.ip == goes_on
    assert not core.thread_core.rseq_entry.HasField("rseq_cs_pointer")


def test_one_that_asks_for_it_is_kept(frozen, kernel, sink) -> None:
    core = core_entry()
    core.thread_info.gpregs.ip = 0x410
    Rseq().encode(rseq_facts(frozen, kernel, Sections(flags=2), ip=0x410), core, sink)
    assert (core.thread_info.gpregs.ip, core.thread_core.rseq_entry.rseq_cs_pointer) == (0x410, 0x2000)


@pytest.mark.parametrize("active", [0, 0x3000])
def test_no_section_or_one_that_leads_nowhere(frozen, kernel, active: int) -> None:
    assert rseq_facts(frozen, kernel, Sections(active=active), ip=0x410).section is None


def test_nobody_is_in_one_inside_a_system_call(frozen, kernel) -> None:
    assert rseq_facts(frozen, kernel, Sections(), ip=0x410, orig=34).section is None


def test_rseq_registration_is_planned(planning, sink) -> None:
    Rseq().encode(RseqFacts(0x7F10, 32, 0x53053053), planning.core(), sink)
    assert planning.lines(Rseq()) == ["ATTRIBUTES 7 rseq(0x7f10, 32, 0, 0x53053053)"]
    planning.core().thread_core.rseq_entry.rseq_abi_pointer = 0
    assert planning.lines(Rseq()) == []


def scheduled(planning, **values: int) -> None:
    for name, value in values.items():
        setattr(planning.core().thread_core, name, value)


def test_scheduling_is_encoded(sink, status) -> None:
    core = core_entry()
    Sched().encode(SchedFacts(2 | RESET_ON_FORK, -3, 7, 0x4006, status, 2), core, sink)
    thread = core.thread_core
    assert (thread.sched_policy, thread.sched_nice, thread.sched_prio) == (2 | RESET_ON_FORK, -3, 7)
    assert (thread.io_priority, thread.cpu_affinity) == (0x4006, b"\x02\0\0\0\x01")
    everywhere = status.replace(b"1,00000002", b"ff,ffffffff")
    plain = core_entry()
    Sched().encode(SchedFacts(0, 0, 0, 0, everywhere, 40), plain, sink)
    assert not any(plain.thread_core.HasField(name) for name in ("sched_prio", "io_priority", "cpu_affinity"))
    assert plain.thread_core.HasField("sched_nice")


def test_scheduling_is_planned(planning) -> None:
    scheduled(planning, sched_policy=1, sched_prio=99, sched_nice=-20, io_priority=0x4006)
    planning.core().thread_core.cpu_affinity = b"\x02\0\0\0\x01"
    assert [line.removeprefix("ATTRIBUTES 7 ") for line in planning.lines(Sched())] == [
        "setpriority(0, 0, -20)",
        "sched_setscheduler(0, 1, {99})",
        "sched_setaffinity(0, 8, {0x100000002})",
        "ioprio_set(1, 0, 0x4006)",
    ]
    assert planning.warnings == []


def test_scheduling_without_cap_sys_nice(planning) -> None:
    planning.features = dataclasses.replace(planning.features, capabilities=0)
    scheduled(planning, sched_nice=-5)
    steps = list(Sched().plan(planning.core(), planning.subject()))
    assert all(errno.EPERM in step.tolerate for step in steps)
    assert planning.warnings == ["thread 7: its priority needs CAP_SYS_NICE and may stay as it is"]


def test_what_a_task_starts_with_needs_no_calls(planning) -> None:
    planning.features = dataclasses.replace(planning.features, scheduling=(0, 5, 0), timer_slack_ns=50000)
    scheduled(planning, sched_nice=5, timer_slack_ns=50000)
    assert planning.lines(Sched()) == planning.lines(ThreadPrctls()) == []
    scheduled(planning, sched_nice=4, timer_slack_ns=1)
    assert (len(planning.lines(Sched())), len(planning.lines(ThreadPrctls()))) == (2, 1)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"sched_policy": 6}, "policy 6"),
        ({"sched_policy": 4}, "policy 4"),
        ({"sched_nice": 20}, "nice value 20"),
        ({"sched_policy": 1}, "priority 0 with SCHED_FIFO"),
        ({"sched_policy": 2, "sched_prio": 100}, "priority 100 with SCHED_RR"),
        ({"sched_prio": 5}, "priority 5 with SCHED_OTHER"),
    ],
)
def test_scheduling_that_no_kernel_has_is_refused(planning, values: dict[str, int], why: str) -> None:
    scheduled(planning, **values)
    with pytest.raises(ImageError, match=why):
        planning.lines(Sched())


def test_thread_attributes(frozen, kernel, sink, planning) -> None:
    finish = ThreadPrctls().collect(frozen(), kernel.batch)
    facts = finish(kernel.answer(struct.pack("<i", 12), results={1: 50000}))
    ThreadPrctls().encode(facts, planning.core(), sink)
    assert planning.lines(ThreadPrctls()) == ["ATTRIBUTES 7 prctl(29, 0xc350)", "CREDENTIALS 7 prctl(1, 12)"]
    assert planning.warnings == []
    planning.lines(ThreadPrctls(), parent=0)
    assert planning.warnings == ["thread 7: criupy is its parent now, whose end sends it signal 12"]
    planning.core().thread_core.pdeath_sig = 65
    with pytest.raises(ImageError, match="pdeath_sig is 65"):
        planning.lines(ThreadPrctls())


def test_process_attributes(frozen, kernel, sink, planning) -> None:
    finish = ProcessPrctls().collect(frozen(), kernel.batch)
    facts = finish(kernel.answer(struct.pack("<i", 1), results={1: 2, 2: 1}))
    ProcessPrctls().encode(facts, planning.core(), sink)
    mm = mm_entry()
    ProcessPrctls().encode_mm(facts, mm)
    assert (planning.core().tc.child_subreaper, mm.dumpable, mm.thp_disabled) == (True, 2, True)
    planning.mm = mm
    assert planning.lines(ProcessPrctls()) == [
        "MAPPINGS 7 prctl(41, 1, 0, 0, 0)",
        "ATTRIBUTES 7 prctl(36, 1)",
        "TIMERS 7 prctl(4, 0)",
    ]
    mm.dumpable = 1
    assert planning.lines(ProcessPrctls())[-1] == "TIMERS 7 prctl(4, 1)"


@pytest.mark.parametrize(
    ("text", "decimal", "true"),
    [(b"00000000\n", 0, 0), (b"00400000\n", 400000, 0x400000), (b"0004000a\n", 4000, 0x4000A)],
)
def test_personality_as_criu_has_it_and_as_it_is(
    sink, planning, text: bytes, decimal: int, true: int
) -> None:
    core = planning.core()
    planning.core(8)
    TaskState().encode(TaskStateFacts(STAT, text, 0), core, sink)
    assert (core.tc.personality, core.tc.true_personality, core.tc.flags) == (decimal, true, 4194304)
    number = hex(true & ~0x400000) if true & ~0x400000 else "0"
    late = [f"ATTRIBUTES {tid} personality({true:#x})" for tid in (7, 8)] if true & 0x400000 else []
    assert planning.lines(TaskState()) == [f"FILES 7 personality({number})", *late]


def test_personality_of_an_image_of_criu_s(planning) -> None:
    planning.core().tc.personality = 40000
    assert planning.lines(TaskState()) == ["FILES 7 personality(0x40000)"]
    planning.core().tc.personality = 400000000
    assert planning.lines(TaskState()) == []


def test_running_and_stopped(sink) -> None:
    core = core_entry()
    TaskState().encode(TaskStateFacts(STAT, b"0\n", 0), core, sink)
    assert (core.tc.task_state, core.tc.exit_code) == (1, 0)
    assert not core.tc.HasField("stop_signo")
    TaskState().encode(TaskStateFacts(STAT, b"0\n", 20), core, sink)
    assert (core.tc.task_state, core.tc.stop_signo) == (3, 20)


def test_a_zombie_keeps_its_whole_wait_status() -> None:
    core = core_entry()
    taskstate.zombie(core, b"9580 (a) b) Z 1 2 3 0 -1 4194316 " + b"0 " * 42 + b"37632")
    assert core.IsInitialized()
    assert (core.tc.task_state, core.tc.exit_code, core.tc.comm, core.tc.flags) == (
        2,
        37632,
        b"a) b",
        4194316,
    )
    assert not core.HasField("thread_core")


def test_a_leader_that_has_ended_is_for_criu_one_that_ends_at_once() -> None:
    first, core = core_entry(mtype=core_entry.X86_64), core_entry(mtype=core_entry.X86_64)
    first.thread_info.clear_tid_addr = 0x7000
    first.thread_info.gpregs.sp, first.thread_info.gpregs.ip = 0x8000, 0x400000
    taskstate.dead_leader(core, first, b"9580 (a) Z 1 2 3 0 -1 4194316 " + b"0 " * 42 + b"1792", 0x7FFF1000)
    registers = core.thread_info.gpregs
    assert (registers.ip, registers.ax, registers.di, registers.sp) == (0x7FFF1000, 60, 7, 0x8000)
    assert core.thread_info.clear_tid_addr == 0
    assert core.tc.dead_leader == 7 << 8
    assert str(taskstate.plan_end_of_leader(core, 9580)) == "exit(7)"
    assert (first.thread_info.clear_tid_addr, first.thread_info.gpregs.ip) == (0x7000, 0x400000)


def test_a_leader_that_has_ended_without_a_vdso_is_nothing_for_criu() -> None:
    core = core_entry(mtype=core_entry.X86_64)
    taskstate.dead_leader(core, core_entry(), b"9580 (a) Z 1 2 3 0 -1 4194316 " + b"0 " * 43, 0)
    assert core.tc.HasField("dead_leader")
    assert not core.HasField("thread_info")


def test_the_order_of_kinds() -> None:
    names = [kind.name for kind in THREAD_KINDS]
    assert len(set(names)) == len(names)
    for first, then in [
        ("registers", "rseq"),  # moves the instruction pointer that the registers have
        ("limits", "credentials"),  # raising one needs a privilege
        ("credentials", "thread attributes"),  # a change of ids resets the death signal
    ]:
        assert names.index(first) < names.index(then)


def test_a_zombie_dies_as_it_did():
    core = core_entry(mtype=core_entry.X86_64)
    core.tc.task_state, core.tc.comm, core.tc.exit_code = 2, b"worker", 255 << 8
    assert [str(step) for step in taskstate.plan_death(core, 7)] == ['prctl(15, "worker")', "exit_group(255)"]
    core.tc.exit_code = 9
    assert [step.call for step in taskstate.plan_death(core, 7)] == [
        "prctl", "prctl", "rt_sigprocmask", "tgkill",
    ]  # fmt: skip
    core.tc.exit_code = 17
    with pytest.raises(ImageError, match="nobody dies of signal 17"):
        list(taskstate.plan_death(core, 7))
