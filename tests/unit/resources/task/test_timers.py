"""Interval and POSIX timers."""

from __future__ import annotations

import dataclasses

import pytest

from criupy.errors import ImageError
from criupy.images.pb.core_pb2 import core_entry
from criupy.linux.procfs.task import PosixTimer
from criupy.resources.pidnumbers import PidNumbers
from criupy.resources.task.timers import INTERVAL, TimerFacts, Timers


def timers(core: core_entry):
    for name in ("real", "virt", "prof"):
        entry = getattr(core.tc.timers, name)
        entry.isec = entry.iusec = entry.vsec = entry.vusec = 0
    return core.tc.timers


def add(core: core_entry, number: int, **values: int):
    defaults = {
        "clock_id": 1,
        "si_signo": 41,
        "it_sigev_notify": 0,
        "sival_ptr": 0xDEAD,
        "overrun": 0,
        "isec": 0,
        "insec": 0,
        "vsec": 0,
        "vnsec": 0,
    }
    return core.tc.timers.posix.add(it_id=number, **{**defaults, **values})


def test_encode(sink) -> None:
    facts = TimerFacts(
        (INTERVAL.pack(3, 500000, 999, 479917), bytes(32), INTERVAL.pack(0, 0, 2000, 1)),
        (
            (PosixTimer(0, 41, 0xDEAD, 0, None, 1), INTERVAL.pack(10, 7, 4999, 4798), 2),
            (PosixTimer(2, 41, 1, 0, 9581, 0), bytes(32), 0),
            (PosixTimer(3, 0, 0, 1, None, -2), bytes(32), 0),
        ),
    )
    core = core_entry()
    Timers().encode(facts, core, sink)
    real, prof = core.tc.timers.real, core.tc.timers.prof
    assert (real.isec, real.iusec, real.vsec, real.vusec) == (3, 500000, 999, 479917)
    assert (prof.vsec, prof.vusec) == (2000, 1)
    first, directed, quiet = core.tc.timers.posix
    assert (first.it_id, first.overrun, first.isec, first.insec, first.vsec, first.vnsec) == (
        0,
        2,
        10,
        7,
        4999,
        4798,
    )
    assert not first.HasField("notify_thread_id")
    assert (directed.it_sigev_notify, directed.notify_thread_id) == (4, 9581)
    assert (quiet.it_sigev_notify, quiet.clock_id) == (1, 0xFFFFFFFE)


def test_the_thread_of_a_timer_is_named_as_its_pid_namespace_has_it(sink) -> None:
    sink.numbers = PidNumbers({9581: 3})
    timer = PosixTimer(0, 41, 1, 0, 9581, 0)
    core = core_entry()
    Timers().encode(TimerFacts((bytes(32),) * 3, ((timer, bytes(32), 0),)), core, sink)
    assert core.tc.timers.posix[0].notify_thread_id == 3


def test_timers_are_created_with_their_ids_and_armed_at_the_end(planning) -> None:
    core = planning.core()
    timers(core).real.isec, core.tc.timers.real.vsec, core.tc.timers.real.vusec = 3, 1, 500000
    core.tc.timers.prof.isec = 2
    add(core, 5, it_sigev_notify=4, notify_thread_id=8, isec=1, vnsec=250000000)
    add(core, 0)
    planning.core(8)
    assert planning.lines(Timers()) == [
        "LIMITS 7 prctl(77, 1, 0, 0, 0)",
        "ATTRIBUTES 7 timer_create(1, {signal 41, notify 0, thread 0}, &[id 0])",
        "ATTRIBUTES 7 timer_create(1, {signal 41, notify 4, thread 8}, &[id 5])",
        "SIGNALS 7 prctl(77, 0, 0, 0, 0)",
        "TIMERS 7 setitimer(0, {every 3 s, in 1.5 s}, 0)",
        "TIMERS 7 setitimer(2, {every 2 s, in 2 s}, 0)",
        "TIMERS 7 timer_settime(5, 0, {every 1 s, in 0.25 s}, 0)",
    ]


def test_a_clock_of_thread_cpu_time_is_that_of_the_signalled_thread(planning) -> None:
    timers(planning.core())
    planning.core(8)
    add(planning.core(), 0, clock_id=0xFFFFFFFE, it_sigev_notify=4, notify_thread_id=8)
    add(planning.core(), 1, clock_id=3, it_sigev_notify=4, notify_thread_id=99)
    add(planning.core(), 2, clock_id=3)
    creators = [line for line in planning.lines(Timers()) if "timer_create" in line]
    assert [line.split()[1] for line in creators] == ["8", "7", "7"]


def test_an_older_kernel_counts_its_ids_up(planning) -> None:
    planning.features = dataclasses.replace(planning.features, timer_restore_ids=False)
    timers(planning.core())
    add(planning.core(), 2)
    none = "timer_create(1, {SIGEV_NONE}, &[id])"
    assert [line.removeprefix("ATTRIBUTES 7 ") for line in planning.lines(Timers())] == [
        none,
        "timer_delete(0)",
        none,
        "timer_delete(1)",
        "timer_create(1, {signal 41, notify 0, thread 0}, &[id 2])",
    ]
    add(planning.core(), 1 << 30)
    with pytest.raises(ImageError, match="1073741824 is out of reach"):
        planning.lines(Timers())


def test_what_is_refused(planning) -> None:
    with pytest.raises(ImageError, match="no timers"):
        planning.lines(Timers())
    timers(planning.core())
    add(planning.core(), 1)
    add(planning.core(), 1)
    with pytest.raises(ImageError, match="same id"):
        planning.lines(Timers())
    del planning.core().tc.timers.posix[1:]
    planning.core().tc.timers.posix[0].vsec = 1 << 63
    with pytest.raises(ImageError, match="2\\^63"):
        planning.lines(Timers())
