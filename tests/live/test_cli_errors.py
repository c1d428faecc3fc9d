"""What a user may do wrong gets one clear error, a non-zero exit and no traceback, and harms no target."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from harness.observe import Observation, assert_unharmed

FREE_PID = 4_000_000  # above every pid_max that a test machine has in use


@pytest.fixture
def fails(criupy, place):
    """``fails(*arguments)`` runs criupy, sees it fail as it should, and gives what it said."""

    def run(*arguments, mentions=""):
        outcome = criupy.run(*map(str, arguments), cwd=place)
        assert 0 < outcome.returncode < 128, outcome
        assert "Traceback" not in outcome.output, outcome
        assert "rror" in outcome.output or "Usage" in outcome.output, outcome
        assert str(mentions) in outcome.output, outcome
        return outcome.output

    return run


@pytest.fixture
def whole(target, criupy, images):
    """A whole image set."""
    process = target("clocks.c")
    criupy.dump(process, images)
    process.wait_gone()
    return process, images


def test_unknown_option(fails, place):
    fails("dump", "-t", 1, "-D", place, "--no-such-option", mentions="no-such-option")


def test_unknown_command(fails):
    fails("no-such-command", mentions="no-such-command")


def test_no_command(fails):
    fails()


def test_dump_without_pid(fails, place):
    fails("dump", "-D", place)


@pytest.mark.parametrize("pid", ["0", "-1", "x", "99999999999999999999", ""])
def test_dump_of_no_pid(fails, place, pid):
    fails("dump", "-t", pid, "-D", place)


def test_dead_pid(fails, images):
    images.mkdir()
    fails("dump", "-t", FREE_PID, "-D", images, mentions=FREE_PID)
    assert not (images / "inventory.img").exists()


def test_dump_of_itself(fails, images):
    images.mkdir()
    fails("dump", "-t", os.getpid(), "-D", images)


def test_dump_into_no_directory(fails, target, place):
    process = target("clocks.c")
    before = Observation.of(process.pid)
    fails("dump", "-t", process.pid, "-D", place / "missing", mentions="missing")
    assert_unharmed(before)
    process.ask()


def test_restore_from_no_directory(fails, place):
    fails("restore", "-D", place / "missing", mentions="missing")


def test_restore_from_an_empty_directory(fails, images):
    images.mkdir()
    fails("restore", "-D", images, mentions="inventory.img")


def test_restore_from_a_foreign_directory(fails, images):
    images.mkdir()
    (images / "inventory.img").write_bytes(b"GIF89a, nothing of ours" * 10)
    (images / "pstree.img").write_bytes(os.urandom(4096))
    fails("restore", "-D", images, mentions="inventory.img")


def test_restore_from_a_file(fails, place):
    (place / "a-file").write_bytes(b"")
    fails("restore", "-D", place / "a-file", mentions="a-file")


def test_pid_in_use(fails, target, criupy, images):
    process = target("clocks.c")
    criupy.dump(process, images, "--leave-running")
    before = Observation.of(process.pid)
    fails("restore", "-d", "-D", images, mentions=process.pid)
    assert_unharmed(before)
    process.ask()


def test_truncated_images(fails, whole, criupy, place):
    """Every image, cut in the middle and to nothing: an error that names a file, and no task."""
    process, images = whole
    broken = place / "broken"
    names = sorted(path.name for path in images.glob("*.img"))
    assert len(names) > 5
    for name in names:
        size = (images / name).stat().st_size
        for length in {0, 3, size // 2, size - 1}:
            shutil.copytree(images, broken)
            os.truncate(broken / name, length)
            if length < size:
                said = fails("restore", "-d", "-D", broken)
                assert ".img" in said, f"{name} cut to {length}: {said}"
            assert process.has_ended(), f"{name} cut to {length}: there is a task"
            shutil.rmtree(broken)
    criupy.restore(process, images)
    process.ask()


def test_missing_images(fails, whole, place):
    """Every image missing in turn: an error that names it, or it was not needed; never half a task."""
    process, images = whole
    broken = place / "broken"
    own = (f"{kind}-{process.pid}.img" for kind in ("core", "mm", "fs", "pagemap"))
    for name in ("inventory.img", "pstree.img", "files.img", "pages-1.img", *own):
        shutil.copytree(images, broken)
        (broken / name).unlink()
        fails("restore", "-d", "-D", broken, mentions=name)
        assert process.has_ended()
        shutil.rmtree(broken)


# Who may read every file, so that it can be run from a private directory, but may not look into other tasks.
READER = [
    "--inh-caps",
    "-all,+dac_override",
    "--ambient-caps",
    "+dac_override",
    "--bounding-set",
    "-all,+dac_override",
]
STRANGERS = {
    "nobody": ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *READER],
    "root-without-capabilities": ["setpriv", *READER],
    "root-without-ptrace": ["setpriv", "--bounding-set", "-sys_ptrace"],
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_no_privileges(stranger, criupy, target, place, images):
    """On a task of root: refused, and the task is unharmed."""
    process = target("clocks.c")
    before = Observation.of(process.pid)
    images.mkdir()

    def run(*arguments):
        words = [*stranger, criupy.path, *arguments]
        return subprocess.run(
            words, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )

    assert run("--version").returncode == 0
    for arguments in (["dump", "-t", str(process.pid)], ["restore"]):
        done = run(*arguments, "-D", str(images))
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert "rror" in done.stderr + done.stdout
    assert not (images / "inventory.img").exists()
    assert_unharmed(before)
    process.ask()
