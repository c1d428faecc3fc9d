"""Trees of processes: dumped, all of them checked dead, restored, asked to check themselves from inside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest
from harness.cases import TREES
from harness.engine import EngineError
from harness.observe import Observation, TreeObservation, assert_unharmed, shape_of, tree_of
from harness.target import TargetError, wait_until

CYCLES = int(os.environ.get("CRIUPY_CYCLES", "2"))

# What bash changes by starting programs, and waiting for them.
CHANGING = r"^task \d+ is (new|gone)$|^children$|^maps$|^fd |^Sig(Cgt|Blk)$"
# Programs that work all the time, and which facts about their tasks they change by that.
WORKING = {
    "tree_workers.c": r"(?!)",
    "py_tree.py": r"^maps$",
    "py_sockets.py": r"^maps$",
    "bash_pipeline.sh": CHANGING,
    "make_builds.sh": CHANGING,
    "followers.sh": CHANGING,
}


def assert_has_form(process, shape):
    """Sooner or later, as the tasks do not all start at the same moment."""
    with contextlib.suppress(TargetError):
        wait_until("the tree has its form again", lambda: shape_of(process.pid) == shape, timeout=5)
    assert shape_of(process.pid) == shape


def our_children():
    """Those of this process; it is a subreaper, so what a restore leaves behind becomes one."""
    return {*Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def assert_nothing_is_left(process, before):
    """Neither of the tree nor of what a restore made to become it; ``before``: the children that we had."""
    wait_until(f"nothing is left of the tree of {process.pid}", lambda: not process.left(), timeout=5)
    with contextlib.suppress(TargetError):
        wait_until("we have no more children", lambda: our_children() <= before, timeout=5)
    assert our_children() <= before, "a restore left processes behind"


@pytest.mark.parametrize(
    "program", ["tree_family.c", "tree_zombies.c", "tree_stopped.c", "tree_dead_leader.c"]
)
def test_a_target_ends_with_all_of_its_tree(program, target):
    """Of the harness: what lives is not gone, and ending a target leaves none of its pids busy."""
    process = target(program, ROOT="1")
    process.record()
    members = tree_of(process.pid)
    assert set(members) == set(process.members) == set(process.left())
    with pytest.raises(TargetError):
        process.wait_gone(timeout=0.1)
    process.end()
    assert not [pid for pid in members if os.path.exists(f"/proc/{pid}")]


@pytest.mark.parametrize("case", TREES, ids=str)
def test_undisturbed(case, target):
    """A failure below is not the program's own."""
    target(case.program, **case.environment).ask()


def refuses(engine, process, images, why, *options):
    """What cannot be dumped is said before anything is stopped, and the tree runs on as it was."""
    before = TreeObservation.of(process.pid)
    with pytest.raises(EngineError, match=why) as refusal:
        engine.dump(process, images, *options)
    assert "Froze" not in str(refusal.value)
    assert_unharmed(before)
    process.ask()


@pytest.mark.parametrize("case", TREES, ids=str)
def test_dump_and_restore(case, target, under_test, images):
    if case.not_criu and under_test.name == "criu":
        pytest.skip(f"criu {case.not_criu}")
    if case.refused:
        refuses(under_test, target(case.program, **case.environment), images, case.refused)
        return
    process = target(case.program, **case.environment, RESTORED="1")
    shape = shape_of(process.pid)
    under_test.dump(process, images)
    process.wait_gone()
    under_test.restore(process, images)
    assert_has_form(process, shape)
    process.ask()


@pytest.mark.parametrize("case", TREES, ids=str)
def test_leave_running(case, target, under_test, images):
    reason = case.not_criu_running or (not case.criu_dumps and case.not_criu)
    if reason and under_test.name == "criu":
        pytest.skip(f"criu {reason}")
    process = target(case.program, **case.environment)
    if case.refused:
        refuses(under_test, process, images, case.refused, "--leave-running")
        return
    before = TreeObservation.of(process.pid)
    under_test.dump(process, images, "--leave-running")
    assert_unharmed(before)
    process.ask()


@pytest.mark.parametrize("program", list(WORKING))
def test_working_programs_are_left_running(program, target, under_test, images):
    process = target(program)
    before = TreeObservation.of(process.pid)
    under_test.dump(process, images, "--leave-running")
    assert_unharmed(before, ignore=WORKING[program])
    process.expect_progress()
    process.ask()


