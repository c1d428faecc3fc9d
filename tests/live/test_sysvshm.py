"""System V segments between a dump and a restore: gone, left, used by others, taken; what a failed restore leaves."""

from __future__ import annotations

import ctypes
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.engine import EngineError
from harness.target import wait_until
from live.test_kills import KILLS, living_children, start

from criupy.images.codec import Record
from criupy.images.directory import ImageDirectory, ImageWriter
from criupy.linux.procfs import sysvipc

IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0
SLOTS = 1 << 15
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
libc.shmdt.argtypes = (ctypes.c_void_p,)


@contextmanager
def attached(number: int) -> Iterator[int]:
    """By us: its address."""
    at = libc.shmat(number, None, 0)
    assert at not in (None, ctypes.c_void_p(-1).value)
    try:
        yield at
    finally:
        assert libc.shmdt(at) == 0


def write(number: int, word: bytes) -> None:
    with attached(number) as at:
        ctypes.memmove(at, word + b"\0", len(word) + 1)


@contextmanager
def segment(number: int | None = None, key: int = 0) -> Iterator[int]:
    """One of ours, with an id to have."""
    if number is not None:
        Path("/proc/sys/kernel/shm_next_id").write_text(str(number))
    got = libc.shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0o600)
    try:
        assert got >= 0
        assert number in (got, None)
        yield got
    finally:
        remove(got)


def remove(number: int) -> None:
    assert libc.shmctl(number, IPC_RMID, None) == 0


def said(process) -> str:
    """What the program has found in its segment."""
    process.ask()
    return process.log.partition("found: ")[2].partition("\n")[0]


@pytest.fixture
def dumped(target, under_test, images):
    """A program that has been dumped, and the id of its segment, which is there still."""
    if under_test.name == "criu":
        pytest.skip("criu dumps System V segments only with an IPC namespace")
    process = target("sysv_word.c")
    (number,) = sysvipc.segments()
    under_test.dump(process, images)
    process.wait_gone()
    assert list(sysvipc.segments()) == [number]
    return process, number


def test_gone(dumped, under_test, images):
    process, number = dumped
    remove(number)
    outcome = under_test.restore(process, images)
    assert "System V" not in outcome.output
    assert list(sysvipc.segments()) == [number]
    assert said(process) == "dumped, attached 1 times"


def test_left_by_the_tree(dumped, under_test, images):
    """As often as one likes, whatever the tree has made of it since."""
    process, number = dumped
    for _ in range(2):
        outcome = under_test.restore(process, images)
        assert f"System V segment {number} is there still, left by the tree itself" in outcome.output
        write(number, b"later")
        kill(process)
    under_test.restore(process, images)
    assert said(process) == "dumped, attached 1 times"


def test_left_by_a_tree_in_a_pid_namespace(target, under_test, images):
    """It is known by the pids outside, which the images have; those of a restored tree they have not."""
    if under_test.name == "criu":
        pytest.skip("criu dumps System V segments only with an IPC namespace")
    process = target("sysv_word.c", OWN_PIDS="1")
    (number,) = sysvipc.segments()
    under_test.dump(process, images)
    process.wait_gone()
    outcome = under_test.restore(process, images)
    assert f"System V segment {number} is there still, left by the tree itself" in outcome.output
    kill(process)
    with pytest.raises(EngineError, match=f"ipcrm -m {number}"):
        under_test.restore(process, images)
    remove(number)
    under_test.restore(process, images)
    assert said(process) == "dumped, attached 1 times"


def kill(process) -> None:
    """Its segment stays."""
    listed = process.directory / "sysv"
    text = listed.read_text()
    listed.unlink()
    process.end()
    listed.write_text(text)


def test_others_had_it(dumped, under_test, images):
    process, number = dumped
    write(number, b"theirs")
    outcome = under_test.restore(process, images)
    assert "has outlived the tree, and others have had it attached" in outcome.output
    assert said(process) == "theirs, attached 1 times"


def test_others_have_it(dumped, under_test, images):
    process, number = dumped
    write(number, b"theirs")
    with attached(number):
        outcome = under_test.restore(process, images)
        assert "others have it attached (1 times): it keeps the content" in outcome.output
        assert said(process) == "theirs, attached 2 times"


