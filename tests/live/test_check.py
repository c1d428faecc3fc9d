"""``criupy check`` says what is there and names what is not."""

from __future__ import annotations

import errno
import json
import subprocess

from harness.observe import TreeObservation, assert_unharmed

from criupy import checking
from criupy.linux import syscalls


def test_looks_good_here(criupy, place):
    for words in (("check",), ("check", "--ms")):
        outcome = criupy.run(*words, cwd=place)
        assert (outcome.returncode, outcome.output) == (0, "Looks good.\n")


def test_every_missing_thing_has_a_name_a_purpose_and_a_remedy(monkeypatch):
    def absent(*_: object) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(syscalls, "kcmp_file", absent)
    monkeypatch.setattr(syscalls, "has_clone3_set_tid", lambda: False)
    assert [item.name for item in checking.missing()] == ["kcmp", "clone3 with set_tid"]
    for item in checking.missing():
        assert f"{item.name} is missing: needed to " in str(item)
        assert item.remedy in str(item)


def test_of_the_kernel_for_a_program(criupy, place):
    outcome = criupy.run("check", "--json", cwd=place)
    assert outcome.returncode == 0
    assert json.loads(outcome.output) == {"good": True, "missing": []}


def test_a_tree_that_can_be_dumped(criupy, target, place):
    process = target("tree_workers.c", WORKERS="3")
    before = TreeObservation.of(process.pid)
    outcome = criupy.run("check", "--pid", str(process.pid), cwd=place)
    assert outcome.returncode == 0
    assert outcome.output.startswith(f"The tree of {process.pid} can be dumped here.\n")
    assert_unharmed(before)
    process.ask()


def test_a_tree_that_cannot(criupy, place):
    """Everything in the way, each with what helps; as a person reads it, and as a program does."""
    sleeper = subprocess.Popen(["sleep", "100"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        shared = criupy.run("check", "--pid", str(sleeper.pid), cwd=place)
        as_json = criupy.run("check", "--json", "--pid", str(sleeper.pid), cwd=place)
        helped = criupy.run("check", "--shell-job", "--pid", str(sleeper.pid), cwd=place)
    finally:
        sleeper.kill()
        sleeper.communicate(timeout=20)
    assert shared.returncode == as_json.returncode == 1
    assert "cannot be dumped here" in shared.output
    assert "it is not a session leader" in shared.output
    assert "--shell-job" in shared.output
    answer = json.loads(as_json.output.splitlines()[-1])
    assert not answer["dumpable"]
    assert [(one["pid"], one["comm"], one["what"]) for one in answer["obstacles"]] == [
        (sleeper.pid, "sleep", "session")
    ]
    assert "it is not a session leader" not in helped.output


def test_no_tree(criupy, place):
    for pid in ("4000000", "0", "-1"):
        outcome = criupy.run("check", "--pid", pid, cwd=place)
        assert outcome.returncode == 1
        assert "Traceback" not in outcome.output
