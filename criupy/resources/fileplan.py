"""How a descriptor table comes back: which call opens which file, and what number the kernel will answer.

A restored task starts without descriptors (that of the nursery is far above), and opening always gives the lowest free
number.  So the planner knows every number beforehand, and the plan reads like strace; `Step.expect` holds the kernel
to it.  Descriptors are made in ascending order: what is opened lands in its place, or in a gap below, from where it is
moved.  What several tables share is opened by the nursery, of which the tasks get it (pidfd_getfd).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from criupy.errors import ImageError
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.model.plan import NURSERY, Arg, Ref, Revived, Stage, Step, data, path
from criupy.resources import shmem
from criupy.resources.shmem import Made

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import fown_entry
    from criupy.linux.features import KernelFeatures
    from criupy.model.snapshot import Snapshot
    from criupy.resources.kind import FileKind, PlanSubject

SPARE_NUMBERS = 8
"""How many numbers above the highest of the image must be free: for descriptors on their way to their place."""
AT_FDCWD = -100
F_DUPFD, F_SETFD, F_SETFL, F_SETSIG, F_SETOWN_EX = 0, 2, 4, 10, 15
FD_CLOEXEC = 1
SETTABLE = os.O_APPEND | os.O_NONBLOCK | os.O_ASYNC | os.O_DIRECT | os.O_NOATIME
"""What F_SETFL can change.  Source: Linux fs/fcntl.c, ``SETFL_MASK``."""
_NOT_TO_REPEAT = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_ASYNC | os.O_CLOEXEC
_OWNER_TID = 0
_KEEP = 0xFFFF_FFFF
_IN_A_MESSAGE = -1
"""Instead of a files_id: what holds a file that is on its way."""


class Numbers:
    """The descriptor numbers of a table that are in use."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._lowest = 0

    def take(self) -> int:
        """The lowest free number, as the kernel gives it."""
        while self._lowest in self._used:
            self._lowest += 1
        self._used.add(self._lowest)
        return self._lowest

    def is_used(self, number: int) -> bool:
        return number in self._used

    def occupy(self, number: int) -> None:
        self._used.add(number)

    def release(self, number: int) -> None:
        self._used.discard(number)
        self._lowest = min(self._lowest, number)


class Loan(NamedTuple):
    """A file at a number that is not its own, between the steps ``before`` and ``after``.

    ``moved``: that number, and where the one who has it otherwise is meanwhile.
    """

    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    moved: tuple[int, int] = (-1, -1)


