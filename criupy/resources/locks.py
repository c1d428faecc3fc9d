"""Locks of files: flock(2), POSIX and open-file-description locks of fcntl(2), and leases.

Image: ``file_lock_entry`` in ``filelocks.img``.  A POSIX lock belongs to a descriptor table and goes when a descriptor
of its file is closed there, so all come back when nothing is closed any more; the others belong to an open file.
Who waits for a lock is in a system call, which it makes again.

Source: Linux fs/locks.c.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import RestoreError
from criupy.images.pb.fdtable_pb2 import FIFO, REG
from criupy.images.pb.files_pb2 import GHOST, file_lock_entry
from criupy.linux import processes
from criupy.linux.procfs import fdinfo
from criupy.model.plan import Arg, Stage, Step, data
from criupy.model.snapshot import LOCK_FLOCK, LOCK_LEASE, LOCK_OFD, LOCK_POSIX, Snapshot
from criupy.resources.pidnumbers import UNCHANGED, PidNumbers

if TYPE_CHECKING:
    from criupy.resources.kind import PlanSubject
    from criupy.resources.openfile import OpenFile

_FLAGS = {"POSIX": LOCK_POSIX, "FLOCK": LOCK_FLOCK, "OFDLCK": LOCK_OFD, "LEASE": LOCK_LEASE}
_WORDS = {LOCK_POSIX: "POSIX lock", LOCK_FLOCK: "flock", LOCK_OFD: "OFD lock", LOCK_LEASE: "lease"}
_TYPES = {"READ": fcntl.F_RDLCK, "WRITE": fcntl.F_WRLCK}
_F_OFD_SETLK = 37
_STAGE = Stage.ATTRIBUTES
"""Nothing is opened or closed any more, and nobody has lost a privilege."""


def problems(file: OpenFile, *, wanted: bool) -> Iterator[tuple[str, str]]:
    """Why a descriptor cannot be dumped for its locks, and a way out; ``wanted``: whether they are to come along."""
    for lock in fdinfo.locks(file.info.rest):
        what = f"{lock.kind.lower()}, {lock.access.lower()}"
        if not wanted:
            why = f"it holds a lock ({what}), which goes with its process"
            yield why, "take the locks along: --file-locks (lslocks shows them)"
        elif lock.kind not in _FLAGS or lock.access not in _TYPES:
            yield f"it holds a lock of a kind that cannot be dumped ({what})", "let the program release it"
        elif lock.state == "BREAKING":
            yield "its lease is being broken", "wait until the program has given it up"
        elif lock.kind == "LEASE" and file.stat is not None and not file.stat.st_nlink:
            yield (
                "it was deleted, and its content cannot be read without breaking its lease",
                "give up the lease",
            )


def is_leased(file: OpenFile) -> bool:
    """Whether to open it for reading would break a lease."""
    return any(lock.kind == "LEASE" and lock.access == "WRITE" for lock in fdinfo.locks(file.info.rest))


class Locks:
    """All locks of one dump."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, fdinfo.Lock], file_lock_entry] = {}

    def add(self, file: OpenFile, pid: int, file_id: int) -> None:
        """Those that process ``pid`` holds through a descriptor of the open file ``file_id``; each is taken once."""
        for lock in fdinfo.locks(file.info.rest):
            owner = pid if lock.kind == "POSIX" else 0
            length = 0 if lock.end is None else lock.end - lock.start + 1
            entry = file_lock_entry(
                flag=_FLAGS[lock.kind],
                type=_TYPES[lock.access],
                pid=pid,
                fd=file.fd,
                start=lock.start,
                len=length,
            )
            self._found.setdefault((owner, file_id, lock), entry)

    def entries(self, numbers: PidNumbers = UNCHANGED) -> list[file_lock_entry]:
        """The messages; pids are what they are in images."""
        for entry in self._found.values():
            entry.pid = numbers.inside(entry.pid)
        return list(self._found.values())


# Restore


def plan(subject: PlanSubject) -> Iterator[Step]:
    """Gives a task its locks."""
    for entry in subject.snapshot.locks:
        if entry.pid == subject.task.pid:
            call, args = _call(entry)
            yield Step(subject.tid, _STAGE, call, args, about=_about(entry, _path(subject.snapshot, entry)))


def _call(entry: file_lock_entry) -> tuple[str, tuple[Arg, ...]]:
    kind = "F_WRLCK" if entry.type == fcntl.F_WRLCK else "F_RDLCK"
    if entry.flag == LOCK_FLOCK:
        how = fcntl.LOCK_EX if entry.type == fcntl.F_WRLCK else fcntl.LOCK_SH
        return "flock", (entry.fd, how | fcntl.LOCK_NB)
    if entry.flag == LOCK_LEASE:
        return "fcntl", (entry.fd, fcntl.F_SETLEASE, entry.type)
    content = struct.pack("hh4xqqi4x", entry.type, os.SEEK_SET, entry.start, entry.len, 0)
    command = fcntl.F_SETLK if entry.flag == LOCK_POSIX else _F_OFD_SETLK
    return "fcntl", (entry.fd, command, data(content, f"{{{kind}, {entry.start}, {entry.len}}}"))


def _about(entry: file_lock_entry, path: bytes | None) -> str:
    shown = f" {os.fsdecode(path)}" if path else ""
    return f"fd {entry.fd}{shown}, {_WORDS[entry.flag]}"


def _path(snapshot: Snapshot, entry: file_lock_entry) -> bytes | None:
    """The name of the file, if it has one."""
    infos = snapshot.fds(snapshot.task(entry.pid))
    ids = [info.id for info in infos if info.fd == entry.fd]
    if not ids:
        return None
    file = snapshot.files[ids[0]]
    file_id = file.fifo.regf_id if file.type == FIFO else file.id
    if file.type not in (REG, FIFO) or snapshot.nameless.get(file_id, (None, 0))[0] == GHOST:
        return None
    return bytes(snapshot.files[file_id].reg.name)


class LockCheck(NamedTuple):
    """A lock that a restored task will need, and the file that it is on."""

    name: bytes
    entry: file_lock_entry

    def run(self, held: Sequence[fdinfo.HeldLock]) -> None:
        """Raises `RestoreError` naming who has it by now; ``held`` is what ``/proc/locks`` says."""
        try:
            found = os.stat(self.name)
        except FileNotFoundError:
            return  # others look for the file itself
        key = os.major(found.st_dev), os.minor(found.st_dev), found.st_ino
        for pid, inode, lock in held:
            if inode == key and self._conflicts(lock):
                what = _about(self.entry, self.name)
                who = processes.describe(pid) if pid > 0 else "somebody else"
                message = f"task {self.entry.pid}, {what}: it is held by {who}"
                raise RestoreError(
                    message, hint="end that task, or let it release its lock (lslocks shows it)"
                )

    def _conflicts(self, lock: fdinfo.Lock) -> bool:
        entry, flag = self.entry, _FLAGS.get(lock.kind)
        if flag is None or (fcntl.F_WRLCK not in (entry.type, _TYPES.get(lock.access))):
            return False
        if {flag, entry.flag} & {LOCK_FLOCK, LOCK_LEASE}:
            return flag == entry.flag
        starts_before_end = not entry.len or lock.start < entry.start + entry.len
        return starts_before_end and (lock.end is None or entry.start <= lock.end)


def checks(snapshot: Snapshot) -> Iterator[LockCheck]:
    """One for each lock on a file that has a name."""
    for entry in snapshot.locks:
        name = _path(snapshot, entry)
        if name:
            yield LockCheck(name, entry)
