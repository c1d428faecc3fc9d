"""Timers and signals behind descriptors: their lines in fdinfo, their messages and their plans."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from unit.resources.files.test_fileplan import NOBODY, plan, snapshot, table_steps

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux.procfs import fdinfo
from criupy.resources.files.timerfd import TimerFacts, Timerfd
from criupy.resources.filetable import Collected, FileImages
from criupy.resources.openfile import NOBODY as NO_OWNER
from criupy.resources.openfile import OpenFile

TEXT = b"clockid: %d\nticks: 3\nsettime flags: 0%o\nit_value: (%d, 999999999)\nit_interval: (1, 5)\n"
SECOND = 10**9


def timerfd(**fields: int) -> fdtable_pb2.file_entry:
    given = dict.fromkeys(("ticks", "settime_flags", "vsec", "vnsec", "isec", "insec"), 0) | fields
    body = files_pb2.timerfd_entry(id=0, flags=os.O_RDWR | os.O_NONBLOCK, fown=NOBODY, **given)
    return fdtable_pb2.file_entry(type=fdtable_pb2.TIMERFD, id=0, tfd=body)


def encoded(text: bytes, now: int) -> files_pb2.timerfd_entry:
    info = fdinfo.FdInfo(0, os.O_RDWR | os.O_CLOEXEC, 0, 1, text)
    file = OpenFile(1, 5, b"anon_inode:[timerfd]", info, None, NO_OWNER, -1)
    kind, entry = Timerfd(), fdtable_pb2.file_entry(type=fdtable_pb2.TIMERFD, id=7)
    kind.encode(Collected(7, kind, file, TimerFacts(text, now)), entry, FileImages())
    return entry.tfd


def test_lines() -> None:
    assert fdinfo.timerfd(TEXT % (7, 1, 12)) == (7, 3, 1, 13 * SECOND - 1, SECOND + 5)
    assert fdinfo.signalfd(b"sigmask:\t0000000800004200\n") == 1 << 35 | 1 << 14 | 1 << 9


@pytest.mark.parametrize(
    ("clock", "flags", "expires"),
    [(1, 1, None), (0, 0, None), (0, 1, 113 * SECOND - 1), (8, 3, 113 * SECOND - 1), (9, 1, None)],
)
def test_a_time_of_day_is_kept(clock: int, flags: int, expires: int | None) -> None:
    entry = encoded(TEXT % (clock, flags, 12), 100 * SECOND)
    assert entry.clockid == clock
    assert (entry.vsec, entry.vnsec, entry.isec, entry.insec) == (12, 999999999, 1, 5)
    assert (entry.ticks, entry.settime_flags, entry.flags) == (3, flags, os.O_RDWR)
    assert (entry.expires if entry.HasField("expires") else None) == expires


def test_the_latest_time_there_is() -> None:
    assert encoded(TEXT % (0, 3, 9223372036), 100 * SECOND).expires == (1 << 63) - 1


def test_what_remains_and_ticks() -> None:
    one = timerfd(clockid=1, settime_flags=1, vsec=2, isec=3, insec=5, ticks=4)
    steps = plan(snapshot([one], {5: 0}))[0]
    assert [step for step in steps if not step.startswith("filesystem")] == [
        "timerfd_create(1, 2048) -> 0",
        "dup3(0, 5, 0)",
        "close(0)",
        "timers: timerfd_settime(5, 0, {every 3 s, in 2 s}, 0)",
        "timers: ioctl(5, 0x40085400, &4)",
    ]


def test_a_time_of_day() -> None:
    one = timerfd(clockid=8, settime_flags=3, vsec=2, expires=1 << 40)
    steps, warnings = plan(snapshot([one], {0: 0}))
    assert "attributes: timerfd_settime(0, 3, {every 0 s, at 1099.51 s}, 0)" in steps
    assert warnings == []


def test_what_criu_does_not_say() -> None:
    one = timerfd(clockid=0, settime_flags=3, vsec=2)
    steps, (warning,) = plan(snapshot([one], {0: 0}))
    assert "timers: timerfd_settime(0, 0, {every 0 s, in 2 s}, 0)" in steps
    assert "when somebody sets the time of day" in warning
    expired = timerfd(clockid=1, isec=7, ticks=1)
    assert "timers: timerfd_settime(0, 0, {every 7 s, in 7 s}, 0)" in plan(snapshot([expired], {0: 0}))[0]


def test_not_armed() -> None:
    assert table_steps(snapshot([timerfd(clockid=1)], {0: 0})) == ["timerfd_create(1, 2048) -> 0"]


@pytest.mark.parametrize(
    "fields",
    [
        {"clockid": 3},
        {"clockid": 1, "vnsec": SECOND},
        {"clockid": 1, "vsec": 1 << 63},
        {"clockid": 1, "insec": SECOND},
    ],
)
def test_impossible(fields: dict[str, int]) -> None:
    with pytest.raises(ImageError, match="timerfd 0x0 has"):
        plan(snapshot([timerfd(**fields)], {0: 0}))


def test_expired_ones_are_looked_at_again(tmp_path: object) -> None:
    """Only those: what has expired by now is counted, and can still be read."""
    import ctypes
    import select

    libc = ctypes.CDLL(None, use_errno=True)
    timer = libc.timerfd_create(1, os.O_NONBLOCK)
    setting = (ctypes.c_int64 * 4)(0, 1000, 0, 1000)
    assert timer > 0
    assert libc.timerfd_settime(timer, 0, setting, None) == 0
    assert select.select([timer], [], [], 10)[0]
    with open(f"/proc/self/fdinfo/{timer}", "rb") as file:
        info = fdinfo.parse(file.read())
    assert fdinfo.timerfd(info.rest).left == 0
    file_of = SimpleNamespace(info=info, own=timer)
    facts = Timerfd().collect(file_of, None)  # type: ignore[arg-type]
    counted = fdinfo.timerfd(facts.lines)
    assert counted.ticks > 0
    assert int.from_bytes(os.read(timer, 8), "little") >= counted.ticks
    os.close(timer)


def test_signalfd() -> None:
    body = files_pb2.signalfd_entry(id=0, flags=os.O_RDWR | os.O_APPEND, fown=NOBODY, sigmask=0x4200)
    one = fdtable_pb2.file_entry(type=fdtable_pb2.SIGNALFD, id=0, sgfd=body)
    assert table_steps(snapshot([one], {0: 0})) == [
        "signalfd4(-1, &0x4200, 8, 0) -> 0",
        "fcntl(0, 4, 1024)",
    ]