@dataclass
class TablePlan:
    """A descriptor table while it is planned: which file is open at which number.

    ``at`` is by file id and for each file the number where it is now, in the end the lowest of the image.
    """

    subject: PlanSubject
    stage: Stage = Stage.FILES
    at: dict[int, int] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=Numbers)
    groups: dict[Hashable, list[fdtable_pb2.file_entry]] = field(default_factory=dict)
    """What has to be opened together, by `FileKind.together`."""
    memory: Made = field(default_factory=lambda: Made({}, {}))
    """Shared memory, in the nursery."""
    held: Mapping[int, int] = field(default_factory=dict)
    """In a task: the files that the nursery has, as `Shared.at`."""
    _placed: dict[int, bool] = field(default_factory=dict)
    """The numbers of the image that are done, and whether they are closed on exec."""
    _moving: dict[int, int] = field(default_factory=dict)
    _cloexec: set[int] = field(default_factory=set)
    """Numbers on the move that close on exec, as the call that opened them has it."""

    @property
    def snapshot(self) -> Snapshot:
        return self.subject.snapshot

    @property
    def features(self) -> KernelFeatures:
        return self.subject.features

    def warn(self, text: str) -> None:
        self.subject.warn(text)

    def step(
        self, call: str, *args: Arg, stage: Stage | None = None, expect: int | None = None, about: str = ""
    ) -> Step:
        return Step(self.subject.tid, stage or self.stage, call, args, expect=expect, about=about)

    def opens(self, file_id: int, call: str, *args: Arg, cloexec: bool = False, about: str = "") -> Step:
        """A call that opens the file, at a number that is known from now on; ``cloexec``: to be closed on exec."""
        number = self.numbers.take()
        self.settle(file_id, number)
        if cloexec:
            self._cloexec.add(number)
        return self.step(call, *args, expect=number, about=about)

    def open_path(self, file_id: int, flags: int) -> Generator[Step, None, int]:
        """Opens what has a path, or had one; returns the number."""
        reg = reg_entry(self.snapshot, file_id)
        about = reg.name.decode("utf-8", "backslashreplace")
        held = revived(self.subject, file_id, os.O_PATH)
        if held is None:
            call, args = open_path(reg, flags)
            number = self.numbers.take()
            yield self.step(call, *args, expect=number, about=about)
            return number
        borrowed = held
        if self.subject.tid != NURSERY:
            borrowed = self.numbers.take()
            fetch = (self.subject.stub.nursery_fd, held, 0)
            yield self.step("pidfd_getfd", *fetch, expect=borrowed, about=about)
        number = self.numbers.take()
        if stat.S_ISLNK(reg.mode):  # to open it again would be to follow it
            yield self.step("fcntl", borrowed, F_DUPFD, 0, expect=number, about=about)
        else:
            way = shmem.again(borrowed)
            yield self.step("openat", AT_FDCWD, way, _repeated(flags), 0, expect=number, about=about)
        if self.subject.tid != NURSERY:
            yield self.close(borrowed)
        return number

    def settle(self, file_id: int, number: int) -> None:
        """The file is open at a number that was taken before."""
        self.at[file_id] = number
        self._moving[number] = file_id

    def set_flags(self, file_id: int, flags: int, *, given: int = 0, about: str = "") -> Iterator[Step]:
        """The flags of an open file that fcntl(2) can set, if opening has not ``given`` them; O_ASYNC comes later."""
        wanted = flags & SETTABLE & ~os.O_ASYNC
        if wanted != given:
            yield self.step("fcntl", self.at[file_id], F_SETFL, wanted, about=about)

    def close(self, number: int) -> Step:
        """Closes a descriptor that is in nobody's way any more."""
        self.numbers.release(number)
        self._cloexec.discard(number)
        return self.step("close", number)

    def place(self, file_id: int, number: int, *, cloexec: bool) -> Iterator[Step]:
        """Puts the file at its number, from wherever it is."""
        self._placed[number] = cloexec
        source = self.at[file_id]
        if source == number:
            del self._moving[number]
            if cloexec != (number in self._cloexec):
                yield self.step("fcntl", number, F_SETFD, FD_CLOEXEC if cloexec else 0)
            self._cloexec.discard(number)
            return
        if number in self._moving:
            away = self.numbers.take()
            self._cloexec.discard(number)
            self.settle(self._moving.pop(number), away)
            yield self.step("fcntl", number, F_DUPFD, 0, expect=away)
        self.numbers.occupy(number)
        yield self.step("dup3", source, number, os.O_CLOEXEC if cloexec else 0)
        if source in self._moving:
            del self._moving[source]
            self.at[file_id] = number
            yield self.close(source)

    def lend(self, file_id: int, number: int) -> Loan:
        """Gives the file a number for a moment.  What POSIX locks there are must come later: closing drops them."""
        source = self.at[file_id]
        if source == number:
            return Loan()
        to_number = self.step("dup3", source, number, os.O_CLOEXEC)
        if not self.numbers.is_used(number):
            return Loan((to_number,), (self.step("close", number),))
        away = self.numbers.take()
        aside = self.step("fcntl", number, F_DUPFD, 0, expect=away)
        back = self.step("dup3", away, number, os.O_CLOEXEC if self._placed.get(number) else 0)
        return Loan((aside, to_number), (back, self.close(away)), (number, away))


class Shared(NamedTuple):
    """The files that several descriptor tables have, or whose parts they have: numbers in the nursery by file id."""

    at: dict[int, int]
    made_by: dict[int, int]
    """The files_id of the first table that has it, by file id."""
    memory: dict[tuple[int, int], int]
    """What is mapped of shared memory, by (file id, access mode)."""


