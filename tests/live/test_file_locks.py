"""Locks of files come back, and others see them; without ``--file-locks`` they are refused by name."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct

import pytest
from harness.engine import EngineError
from harness.observe import TreeObservation, assert_unharmed

CYCLES = int(os.environ.get("CRIUPY_CYCLES", "2"))
PLAIN = {}
ALL = {"BEYOND_CRIU": "1"}
OWN_PIDS = {**ALL, "OWN_PIDS": "1"}


@pytest.mark.parametrize("environment", [PLAIN, ALL, OWN_PIDS], ids=["plain", "beyond-criu", "own-pids"])
def test_undisturbed(environment, target):
    target("file_locks.c", **environment).ask()


@pytest.mark.parametrize("environment", [PLAIN, ALL, OWN_PIDS], ids=["plain", "beyond-criu", "own-pids"])
def test_dump_and_restore(environment, target, criupy, images):
    process = target("file_locks.c", **environment)
    criupy.dump(process, images, "--file-locks")
    process.wait_gone()
    assert_locked(process, held=False)
    criupy.restore(process, images, "--file-locks")
    assert_locked(process, held=True)
    process.ask()


def assert_locked(process, *, held):
    """Whether somebody outside finds the locks in his way."""
    with (process.directory / "data").open("rb") as file:
        lock = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hh4xqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0))
        kind, *_, holder = struct.unpack("hh4xqqi4x", lock)
    assert (kind, holder) == ((fcntl.F_RDLCK, process.pid) if held else (fcntl.F_UNLCK, 0))
    with (process.directory / "flocked").open("rb") as file:
        if held:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        else:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_leave_running(target, criupy, images):
    process = target("file_locks.c")
    before = TreeObservation.of(process.pid)
    criupy.dump(process, images, "--file-locks", "--leave-running")
    assert_unharmed(before)
    assert_locked(process, held=True)
    process.ask()


def test_refused_without_the_option(target, criupy, images):
    process = target("file_locks.c")
    before = TreeObservation.of(process.pid)
    with pytest.raises(EngineError) as refusal:
        criupy.dump(process, images)
    for part in (
        "flocked): it holds a lock (flock, write)",
        "data): it holds a lock (posix, read)",
        "--file-locks",
    ):
        assert part in str(refusal.value)
    assert "leased): it holds a lock (lease, write)" in str(refusal.value)
    assert_unharmed(before)
    process.ask()


@pytest.mark.parametrize("kind", ["posix", "flock"])
def test_a_lock_that_somebody_took_meanwhile(kind, target, criupy, images):
    process = target("file_locks.c")
    criupy.dump(process, images, "--file-locks")
    process.wait_gone()
    with (process.directory / {"posix": "data", "flock": "flocked"}[kind]).open("r+b") as file:
        (fcntl.lockf if kind == "posix" else fcntl.flock)(file, fcntl.LOCK_EX)
        with pytest.raises(EngineError, match=f"it is held by {os.getpid()} \\("):
            criupy.restore(process, images)
    assert process.left() == []
    criupy.restore(process, images)
    process.ask()


@pytest.mark.parametrize("direction", ["criupy-to-criu", "criu-to-criupy"])
def test_interop(direction, target, criupy, criu, images):
    dumper, restorer = ({"criupy": criupy, "criu": criu}[name] for name in direction.split("-to-"))
    process = target("file_locks.c")
    dumper.dump(process, images, "--file-locks")
    process.wait_gone()
    restorer.restore(process, images, "--file-locks")
    assert_locked(process, held=True)
    process.ask()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite_in_a_transaction(journal, target, criupy, images):
    """Who else opens the database finds it locked, before and after; the transaction goes on."""
    process = target("py_sqlite.py", journal)
    database = process.directory / "database"
    assert is_locked(database)
    for _ in range(CYCLES):
        criupy.dump(process, images, "--file-locks")
        process.wait_gone()
        criupy.restore(process, images, "--file-locks")
        assert is_locked(database)
    process.ask()
    with sqlite3.connect(database) as connection:
        assert connection.execute("select count(*), sum(number) from numbers").fetchone() == (3, 6)


def is_locked(database):
    connection = sqlite3.connect(database, timeout=0)
    try:
        connection.execute("insert into numbers values (1000)")
        connection.commit()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    else:
        return False
    finally:
        connection.close()
