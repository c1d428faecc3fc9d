"""Memory that processes get from who makes them, so that they share it again after the restore, until they write.

Who is about to make others maps the areas that they have in common, and fills in the pages that are the same in the
images (at the same place of one pages file).  A new task keeps of that what it has itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from criupy.images.pages import Content, PagesFile
from criupy.linux import mman
from criupy.resources.memory.vma import ANON_PRIVATE, FILE_PRIVATE, MEMFD, REGULAR, SHSTK, VDSO, VVAR

if TYPE_CHECKING:
    from criupy.images.pb.memory_pb2 import vma_entry
    from criupy.model.snapshot import TaskImages

_NOT_INHERITED = 1 << mman.MADV_DONTFORK | 1 << mman.MADV_WIPEONFORK
_WORTH = 16 * mman.PAGE
"""Bytes; for less nobody makes a detour."""


class Area(NamedTuple):
    """What has to be equal of two areas for one to be the heir of the other."""

    start: int
    end: int
    offset: int
    shmid: int
    prot: int
    flags: int
    status: int
    madv: int

    @classmethod
    def of(cls, vma: vma_entry) -> Area:
        return cls(vma.start, vma.end, vma.pgoff, vma.shmid, vma.prot, vma.flags, vma.status, vma.madv)

    @property
    def is_heritable(self) -> bool:
        private = self.status & REGULAR and self.status & (ANON_PRIVATE | FILE_PRIVATE)
        special = self.status & (VDSO | VVAR | SHSTK | MEMFD) or self.flags & mman.MAP_HUGETLB
        return bool(private and not special and not self.madv & _NOT_INHERITED)


@dataclass(frozen=True)
class Heritage:
    """What is in an address space: areas, and the content of pages in them.  ``is_clear``: nothing else is."""

    areas: frozenset[Area] = frozenset()
    content: tuple[Content, ...] = ()
    is_clear: bool = False


NOTHING = Heritage()


class Bequest(NamedTuple):
    """What a task has to do before it makes its first child: ``areas`` to map and ``content`` to fill in."""

    areas: tuple[Area, ...]
    content: tuple[Content, ...]


def bequest(task: TaskImages, heirs: Iterable[TaskImages], inherited: Heritage) -> Bequest | None:
    """What ``task`` and at least one of its heirs have in common and it has not inherited; None if that is little."""
    own = _areas(task)
    common: list[Content] = []
    for heir in heirs:
        both = own & _areas(heir)
        if both:
            common += within(same(task.content, heir.content), both)
    together = joined(common)
    wanted = without(together, same(together, inherited.content))
    if sum(one.end - one.start for one in wanted) < _WORTH:
        return None
    needed = {area for area in own if any(True for _ in within(wanted, [area]))}
    return Bequest(tuple(sorted(needed - inherited.areas)), tuple(wanted))


def after(task: TaskImages, inherited: Heritage, given: Bequest) -> Heritage:
    """The address space of ``task`` when it has done what its bequest asks."""
    kept = inherited.areas & _areas(task)
    old = without(within(inherited.content, kept), given.content)
    return Heritage(kept | {*given.areas}, tuple(sorted([*old, *given.content])), is_clear=True)


def common_areas(one: TaskImages, other: TaskImages) -> frozenset[Area]:
    """The areas that one may inherit from the other."""
    return _areas(one) & _areas(other)


def _areas(task: TaskImages) -> frozenset[Area]:
    if task.mm is None:
        return frozenset()
    return frozenset(area for vma in task.mm.vmas if (area := Area.of(vma)).is_heritable)


# Content, ascending and without overlaps


def overlaps(
    left: Sequence[Content], right: Sequence[Content]
) -> Iterator[tuple[Content, Content, int, int]]:
    """Pairs that have addresses in common, with these."""
    index = 0
    for one in left:
        while index < len(right) and right[index].end <= one.start:
            index += 1
        at = index
        while at < len(right) and right[at].start < one.end:
            other = right[at]
            yield one, other, max(one.start, other.start), min(one.end, other.end)
            at += 1


def part(content: Content, start: int, end: int) -> Content:
    """A piece of it."""
    return Content(start, end, content.file, content.offset + start - content.start)


def same(left: Sequence[Content], right: Sequence[Content]) -> list[Content]:
    """Where both say the same."""
    return [
        part(one, start, end)
        for one, other, start, end in overlaps(left, right)
        if one.file == other.file and one.offset - one.start == other.offset - other.start
    ]


def within(content: Sequence[Content], areas: Iterable[Area]) -> list[Content]:
    """The content of some areas."""
    return [
        part(one, max(one.start, start), min(one.end, end))
        for one, _, start, end in overlaps(content, [_as_content(area) for area in sorted(areas)])
    ]


def _as_content(area: Area) -> Content:
    return Content(area.start, area.end, PagesFile(0, 0), 0)


def without(content: Sequence[Content], others: Sequence[Content]) -> list[Content]:
    """The content at addresses for which others have none."""
    found: list[Content] = []
    index = 0
    for one in content:
        at = one.start
        while index < len(others) and others[index].end <= at:
            index += 1
        following = index
        while following < len(others) and others[following].start < one.end:
            if at < others[following].start:
                found.append(part(one, at, others[following].start))
            at = max(at, others[following].end)
            following += 1
        if at < one.end:
            found.append(part(one, at, one.end))
    return found


def joined(content: Iterable[Content]) -> list[Content]:
    """Ascending, with what touches or overlaps as one; what overlaps must say the same."""
    found: list[Content] = []
    for one in sorted(content):
        last = found[-1] if found else None
        if (
            last is not None
            and last.end >= one.start
            and last.file == one.file
            and (last.offset - last.start == one.offset - one.start)
        ):
            found[-1] = last._replace(end=max(last.end, one.end))
        else:
            found.append(one)
    return found