def plan_shared(kinds: Mapping[int, FileKind], subject: PlanSubject) -> tuple[list[Step], Shared]:
    """Makes in the nursery, beside its pages files, what no table has for itself alone.

    Raises `ImageError` for a kind that cannot be restored yet.
    """
    snapshot = subject.snapshot
    groups = _Groups(kinds, snapshot)
    table = TablePlan(subject, Stage.HOLD)
    for number in range(subject.stub.given):
        table.numbers.occupy(number)
    table.groups = dict(groups.held())
    entries = [entry for group in table.groups.values() for entry in group]
    early = [entry for entry in entries if kinds[entry.type].early(entry)]
    steps = [*_all(early, kinds, table)]
    making, table.memory = shmem.plan(snapshot, table.numbers, subject.stub.pages)
    steps += making
    steps += _all(entries, kinds, table)
    for entry in entries if not snapshot.has_own_pids else ():
        steps += _owner(entry, table)
    for entry in entries:
        steps += kinds[entry.type].unite(entry, table)
    return steps, Shared(table.at, groups.made_by, table.memory.mapped)


class _Groups:
    """The open files of all tables, grouped by what can only be opened together."""

    def __init__(self, kinds: Mapping[int, FileKind], snapshot: Snapshot) -> None:
        self.kinds = kinds
        self.members: dict[Hashable, dict[int, fdtable_pb2.file_entry]] = {}
        self.holders: dict[Hashable, set[int]] = {}
        """By group, the files_id of the tables that have something of it."""
        self.made_by: dict[int, int] = {}
        """By file id, the first table that has it."""
        self.group_of: dict[int, Hashable] = {}
        self.beside: dict[int, set[int]] = {}
        """By files_id, the files of a table."""
        for files_id, infos in _tables(snapshot):
            self.beside[files_id] = {info.id for info in infos}
            for info in infos:
                entry = _entry(snapshot, kinds, info)
                group = self.group_of[entry.id] = kinds[entry.type].together(entry)
                self.holders.setdefault(group, set()).add(files_id)
                self.members.setdefault(group, {})[entry.id] = entry
                self.made_by.setdefault(entry.id, files_id)
        self.beside[_IN_A_MESSAGE] = set()
        for entry in _on_their_way(snapshot, kinds):
            group = self.group_of[entry.id] = kinds[entry.type].together(entry)
            self.holders.setdefault(group, set()).add(_IN_A_MESSAGE)
            self.members.setdefault(group, {})[entry.id] = entry
            self.made_by.setdefault(entry.id, _IN_A_MESSAGE)

    def held(self) -> Iterator[tuple[Hashable, list[fdtable_pb2.file_entry]]]:
        """The groups that the nursery has to open, with their files; last those that others may be in."""
        apart = self._apart()
        for group in sorted(self.holders, key=self._carries):
            files_ids, entries = self.holders[group], list(self.members[group].values())
            shared = len(files_ids) > 1 or _IN_A_MESSAGE in files_ids
            if group in apart or shared or any(self.kinds[entry.type].held for entry in entries):
                yield group, entries

    def _carries(self, group: Hashable) -> bool:
        return any(self.kinds[entry.type].carries for entry in self.members[group].values())

    def _apart(self) -> set[Hashable]:
        """Those of files that have to be open beside each other, and are not in the table that completes them."""
        found: set[Hashable] = set()
        for group, entries in self.members.items():
            for entry in entries.values():
                for other in self.kinds[entry.type].reaches(entry):
                    if other not in self.group_of:
                        message = f"file {entry.id:#x} needs file {other:#x}, which no task has open"
                        raise ImageError("files.img", message)
                    if other not in self.beside[self.made_by[entry.id]]:
                        found |= {group, self.group_of[other]}
        return found


def _on_their_way(snapshot: Snapshot, kinds: Mapping[int, FileKind]) -> Iterator[fdtable_pb2.file_entry]:
    """The files in queued messages."""
    ids = (file_id for packet in snapshot.sk_queues for scm in packet.entry.scm for file_id in scm.rights)
    for file_id in dict.fromkeys(ids):
        yield _known(snapshot, kinds, file_id, f"file {file_id:#x} in a message")


def _all(
    entries: Iterable[fdtable_pb2.file_entry], kinds: Mapping[int, FileKind], table: TablePlan
) -> Iterator[Step]:
    """Opens what is not open yet; a file may open others with it."""
    for entry in entries:
        if entry.id not in table.at:
            yield from kinds[entry.type].plan(entry, table)


