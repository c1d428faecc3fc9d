"""Trees in a pid namespace of their own: what is said, refused and left behind.  What comes back: `harness.cases`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from harness.engine import EngineError
from harness.observe import TreeObservation, assert_unharmed, inside, tree_of
from harness.target import wait_until

from criupy.errors import CriupyError
from criupy.tracee.freezer import freeze_tree


def refused(engine, pid, images, why, *options):
    """``pid`` is not dumped, before anybody is stopped; what was said."""
    images.mkdir(exist_ok=True)
    before = TreeObservation.of(pid)
    outcome = engine.run(
        "dump", "-t", str(pid), "-D", str(images), "-o", "d.log", "-v4", *options, cwd=images
    )
    assert outcome.returncode == 1, outcome
    assert why in outcome.output, outcome
    assert "Hint:" in outcome.output, outcome
    assert "Froze" not in (images / "d.log").read_text()
    assert not (images / "inventory.img").exists()
    assert_unharmed(before)
    return outcome.output


@contextlib.contextmanager
def running(*argv):
    """A program that starts another and waits for it; at the end both have ended."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    ) as one:
        try:
            yield one
        finally:
            for pid in tree_of(one.pid)[1:] or [
                one.pid
            ]:  # who waits reaps: an init ends after who came into its place
                assert pid > 1
                os.kill(pid, signal.SIGKILL)


CLOCK_NANOSLEEP = "230 "


def sleeper_below(process):
    """The sleep(1) that a program has started, when it sleeps."""

    def sleeping(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            is_sleep = Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
            return is_sleep and Path(f"/proc/{pid}/syscall").read_text().startswith(CLOCK_NANOSLEEP)
        return False

    wait_until("it sleeps", lambda: any(map(sleeping, tree_of(process.pid))))
    return next(filter(sleeping, tree_of(process.pid)))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("child", "it lives in another one than"),
        ("children", "children of it would be born in another one"),
        ("thread", "children of its thread"),
        ("file", "which will have another number outside"),
    ],
)
def test_further_namespaces_are_refused(how, why, target, criupy, images):
    process = target("pid_namespaces_below.c", OWN_PIDS="1", HOW=how)
    said = refused(criupy, process.pid, images, why, "--leave-running")
    assert f"task {tree_of(process.pid)[-1]} " in said
    process.ask()


@pytest.mark.parametrize("how", ["child", "children", "thread"])
def test_they_are_refused_below_a_root_in_criupys_own(how, target, criupy, images):
    process = target("pid_namespaces_below.c", HOW=how)
    refused(criupy, process.pid, images, "pid namespace")
    process.ask()


def test_who_is_not_its_init_is_refused(target, criupy, images):
    process = target("tree_family.c", OWN_PIDS="1")
    member = tree_of(process.pid)[-1]
    said = refused(criupy, member, images, "and is not its init", "--shell-job")
    assert f"the init of that ({process.pid})" in said
    process.ask()


def test_who_lives_two_below_is_refused(target, criupy, images):
    process = target("pid_namespaces_below.c", OWN_PIDS="1", HOW="child")
    refused(criupy, tree_of(process.pid)[1], images, "it lives 2 namespaces below criupy", "--shell-job")
    process.ask()


def test_the_init_of_criupys_own_is_refused(criupy, images):
    images.mkdir()
    outcome = criupy.run("dump", "-t", "1", "-D", str(images), cwd=images)
    assert outcome.returncode == 1, outcome
    assert "it is the init of criupy's own" in outcome.output, outcome


def test_a_session_from_outside_is_refused(criupy, images):
    with running("unshare", "--pid", "--fork", "sleep", "1000") as outer:
        why = "its leader is outside of the pid namespace"
        said = refused(criupy, sleeper_below(outer), images, why, "--shell-job")
        assert "setsid" in said


def test_a_mount_namespace_is_refused(criupy, images):
    with running("unshare", "--pid", "--fork", "--mount-proc", "setsid", "sleep", "1000") as outer:
        refused(criupy, sleeper_below(outer), images, "mnt namespace")


