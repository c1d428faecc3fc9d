"""Interval timers and POSIX timers of a process."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError
from criupy.linux.prctl import PR_TIMER_CREATE_RESTORE_IDS
from criupy.linux.procfs import task as procfs
from criupy.model.plan import Data, Stage, Step, data
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry, itimer_entry, posix_timer_entry, task_timers_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject
    from criupy.tracee.batch import Results

ITIMERS = ("real", "virt", "prof")
"""Image fields by ITIMER_* number."""
INTERVAL = struct.Struct("<4q")
"""struct itimerval (s, us) and struct itimerspec (s, ns): interval, then what remains."""
SIGEVENT = struct.Struct("<Q3i44x")
"""struct sigevent: value, signal, notify, thread id.  Source: Linux include/uapi/asm-generic/siginfo.h."""
SIGEV_THREAD_ID = 4
_MOST_PROBES = 100_000
_THREAD_CPU_CLOCKS = (3, 0xFFFFFFFE)
"""CLOCK_THREAD_CPUTIME_ID, and the CPU time of thread 0, which is the same, as glibc has it."""


class TimerFacts(NamedTuple):
    """``intervals``: itimervals by ITIMER_* number; ``posix``: timer, itimerspec, overruns, by timer id."""

    intervals: tuple[bytes, ...]
    posix: tuple[tuple[procfs.PosixTimer, bytes, int], ...]


class Timers(Dumpable):
    """Image: ``tc.timers``; all times are what remains."""

    name = "timers"
    per_thread = False

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        intervals = [ask.out(INTERVAL.size) for _ in ITIMERS]
        for number, interval in enumerate(intervals):
            ask.call("getitimer", number, interval)
        posix = []
        with open(f"/proc/{subject.pid}/timers", "rb", buffering=0) as file:  # a thread has none
            listed = procfs.timers(file.readall())
        for timer in listed:
            left = ask.out(INTERVAL.size)
            ask.call("timer_gettime", timer.timer_id, left)
            posix.append((timer, left, ask.call("timer_getoverrun", timer.timer_id)))

        def finish(results: Results) -> TimerFacts:
            return TimerFacts(
                tuple(map(results.bytes, intervals)),
                tuple((timer, results.bytes(left), results[overrun]) for timer, left, overrun in posix),
            )

        return finish

    def encode(self, facts: TimerFacts, core: core_entry, sink: DumpSink) -> None:
        timers = core.tc.timers
        for name, content in zip(ITIMERS, facts.intervals, strict=True):
            entry = getattr(timers, name)
            entry.isec, entry.iusec, entry.vsec, entry.vusec = INTERVAL.unpack(content)
        for timer, content, overrun in facts.posix:
            seconds, nanoseconds, left_seconds, left_nanoseconds = INTERVAL.unpack(content)
            entry = timers.posix.add(
                it_id=timer.timer_id,
                clock_id=timer.clock & 0xFFFFFFFF,
                si_signo=timer.signal,
                it_sigev_notify=timer.notify if timer.thread is None else SIGEV_THREAD_ID,
                sival_ptr=timer.value,
                overrun=overrun,
                isec=seconds,
                insec=nanoseconds,
                vsec=left_seconds,
                vnsec=left_nanoseconds,
            )
            if timer.thread is not None:
                entry.notify_thread_id = sink.numbers.inside(timer.thread)

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        file, tid = f"core-{subject.tid}.img", subject.tid
        if not core.tc.HasField("timers"):
            raise ImageError(file, "no timers")
        timers = core.tc.timers
        yield from _create(timers, subject, file)
        for number, name in enumerate(ITIMERS):
            left = _left(getattr(timers, name), "usec", file)
            if left is not None:
                yield Step(tid, Stage.TIMERS, "setitimer", (number, left, 0))
        for timer in timers.posix:
            left = _left(timer, "nsec", file)
            if left is not None:
                yield Step(tid, Stage.TIMERS, "timer_settime", (timer.it_id, 0, left, 0))


def _create(timers: task_timers_entry, subject: PlanSubject, file: str) -> Iterator[Step]:
    """The POSIX timers with the ids that they had."""
    posix = sorted(timers.posix, key=lambda timer: timer.it_id)
    ids = [timer.it_id for timer in posix]
    if len(set(ids)) != len(ids):
        raise ImageError(file, "two timers with the same id")
    if not posix:
        return
    if not subject.features.timer_restore_ids:
        yield from _create_probing(posix, subject, file)
        return
    # In stages of their own: not only the leader creates timers.
    yield Step(subject.tid, Stage.LIMITS, "prctl", (PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0))
    for timer in posix:
        yield _timer_create(timer, _creator(timer, subject))
    yield Step(subject.tid, Stage.SIGNALS, "prctl", (PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0))


def _create_probing(posix: list[posix_timer_entry], subject: PlanSubject, file: str) -> Iterator[Step]:
    """The kernel counts ids up from 0: what lies between is created and deleted again."""
    wanted = {timer.it_id: timer for timer in posix}
    last = posix[-1].it_id
    if last > _MOST_PROBES:
        raise ImageError(
            file, f"timer id {last} is out of reach without PR_TIMER_CREATE_RESTORE_IDS (Linux 6.16)"
        )
    for number in range(last + 1):
        if number in wanted:
            yield _timer_create(wanted[number], subject.tid)
        else:
            nothing = data(SIGEVENT.pack(0, 0, 1, 0), "{SIGEV_NONE}")
            created = data(bytes(8), "&[id]")
            yield Step(subject.tid, Stage.ATTRIBUTES, "timer_create", (1, nothing, created))
            yield Step(subject.tid, Stage.ATTRIBUTES, "timer_delete", (number,))


def _creator(timer: posix_timer_entry, subject: PlanSubject) -> int:
    """The thread to create a timer: a clock of thread CPU time is its creator's, whom the kernel does not tell; whom
    the timer signals is the best guess."""
    target = timer.notify_thread_id
    own_clock = timer.clock_id in _THREAD_CPU_CLOCKS and timer.it_sigev_notify & SIGEV_THREAD_ID
    return target if own_clock and target in subject.task.threads else subject.tid


def _timer_create(timer: posix_timer_entry, tid: int) -> Step:
    target = timer.notify_thread_id if timer.it_sigev_notify & SIGEV_THREAD_ID else 0
    event = SIGEVENT.pack(timer.sival_ptr, timer.si_signo, timer.it_sigev_notify, target)
    text = f"{{signal {timer.si_signo}, notify {timer.it_sigev_notify}, thread {target}}}"
    wanted = data(timer.it_id.to_bytes(8, "little"), f"&[id {timer.it_id}]")
    return Step(tid, Stage.ATTRIBUTES, "timer_create", (timer.clock_id, data(event, text), wanted))


def _left(entry: itimer_entry | posix_timer_entry, fraction: str, file: str) -> Data | None:
    """What remains as the kernel takes it, None for a timer that is not armed."""
    interval = (entry.isec, getattr(entry, f"i{fraction}"))
    left = (entry.vsec, getattr(entry, f"v{fraction}"))
    if not any(interval) and not any(left):
        return None
    if not any(left):
        left = interval  # it is about to fire; the kernel takes 0 for "not armed"
    if max(*interval, *left) >> 63:
        raise ImageError(file, "a timer of more than 2^63 seconds")
    unit = 10**6 if fraction == "usec" else 10**9
    text = f"{{every {interval[0] + interval[1] / unit:g} s, in {left[0] + left[1] / unit:g} s}}"
    return data(INTERVAL.pack(*interval, *left), text)