def _tables(snapshot: Snapshot) -> Iterator[tuple[int, Sequence[fdtable_pb2.fdinfo_entry]]]:
    """By files_id, in the order of the tasks."""
    seen: set[int] = set()
    for task in snapshot.tasks:
        if task.ids is not None and task.ids.files_id not in seen:
            seen.add(task.ids.files_id)
            yield task.ids.files_id, sorted(snapshot.fds(task), key=lambda info: info.fd)


def plan_table(
    kinds: Mapping[int, FileKind], subject: PlanSubject, shared: Shared, nursery_fd: int
) -> Iterator[Step]:
    """Every descriptor of a task at its number.  ``kinds`` is by type.

    Raises `ImageError` for a kind that cannot be restored yet.
    """
    table = TablePlan(subject, held=shared.at)
    table.numbers.occupy(nursery_fd)
    infos = sorted(subject.snapshot.fds(subject.task), key=lambda info: info.fd)
    entries = {info.id: _entry(subject.snapshot, kinds, info) for info in infos}
    for entry in entries.values():
        table.groups.setdefault(kinds[entry.type].together(entry), []).append(entry)
    for info, following in zip_longest(infos, infos[1:]):
        if following is not None and following.fd == info.fd:
            raise ImageError("fdinfo", f"descriptor {info.fd} of task {subject.task.pid} is there twice")
        if info.id in shared.at:
            if info.id not in table.at:
                yield table.opens(info.id, "pidfd_getfd", nursery_fd, shared.at[info.id], 0, cloexec=True)
        elif info.id not in table.at:
            yield from kinds[info.type].plan(entries[info.id], table)
        yield from table.place(info.id, info.fd, cloexec=bool(info.flags & FD_CLOEXEC))
    assert subject.task.ids is not None
    for entry in entries.values():
        is_first = shared.made_by[entry.id] == subject.task.ids.files_id
        # The nursery knows the owners if it sees them.
        if entry.id not in shared.at or (is_first and subject.snapshot.has_own_pids):
            yield from _owner(entry, table)
        if is_first:
            yield from kinds[entry.type].complete(entry, table)


def _entry(
    snapshot: Snapshot, kinds: Mapping[int, FileKind], info: fdtable_pb2.fdinfo_entry
) -> fdtable_pb2.file_entry:
    entry = snapshot.files.get(info.id)
    if entry is None or entry.type != info.type:
        raise ImageError("files.img", f"descriptor {info.fd} needs file {info.id:#x}, which is not there")
    return _known(snapshot, kinds, info.id, f"descriptor {info.fd}")


def _known(
    snapshot: Snapshot, kinds: Mapping[int, FileKind], file_id: int, what: str
) -> fdtable_pb2.file_entry:
    entry = snapshot.files.get(file_id)
    if entry is None:
        raise ImageError("files.img", f"{what} is not there")
    if entry.type not in kinds:
        kind = fdtable_pb2.fd_types.Name(entry.type)
        raise ImageError("files.img", f"{what} is of the kind {kind}, which cannot be restored yet")
    return entry


