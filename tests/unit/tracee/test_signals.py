"""By which signal a thread meets its tracer."""

from __future__ import annotations

import signal
from signal import SIGCHLD, SIGCONT, SIGHUP, SIGTSTP, SIGURG, SIGWINCH

import pytest

from criupy.tracee.inject import MeetingSignals

ALL = (1 << 64) - 1


def bits(*signals: signal.Signals) -> int:
    return sum(1 << signo - 1 for signo in signals)


@pytest.mark.parametrize(
    ("caught", "ignored", "blocked", "expected"),
    [
        (0, 0, 0, SIGCHLD),
        (bits(SIGCHLD), 0, 0, SIGURG),
        (bits(SIGCHLD), 0, bits(SIGURG), SIGWINCH),
        (bits(SIGCHLD, SIGURG, SIGWINCH), bits(SIGHUP), 0, SIGHUP),
        (bits(SIGCHLD, SIGURG, SIGWINCH), bits(SIGCONT, SIGTSTP), 0, 0),
        (0, 0, ALL, 0),
    ],
)
def test_means_nothing_to_the_process(caught: int, ignored: int, blocked: int, expected: int) -> None:
    assert MeetingSignals(caught, ignored).unblocked(blocked) == expected


@pytest.mark.parametrize(
    ("caught", "blocked", "pending", "expected"),
    [
        (0, ALL, 0, SIGURG),
        (0, ALL, bits(SIGURG), SIGWINCH),
        (bits(SIGURG, SIGWINCH), ALL, 0, 0),
        (bits(SIGURG, SIGWINCH, SIGCHLD), 0, 0, SIGCONT),
        (bits(SIGURG, SIGWINCH, SIGCHLD, SIGCONT), 0, 0, 0),
    ],
)
def test_second_choice(caught: int, blocked: int, pending: int, expected: int) -> None:
    assert MeetingSignals(caught, 0).blocked(blocked, pending) == expected
    assert MeetingSignals(caught, 0, pending=pending).blocked(blocked, 0) == expected


def test_no_sigcont_when_it_would_wake() -> None:
    caught = bits(SIGURG, SIGWINCH, SIGCHLD)
    assert MeetingSignals(caught, 0, may_continue=False).blocked(0, 0) == 0
