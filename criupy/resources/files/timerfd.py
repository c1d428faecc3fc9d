"""timerfd_create(2): a timer read from a descriptor.

Image: ``timerfd_entry`` in ``files.img``, with ``expires`` of our own.  A timer goes on with what remained; one that
was set to a time of day (TFD_TIMER_ABSTIME, CLOCK_REALTIME) still expires at that time, at once if it has passed.

Not kept: that a timer of the other clocks was set to an absolute time, which makes no difference to it; a change of the
time of day that the program has not been told of yet (ECANCELED).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux import syscalls
from criupy.linux.procfs import fdinfo
from criupy.model.plan import Stage, Step, data
from criupy.resources.fileplan import TablePlan
from criupy.resources.filetable import Collected, FileImages, FileTable
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile

_CLOCKS = {0: "realtime", 1: "monotonic", 7: "boottime", 8: "realtime alarm", 9: "boottime alarm"}
_OF_DAY = (0, 8)
_ALARMS = (8, 9)
_ABSTIME, _CANCEL_ON_SET = 1, 2
_IOC_SET_TICKS = 0x4008_5400
"""Source: Linux include/uapi/linux/timerfd.h, ``TFD_IOC_SET_TICKS``."""
_SECOND = 10**9
_LATEST = (1 << 63) - 1
"""KTIME_MAX, nanoseconds: what the kernel makes of everything later."""
_ITIMERSPEC = struct.Struct("<4q")


class TimerFacts(NamedTuple):
    """The lines of its own in fdinfo, and the time of day when they were read, in nanoseconds."""

    lines: bytes
    now: int


class Timerfd(FileKind):
    name = "timerfd"
    match = ("anon_inode:[timerfd]",)
    type = fdtable_pb2.TIMERFD

    def collect(self, file: OpenFile, table: FileTable) -> TimerFacts:
        lines = file.info.rest
        if b"ticks: 0\n" not in lines:
            syscalls.timerfd_gettime(file.own)
            with open(f"/proc/self/fdinfo/{file.own}", "rb", buffering=0) as again:
                lines = fdinfo.parse(again.readall()).rest
        return TimerFacts(lines, time.time_ns())

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        found, tfd = fdinfo.timerfd(one.facts.lines), entry.tfd
        tfd.id, tfd.flags = one.id, one.file.flags
        tfd.fown.CopyFrom(one.file.owner.message())
        tfd.clockid, tfd.ticks, tfd.settime_flags = found.clock, found.ticks, found.flags
        tfd.vsec, tfd.vnsec = divmod(found.left, _SECOND)
        tfd.isec, tfd.insec = divmod(found.interval, _SECOND)
        if found.left and found.clock in _OF_DAY and found.flags & _ABSTIME:
            tfd.expires = min(one.facts.now + found.left, _LATEST)

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        tfd = entry.tfd
        if tfd.clockid not in _CLOCKS:
            raise ImageError(
                "files.img", f"timerfd {entry.id:#x} has the clock {tfd.clockid}, which none has"
            )
        given = tfd.flags & os.O_NONBLOCK
        yield table.opens(entry.id, "timerfd_create", tfd.clockid, given, about="timerfd")
        yield from table.set_flags(entry.id, tfd.flags, given=given, about="timerfd")

    def complete(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        """It starts as late as possible; what wakes the machine up has to while there is CAP_WAKE_ALARM."""
        tfd, number = entry.tfd, table.at[entry.id]
        stage = Stage.ATTRIBUTES if tfd.clockid in _ALARMS else Stage.TIMERS
        about = f"fd {number} (timerfd, {_CLOCKS[tfd.clockid]})"
        flags, left = _setting(tfd, table)
        interval = _duration(tfd.isec, tfd.insec, entry.id)
        if left:
            text = f"{{every {interval / _SECOND:g} s, {'at' if flags else 'in'} {left / _SECOND:g} s}}"
            setting = data(_ITIMERSPEC.pack(*divmod(interval, _SECOND), *divmod(left, _SECOND)), text)
            yield table.step("timerfd_settime", number, flags, setting, 0, stage=stage, about=about)
        if tfd.ticks:
            ticks = data(struct.pack("<Q", tfd.ticks), text=f"&{tfd.ticks}")
            yield table.step("ioctl", number, _IOC_SET_TICKS, ticks, stage=stage, about=about)


def _setting(tfd: files_pb2.timerfd_entry, table: TablePlan) -> tuple[int, int]:
    """Flags, and nanoseconds until it expires or, with TFD_TIMER_ABSTIME, when; 0 for a timer that is not armed."""
    if tfd.HasField("expires"):
        return tfd.settime_flags & (_ABSTIME | _CANCEL_ON_SET), min(tfd.expires, _LATEST)
    left = _duration(tfd.vsec, tfd.vnsec, tfd.id)
    if left and tfd.settime_flags & _CANCEL_ON_SET and tfd.clockid in _OF_DAY:
        table.warn(f"timerfd {tfd.id:#x}: it will not be told when somebody sets the time of day")
    # CRIU does not look how long ago a periodic timer expired: then it starts anew.
    return 0, left or _duration(tfd.isec, tfd.insec, tfd.id)


def _duration(seconds: int, nanoseconds: int, file_id: int) -> int:
    if nanoseconds >= _SECOND or seconds > _LATEST:
        raise ImageError("files.img", f"timerfd {file_id:#x} has a time of {seconds} s, {nanoseconds} ns")
    return min(seconds * _SECOND + nanoseconds, _LATEST)
