"""Parsers of the files of a task, on texts as Linux 6.18 prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.linux.procfs import task

TAIL = (
    b" S 9578 9577 9576 0 -1 4194304 78 0 0 0 0 0 0 0 20 0 4 0 200368 27779072 308 18446744073709551615"
    b" 94608499695616 94608499698317 140729306631248 0 0 0 16384 33566720 1 1 0 0 17 1 0 0 0 0 0 94608499707344"
    b" 94608499708144 94608897957888 140729306634986 140729306634991 140729306634991 140729306636275 37632\n"
)
NAMES = st.binary(max_size=15).filter(lambda name: b"\0" not in name)


@given(NAMES)
def test_stat_of_any_name(name: bytes) -> None:
    stat = task.stat(b"9580 (" + name + b")" + TAIL)
    assert (stat.pid, stat.comm, stat.state) == (9580, name, "S")
    assert (stat.ppid, stat.pgrp, stat.session, stat.flags) == (9578, 9577, 9576, 4194304)
    assert (stat.start_time, stat.exit_code, stat.number(28)) == (200368, 37632, 140729306631248)


@pytest.mark.parametrize("text", [b"", b"1 (x", b"1 x) S" + TAIL, b"1 (x) S 1 2 3"])
def test_not_a_stat(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a stat file"):
        task.stat(text)


@given(NAMES)
def test_the_name_in_status_is_escaped(name: bytes) -> None:
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    assert task.comm(b"Name:\t" + escaped + b"\nUmask:\t0022\n") == name


def test_status(status) -> None:
    found = task.credentials(status)
    assert found.uids == (1000, 1001, 1002, 1003)
    assert found.gids == (100, 101, 102, 103)
    assert found.groups == (7, 20, 1000)
    assert (found.cap_inheritable, found.cap_ambient) == (0x400, 0x400)
    assert (found.cap_permitted, found.cap_effective) == (0x1FFFEFFFFFF, 0x1FFFEFFFFDF)
    assert found.cap_bounding == 0x1FFFEFFFFFF
    assert found.no_new_privs
    assert task.seccomp_mode(status) == 2
    assert task.pending(status) == (1 << 39, 1 << 40 | 1 << 14)
    assert task.cpus(status) == 1 << 32 | 2


def test_a_name_cannot_pass_for_another_line(status) -> None:
    # A newline in a name arrives escaped, so what follows it is no line of its own.
    spoofed = status.replace(b"od) (d\\n\\\\x", b"x\\nSigPnd:\\tff")
    assert b"SigPnd:\\tff" in spoofed
    assert task.pending(spoofed) == task.pending(status)


def test_status_without_groups_and_without_seccomp(status) -> None:
    plain = status.replace(b"7 20 1000 ", b" ").replace(b"Seccomp:\t2\nSeccomp_filters:\t3\n", b"")
    assert task.credentials(plain).groups == ()
    assert task.seccomp_mode(plain) == 0


@pytest.mark.parametrize("parse", [task.credentials, task.cpus])
def test_status_of_a_zombie_is_refused(parse) -> None:
    with pytest.raises(ValueError, match="not a status file"):
        parse(b"Name:\tx\nState:\tZ (zombie)\n")


def test_thread_features(status) -> None:
    assert task.thread_features(status) == frozenset()
    text = status + b"x86_Thread_features:\tshstk wrss \nx86_Thread_features_locked:\tshstk \n"
    assert task.thread_features(text) == {b"shstk", b"wrss"}


LIMITS = b"""\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             18446744073709551614 unlimited            bytes     
Max data size             unlimited            unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max resident set          unlimited            unlimited            bytes     
Max processes             96365                96365                processes 
Max open files            100                  500                  files     
Max locked memory         8388608              8388608              bytes     
Max address space         unlimited            unlimited            bytes     
Max file locks            unlimited            unlimited            locks     
Max pending signals       96365                96365                signals   
Max msgqueue size         819200               819200               bytes     
Max nice priority         0                    0                    
Max realtime priority     0                    0                    
Max realtime timeout      unlimited            unlimited            us        
"""  # noqa: W291 -- as printed


def test_limits() -> None:
    found = task.limits(LIMITS)
    assert len(found) == 16
    assert found[1] == (task.RLIM_INFINITY - 1, task.RLIM_INFINITY)
    assert found[3] == (8388608, task.RLIM_INFINITY)
    assert (found[7], found[13], found[15]) == ((100, 500), (0, 0), (task.RLIM_INFINITY, task.RLIM_INFINITY))
    with pytest.raises(ValueError, match="not a limits file"):
        task.limits(LIMITS[:200])


TIMERS = b"""\
ID: 3
signal: 41/0000deadbeef1234
notify: none/pid.9580
ClockID: -2
ID: 0
signal: 0/(null)
notify: signal/pid.9580
ClockID: 1
"""


def test_timers() -> None:
    text = (
        TIMERS.replace(b"0/(null)", b"14/ffff8000000000ff")
        + b"ID: 2\nsignal: 41/0\nnotify: signal/tid.9\nClockID: 0\n"
    )
    assert task.timers(text) == (
        task.PosixTimer(0, 14, 0xFFFF8000000000FF, 0, None, 1),
        task.PosixTimer(2, 41, 0, 0, 9, 0),
        task.PosixTimer(3, 41, 0xDEADBEEF1234, 1, None, -2),
    )
    assert task.timers(b"") == ()


@pytest.mark.parametrize("text", [TIMERS, b"x", TIMERS[:-3]])
def test_not_timers(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a timers file"):
        task.timers(text)
