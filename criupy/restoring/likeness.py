"""Pages that are the same in parent and child, in images that store them for both, as CRIU's do.

After this they have one place in the images, and are shared again (`criupy.resources.memory.heritage`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

from criupy.images.pages import PAGE_SIZE, Content, PagesFile
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.resources.memory.heritage import common_areas, joined, overlaps, part, within, without

_BLOCK = 1 << 18
"""Bytes that are compared at once, before single pages are."""
Reader = Callable[[PagesFile], int]
"""Gives a descriptor of a pages file."""


def find(snapshot: Snapshot, pages: Reader) -> Snapshot:
    """The same snapshot, with the pages of children that are their parents' too read from the parents' files.

    Images of criupy say that themselves.
    """
    if snapshot.is_own:
        return snapshot
    found: dict[int, TaskImages] = {}
    for task in snapshot.tasks:
        parent = found.get(task.pstree.ppid)
        if parent is not None and not task.zombie and _run_the_same(snapshot, parent, task):
            found[task.pid] = dataclasses.replace(task, resolved=tuple(_merged(parent, task, pages)))
        else:
            found[task.pid] = task
    return dataclasses.replace(snapshot, tasks=tuple(found.values()))


def _run_the_same(snapshot: Snapshot, parent: TaskImages, child: TaskImages) -> bool:
    """Whether both execute one program: else there is nothing that they could have in common."""
    if parent.mm is None or child.mm is None:
        return False
    one, other = (snapshot.files[mm.exe_file_id].reg.name for mm in (parent.mm, child.mm))
    return bool(one == other)


def _merged(parent: TaskImages, child: TaskImages, pages: Reader) -> list[Content]:
    alike = list(_alike(parent, child, pages))
    return joined([*without(child.content, alike), *alike])


def _alike(parent: TaskImages, child: TaskImages, pages: Reader) -> Iterator[Content]:
    """The content of the parent that the child has too."""
    areas = common_areas(parent, child)
    for one, other, start, end in overlaps(within(parent.content, areas), child.content):
        for at in range(start, end, _BLOCK):
            yield from _equal(
                part(one, at, min(at + _BLOCK, end)), part(other, at, min(at + _BLOCK, end)), pages
            )


def _equal(one: Content, other: Content, pages: Reader) -> Sequence[Content]:
    """The pages of ``one`` that are as those of ``other``."""
    size = one.end - one.start
    left = os.pread(pages(one.file), size, one.offset)
    right = os.pread(pages(other.file), size, other.offset)
    if left == right:
        return [one]
    same = (at for at in range(0, size, PAGE_SIZE) if left[at : at + PAGE_SIZE] == right[at : at + PAGE_SIZE])
    return joined(part(one, one.start + at, one.start + at + PAGE_SIZE) for at in same)