def test_destroyed_by_others_who_have_it(target, under_test, images):
    """It lives as long as they have it, and then the tree."""
    process = target("tree_shared_memory.c", SYSV="1")
    (number,) = sysvipc.segments()
    under_test.dump(process, images)
    process.wait_gone()
    with attached(number):
        remove(number)
        outcome = under_test.restore(process, images)
        assert "others have it attached" in outcome.output
    assert sysvipc.segments()[number].destroyed
    assert sysvipc.segments()[number].attached == 4
    process.ask()
    assert not sysvipc.segments()


@pytest.mark.parametrize("what", ["id", "slot", "key"])
def test_taken(what, dumped, under_test, images):
    process, number = dumped
    key = sysvipc.segments()[number].key
    remove(number)
    stranger = {
        "id": lambda: segment(number),
        "slot": lambda: segment(number + SLOTS),
        "key": lambda: segment(number + 1, key),
    }[what]
    with stranger() as theirs:
        before = sysvipc.segments()
        with pytest.raises(EngineError, match="cannot be restored, for there is another one") as refused:
            under_test.restore(process, images)
        assert f"ipcrm -m {theirs}" in str(refused.value)
        assert sysvipc.segments() == before
        assert not living_children()
    under_test.restore(process, images)
    assert said(process) == "dumped, attached 1 times"


@contextmanager
def broken(images, pid):
    """The images of a process whose layout the kernel refuses when nearly all of it is there."""
    name = f"mm-{pid}.img"
    whole = (images / name).read_bytes()
    with ImageDirectory(str(images)) as directory:
        mm = directory.only("MM", pid)
    mm.mm_start_code, mm.mm_end_code = mm.mm_end_code, mm.mm_start_code
    with ImageWriter(str(images / "broken")) as writer:
        writer.write("MM", [Record(mm)], pid)
        (images / name).write_bytes((images / "broken" / name).read_bytes())
    try:
        yield
    finally:
        (images / name).write_bytes(whole)


@pytest.mark.parametrize("left", [True, False])
def test_a_failed_restore_leaves_none(left, dumped, under_test, images):
    process, number = dumped
    if not left:
        remove(number)
    with broken(images, process.pid), pytest.raises(EngineError, match="memory layout"):
        under_test.restore(process, images)
    assert not sysvipc.segments()
    assert not living_children()
    under_test.restore(process, images)
    assert said(process) == "dumped, attached 1 times"


def test_a_failed_restore_leaves_those_of_others(dumped, under_test, images):
    process, number = dumped
    write(number, b"theirs")
    with broken(images, process.pid), pytest.raises(EngineError, match="memory layout"):
        under_test.restore(process, images)
    assert list(sysvipc.segments()) == [number]
    under_test.restore(process, images)
    assert said(process) == "theirs, attached 1 times"


@pytest.mark.timeout(0)
def test_a_killed_restore_leaves_none(dumped, under_test, images):
    """Killed when the segment has come, and a little later: it goes, or the tree has it and runs."""
    process, number = dumped
    remove(number)
    ended = {"nothing": 0, "whole": 0}
    for attempt in range(KILLS):
        command = start(under_test, images, "restore", "-d")
        deadline = time.monotonic() + 20
        while not sysvipc.segments() and time.monotonic() < deadline:
            time.sleep(0.0001)
        time.sleep(attempt % 10 * 0.0003)
        command.send_signal(signal.SIGKILL)
        command.wait(20)
        wait_until("nobody is left, or the tree", lambda: len(living_children()) <= (not process.has_ended()))
        if process.has_ended():
            ended["nothing"] += 1
            wait_until("its segment has gone", lambda: not sysvipc.segments(), timeout=5)
            continue
        ended["whole"] += 1
        assert list(sysvipc.segments()) == [number]
        assert sysvipc.segments()[number].attached == 1
        kill(process)
        if sysvipc.segments():
            remove(number)
    assert ended["nothing"]
    under_test.restore(process, images)
    assert said(process) == "dumped, attached 1 times"
