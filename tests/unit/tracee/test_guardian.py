"""What is finished by another process when criupy cannot."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from criupy.tracee import guardian


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def test_it_acts_when_an_error_ends_the_block(tmp_path: Path) -> None:
    done = tmp_path / "done"
    with guardian.unless_done(done.touch):
        pass
    assert not done.exists()
    with pytest.raises(KeyError), guardian.unless_done(done.touch):
        raise KeyError
    assert done.exists()


def test_it_acts_when_criupy_is_gone(tmp_path: Path) -> None:
    done = tmp_path / "done"
    child = os.fork()
    if child == 0:
        with guardian.unless_done(done.touch):
            os.kill(os.getpid(), 9)
    assert child > 0
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    for _ in range(500):
        if done.exists():
            break
        time.sleep(0.01)
    assert done.exists()


def test_its_errors_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError("nothing works")

    with pytest.raises(KeyError), guardian.unless_done(fail):
        raise KeyError
    assert "nothing works" in capfd.readouterr().err


def test_ends(sleeper: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(sleeper.pid)
    assert not guardian.are_dead([sleeper.pid])
    guardian.end(pidfd)
    assert guardian.are_dead([sleeper.pid])  # a zombie is dead enough
    assert sleeper.wait(10) == -9
    guardian.end(pidfd)
    os.close(pidfd)
    assert guardian.are_dead([sleeper.pid])
