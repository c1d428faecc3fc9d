"""States of a task before and after, and what the commands leave beside the images."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from harness.observe import Observation, assert_unharmed
from harness.target import wait_until


def send(process, signum):
    """A signal to the target, which was checked to be ours."""
    assert process.is_ours()
    pidfd = os.pidfd_open(process.pid)
    signal.pidfd_send_signal(pidfd, signum)
    os.close(pidfd)


def state(process):
    return Observation.of(process.pid).facts["State"]


@pytest.fixture
def stopped(target):
    """A target that a signal has stopped."""
    process = target("avx_threads.c")
    send(process, signal.SIGSTOP)
    wait_until("it stops", lambda: state(process) == "T")
    return process


def assert_stopped_and_goes_on(process):
    wait_until("it is stopped", lambda: state(process) == "T")
    work = process.beat
    time.sleep(0.1)
    assert process.beat == work
    send(process, signal.SIGCONT)
    process.expect_progress()
    process.ask()


def test_a_stopped_task_stays_stopped(stopped, under_test, images):
    if under_test.name == "criu":
        pytest.skip("criu leaves a second SIGSTOP pending")
    before = Observation.of(stopped.pid)
    under_test.dump(stopped, images, "--leave-running")
    assert_unharmed(before)
    assert_stopped_and_goes_on(stopped)


def test_a_stopped_task_comes_back_stopped(stopped, under_test, images):
    under_test.dump(stopped, images)
    stopped.wait_gone()
    under_test.restore(stopped, images)
    assert_stopped_and_goes_on(stopped)


def test_leave_stopped(target, under_test, images):
    process = target("avx_threads.c")
    under_test.dump(process, images, "--leave-stopped")
    assert_stopped_and_goes_on(process)


def test_restore_and_leave_stopped(target, under_test, images):
    process = target("avx_threads.c")
    under_test.dump(process, images)
    process.wait_gone()
    under_test.restore(process, images, "--leave-stopped")
    assert_stopped_and_goes_on(process)


def test_restore_waits_for_the_end(target, under_test, images):
    process = target("avx_threads.c")
    under_test.dump(process, images)
    process.wait_gone()
    command = [under_test.path, "restore", "-D", str(images), "-o", "restore.log"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as waiting:
        wait_until("it is back", lambda: os.path.exists(f"/proc/{process.pid}/stat"))
        process.expect_progress()
        assert waiting.poll() is None
        (process.directory / "go").touch()
        assert waiting.wait(20) == 0
    assert "PASS" in process.log
    assert process.has_ended()


def test_pidfile(target, under_test, images, place):
    process = target("avx_threads.c")
    under_test.dump(process, images)
    process.wait_gone()
    pidfile = place / "pid"
    under_test.restore(process, images, "--pidfile", str(pidfile))
    assert pidfile.read_text() == str(process.pid)
    assert pidfile.stat().st_mode & 0o777 == 0o600
    process.end()
    outcome = under_test.run("restore", "-d", "-D", str(images), "--pidfile", str(pidfile), cwd=place)
    assert outcome.returncode == 1, "a pidfile that exists is an error"
    assert process.has_ended(), "a failed restore left a task"


def test_plan_creates_nothing(target, criupy, images, place):
    process = target("memory_kinds.c")
    criupy.dump(process, images)
    process.wait_gone()
    outcome = criupy.run("restore", "-D", str(images), "--plan", cwd=place)
    assert outcome.returncode == 0, outcome
    assert "mmap(" in outcome.output
    assert len(outcome.output.splitlines()) > 50
    assert process.has_ended()
    again = criupy.run("restore", "-D", str(images), "--plan", cwd=place)
    assert again.output == outcome.output, "the same images have the same plan"
    criupy.restore(process, images)
    process.ask()


def test_images_are_private(target, criupy, images):
    process = target("clocks.c")
    criupy.dump(process, images, "--leave-running", "--sync")
    for path in images.iterdir():
        assert path.stat().st_mode & 0o077 == 0, f"others may look into {path.name}"
    process.ask()


def test_statistics_are_displayed_as_criu_has_them(target, under_test, images):
    process = target("clocks.c")
    dumped = under_test.dump(process, images, "--display-stats").output
    process.wait_gone()
    restored = under_test.restore(process, images, "--display-stats").output
    for text, names in (
        (dumped, ["Displaying dump stats:", "Freezing time: ", "Frozen time: ", "Memory pages written: "]),
        (restored, ["Displaying restore stats:", "Pages restored: ", "Restore time: ", "Forking time: "]),
    ):
        for name in names:
            assert any(line.startswith(name) for line in text.splitlines()), (name, text)
