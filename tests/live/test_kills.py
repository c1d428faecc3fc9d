"""criupy is killed at random moments of a dump: the target is unharmed, or gone and restorable."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness.observe import Observation, TreeObservation, assert_unharmed, tree_of
from harness.target import TargetError, wait_until

KILLS = int(os.environ.get("CRIUPY_KILLS", "30"))
PLAIN_KILLS = int(os.environ.get("CRIUPY_PLAIN_KILLS", "10"))

# The programs, and which facts about themselves they change by working.
PROGRAMS = {
    "avx_threads.c": r"(?!)",
    "py_threads.py": r"^maps$",
    "go_workers.go": r"^maps$|Threads$|SigPnd|^thread \d+ is (new|gone)$",
    "blocked_calls.c": r"Threads$|^thread \d+ is gone$",
}


def start(engine, images, *words):
    """Start a command on ``images`` without waiting for it."""
    with (images.parent / "output").open("wb") as output:
        return subprocess.Popen(
            [engine.path, *words, "-D", str(images), "-o", f"{words[0]}.log"],
            cwd=images.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def start_dump(engine, process, images, *options):
    """Start a dump into a new directory."""
    images.mkdir(mode=0o700)
    return start(engine, images, "dump", "-t", str(process.pid), *options)


def kill_after(command, seconds):
    """SIGKILL the command ``seconds`` after its start; its exit status."""
    try:
        return command.wait(seconds)
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGKILL)
        return command.wait(20)


def duration_of_dump(engine, process, place):
    """How long an undisturbed dump takes, in seconds."""
    began = time.monotonic()
    assert start_dump(engine, process, place / "undisturbed", "--leave-running").wait(60) == 0
    return time.monotonic() - began


MORE = 20
"""Attempts beside those that are wanted, until one was of use: how long a dump takes is not always the same."""


UNTRACED = [("R", "0"), ("S", "0"), ("D", "0")]


def state_of_task(pid):
    """The letter of its State in /proc, and who traces it; one that has ended is in none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    status = dict(line.split(":\t", 1) for line in lines)
    return status["State"][0], status["TracerPid"]


def assert_works_on(process):
    """It is neither stopped nor traced, and gets things done."""
    wait_until("it runs, untraced", lambda: process.has_ended() or state_of_task(process.pid) in UNTRACED)
    assert not process.has_ended(), "it was killed"
    process.expect_no_failure()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("program", list(PROGRAMS))
