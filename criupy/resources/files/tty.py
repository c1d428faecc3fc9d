"""Terminals, as descriptors: both ends of pseudo terminals, /dev/tty, the terminal that a shell's job was started in.

Image: ``tty_file_entry`` in ``files.img`` beside the ``reg_file_entry`` of its path.  What they lead to is the matter
of `criupy.resources.terminal`.

Not kept: a status of packet mode that nobody has read.  Refused: a slave whose master is outside of the tree, and a
serial line, unless it is the one terminal of --shell-job; a master whose slave somebody outside has; a console of an X
server; line disciplines for networks; /dev/tty of a terminal that is gone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux import tty
from criupy.model.plan import Stage, Step, data, path
from criupy.resources import terminalrestore as restore
from criupy.resources.fileplan import AT_FDCWD, F_SETFL, SETTABLE, TablePlan, reg_entry
from criupy.resources.filetable import Collected, FileImages, FileTable, name_problem, path_entry
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile
from criupy.resources.terminal import CURRENT, OTHER, Lead, lead
from criupy.resources.terminalrestore import Terminals

_DELETED = b" (deleted)"


class TtyFacts(NamedTuple):
    """What it leads to, and the id of its path's entry."""

    lead: Lead
    path_id: int


class Tty(FileKind):
    name = "terminal"
    match = tuple(f"character device {major}" for major in tty.TTY_MAJORS)
    type = fdtable_pb2.TTY
    held = True
    nameless = True

    def obstacles(self, file: OpenFile) -> Iterator[tuple[str, str]]:
        assert file.stat is not None
        found = lead(file.stat.st_rdev, file.own)
        if found.hung_up:
            if found.role in (CURRENT, OTHER):
                yield (
                    "it was hung up, and has no name by which it could come back",
                    "let the program close it",
                )
            return
        if problem := name_problem(file.link, file.stat):
            yield problem
        elif tty.noun(found.device) == "virtual console" and not tty.plays_itself(file.own):
            yield (
                "it is a console whose screen or keyboard a program has taken over",
                "end the X server that has it",
            )
        elif discipline := tty.number(file.own, tty.TIOCGETD):
            yield (
                f"it has line discipline {discipline}, which cannot be dumped",
                "end what uses it (slattach, pppd)",
            )

    def collect(self, file: OpenFile, table: FileTable) -> TtyFacts:
        return TtyFacts(table.terminals.add(file), table.new_id())

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        facts, file = one.facts, one.file
        assert file.stat is not None
        name = file.link.removesuffix(_DELETED) if facts.lead.hung_up else file.link
        images.files[facts.path_id] = path_entry(facts.path_id, name, file.stat, file.flags, owner=file.owner)
        entry.tty.id, entry.tty.regf_id, entry.tty.flags = one.id, facts.path_id, file.flags
        entry.tty.tty_info_id = images.terminal_ids[facts.lead]
        entry.tty.fown.CopyFrom(file.owner.message())

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        """In the nursery, which was given what cannot be opened by a name."""
        info, stub = table.snapshot.terminals[entry.tty.tty_info_id], table.subject.stub
        role, shown = restore.role(info), reg_entry(table.snapshot, entry.tty.regf_id).name
        about = shown.decode("utf-8", "backslashreplace")
        flags = entry.tty.flags & SETTABLE & ~os.O_ASYNC
        own = restore.given_for(stub, entry, info)
        if role in (restore.SLAVE, restore.DEVICE):
            name = shown if own is None else b"/proc/self/fd/%d" % own
            access = entry.tty.flags & os.O_ACCMODE | os.O_NOCTTY | flags
            yield table.opens(entry.id, "openat", AT_FDCWD, path(name), access, 0, about=about)
        elif own is not None:
            table.settle(entry.id, own)
            if role == restore.CURRENT:
                yield from restore.plan_current(Terminals(table.snapshot), entry, stub)
            elif role == restore.MASTER and flags:
                yield table.step("fcntl", own, F_SETFL, flags, about=about)
        if role == restore.MASTER or (role == restore.SLAVE and own is None):
            yield from self._closed_to_others(info, table, table.at[entry.id], about)

    @staticmethod
    def _closed_to_others(
        info: files_pb2.tty_info_entry, table: TablePlan, number: int, about: str
    ) -> Iterator[Step]:
        """What would have kept us from opening it: exclusive mode, and a lock."""
        if info.exclusive:
            yield table.step("ioctl", number, tty.TIOCEXCL, stage=Stage.ATTRIBUTES, about=about)
        if info.locked:
            lock = data(struct.pack("i", 1), "[1]")
            yield table.step("ioctl", number, tty.TIOCSPTLCK, lock, stage=Stage.ATTRIBUTES, about=about)