def _owner(entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
    """F_SETSIG and F_SETOWN_EX; the owner is remembered with the ids of who sets it, so these change for a moment."""
    body = _body(entry, table.snapshot)
    if "fown" not in body.DESCRIPTOR.fields_by_name:
        return
    fown, number = body.fown, table.at[entry.id]
    about = f"fd {number}, signals"
    if fown.signum:
        yield table.step("fcntl", number, F_SETSIG, fown.signum, about=about)
    if fown.pid:
        tasks = table.snapshot.tasks
        known = {tid for task in tasks for tid in task.threads} | {task.pstree.pgid for task in tasks}
        if fown.pid not in known:
            table.warn(
                f"fd {number} sends its signals to {fown.pid}, which is not in the image set: nobody gets them"
            )
        else:
            stage = _owner_stage(fown, table)
            owner = data(
                struct.pack("ii", fown.pid_type, fown.pid), text=f"{{type {fown.pid_type}, pid {fown.pid}}}"
            )
            other = (fown.uid, fown.euid) != (0, 0)
            if other:
                yield table.step("setresuid", fown.uid, fown.euid, _KEEP, stage=stage, about=about)
            yield table.step("fcntl", number, F_SETOWN_EX, owner, stage=stage, about=about)
            if other:
                yield table.step("setresuid", 0, 0, _KEEP, stage=stage, about=about)
    if body.flags & os.O_ASYNC:
        yield table.step("fcntl", number, F_SETFL, body.flags & SETTABLE, about=about)


def _owner_stage(fown: fown_entry, table: TablePlan) -> Stage:
    """A thread other than a leader is not there at first; after `Stage.CONTENT` those of all processes are."""
    task = table.subject.task
    if fown.pid_type != _OWNER_TID or fown.pid in {one.pid for one in table.snapshot.tasks}:
        return table.stage
    return Stage.ATTRIBUTES if fown.pid in task.threads else Stage.ZOMBIES


def _body(entry: fdtable_pb2.file_entry, snapshot: Snapshot) -> Any:
    """The message that belongs to the type; of a FIFO, that of its path."""
    if entry.type == fdtable_pb2.FIFO:
        return reg_entry(snapshot, entry.fifo.regf_id)
    return next(value for field, value in entry.ListFields() if field.message_type)


def open_path(reg: files_pb2.reg_file_entry, flags: int) -> tuple[str, tuple[Arg, ...]]:
    """The call that opens a file by its path."""
    return "openat", (AT_FDCWD, path(reg.name), _repeated(flags), 0)


def _repeated(flags: int) -> int:
    """The flags for opening a file once more that was opened with these."""
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        flags &= ~os.O_TMPFILE
    return flags & ~_NOT_TO_REPEAT | os.O_NOCTTY


def reg_entry(snapshot: Snapshot, file_id: int) -> files_pb2.reg_file_entry:
    """What is opened by its path.  ImageError if that is not so."""
    entry = snapshot.files.get(file_id)
    if entry is None or entry.type != fdtable_pb2.REG:
        raise ImageError("files.img", f"file {file_id:#x} is needed, and no path is there for it")
    name = entry.reg.name.decode("utf-8", "backslashreplace")
    if entry.reg.ext:
        raise ImageError("files.img", f"{name} is external, which cannot be restored yet")
    if snapshot.nameless.get(file_id, (None, 0))[0] == files_pb2.PROCFS:
        why = f"{name} is of a process that was gone, which cannot be restored yet"
        raise ImageError("remap-fpath.img", why)
    if not entry.reg.name.startswith(b"/") or b"\0" in entry.reg.name:
        raise ImageError("files.img", f"file {file_id:#x} has no absolute path")
    return entry.reg


def plan_revived(snapshot: Snapshot) -> tuple[Revived, ...]:
    """What the nursery has to have open of files that have no name."""
    found: dict[Revived, None] = {}
    for file_id, (kind, number) in snapshot.nameless.items():
        if kind != files_pb2.PROCFS:
            for flags in snapshot.opened.get(file_id, ()):
                found[Revived(kind, number, reg_entry(snapshot, file_id).name, flags)] = None
    return tuple(found)


def revived(subject: PlanSubject, file_id: int, flags: int) -> int | None:
    """The number that a file without a name has in the nursery, open with ``flags``; None if it has a name."""
    if file_id not in subject.snapshot.nameless:
        return None
    kind, number = subject.snapshot.nameless[file_id]
    name = reg_entry(subject.snapshot, file_id).name
    stub = subject.stub
    return len(stub.pages) + len(stub.terminals) + stub.revived.index(Revived(kind, number, name, flags))


def open_steps(subject: PlanSubject, file_id: int, stage: Stage, flags: int, ref: Ref) -> Iterator[Step]:
    """Opens what is mapped, run, or stood in; the answer is ``ref``, and closing it is up to the caller."""
    reg = reg_entry(subject.snapshot, file_id)
    call, args = open_path(reg, flags)
    held = revived(subject, file_id, os.O_PATH if flags & os.O_PATH else flags)
    if held is not None:
        call, args = "pidfd_getfd", (subject.stub.nursery_fd, held, 0)
    about = reg.name.decode("utf-8", "backslashreplace")
    yield Step(subject.tid, stage, call, args, gives=ref, about=about)
