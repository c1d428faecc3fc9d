"""``--action-script``: which moments scripts are told of, what they are given, and what their failure does."""

from __future__ import annotations

import os

import pytest
from harness.engine import EngineError
from harness.observe import Observation, assert_unharmed
from harness.target import wait_until

SCRIPT = """#!/bin/sh
echo "{name} $CRTOOLS_SCRIPT_ACTION ${{CRTOOLS_INIT_PID:-none}} $(ls "$CRTOOLS_IMAGE_DIR" | grep -c inventory)" >>calls
echo "said by {name}"
[ "$CRTOOLS_SCRIPT_ACTION" != "{fails}" ]
"""


@pytest.fixture
def script(images):
    """Makes a script in the directory of the images, which is where it runs, and gives its path."""
    images.mkdir(mode=0o700)

    def make(name, fails=""):
        path = images / name
        path.write_text(SCRIPT.format(name=name, fails=fails))
        os.chmod(path, 0o755)
        return "--action-script", str(path)

    return make


def test_moments(script, target, under_test, images):
    process = target("avx_threads.c")
    scripts = [*script("first"), *script("second")]
    outcome = under_test.dump(process, images, *scripts)
    process.wait_gone()
    calls = images / "calls"
    assert calls.read_text().splitlines() == [
        f"{name} {moment} {process.pid} {whole}"
        for moment, whole in (("pre-dump", 0), ("post-dump", 1))
        for name in ("second", "first")
    ]
    assert "said by first\n" in outcome.log
    calls.unlink()
    under_test.restore(process, images, *scripts)
    told = [line.split()[:3] for line in calls.read_text().splitlines()]
    assert told == [
        [name, moment, pid]
        for moment, pid in (
            ("pre-restore", "none"),
            ("post-restore", str(process.pid)),
            ("pre-resume", str(process.pid)),
            ("post-resume", str(process.pid)),
        )
        for name in ("second", "first")
    ]
    process.expect_progress()
    process.ask()


@pytest.mark.parametrize(("moment", "code"), [("pre-dump", 1), ("post-dump", 255)])
def test_a_script_that_fails_at_a_dump(moment, code, script, target, under_test, images):
    process = target("avx_threads.c")
    before = Observation.of(process.pid)
    scripts = [*script("fails", moment), *script("other")]
    with pytest.raises(EngineError, match=f"exit {code}"):
        under_test.dump(process, images, *scripts)
    names = [line.split()[0] for line in (images / "calls").read_text().splitlines()]
    assert names[-2:] == ["other", "fails"], "all of them run"
    assert_unharmed(before)
    process.ask()


@pytest.mark.parametrize("moment", ["pre-restore", "post-restore", "pre-resume", "post-resume"])
def test_a_script_that_fails_at_a_restore(moment, script, target, under_test, images):
    process = target("avx_threads.c")
    scripts = script("fails", moment)
    under_test.dump(process, images)
    process.wait_gone()
    if moment in ("pre-resume", "post-resume"):
        under_test.restore(process, images, *scripts)
        process.ask()
        return
    with pytest.raises(EngineError, match="exit 1"):
        under_test.restore(process, images, *scripts)
    wait_until("nothing is left", lambda: not process.left())


def test_a_script_that_is_none(target, criupy, images):
    process = target("avx_threads.c")
    with pytest.raises(EngineError, match="cannot be run: No such file"):
        criupy.dump(process, images, "--action-script", "missing")
    process.ask()


def test_a_script_without_images(criupy, place):
    outcome = criupy.run("restore", "-D", "missing", "--action-script", "/bin/true", cwd=place)
    assert outcome.returncode == 1
    assert "missing: No such file or directory" in outcome.output
    assert "Traceback" not in outcome.output
