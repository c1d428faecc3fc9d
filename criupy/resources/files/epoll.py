"""epoll(7): a set of watched files.

Image: ``eventpoll_file_entry`` in ``files.img``.  A registration belongs to a file, and bears the descriptor number
that the file had then.  A number that meanwhile means another file is replaced by one that leads to the watched one.

Not kept: that a one-shot registration has fired may be told again as an error or hang-up (EPOLL_CTL_ADD arms those).
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from collections.abc import Iterator

from criupy.images.pb import fdtable_pb2
from criupy.linux import syscalls
from criupy.linux.procfs.fdinfo import EpollTarget, epoll_targets
from criupy.model.plan import Step, data
from criupy.resources.fileplan import TablePlan
from criupy.resources.filetable import Collected, FileImages, FileTable
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile

_EPOLL_CTL_ADD = 1


class Epoll(FileKind):
    name = "epoll"
    match = ("anon_inode:[eventpoll]",)
    type = fdtable_pb2.EVENTPOLL

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        for target, fd in _resolved(file):
            if fd is None:
                why = f"it watches a file that was descriptor {target.tfd} once, and no descriptor leads to it now"
                yield why, "let the program remove it (EPOLL_CTL_DEL) before it closes the descriptor"

    def collect(self, file: OpenFile, table: FileTable) -> list[tuple[EpollTarget, int | None]]:
        return _resolved(file)

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        epfd = entry.epfd
        epfd.id, epfd.flags = one.id, one.file.flags
        epfd.fown.CopyFrom(one.file.owner.message())
        for target, fd in one.facts:
            epfd.tfd.add(
                id=0,
                tfd=target.tfd if fd is None else fd,
                events=target.events,
                data=target.data,
                dev=target.sdev,
                inode=target.ino,
                pos=target.pos,
            )

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        yield table.opens(entry.id, "epoll_create1", 0, about="epoll")
        yield from table.set_flags(entry.id, entry.epfd.flags, about="epoll")

    def complete(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        number = table.at[entry.id]
        for target in entry.epfd.tfd:
            event = data(
                struct.pack("<IQ", target.events, target.data),
                text=f"{{{target.events:#x}, {target.data:#x}}}",
            )
            yield table.step(
                "epoll_ctl",
                number,
                _EPOLL_CTL_ADD,
                target.tfd,
                event,
                about=f"fd {number} (epoll) watches fd {target.tfd}",
            )


def _resolved(file: OpenFile) -> list[tuple[EpollTarget, int | None]]:
    """Each registration with a descriptor that leads to its file now, None where there is none."""
    numbers: Counter[int] = Counter()
    found: list[tuple[EpollTarget, int, int | None]] = []
    for target in epoll_targets(file.info.rest):
        skip = numbers[target.tfd]
        numbers[target.tfd] += 1
        found.append((target, skip, target.tfd if _is_watched(file, target.tfd, target.tfd, skip) else None))
    if all(fd is not None for _, _, fd in found):
        return [(target, fd) for target, _, fd in found]
    taken = {fd for _, _, fd in found if fd is not None}
    resolved = []
    for target, skip, fd in found:
        leads = _another(file, target.tfd, skip, taken) if fd is None else fd
        if leads is not None:
            taken.add(leads)
        resolved.append((target, leads))
    return resolved


def _another(file: OpenFile, tfd: int, skip: int, taken: set[int]) -> int | None:
    others = sorted(map(int, os.listdir(f"/proc/{file.pid}/fd")))
    return next((fd for fd in others if fd not in taken and _is_watched(file, fd, tfd, skip)), None)


def _is_watched(file: OpenFile, fd: int, tfd: int, skip: int) -> bool:
    try:
        return syscalls.kcmp_epoll(file.pid, fd, file.pid, file.fd, tfd, skip) == 0
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.ENOENT):
            raise
        return False
