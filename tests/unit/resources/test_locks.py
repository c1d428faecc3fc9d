"""Locks: what is noted of them, how they are planned, and when somebody else is in the way."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from criupy.errors import RestoreError
from criupy.images.pb import core_pb2, fdtable_pb2, files_pb2, inventory_pb2
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs import fdinfo
from criupy.linux.procfs.fdinfo import Lock
from criupy.model.plan import StubPlan
from criupy.model.snapshot import LOCK_FLOCK, LOCK_LEASE, LOCK_OFD, LOCK_POSIX, Snapshot, TaskImages
from criupy.resources import locks
from criupy.resources.kind import PlanSubject
from criupy.resources.openfile import NOBODY, OpenFile

PID = 100


def held(*lines: str, pid: int = PID, fd: int = 3) -> OpenFile:
    """A descriptor with lock lines in its fdinfo."""
    rest = "".join(f"lock:\t{number}: {line}\n" for number, line in enumerate(lines, 1)).encode()
    return OpenFile(pid, fd, b"/data", fdinfo.FdInfo(0, os.O_RDWR, 1, 7, rest), None, NOBODY, -1)


POSIX = "POSIX  ADVISORY  WRITE 100 fe:00:7 10 19"
FLOCK = "FLOCK  ADVISORY  READ  100 fe:00:7 0 EOF"
OFD = "OFDLCK ADVISORY  WRITE -1 fe:00:7 5 EOF"
LEASE = "LEASE  ACTIVE    READ  100 fe:00:7 0 EOF"


def entries(*files: tuple[OpenFile, int]) -> list[tuple[int, ...]]:
    found = locks.Locks()
    for file, file_id in files:
        found.add(file, file.pid, file_id)
    return [(one.flag, one.type, one.pid, one.fd, one.start, one.len) for one in found.entries()]


def test_every_kind() -> None:
    assert entries((held(POSIX, FLOCK, OFD, LEASE), 1)) == [
        (LOCK_POSIX, fcntl.F_WRLCK, PID, 3, 10, 10),
        (LOCK_FLOCK, fcntl.F_RDLCK, PID, 3, 0, 0),
        (LOCK_OFD, fcntl.F_WRLCK, PID, 3, 5, 0),
        (LOCK_LEASE, fcntl.F_RDLCK, PID, 3, 0, 0),
    ]


def test_each_is_taken_once() -> None:
    """Duplicates show the same lock; those of another process show only what belongs to the open file."""
    child = held(FLOCK, OFD, pid=PID + 1)
    assert len(entries((held(POSIX, FLOCK, OFD), 1), (held(POSIX, FLOCK, OFD, fd=4), 1), (child, 1))) == 3
    other = POSIX.replace("100", "101")
    assert len(entries((held(POSIX), 1), (held(other, pid=PID + 1), 2))) == 2


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("LEASE  BREAKING  READ  100 fe:00:7 0 EOF", "is being broken"),
        ("DELEG  ACTIVE    READ  100 fe:00:7 0 EOF", "of a kind that cannot be dumped"),
        ("LEASE  BREAKING  UNLCK 100 fe:00:7 0 EOF", "of a kind that cannot be dumped"),
    ],
)
def test_what_cannot_come_along(line: str, why: str) -> None:
    ((found, hint),) = locks.problems(held(line), wanted=True)
    assert why in found
    assert hint


def test_without_the_option() -> None:
    assert [hint for _, hint in locks.problems(held(POSIX, FLOCK), wanted=False)] == [
        "take the locks along: --file-locks (lslocks shows them)"
    ] * 2
    assert [*locks.problems(held(POSIX, FLOCK, OFD, LEASE), wanted=True)] == []


def lock(flag: int, kind: int, start: int = 0, length: int = 0) -> files_pb2.file_lock_entry:
    return files_pb2.file_lock_entry(flag=flag, type=kind, pid=PID, fd=3, start=start, len=length)


def snapshot(name: bytes, *taken: files_pb2.file_lock_entry) -> Snapshot:
    task = TaskImages(
        PID, core_pb2.pstree_entry(), core_pb2.core_entry(), ids=core_pb2.task_kobj_ids_entry(files_id=2)
    )
    fown = core_pb2.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
    reg = files_pb2.reg_file_entry(id=1, flags=0, pos=0, fown=fown, name=name)
    file = fdtable_pb2.file_entry(type=fdtable_pb2.REG, id=1, reg=reg)
    info = fdtable_pb2.fdinfo_entry(id=1, flags=0, type=fdtable_pb2.REG, fd=3)
    return Snapshot(inventory_pb2.inventory_entry(), (task,), {1: file}, {2: [info]}, locks=taken)


def test_plan() -> None:
    saved = snapshot(
        b"/data",
        lock(LOCK_POSIX, fcntl.F_WRLCK, 10, 5),
        lock(LOCK_OFD, fcntl.F_RDLCK),
        lock(LOCK_FLOCK, fcntl.F_WRLCK),
        lock(LOCK_FLOCK, fcntl.F_RDLCK),
        lock(LOCK_LEASE, fcntl.F_WRLCK),
    )
    subject = PlanSubject(PID, saved.root, saved, KernelFeatures(0, pagemap_scan=True), print, StubPlan(0))
    steps = [*locks.plan(subject)]
    assert [str(step) for step in steps] == [
        "fcntl(3, 6, {F_WRLCK, 10, 5})",
        "fcntl(3, 37, {F_RDLCK, 0, 0})",
        "flock(3, 6)",
        "flock(3, 5)",
        "fcntl(3, 1024, 1)",
    ]
    assert steps[0].about == "fd 3 /data, POSIX lock"
    other = subject._replace(task=TaskImages(PID + 1, core_pb2.pstree_entry(), core_pb2.core_entry()))
    assert [*locks.plan(other)] == []


READ, WRITE = fcntl.F_RDLCK, fcntl.F_WRLCK


@pytest.mark.parametrize(
    ("wanted", "there", "conflict"),
    [
        (lock(LOCK_POSIX, WRITE, 10, 10), Lock("POSIX", "ADVISORY", "READ", 19, 19), True),
        (lock(LOCK_POSIX, WRITE, 10, 10), Lock("POSIX", "ADVISORY", "READ", 20, None), False),
        (lock(LOCK_POSIX, WRITE, 10, 10), Lock("OFDLCK", "ADVISORY", "READ", 0, 10), True),
        (lock(LOCK_POSIX, WRITE, 10, 10), Lock("POSIX", "ADVISORY", "WRITE", 0, 9), False),
        (lock(LOCK_POSIX, READ, 10, 10), Lock("POSIX", "ADVISORY", "READ", 0, None), False),
        (lock(LOCK_OFD, READ, 10), Lock("POSIX", "ADVISORY", "WRITE", 1000, None), True),
        (lock(LOCK_FLOCK, READ), Lock("POSIX", "ADVISORY", "WRITE", 0, None), False),
        (lock(LOCK_FLOCK, READ), Lock("FLOCK", "ADVISORY", "WRITE", 0, None), True),
        (lock(LOCK_FLOCK, READ), Lock("FLOCK", "ADVISORY", "READ", 0, None), False),
        (lock(LOCK_POSIX, WRITE), Lock("LEASE", "ACTIVE", "WRITE", 0, None), False),
    ],
)
def test_somebody_in_the_way(
    tmp_path: Path, wanted: files_pb2.file_lock_entry, there: Lock, conflict: bool
) -> None:
    path = tmp_path / "data"
    path.touch()
    found = path.stat()
    inode = (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)
    (check,) = locks.checks(snapshot(os.fsencode(path), wanted))
    check.run([fdinfo.HeldLock(os.getpid(), (*inode[:2], inode[2] + 1), there)])
    if conflict:
        with pytest.raises(RestoreError, match=rf"fd 3 {path}, .*: it is held by {os.getpid()} \("):
            check.run([fdinfo.HeldLock(os.getpid(), inode, there)])
        with pytest.raises(RestoreError, match="it is held by somebody else"):
            check.run([fdinfo.HeldLock(-1, inode, there)])
    else:
        check.run([fdinfo.HeldLock(os.getpid(), inode, there)])


def test_held_locks() -> None:
    text = b"1: POSIX  ADVISORY  WRITE 4711 fe:00:2179366 0 EOF\n1: -> POSIX  ADVISORY  WRITE 12 fe:00:2179366 0 EOF\n"
    assert fdinfo.held_locks(text) == [
        fdinfo.HeldLock(4711, (0xFE, 0, 2179366), Lock("POSIX", "ADVISORY", "WRITE", 0, None))
    ]
