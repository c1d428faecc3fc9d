"""Dumps that freeze by a cgroup, of either version: all of it at once, and afterwards it is as somebody had left it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import traceback
from pathlib import Path

import pytest
from harness.cgroups import TestCgroup, mount_of
from harness.engine import EngineError
from harness.observe import Observation, TreeObservation, assert_unharmed, shape_of, start_time, tree_of
from harness.target import wait_until

from criupy.errors import FreezeError, UsageError
from criupy.linux.cgroup import Cgroup
from criupy.tracee.freezer import freeze_tree

# Facts that these programs change by working, and that being moved to another cgroup changes.
CALLS_END = r"Threads$|^thread \d+ is gone$"  # in blocked_calls.c, after three seconds
WORKING = r"^SigPnd$|^ShdPnd$|^fd \d+$|^thread \d+ Sig(Pnd|Blk)$|Sig(Pnd|Blk)$"


@pytest.fixture(params=["v1", "v2"])
def cgroup(request, target):
    """A cgroup, removed after the test, before the targets end: who is frozen in v1 does not die."""
    mount = mount_of(request.param)
    if mount is None:
        pytest.skip(f"no hierarchy of the cgroup {request.param} freezer is mounted here, or it is read-only")
    made = TestCgroup.new(request.param, mount)
    yield made
    made.remove()


@pytest.fixture
def start(target, cgroup):
    """Starts a target in the cgroup."""

    def start_in(program, *arguments, **environment):
        process = target(program, *arguments, **environment)
        cgroup.enter(process.pid)
        return process

    return start_in


def option(cgroup):
    return "--freeze-cgroup", str(cgroup.path)


def problem_of_dump(engine, process, images, *options):
    """What the engine says as it refuses, or gives up."""
    with pytest.raises(EngineError) as caught:
        engine.dump(process, images, *options)
    assert not (images / "inventory.img").exists()
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def tracers_of(pid):
    return [Path(f"/proc/{pid}/task/{tid}/status").read_text().split("TracerPid:\t")[1].split()[0]
            for tid in os.listdir(f"/proc/{pid}/task")]  # fmt: skip


def assert_untraced(process):
    for pid in tree_of(process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            assert set(tracers_of(pid)) <= {"0"}


def guardians(*processes):
    """Pids of our children that are none of the targets; the dead, who were left to us, are reaped."""
    children = set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    left = children - {process.pid for process in processes}
    return [pid for pid in left if os.waitpid(pid, os.WNOHANG) == (0, 0)]


def test_storm_is_caught(cgroup, start, under_test, place):
    """A child every millisecond: none is born while everyone stands."""
    process = start("tree_storm.c")
    for attempt in range(3):
        images = place / f"images-{attempt}"
        process.expect_progress()
        cgroup.enter(process.pid)
        under_test.dump(process, images, *option(cgroup))
        process.wait_gone()
        assert cgroup.is_thawed()
        under_test.restore(process, images)
    process.expect_progress()
    process.ask()


@pytest.mark.parametrize(
    "program",
    ["tree_workers.c", "tracee_blocked.c", "py_threads.py", "blocked_calls.c", "tree_dead_leader.c"],
)
def test_leave_running(program, cgroup, start, criupy, place):
    process = start(program)
    before = TreeObservation.of(process.pid)
    for attempt in range(3):
        criupy.dump(process, place / f"images-{attempt}", "--leave-running", *option(cgroup))
        assert cgroup.is_thawed()
        assert_untraced(process)
    changes = CALLS_END if program == "blocked_calls.c" else "^maps$"
    assert_unharmed(before, ignore=f"{WORKING}|{changes}")
    process.ask()


def test_below_the_cgroup(cgroup, start, criupy, images):
    """Threads may be in cgroups of their own below it."""
    process = start("tree_workers.c", WORKERS="4")
    below = cgroup.below()
    below.enter(tree_of(process.pid)[-1])
    outcome = criupy.dump(process, images, *option(cgroup))
    assert "not of the tree" not in outcome.output
    process.wait_gone()
    criupy.restore(process, images)
    process.expect_progress()
    process.ask()


def test_stopped_children(cgroup, start, under_test, images):
    """A real criu waits for ever for those that the v1 freezer holds in their stop."""
    if under_test.name == "criu":
        pytest.skip("criu waits for ever")
    process = start("tree_stopped.c", RESTORED="1")
    under_test.dump(process, images, *option(cgroup))
    process.wait_gone()
    under_test.restore(process, images)
    process.ask()


def test_strangers_are_told_and_stand_too(cgroup, start, criupy, images):
    process, stranger = start("tree_workers.c", WORKERS="2"), start("tree_storm.c")
    outcome = criupy.dump(process, images, "--leave-running", *option(cgroup))
    assert "not of the tree" in outcome.output
    assert f"{stranger.pid} (" in outcome.output
    assert_untraced(stranger)
    stranger.expect_progress()
    stranger.ask()
    process.ask()


def test_strangers_live_on_when_the_tree_is_ended(cgroup, start, criupy, images):
    process, stranger = start("tree_workers.c", WORKERS="2"), start("avx_threads.c")
    before = Observation.of(stranger.pid)
    criupy.dump(process, images, *option(cgroup))
    process.wait_gone()
    assert_unharmed(before)
    stranger.expect_progress()
    stranger.ask()


def test_strangers_that_execute_programs(cgroup, start, criupy, place):
    """Frozen in the midst of it, the threads that have to die for it do not: v1 does not come to an end by itself."""
    process, storms = start("avx_threads.c"), [start("exec_storm.c") for _ in range(2)]
    for attempt in range(4):
        images = place / f"images-{attempt}"
        criupy.dump(process, images, "--leave-running", "--timeout", "50", *option(cgroup))
        for storm in storms:
            storm.expect_progress()
    for one in (*storms, process):
        one.ask()


def test_a_member_outside(cgroup, start, criupy, images):
    process = start("tree_workers.c", WORKERS="4")
    outside = tree_of(process.pid)[-1]
    (cgroup.path.parent / "cgroup.procs").write_text(str(outside))
    before = TreeObservation.of(process.pid)
    problem = problem_of_dump(criupy, process, images, *option(cgroup))
    assert f"task {outside} (" in problem
    assert f"neither in {cgroup.path} nor below" in problem
    assert "do without --freeze-cgroup" in problem
    assert cgroup.is_thawed()
    assert_unharmed(before)
    process.ask()


def test_a_thread_outside(start, criupy, images, cgroup):
    if cgroup.version == "v2":
        pytest.skip("in v2 all threads of a process are below its cgroup")
    process = start("avx_threads.c")
    outside = max(map(int, os.listdir(f"/proc/{process.pid}/task")))
    (cgroup.path.parent / "tasks").write_text(str(outside))
    problem = problem_of_dump(criupy, process, images, *option(cgroup))
    assert f"its thread {outside} is neither in" in problem
    process.ask()


def test_who_does_not_freeze(cgroup, start, criupy, images):
    """Nobody notices that it was tried: no blocked call of the tree ends."""
    process, stranger = start("tracee_blocked.c"), start("unfreezable.c")
    before = Observation.of(process.pid)
    problem = problem_of_dump(criupy, process, images, "--timeout", "1", *option(cgroup))
    assert f"not everyone in {cgroup.path} stands in time" in problem
    assert "--timeout" in problem
    assert cgroup.is_thawed()
    assert_untraced(process)
    assert_untraced(stranger)
    assert_unharmed(before, ignore=WORKING)
    process.expect_progress()
    process.ask()
    stranger.ask()


def test_who_does_not_stop(cgroup, start, criupy, images):
    """The tree freezes, but one of its threads waits in vfork for longer than we do."""
    process = start("tracee_vfork.c", "8000")
    problem = problem_of_dump(criupy, process, images, "--timeout", "1", *option(cgroup))
    assert "vfork" in problem
    assert cgroup.is_thawed()
    assert_untraced(process)
    process.ask()


def test_ended_by_a_signal_while_it_freezes(cgroup, start, criupy, place):
    process, stranger = start("avx_threads.c"), start("unfreezable.c")
    (place / "images").mkdir()
    words = ["dump", "-t", str(process.pid), "-D", str(place / "images"), "--timeout", "100", *option(cgroup)]
    with (place / "output").open("wb") as output:
        dump = subprocess.Popen(
            [criupy.path, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    wait_until("it is being frozen", lambda: not cgroup.is_thawed())
    dump.send_signal(signal.SIGTERM)
    assert dump.wait(20) == 128 + signal.SIGTERM, (place / "output").read_text()
    assert cgroup.is_thawed()
    assert_untraced(process)
    for one in (process, stranger):
        one.ask()


def test_vfork_is_waited_for(cgroup, start):
    process = start("tracee_vfork.c", "700")
    with freeze_tree(process.pid, timeout=10, cgroup=Cgroup.at(str(cgroup.path))) as tree:
        assert tree.processes[0].pid == process.pid
    assert cgroup.is_thawed()
    process.ask()


# Somebody else has frozen it.


def births_of(process):
    return {pid: start_time(pid) for pid in tree_of(process.pid)}


def thaw(cgroup, process, shape):
    """Thaw it, and see the tree come to its form again: who was stopped by a signal is on its way to that."""
    cgroup.thaw()
    wait_until("the tree has its form again", lambda: shape_of(process.pid) == shape)


def assert_stands(cgroup, *processes):
    """Frozen, untraced, and doing nothing."""
    wait_until(f"{cgroup.path} is frozen", cgroup.is_frozen)
    for process in processes:
        assert_untraced(process)
    work = [process.beat for process in processes]
    time.sleep(0.1)
    assert [process.beat for process in processes] == work


@pytest.mark.parametrize("program", ["tree_workers.c", "tracee_blocked.c", "tree_stopped.c"])
def test_frozen_stays_frozen(program, cgroup, start, criupy, place):
    process, stranger = start(program), start("tree_storm.c")
    shape = shape_of(process.pid)
    cgroup.freeze()
    work = process.beat, stranger.beat
    for attempt in range(2):
        outcome = criupy.dump(process, place / f"images-{attempt}", "--leave-running", *option(cgroup))
        assert "frozen as it was" in outcome.output
        assert_stands(cgroup, process, stranger)
    assert (process.beat, stranger.beat) == work, "somebody ran although they were frozen"
    thaw(cgroup, process, shape)
    process.ask()
    stranger.ask()


def test_frozen_below_stays_frozen(cgroup, start, criupy, place):
    process = start("tree_workers.c", WORKERS="4")
    below = cgroup.below()
    below.enter(tree_of(process.pid)[-1])
    below.freeze()
    criupy.dump(process, place / "images", "--leave-running", *option(cgroup))
    assert cgroup.is_thawed()
    assert_stands(below)
    below.thaw()
    process.ask()


def test_frozen_stays_frozen_when_the_tree_is_ended(cgroup, start, criupy, images):
    process, stranger = start("tree_workers.c", WORKERS="4"), start("avx_threads.c")
    cgroup.freeze()
    work = process.beat
    criupy.dump(process, images, *option(cgroup))
    process.wait_gone()
    assert_stands(cgroup, stranger)
    criupy.restore(process, images)
    assert process.beat >= work
    process.expect_progress()
    process.ask()


def test_frozen_stays_frozen_when_a_dump_fails(cgroup, start, criupy, place):
    process = start("avx_threads.c")
    cgroup.freeze()
    (place / "images").mkdir()
    (place / "images" / f"core-{process.pid}.img").mkdir()  # in the way of a file
    problem = problem_of_dump(criupy, process, place / "images", *option(cgroup))
    assert f"Task {process.pid} is frozen as it was" in problem
    assert_stands(cgroup, process)
    cgroup.thaw()
    process.ask()


def test_frozen_left_stopped(cgroup, start, criupy, images):
    process = start("avx_threads.c")
    cgroup.freeze()
    criupy.dump(process, images, "--leave-stopped", *option(cgroup))
    assert_stands(cgroup, process)
    cgroup.thaw()
    wait_until("it is stopped", lambda: "State:\tT" in Path(f"/proc/{process.pid}/status").read_text())
    os.kill(process.pid, signal.SIGCONT)
    process.expect_progress()
    process.ask()


def test_frozen_without_that_it_is_told(cgroup, start, criupy, images):
    """No thread would come to its ptrace-stop, or from there to a batch: said at once, and with what to do."""
    process = start("tree_workers.c", WORKERS="2")
    below = cgroup.below()
    below.enter(tree_of(process.pid)[-1])
    cgroup.freeze()
    problem = problem_of_dump(criupy, process, images)
    assert f"it is frozen with all of {cgroup.path}\n" in problem
    assert f"--freeze-cgroup {cgroup.path}\n" in problem
    assert_stands(cgroup, process)
    cgroup.thaw()
    process.ask()


def test_frozen_by_another_hierarchy(cgroup, start, criupy, images):
    other = mount_of({"v1": "v2", "v2": "v1"}[cgroup.version])
    if other is None:
        pytest.skip("only one hierarchy with a freezer is mounted here")
    process = start("avx_threads.c")
    second = TestCgroup.new({"v1": "v2", "v2": "v1"}[cgroup.version], other)
    try:
        second.enter(process.pid)
        second.freeze()
        assert f"frozen with all of {second.path}" in problem_of_dump(
            criupy, process, images, *option(cgroup)
        )
        assert_stands(second, process)
        second.thaw()
        process.ask()
    finally:
        second.remove()


def test_frozen_from_above(cgroup, start, criupy, images):
    below = cgroup.below()
    process = start("avx_threads.c")
    below.enter(process.pid)
    cgroup.freeze()
    problem = problem_of_dump(criupy, process, images, *option(below))
    assert f"kept frozen by {cgroup.path}" in problem
    assert f"--freeze-cgroup {cgroup.path}" in problem
    assert_stands(cgroup, process)
    cgroup.thaw()
    process.ask()


# What is no cgroup to freeze.


@pytest.mark.parametrize("path", ["", "missing", "images"])
def test_no_cgroup(path, criupy, target, place):
    process = target("avx_threads.c")
    path = path and str(place / path)
    problem = problem_of_dump(criupy, process, place / "images", "--freeze-cgroup", path)
    assert "no cgroup that can be frozen" in problem
    assert "/proc/PID/cgroup" in problem
    process.ask()


def test_a_root_cannot_be_frozen(cgroup, criupy, start, images):
    process = start("avx_threads.c")
    problem = problem_of_dump(criupy, process, images, "--freeze-cgroup", str(cgroup.path.parent))
    assert "has neither freezer.state nor cgroup.freeze" in problem
    process.ask()


def test_criupy_does_not_freeze_itself(cgroup, start):
    process = start("avx_threads.c")
    (cgroup.path / "cgroup.procs").write_text(str(os.getpid()))
    try:
        with (
            pytest.raises(UsageError, match="criupy itself"),
            freeze_tree(process.pid, cgroup=Cgroup.at(str(cgroup.path))),
        ):
            pass
    finally:
        (cgroup.path.parent / "cgroup.procs").write_text(str(os.getpid()))
    assert cgroup.is_thawed()
    process.ask()


# criupy is killed: a guardian gives the cgroup back.


def killed_at(pid, cgroup, number):
    """Let a process of ours freeze the tree and kill itself after its step ``number``; whether it came that far."""
    steps = iter(range(1_000_000))

    def hook(_):
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            with freeze_tree(pid, cgroup=cgroup, step=hook):
                pass
            status = 0
        except BaseException:  # noqa: BLE001 -- whatever it is, this process ends here
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"it ended with {status:#x}"
    return status != 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", ["tracee_blocked.c eintr", "tree_workers.c", "tree_stopped.c"])
@pytest.mark.parametrize("was_frozen", [False, True], ids=["thawed", "frozen"])
def test_killed_after_every_step(program, was_frozen, cgroup, start):
    process = start(*program.split(), WORKERS="3")
    stranger = start("avx_threads.c")
    shape, births = shape_of(process.pid), births_of(process)
    number = 0
    if was_frozen:
        cgroup.freeze()
    while killed_at(process.pid, Cgroup.at(str(cgroup.path)), number):
        given_back = cgroup.is_frozen if was_frozen else cgroup.is_thawed
        wait_until(f"it is given back, killed after step {number}", given_back, timeout=5)
        wait_until("the guardian has ended", lambda: not guardians(process, stranger), timeout=5)
        assert_untraced(process)
        assert_untraced(stranger)
        number += 1
    assert number > 15
    assert (cgroup.is_frozen if was_frozen else cgroup.is_thawed)()
    thaw(cgroup, process, shape)
    assert births_of(process) == births
    stranger.expect_progress()
    for one in (process, stranger):
        one.ask()


@pytest.mark.parametrize("was_frozen", [False, True], ids=["thawed", "frozen"])
def test_killed_while_it_freezes(was_frozen, cgroup, start, criupy, place):
    """Killed with all of its process group, as a shell does it."""
    process, stranger = start("avx_threads.c"), start("unfreezable.c")
    if was_frozen:
        cgroup.freeze(wait=False)
    (place / "images").mkdir()
    words = ["dump", "-t", str(process.pid), "-D", str(place / "images"), "--timeout", "100", *option(cgroup)]
    dump = subprocess.Popen(
        [criupy.path, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    children = Path(f"/proc/{dump.pid}/task/{dump.pid}/children")
    wait_until("it has a guardian", lambda: children.read_text() != "")
    time.sleep(0.05)
    assert dump.pid > 1
    os.killpg(dump.pid, signal.SIGKILL)
    dump.wait(20)
    if not was_frozen:
        wait_until("it is thawed", cgroup.is_thawed, timeout=5)
    wait_until("the guardian has ended", lambda: not guardians(process, stranger), timeout=5)
    assert cgroup.is_thawed() != was_frozen
    cgroup.thaw()
    for one in (process, stranger):
        assert_untraced(one)
        one.ask()


def test_the_guardian_is_killed(cgroup, start):
    """That costs the guard, and nothing else."""
    process = start("avx_threads.c")
    killed = []

    def hook(step):
        if step == "freeze the cgroup" and not killed:  # there may be several attempts
            (guardian,) = guardians(process)
            assert guardian > 1
            os.kill(guardian, signal.SIGKILL)
            killed.append(guardian)

    with freeze_tree(process.pid, cgroup=Cgroup.at(str(cgroup.path)), step=hook):
        pass
    assert killed
    assert cgroup.is_thawed()
    process.ask()


def test_the_guardian_ends_a_hang(cgroup, start, monkeypatch):
    """The v1 freezer holds who is stopped by a signal, and to seize it is to wait without an end."""
    if cgroup.version == "v2":
        pytest.skip("with v2 nothing is known that hangs")
    monkeypatch.setattr("criupy.tracee.freezer.seizable", lambda _, members: members)
    process = start("tree_stopped.c")
    shape = shape_of(process.pid)
    with (
        contextlib.suppress(FreezeError),
        freeze_tree(process.pid, timeout=0.5, cgroup=Cgroup.at(str(cgroup.path))),
    ):
        pass
    assert cgroup.is_thawed()
    assert_untraced(process)
    wait_until("the tree has its form again", lambda: shape_of(process.pid) == shape)
    process.ask()


def test_a_cgroup_that_is_gone(cgroup, start):
    """Whoever owns it may remove it as soon as the tree is dead."""
    below = cgroup.below()
    process = start("avx_threads.c")
    below.enter(process.pid)
    below.freeze()
    with freeze_tree(process.pid, cgroup=Cgroup.at(str(below.path))) as tree:
        tree.kill()
        below.remove()
    process.wait_gone()
