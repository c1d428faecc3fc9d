"""What processes share after a fork: which pages are stored once, and how they come back shared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.images.pages import Content, PagesFile
from criupy.linux import mman
from criupy.resources.memory import cow, heritage
from criupy.resources.memory.content import Run
from criupy.resources.memory.heritage import Area

PAGE = mman.PAGE
OWN, PARENT = PagesFile(0, 1), PagesFile(1, 1)


def pages(*numbers: int) -> list[tuple[int, int]]:
    """Ranges of single pages, joined."""
    return cow._joined((number * PAGE, (number + 1) * PAGE) for number in numbers)


def numbers(ranges: Any) -> list[int]:
    return [page // PAGE for start, end in ranges for page in range(start, end, PAGE)]


# Dump


def family(parents: dict[int, int], equal: dict[int, list[int]]) -> cow.Family:
    """``equal``: by pid, the pages in which a process still is as its parent."""
    head = next(parent for parent in parents.values() if parent not in parents)
    heads = dict.fromkeys(parents, head)
    return cow._family(head, heads, {pid: pages(*found) for pid, found in equal.items()}, parents)


def test_a_child_shares_with_its_parent():
    found = family({2: 1}, {2: [5, 6, 9]})
    assert found.pids == (1, 2)
    assert numbers((piece.start, piece.end) for piece in found.pieces) == [5, 6, 9]
    assert {piece.owner for piece in found.pieces} == {1}
    assert numbers(found.shared[1]) == numbers(found.shared[2]) == [5, 6, 9]


def test_a_grandchild_has_the_version_of_the_eldest_where_it_is_the_same():
    found = family({2: 1, 3: 2}, {2: [5, 6], 3: [6, 7]})
    assert [(piece.start // PAGE, piece.end // PAGE, piece.owner) for piece in found.pieces] == [
        (5, 7, 1),
        (7, 8, 2),
    ]
    assert (numbers(found.shared[1]), numbers(found.shared[2]), numbers(found.shared[3])) == (
        [5, 6],
        [5, 6, 7],
        [6, 7],
    )


def test_of_two_versions_of_a_page_one_is_stored_for_all():
    """Child 2 has written page 5 before it made 3; child 4 still has the first version."""
    found = family({2: 1, 4: 1, 3: 2}, {2: [6], 4: [5, 6], 3: [5, 6]})
    assert numbers(found.shared[1]) == [5, 6]
    assert numbers(found.shared[4]) == [5, 6]
    assert numbers(found.shared[2]) == [6]
    assert numbers(found.shared[3]) == [6], (
        "its version of page 5 is another one, and is stored with it alone"
    )


def test_runs_are_split_at_what_is_shared():
    runs = [Run(0, 4 * PAGE, 6, False), Run(6 * PAGE, 8 * PAGE, 4, True)]
    own, common = cow.split(runs, pages(1, 2, 7))
    assert [(run.start // PAGE, run.end // PAGE, run.flags) for run in own] == [
        (0, 1, 6),
        (3, 4, 6),
        (6, 7, 4),
    ]
    assert [(run.start // PAGE, run.end // PAGE, run.forced) for run in common] == [
        (1, 3, False),
        (7, 8, True),
    ]


def word(frame: int) -> bytes:
    return (1 << 63 | frame).to_bytes(8, "little")


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=1200))
def test_frames_are_compared(frames: list[tuple[int, int]]) -> None:
    left, right = (b"".join(word(pair[side]) for pair in frames) for side in (0, 1))
    found = [False] * len(frames)
    for at in range(0, len(frames), cow._BLOCK):
        block = slice(8 * at, 8 * (at + cow._BLOCK))
        changes = [*cow._differences(left[block], right[block])]
        ends = [*(index for index, _ in changes[1:]), len(left[block]) // 8]
        for (index, differs), end in zip(changes, ends, strict=True):
            found[at + index : at + end] = [not differs] * (end - index)
    assert found == [one == other for one, other in frames]


def test_without_the_right_to_see_frames_nothing_is_the_same():
    hidden = (1 << 63).to_bytes(8, "little") * 4
    assert [*cow._differences(hidden, hidden)] == [(0, True)]


# Restore


class Task(NamedTuple):
    """What heritage looks at of a task."""

    areas: tuple[Area, ...]
    content: tuple[Content, ...]

    @property
    def mm(self) -> Any:
        return SimpleNamespace(vmas=[_Vma(area) for area in self.areas])


class _Vma:
    def __init__(self, area: Area) -> None:
        self.start, self.end, self.pgoff, self.shmid, self.prot, self.flags, self.status, self.madv = area


def area(first: int, last: int, **others: int) -> Area:
    plain = {"offset": 0, "shmid": 0, "prot": 3, "flags": 0x22, "status": 0x201, "madv": 0, **others}
    return Area(first * PAGE, last * PAGE, **plain)


@pytest.mark.parametrize(
    ("others", "is_heritable"),
    [
        ({}, True),
        ({"status": 1 << 0 | 1 << 6, "flags": 2, "shmid": 9}, True),
        ({"status": 1 << 0 | 1 << 7, "flags": 1, "shmid": 9}, False),
        ({"status": 0x201 | 1 << 3}, False),
        ({"flags": 0x40022}, False),
        ({"madv": 1 << 10}, False),
        ({"madv": 1 << 18}, False),
    ],
)
def test_what_a_fork_passes_on(others: dict[str, int], is_heritable: bool) -> None:
    assert area(1, 2, **others).is_heritable is is_heritable


Memory = dict[int, tuple[PagesFile, int]]


def memory_of(content: Any) -> Memory:
    """By page: where its content is from."""
    return {
        page // PAGE: (one.file, one.offset + page - one.start)
        for one in content
        for page in range(one.start, one.end, PAGE)
    }


@st.composite
def contents(draw: st.DrawFn, within: tuple[Area, ...]) -> tuple[Content, ...]:
    """Pages here and there, some of the parent set (at the same place for everyone), some of the own one."""
    found = []
    own = 0
    for one in within:
        for page in range(one.start, one.end, PAGE):
            match draw(st.sampled_from("ppo-")):
                case "p":
                    found.append(Content(page, page + PAGE, PARENT, page))
                case "o":
                    found.append(Content(page, page + PAGE, OWN, own))
                    own += PAGE
    return tuple(heritage.joined(found))


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    areas = tuple(one for one in (area(0, 20), area(30, 50), area(60, 64, prot=1)) if draw(st.booleans()))
    return Task(areas, draw(contents(areas)))


@given(st.lists(tasks(), min_size=2, max_size=4), st.booleans())
def test_heirs_end_up_with_their_own_memory(family: list[Task], chain: bool) -> None:
    """Played through: what everyone maps, fills and drops gives everyone what the images say."""
    state: heritage.Heritage = heritage.NOTHING
    there: Memory = {}
    for index, task in enumerate(family):
        heirs = family[index + 1 : index + 2] if chain else family[1:] if index == 0 else []
        given = heritage.bequest(task, heirs, state)  # type: ignore[arg-type]
        inherited, mine = state, dict(there)
        if given is not None:
            kept = inherited.areas & {*task.areas}
            mine = {page: at for page, at in mine.items() if any(_covers(one, page) for one in kept)}
            assert not kept & {*given.areas}
            filled = memory_of(given.content)
            assert all(any(_covers(one, page) for one in kept | {*given.areas}) for page in filled)
            mine |= filled
            inherited = heritage.after(task, inherited, given)  # type: ignore[arg-type]
        assert memory_of(inherited.content) == mine, "what is said to be there is there"
        kept = inherited.areas & {*task.areas}
        left = heritage.within(inherited.content, kept)
        final = memory_of(left)
        for page in memory_of(heritage.without(left, task.content)):
            del final[page]
        final |= memory_of(heritage.without(task.content, heritage.same(task.content, left)))
        assert final == memory_of(task.content)
        if chain or index == 0:
            state, there = inherited, mine


def _covers(one: Area, page: int) -> bool:
    return one.start <= page * PAGE < one.end