def test_a_foreign_proc_is_refused(target, criupy, images):
    """Where /proc shows other numbers than those that criupy has, it would look at strangers."""
    process = target("clocks.c")
    images.mkdir()
    command = ["unshare", "--pid", "--fork", criupy.path, "dump", "-t", str(process.pid), "-D", str(images)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1, done
    assert "/proc shows another one than criupy runs in" in done.stderr, done
    process.ask()


def test_who_would_end_with_the_tree_is_said(target, criupy, images):
    process = target("tree_family.c", OWN_PIDS="1")
    with running("nsenter", "--target", str(process.pid), "--pid", "sleep", "1000") as outer:
        stranger = sleeper_below(outer)
        assert inside(stranger)["NSpid"] != stranger
        said = refused(criupy, process.pid, images, "it came into that")
        assert f"task {stranger} (sleep)" in said
        criupy.dump(process, images, "--leave-running")
        assert outer.poll() is None
        assert Path(f"/proc/{stranger}/status").exists()
    process.ask()


def test_messages_and_the_pidfile_have_the_number_outside(target, criupy, images):
    process = target("clocks.c", OWN_PIDS="1")
    before = process.pid
    assert f"Dumped task {before}:" in criupy.dump(process, images).output
    process.wait_gone()
    outcome = criupy.restore(process, images)
    assert process.pid > 1
    assert inside(process.pid)["NSpid"] == 1
    assert f"Restored task {process.pid}:" in outcome.output
    process.ask()


def test_a_restore_waits_for_the_root(target, criupy, images):
    process = target("clocks.c", OWN_PIDS="1")
    criupy.dump(process, images)
    process.wait_gone()
    command = [criupy.path, "restore", "-D", images, "-v4", "-o", "restore.log"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as waiting:
        log = images / "restore.log"
        wait_until("it is restored", lambda: log.exists() and "finished successfully" in log.read_text())
        (process.pid,) = tree_of(waiting.pid)[1:]
        assert inside(process.pid)["NSpid"] == 1
        process.ask()
        assert waiting.wait(20) == 0


def test_the_same_images_restore_side_by_side(target, criupy, images):
    """Numbers outside are free to choose, so one image set gives many trees."""
    process = target("tree_deep.c", OWN_PIDS="1")
    criupy.dump(process, images)
    process.wait_gone()
    criupy.restore(process, images)
    first = process.pid
    members = len(tree_of(first))
    criupy.restore(process, images)
    assert process.pid != first
    assert len(tree_of(first)) == len(tree_of(process.pid)) == members
    process.ask()


@pytest.mark.parametrize("program", ["tree_workers.c", "py_tree.py", "bash_pipeline.sh", "make_builds.sh"])
def test_working_programs(program, target, criupy, place):
    """As the init of their namespace; each time it is a new one."""
    process = target(program, OWN_PIDS="1")
    for cycle in range(2):
        process.expect_progress()
        images = place / f"images-{cycle}"
        criupy.dump(process, images)
        process.wait_gone()
        work = process.beat
        criupy.restore(process, images)
        assert process.beat >= work, "work was lost"
        process.expect_progress()
    process.ask()


@pytest.mark.parametrize("option", ["dump", "restore"])
def test_leave_stopped(option, target, criupy, images):
    process = target("tree_family.c", OWN_PIDS="1", RESTORED="1")
    criupy.dump(process, images, *(["--leave-stopped"] if option == "dump" else []))
    if option == "restore":
        process.wait_gone()
        criupy.restore(process, images, "--leave-stopped")
    members = tree_of(process.pid)
    wait_until("all are stopped", lambda: {state(pid) for pid in members} == {"T"})
    for pid in members:
        assert pid > 1
        os.kill(pid, signal.SIGCONT)
    process.ask()


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("program", ["avx_threads.c", "py_threads.py"])
def test_threads_of_an_init_end_in_any_order(program, target, criupy, images):
    """The one that ends last waits until all others in the namespace are reaped, by criupy if it has killed them."""
    for attempt in range(3):
        process = target(program, OWN_PIDS="1")
        criupy.dump(process, images.with_name(f"images-{attempt}"))
        process.wait_gone()


def freeze_and_look(pid, step):
    """At every process of the tree, in time."""
    with freeze_tree(pid, timeout=1000, step=step) as tree:
        for process in tree.processes:
            process.first.regs()


@pytest.mark.parametrize("after", ["seize", "interrupt"])
def test_an_init_that_dies_during_a_freeze_is_not_held(after, target):
    process = target("tree_workers.c", WORKERS="6", OWN_PIDS="1")
    done = []

    def step(what):
        if what == after:
            done.append(what)
            if len(done) == 4:
                os.kill(process.pid, signal.SIGKILL)

    assert process.pid > 1
    problem = "grows faster|has ended|is dead|died|is gone|No such process|has exited|no task"
    with pytest.raises(CriupyError, match=problem):
        freeze_and_look(process.pid, step)
    process.wait_gone()


@pytest.mark.parametrize("image", ["mm-{}.img", "core-{}.img", "pages-1.img"])
def test_a_failing_restore_leaves_nothing(image, target, criupy, images):
    process = target("tree_files.c", OWN_PIDS="1")
    last = inside(tree_of(process.pid)[-1])["NSpid"]
    criupy.dump(process, images)
    process.wait_gone()
    file = images / image.format(last)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 & ~4095] if image.startswith("pages") else b"")
    with pytest.raises(EngineError, match=r"Nothing of the tree|is missing|img") as failure:
        criupy.restore(process, images)
    assert "Traceback" not in str(failure.value)
    wait_until("nothing is left", lambda: not process.living())
    file.write_bytes(content)
    criupy.restore(process, images)
    process.ask()


def test_an_init_with_many_threads_ends(target):
    """Its last thread ends when all others are reaped, and which is the last nobody knows."""
    for _ in range(8):
        process = target("avx_threads.c", OWN_PIDS="1")
        with freeze_tree(process.pid) as tree:
            tree.kill(timeout=10)
        process.wait_gone()
