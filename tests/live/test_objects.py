"""One small program per kernel object: dumped, checked dead, restored, asked to check itself from inside."""

from __future__ import annotations

import pytest
from harness.cases import CASES
from harness.observe import Observation, assert_unharmed, resting_calls, same_calls
from harness.target import wait_until


@pytest.fixture(params=CASES, ids=str)
def case(request, under_test):
    if request.param.not_criu and under_test.name == "criu":
        pytest.skip(f"criu {request.param.not_criu}")
    return request.param


def test_undisturbed(case, target):
    """A failure below is not the program's own."""
    target(case.program, **case.environment).ask()


def test_dump_and_restore(case, target, under_test, images):
    process = target(case.program, **case.environment, RESTORED="1")
    under_test.dump(process, images)
    process.wait_gone()
    under_test.restore(process, images)
    process.ask()


def test_leave_running(case, target, under_test, images):
    if case.not_criu_running and under_test.name == "criu":
        pytest.skip(f"criu {case.not_criu_running}")
    process = target(case.program, **case.environment)
    before, calls = Observation.of(process.pid), resting_calls(process.pid)
    calls.pop(process.pid, None)  # polls for its file
    under_test.dump(process, images, "--leave-running")
    assert_unharmed(before)
    wait_until("threads are blocked where they were", lambda: same_calls(calls, resting_calls(process.pid)))
    process.ask()
