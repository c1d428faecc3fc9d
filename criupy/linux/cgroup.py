"""Cgroups that can be frozen: what the kernel's two freezers tell and take, and who is in a cgroup.

Source: Linux kernel/cgroup/legacy_freezer.c (v1), kernel/cgroup/freezer.c (v2).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from criupy.errors import UsageError
from criupy.linux import family
from criupy.linux.family import Member
from criupy.linux.procfs import task as procfs
from criupy.linux.procfs.mountinfo import Mount

_PF_KTHREAD = 0x200000  # Source: Linux include/linux/sched.h
_GONE = (errno.ENOENT, errno.ENODEV)


class Freezer(NamedTuple):
    """One of the two freezers: the files that it has in the directory of a cgroup, and its words."""

    control: str
    """Takes the orders ``freeze`` and ``thaw``."""
    freeze: bytes
    thaw: bytes
    own: str
    """Has 1 when this very cgroup was ordered to freeze, not only one above it."""
    state: str
    frozen: bytes
    """The line of ``state`` when all who are in it or below stand."""
    threads: str


V1 = Freezer(
    "freezer.state", b"FROZEN", b"THAWED", "freezer.self_freezing", "freezer.state", b"FROZEN", "tasks"
)
V2 = Freezer("cgroup.freeze", b"1", b"0", "cgroup.freeze", "cgroup.events", b"frozen 1", "cgroup.threads")


class Cgroup(NamedTuple):
    """A cgroup by its directory.  One that is removed meanwhile has nobody in it, and any order is fine with it.

    What the kernel refuses otherwise is an OSError.
    """

    path: str
    freezer: Freezer

    @classmethod
    def at(cls, path: str) -> Cgroup:
        """`UsageError` for a directory that is no cgroup, or one that cannot be frozen."""
        place = os.path.realpath(path)
        for freezer in (V1, V2):
            if os.path.exists(os.path.join(place, freezer.control)):
                return cls(place, freezer)
        what = "has neither freezer.state nor cgroup.freeze" if os.path.isdir(path) else "is not a directory"
        raise UsageError(
            f"{path} {what}, so it is no cgroup that can be frozen",
            hint="name the cgroup of the tree below the mount of the v1 freezer or of cgroup2 (not its root):"
            " /proc/PID/cgroup tells",
        )

    def above(self) -> Iterator[Cgroup]:
        """Those that it is in, the nearest first; the root cannot be frozen and is not among them."""
        place = os.path.dirname(self.path)
        while os.path.exists(os.path.join(place, self.freezer.control)):
            yield Cgroup(place, self.freezer)
            place = os.path.dirname(place)

    def subtree(self) -> list[Cgroup]:
        """Itself and those below, parents first."""
        return [Cgroup(place, self.freezer) for place, _, _ in os.walk(self.path)]

    def was_ordered(self) -> bool:
        """Whether somebody has frozen this very cgroup."""
        return self._read(self.freezer.own).strip() == b"1"

    def is_frozen(self) -> bool:
        """Whether everyone in it stands."""
        return self.freezer.frozen in self._read(self.freezer.state).splitlines()

    def freeze(self) -> None:
        """Let everyone in it and below stand soon: `is_frozen` tells."""
        self._write(self.freezer.freeze)

    def thaw(self) -> None:
        """Let everyone go on who is not frozen by another cgroup, above or below."""
        self._write(self.freezer.thaw)

    def tids(self) -> set[int]:
        """The threads in it and below; who is being born or dies at this moment may be missing."""
        listed = (cgroup._read(self.freezer.threads) for cgroup in self.subtree())  # noqa: SLF001 - its own kind
        return {int(word) for text in listed for word in text.split()} - {0}  # 0: in another pid namespace

    def others(self, members: Iterable[Member], ancestors: Collection[int]) -> list[Member]:
        """The processes in it that are none of ``members`` and do not descend from ``ancestors``.

        Kernel threads are left out: no freezer stops them.
        """
        rest = self.tids().difference(*(member.tids for member in members))
        found: dict[int, Member] = {}
        while rest:
            member = _process_of(rest.pop())
            rest -= member.tids
            if member.tids and not _is_kernel_thread(member.pid):
                found[member.pid] = member
        return [found[pid] for pid in sorted(found) if not family.descends(pid, ancestors)]

    def _read(self, name: str) -> bytes:
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        except OSError as error:
            if error.errno in _GONE:
                return b""
            raise

    def _write(self, order: bytes) -> None:
        try:
            with open(os.path.join(self.path, self.freezer.control), "wb", buffering=0) as file:
                file.write(order)
        except OSError as error:
            if error.errno not in _GONE:
                raise


def cgroups_of(text: bytes, mounts: Iterable[Mount]) -> list[Cgroup]:
    """The cgroups with a freezer that the text of a ``/proc/PID/cgroup`` names, where ``mounts`` have them.

    Source: Linux kernel/cgroup/cgroup.c, ``proc_cgroup_show``.
    """
    paths: dict[Freezer, bytes] = {}
    for line in text.splitlines():
        number, controllers, path = line.split(b":", 2)
        if number == b"0":
            paths[V2] = path
        elif b"freezer" in controllers.split(b","):
            paths[V1] = path
    found: dict[Freezer, Cgroup] = {}
    for mount in mounts:
        freezer = _mounted_freezer(mount)
        path = paths.get(freezer, b"") if freezer is not None else b""
        root = mount.root.rstrip(b"/")
        if freezer is not None and path.startswith(root + b"/"):
            found[freezer] = Cgroup(os.fsdecode(mount.point + path[len(root) :]), freezer)
    return list(found.values())


def _mounted_freezer(mount: Mount) -> Freezer | None:
    if mount.fstype == b"cgroup2":
        return V2
    return V1 if mount.fstype == b"cgroup" and b"freezer" in mount.super_options else None


def _process_of(tid: int) -> Member:
    """The process of a thread; without threads if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        with open(f"/proc/{tid}/status", "rb") as file:
            pid = next(int(line[5:]) for line in file if line.startswith(b"Tgid:"))
        for member in family.walk(pid, [pid]):
            return member
    return Member(tid, 0, frozenset())


def _is_kernel_thread(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat", "rb") as file:
        return bool(procfs.stat(file.read()).flags & _PF_KTHREAD)
    return False
