"""Pages that processes still share after a fork, found by their page frames while nobody runs.

Images: a page that several have is stored once, in a parent set of its own (``cow/``, to which ``parent`` leads): one
pages file for a family, and the same pagemap for each of its members.  In the set itself such pages are marked
PARENT.  So CRIU reads it too.

Source: Linux fs/proc/task_mmu.c (the words of pagemap), mm/memory.c (``do_wp_page``).
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from criupy.linux import mman
from criupy.resources.memory.content import Run
from criupy.resources.memory.vma import VDSO

if TYPE_CHECKING:
    from criupy.resources.memory.dump import MemoryFacts

_BLOCK = 512
"""Pages compared at once, as numbers of many words."""
_FRAME = (1 << 55) - 1 | 3 << 62
"""Of a word of pagemap: the frame or the place in the swap area, whether it is there and whether it is swapped."""
_NUMBERS = int.from_bytes(((1 << 55) - 1).to_bytes(8, "little") * _BLOCK, "little")
_FRAMES = int.from_bytes(_FRAME.to_bytes(8, "little") * _BLOCK, "little")
_WORTH = 16
"""Pages; fewer are not worth a file."""


_Range = tuple[int, int]


class Piece(NamedTuple):
    """Pages of a family's file, and who of it they are read from."""

    start: int
    end: int
    owner: int


class Family(NamedTuple):
    """Processes that come from each other by fork.  ``pieces``: the pages of their file, ascending."""

    pids: tuple[int, ...]
    pieces: tuple[Piece, ...]
    shared: dict[int, tuple[_Range, ...]]
    """By pid, the ranges that it has from the file."""

    @property
    def nr_pages(self) -> int:
        return sum(piece.end - piece.start for piece in self.pieces) // mman.PAGE

    @property
    def nr_spared(self) -> int:
        """Pages that are not stored, as others of the family have them too."""
        had = sum(end - start for ranges in self.shared.values() for start, end in ranges) // mman.PAGE
        return had - self.nr_pages


def find(processes: Sequence[MemoryFacts], parents: Mapping[int, int]) -> list[Family]:
    """The families among stopped processes; ``parents`` by pid.  Who shares nothing is in none."""
    facts = {one.pid: one for one in processes}
    heads: dict[int, int] = {}
    with_parent: dict[int, list[_Range]] = {}
    for one in processes:
        parent = facts.get(parents.get(one.pid, 0))
        found = list(_common(parent, one)) if parent is not None and parent.exe == one.exe else []
        if parent is not None and sum(end - start for start, end in found) >= _WORTH * mman.PAGE:
            with_parent[one.pid] = found
            heads[one.pid] = heads.get(parent.pid, parent.pid)
    return [_family(head, heads, with_parent, parents) for head in dict.fromkeys(heads.values())]


def _family(
    head: int, heads: Mapping[int, int], with_parent: Mapping[int, list[_Range]], parents: Mapping[int, int]
) -> Family:
    """For each page the version of the eldest who shares it goes into the file."""
    members = [head, *(pid for pid, its_head in heads.items() if its_head == head)]
    pieces: list[Piece] = []
    shared: dict[int, list[_Range]] = {pid: [] for pid in members}
    for pid in members[1:]:  # parents come first
        parent, ranges = parents[pid], with_parent[pid]
        known = [(piece.start, piece.end) for piece in pieces]
        new = list(_without(ranges, known))
        pieces = sorted([*pieces, *(Piece(start, end, parent) for start, end in new)])
        shared[pid] = _joined([*new, *_cut(_cut(ranges, known), shared[parent])])
        shared[parent] = _joined([*shared[parent], *new])
    return Family(tuple(members), tuple(pieces), {pid: tuple(ranges) for pid, ranges in shared.items()})


def _without(ranges: Iterable[_Range], known: Sequence[_Range]) -> Iterator[_Range]:
    """The parts of ranges that others, which are ascending, do not cover."""
    for start, end in ranges:
        at = start
        for low, high in _cut([(start, end)], known):
            if at < low:
                yield at, low
            at = high
        if at < end:
            yield at, end


def _cut(ranges: Iterable[_Range], within: Sequence[_Range]) -> Iterator[_Range]:
    """The parts of ranges that lie in others, which are ascending."""
    for start, end in ranges:
        index = max(bisect_right(within, (start, 1 << 64)) - 1, 0)
        while index < len(within) and within[index][0] < end:
            low, high = max(start, within[index][0]), min(end, within[index][1])
            if low < high:
                yield low, high
            index += 1


def _joined(ranges: Iterable[_Range]) -> list[_Range]:
    found: list[_Range] = []
    for start, end in sorted(ranges):
        if found and found[-1][1] >= start:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _common(parent: MemoryFacts, child: MemoryFacts) -> Iterator[_Range]:
    """The ranges of stored pages that are the same frames in both, in areas that both have."""
    own = (vma for vma in parent.vmas if vma.has_pages and not vma.status & VDSO)
    areas = {(vma.start, vma.end, vma.flags, vma.status) for vma in own}
    alike = [
        (vma.start, vma.end) for vma in child.vmas if (vma.start, vma.end, vma.flags, vma.status) in areas
    ]
    theirs = _cut(((run.start, run.end) for run in child.runs), alike)
    both = list(_cut(theirs, [(run.start, run.end) for run in parent.runs]))
    if not both:
        return
    with (
        open(f"/proc/{parent.speaker}/pagemap", "rb", buffering=0) as one,
        open(f"/proc/{child.speaker}/pagemap", "rb", buffering=0) as other,
    ):
        for start, end in both:
            yield from _same_frames(one.fileno(), other.fileno(), start, end)


def _same_frames(one: int, other: int, start: int, end: int) -> Iterator[_Range]:
    count, offset = (end - start) // mman.PAGE, start // mman.PAGE * 8
    left, right = os.pread(one, count * 8, offset), os.pread(other, count * 8, offset)
    begin: int | None = None
    for at in range(0, count, _BLOCK):
        for index, differs in _differences(
            left[8 * at : 8 * (at + _BLOCK)], right[8 * at : 8 * (at + _BLOCK)]
        ):
            address = start + (at + index) * mman.PAGE
            if differs and begin is not None:
                yield begin, address
                begin = None
            elif not differs and begin is None:
                begin = address
    if begin is not None:
        yield begin, end


def _differences(left: bytes, right: bytes) -> Iterator[tuple[int, bool]]:
    """Where words are other frames, or the same again: (index, whether they differ)."""
    numbers = int.from_bytes(left, "little"), int.from_bytes(right, "little")
    changed = (numbers[0] ^ numbers[1]) & _FRAMES
    if not changed:
        # Without the right to see frames all of them are 0, and nothing is known.
        yield 0, not numbers[0] & _NUMBERS
        return
    last: bool | None = None
    for index, word in enumerate(array("Q", changed.to_bytes(len(left), "little"))):
        if bool(word) is not last:
            last = bool(word)
            yield index, last


def split(runs: Iterable[Run], shared: Sequence[_Range]) -> tuple[list[Run], list[Run]]:
    """The runs of a process that are its own, and those that it has from the file of its family."""
    own: list[Run] = []
    common: list[Run] = []
    for run in runs:
        start = run.start
        for low, high in _cut([(run.start, run.end)], shared):
            if start < low:
                own.append(run._replace(start=start, end=low))
            common.append(run._replace(start=low, end=high))
            start = high
        if start < run.end:
            own.append(run._replace(start=start))
    return own, common