def test_killed_while_leaving_it_running(program, target, under_test, place):
    process = target(program)
    whole = duration_of_dump(under_test, process, place)
    before = Observation.of(process.pid)
    killed = 0
    share = max(1, KILLS // len(PROGRAMS))
    for attempt in range(share + MORE):
        if attempt >= share and killed:
            break
        images = place / f"images-{attempt}"
        seconds = random.uniform(0.0, 1.1 * whole)
        status = kill_after(start_dump(under_test, process, images, "--leave-running"), seconds)
        killed += status == -signal.SIGKILL
        try:
            assert_works_on(process)
            if program != "blocked_calls.c":  # its only work is to wait
                process.expect_progress()
        except TargetError as error:
            when = f"attempt {attempt}, killed after {seconds:.4f} of {whole:.4f} s"
            raise AssertionError(f"{when}: {error}") from error
    assert killed > 0, "no dump was killed: this test did not test anything"
    # A killed dump may leave bytes that nothing runs; the next one removes them.
    start_dump(under_test, process, place / "last", "--leave-running").wait(60)
    assert_unharmed(before, ignore=PROGRAMS[program])
    process.ask()


TREES = {"tree_workers.c": r"(?!)", "py_tree.py": r"^maps$"}
IN_OWN_PIDS = pytest.mark.parametrize("where", [{}, {"OWN_PIDS": "1"}], ids=["", "own_pids"])
"""In criupy's pid namespace, and as the init of another."""


def assert_tree_works_on(process):
    """Nobody in it is stopped or traced, and it gets things done."""
    for pid in tree_of(process.pid):
        wait_until(f"task {pid} runs, untraced", lambda pid=pid: state_of_task(pid) in UNTRACED)
    process.expect_no_failure()
    process.expect_progress()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("program", list(TREES))
@IN_OWN_PIDS
def test_killed_while_leaving_a_tree_running(program, where, target, under_test, place):
    process = target(program, WORKERS="6", **where)
    whole = duration_of_dump(under_test, process, place)
    before = TreeObservation.of(process.pid)
    killed = 0
    share = max(1, KILLS // 4)
    for attempt in range(share + MORE):
        if attempt >= share and killed:
            break
        images = place / f"images-{attempt}"
        seconds = random.uniform(0.2 * whole, 1.1 * whole)
        status = kill_after(start_dump(under_test, process, images, "--leave-running"), seconds)
        killed += status == -signal.SIGKILL
        try:
            assert_tree_works_on(process)
        except TargetError as error:
            when = f"attempt {attempt}, killed after {seconds:.4f} of {whole:.4f} s"
            raise AssertionError(f"{when}: {error}") from error
    assert killed > 0, "no dump was killed: this test did not test anything"
    start_dump(under_test, process, place / "last", "--leave-running").wait(60)
    assert_unharmed(before, ignore=TREES[program])
    process.ask()


@pytest.mark.timeout(0)
@IN_OWN_PIDS
def test_a_tree_is_killed_whole_or_not_at_all(where, target, under_test, place):
    """A plain dump that is killed leaves all of the tree, or nobody, and then a whole image set."""
    process = target("tree_workers.c", WORKERS="6", **where)
    whole = duration_of_dump(under_test, process, place)
    members = len(tree_of(process.pid))
    ended = {"unharmed": 0, "gone": 0}
    for attempt in range(PLAIN_KILLS):
        images = place / f"images-{attempt}"
        process.record()
        kill_after(start_dump(under_test, process, images), random.uniform(0.4 * whole, 1.2 * whole))
        time.sleep(0.2)  # a task that is being killed is not gone at once
        if process.has_ended():
            ended["gone"] += 1
            wait_until("all of the tree is gone", lambda: not process.left(), timeout=5)
            under_test.restore(process, images)
        else:
            ended["unharmed"] += 1
        assert len(tree_of(process.pid)) == members, f"attempt {attempt}: half a tree"
        assert_tree_works_on(process)
    assert all(ended.values()) or PLAIN_KILLS < 20, f"one way never happened: {ended}"
    process.ask()


@pytest.mark.timeout(0)
def test_killed_during_a_plain_dump(target, under_test, place):
    process = target("avx_threads.c")
    whole = duration_of_dump(under_test, process, place)
    ended = {"unharmed": 0, "gone": 0}
    for attempt in range(PLAIN_KILLS):
        images = place / f"images-{attempt}"
        seconds = random.uniform(0.3 * whole, 1.2 * whole)
        kill_after(start_dump(under_test, process, images), seconds)
        time.sleep(0.2)  # a task that is being killed is not gone at once
        if process.has_ended():
            ended["gone"] += 1
            under_test.restore(process, images)
        else:
            ended["unharmed"] += 1
        assert_works_on(process)
        process.expect_progress()
    assert all(ended.values()) or PLAIN_KILLS < 20, f"one way never happened: {ended}"
    process.ask()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("program", ["avx_threads.c", "tree_workers.c"])
@IN_OWN_PIDS
def test_killed_during_a_restore(program, where, target, under_test, place, images):
    """Nothing of a restore that was killed is left, or everything is there and runs."""
    process = target(program, WORKERS="6", **where)
    members = len(tree_of(process.pid))
    under_test.dump(process, images)
    process.wait_gone()
    began = time.monotonic()
    under_test.restore(process, images)
    whole = time.monotonic() - began
    process.end()
    ended = {"nothing": 0, "whole": 0}
    for attempt in range(PLAIN_KILLS):
        seconds = random.uniform(0.3 * whole, 1.2 * whole)
        pidfile = place / f"pidfile-{attempt}"
        kill_after(start(under_test, images, "restore", "-d", "--pidfile", str(pidfile)), seconds)
        time.sleep(0.2)  # what dies with criupy is not gone at once
        if where and process.living():
            process.pid = int(pidfile.read_text())
        if process.has_ended():
            ended["nothing"] += 1
            wait_until("all of the tree is gone", lambda: not process.left(), timeout=5)
        else:
            ended["whole"] += 1
            assert len(tree_of(process.pid)) == members, f"attempt {attempt}: half a tree"
            assert_works_on(process)
            process.expect_progress()
            process.end()
        left = living_children()
        assert not left, f"attempt {attempt}, killed after {seconds:.4f} s, left processes behind: {left}"
    assert all(ended.values()) or PLAIN_KILLS < 20, f"one way never happened: {ended}"


def living_children():
    """Pids that were left to us, which are the subreaper; dead ones are reaped."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in listed if os.waitpid(int(pid), os.WNOHANG) == (0, 0)]