@pytest.mark.parametrize("program", list(WORKING))
def test_cycles(program, target, under_test, place):
    process = target(program)
    for cycle in range(CYCLES):
        process.expect_progress()
        time.sleep(0.13 * (cycle + 1) % 0.7)  # not always at the same place
        images = place / f"images-{cycle}"
        under_test.dump(process, images)
        process.wait_gone()
        work = process.beat
        under_test.restore(process, images)
        assert process.beat >= work, "work was lost"
        process.expect_progress()
    process.ask()


def test_who_has_lost_its_main_thread_ends_while_criupy_waits(target, criupy, images):
    """Its parent is told of the end, as nobody traces the main thread any more."""
    process = target("tree_leaderless.c", BEYOND_CRIU="1", RESTORED="1")
    criupy.dump(process, images)
    process.wait_gone()
    command = [criupy.path, "restore", "-D", str(images), "-o", "restore.log", "-v4"]
    with (images / "output").open("wb") as output:
        restore = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until("the tree is there", lambda: process.is_ours() or restore.poll() is not None)
        (process.directory / "go").touch()
        wait_until("the tree has ended", lambda: restore.poll() is not None, timeout=30)
        process.expect_no_failure()
        assert "PASS\n" in process.log, (images / "output").read_text()
    finally:
        restore.kill()
        restore.wait()


def test_the_same_images_restore_again(target, under_test, images):
    process = target("tree_workers.c", WORKERS="8")
    under_test.dump(process, images)
    process.wait_gone()
    for _ in range(2):
        under_test.restore(process, images)
        process.expect_progress()
        process.end()
    under_test.restore(process, images)
    process.expect_progress()


def test_clocks_stand_still(target, under_test, images):
    process = target("tree_clocks.c", SECONDS_APART="2")
    under_test.dump(process, images)
    process.wait_gone()
    time.sleep(2)
    under_test.restore(process, images)
    wait_until("the sleep is over", lambda: (process.directory / "slept").exists() or "FAIL" in process.log)
    process.ask()


def problem_of_dump(engine, process, images, *options):
    """What an engine says when it cannot dump, or nothing."""
    try:
        engine.dump(process, images, *options)
    except EngineError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("environment", [{}, {"LEADERLESS": "1"}], ids=["storm", "leaderless"])
def test_storm(environment, target, under_test, place):
    """Children come and go while the tree is walked: a dump gets all of them, or gives up and harms none."""
    process = target("tree_storm.c", **environment)
    for attempt in range(3):
        images = place / f"images-{attempt}"
        process.expect_progress()
        if problem := problem_of_dump(under_test, process, images, "--timeout", "5"):
            assert not (images / "inventory.img").exists(), problem
            root = Observation.of(process.pid).facts
            assert (root["State"], root["TracerPid"]) == ("running", "0"), problem
        else:
            process.wait_gone()
            under_test.restore(process, images)
        process.expect_progress()
    process.ask()


@contextlib.contextmanager
def missing(file):
    """Without ``file``."""
    away = file.with_name("away")
    file.rename(away)
    try:
        yield
    finally:
        away.rename(file)


@contextlib.contextmanager
def taken(pid):
    """While somebody else has ``pid``."""
    for _ in range(100):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        stranger = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
        if stranger.pid == pid:
            break
        stranger.kill()
        stranger.wait()
    assert stranger.pid == pid, f"could not take {pid}"
    try:
        yield
        assert stranger.poll() is None, "a stranger was killed"
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("obstacle", ["file", "pid", "image"])
def test_a_failing_restore_leaves_nothing(obstacle, target, under_test, images):
    process = target("tree_files.c")
    last = tree_of(process.pid)[-1]
    under_test.dump(process, images)
    process.wait_gone()
    before = our_children()
    with {
        "file": lambda: missing(process.directory / "other"),
        "pid": lambda: taken(last),
        "image": lambda: missing(images / f"mm-{last}.img"),
    }[obstacle]():
        with pytest.raises(EngineError):
            under_test.restore(process, images)
        if obstacle != "pid":
            assert_nothing_is_left(process, before)
    assert_nothing_is_left(process, before)
    under_test.restore(process, images)
    process.ask()


def test_what_relatives_share_is_stored_and_counted_once(target, criupy, images):
    process = target("tree_many.c", TASKS="3", MEBIBYTES="4")
    outcome = criupy.dump(process, images)
    stored = sum(path.stat().st_size for path in images.glob("**/pages-*.img")) / 2**20
    assert 4 < stored < 8
    assert f", {stored:.1f} MiB of memory" in outcome.output
    process.wait_gone()
    criupy.restore(process, images)
    process.expect_progress()
