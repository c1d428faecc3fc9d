"""The pages files of a dump: one for each process and shared object, and a set of its own for what families share."""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from criupy.dumping.capture import TreeFacts
from criupy.images.directory import ImageWriter
from criupy.images.pages import create_pages, pagemap_messages, remove_pages
from criupy.log import Report
from criupy.resources import memory
from criupy.resources.pidnumbers import PidNumbers

FAMILIES = "cow"
"""The directory of the set, below the images."""


class PagesFiles:
    """A context manager; ``ahead`` files are made at once.  ``ids`` are their numbers by pid."""

    def __init__(self, writer: ImageWriter, ahead: int) -> None:
        self._writer = writer
        self._descriptors = [create_pages(writer, number) for number in range(1, ahead + 1)]
        self._used = 0
        self.ids: dict[int, int] = {}
        self._families: list[memory.Family] = []
        self._set: ImageWriter | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Those that nobody needed go."""
        self._stack.__exit__(kind, error, trace)
        for number in range(self._used + 1, len(self._descriptors) + 1):
            remove_pages(self._writer, number)
        while self._descriptors:
            os.close(self._descriptors.pop())

    @property
    def spared(self) -> int:
        """Pages that are not stored again for another process."""
        return sum(family.nr_spared for family in self._families)

    def open(self) -> tuple[int, int]:
        """Id and descriptor of one more file."""
        self._used += 1
        if self._used > len(self._descriptors):
            self._descriptors.append(create_pages(self._writer, self._used))
        return self._used, self._descriptors[self._used - 1]

    def copy(self, tree: TreeFacts, report: Report) -> dict[int, memory.Family]:
        """Copy the pages of all processes, while they stand; returns the families by pid."""
        facts = {process.pid: process.memory for process in tree.processes}
        parents = {process.pid: process.place.ppid for process in tree.processes}
        self._families = memory.find_families(list(facts.values()), parents)
        families = {pid: family for family in self._families for pid in family.pids}
        for number, family in enumerate(self._families, 1):
            memory.copy_family(family, facts, self._open_for_family(number), report.progress)
        for pid, own in facts.items():
            self.ids[pid], descriptor = self.open()
            memory.copy_pages(own, families.get(pid), descriptor, report.progress)
        return families

    def _open_for_family(self, number: int) -> int:
        if self._set is None:
            self._set = self._stack.enter_context(self._writer.below(FAMILIES))
        descriptor = create_pages(self._set, number)
        self._stack.callback(os.close, descriptor)
        return descriptor

    def finish(self, numbers: PidNumbers, *, sync: bool) -> None:
        """Write the pagemaps of the families' set, and lead to it from the images."""
        if self._set is None:
            self._writer.link_parent(None)
            return
        for number, family in enumerate(self._families, 1):
            pagemap = memory.family_pagemap(family, number)
            for pid in family.pids:
                self._set.write("PAGEMAP", pagemap_messages(pagemap), numbers.inside(pid))
        self._set.finish(sync=sync)
        self._writer.link_parent(FAMILIES)
