"""epoll(7): a set of watched files.

Image: ``eventpoll_file_entry`` in ``files.img``.  A registration belongs to a file, and bears the descriptor number
that the file had when it was made: with both it is found again (EPOLL_CTL_DEL), and no other has both.  The number may
mean another file by now, or nothing, and the file may be open elsewhere: under other numbers, or in another task, which
has inherited the instance.  Such a registration says which file it has, and is given back where both are: the file gets
that number for a moment.

Not kept: what a one-shot registration has told already may be told again if it is an error or hang-up, and an edge if
the file is ready (EPOLL_CTL_ADD arms those).  Source: Linux fs/eventpoll.c, ``ep_insert``.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux import syscalls
from criupy.linux.procfs.fdinfo import EpollTarget, epoll_targets
from criupy.model.plan import Step, data
from criupy.resources.fileplan import TablePlan
from criupy.resources.filetable import Collected, FileImages, FileTable
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile

_EPOLL_CTL_ADD = 1
NOWHERE = (1 << 31) - 1
"""A number that no descriptor has: CRIU, which watches what it finds under a number, is to refuse."""


@dataclass
class Watch:
    """A registration, the ``skip``-th of those with its number; ``file_id`` is 0 as long as the number leads to the
    watched file."""

    target: EpollTarget
    skip: int
    strayed: bool
    file_id: int = 0


class Epoll(FileKind):
    name = "epoll"
    match = ("anon_inode:[eventpoll]",)
    type = fdtable_pb2.EVENTPOLL

    def obstacles_among(self, file: OpenFile, pids: Iterable[int]) -> Iterator[tuple[str, str]]:
        strayed = [watch for watch in _watches(file) if watch.strayed]
        descriptors = [(pid, fd) for pid in pids for fd in _numbers(pid)] if strayed else []
        for watch in strayed:
            if not any(_is_watched(file, watch, pid, fd) for pid, fd in descriptors):
                yield _lost(watch)

    def collect(self, file: OpenFile, table: FileTable) -> list[Watch]:
        watches = _watches(file)
        strayed = [watch for watch in watches if watch.strayed]
        if strayed:
            table.when_all_are_known(file, partial(_find, file, strayed))
        return watches

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        epfd = entry.epfd
        epfd.id, epfd.flags = one.id, one.file.flags
        epfd.fown.CopyFrom(one.file.owner.message())
        taken = {watch.target.tfd for watch in one.facts if not watch.strayed}
        for watch in one.facts:
            target = watch.target
            tfd = epfd.tfd.add(
                id=0,
                tfd=target.tfd,
                events=target.events,
                data=target.data,
                dev=target.sdev,
                inode=target.ino,
                pos=target.pos,
            )
            if watch.strayed:
                others = images.open_at.get((one.file.pid, watch.file_id), ())
                tfd.file, tfd.number = watch.file_id, target.tfd
                tfd.tfd = next((fd for fd in others if fd not in taken), NOWHERE)
                taken.add(tfd.tfd)

    def reaches(self, entry: fdtable_pb2.file_entry) -> Iterator[int]:
        return (target.file for target in entry.epfd.tfd if target.HasField("file"))

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        yield table.opens(entry.id, "epoll_create1", 0, about="epoll")
        yield from table.set_flags(entry.id, entry.epfd.flags, about="epoll")

    def unite(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        for target in entry.epfd.tfd:
            if target.HasField("file") and target.file in table.at:
                yield from _stray(entry, target, table)

    def complete(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        for target in entry.epfd.tfd:
            if not target.HasField("file"):
                yield _add(table.at[entry.id], target, target.tfd, table)
            elif not {entry.id, target.file} <= table.held.keys():
                yield from _stray(entry, target, table)


def _stray(
    entry: fdtable_pb2.file_entry, target: files_pb2.eventpoll_tfd_entry, table: TablePlan
) -> Iterator[Step]:
    """The registration of a file that has another number, or none in the task's table."""
    loan = table.lend(target.file, target.number)
    yield from loan.before
    number, elsewhere = loan.moved
    instance = table.at[entry.id]
    yield _add(elsewhere if instance == number else instance, target, target.number, table)
    yield from loan.after


def _add(instance: int, target: files_pb2.eventpoll_tfd_entry, number: int, table: TablePlan) -> Step:
    event = data(struct.pack("<IQ", target.events, target.data), f"{{{target.events:#x}, {target.data:#x}}}")
    about = f"fd {instance} (epoll) watches fd {number}"
    return table.step("epoll_ctl", instance, _EPOLL_CTL_ADD, number, event, about=about)


def _watches(file: OpenFile) -> list[Watch]:
    """The registrations, and which of them have a number that does not lead to their file in this task."""
    numbers: Counter[int] = Counter()
    found = []
    for target in epoll_targets(file.info.rest):
        watch = Watch(target, numbers[target.tfd], strayed=False)
        numbers[target.tfd] += 1
        watch.strayed = not _is_watched(file, watch, file.pid, target.tfd)
        found.append(watch)
    return found


def _find(file: OpenFile, strayed: Sequence[Watch], files: Sequence[Collected]) -> Iterator[tuple[str, str]]:
    """The ids of the watched files."""
    for watch in strayed:
        alike = (one for one in files if one.file.info.ino in (0, watch.target.ino))
        found = (one for one in alike if _is_watched(file, watch, one.file.pid, one.file.fd))
        watch.file_id = next((one.id for one in found), 0)
        if not watch.file_id:
            yield _lost(watch)


def _lost(watch: Watch) -> tuple[str, str]:
    why = f"it watches a file that was descriptor {watch.target.tfd} once, and no descriptor leads to it now"
    return why, "let the program remove it (EPOLL_CTL_DEL) before it closes the descriptor"


def _numbers(pid: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):  # gone meanwhile
        return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
    return []


def _is_watched(file: OpenFile, watch: Watch, pid: int, fd: int) -> bool:
    """Whether ``fd`` of a task is the file that the epoll instance ``file`` watches."""
    try:
        return syscalls.kcmp_epoll(pid, fd, file.pid, file.fd, watch.target.tfd, watch.skip) == 0
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.ENOENT, errno.ESRCH):
            raise
        return False
