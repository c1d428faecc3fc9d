"""How trees are grown: golden births, and a kernel of a few lines that says whether they come out as asked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criupy.errors import ImageError
from criupy.model.plan import CLONE_FILES, CLONE_PARENT, NURSERY, Step
from criupy.model.tasktree import Growth, Kinsman, grow

OUTSIDE = 7
"""Session and group of criupy."""


class Kernel:
    """What fork, setsid, setpgid, exit and wait do to relations.  Source: Linux kernel/fork.c, exit.c, sys.c."""

    def __init__(self) -> None:
        self.parent = {NURSERY: 0}
        self.sid = {NURSERY: OUTSIDE}
        self.pgid = {NURSERY: OUTSIDE}
        self.tables = {NURSERY: 0}
        self.subreapers: set[int] = set()
        self.dead: set[int] = set()
        self.passing = 0

    def run(self, growth: Growth) -> None:
        for step in growth.steps:
            assert step.tid in self.parent, f"{step}: {step.tid} is not there"
            assert step.tid not in self.dead, f"{step}: {step.tid} is dead"
            getattr(self, step.call)(step)

    def clone3(self, step: Step) -> None:
        flags = int.from_bytes(step.args[0].parts[0][:8], "little")
        assert step.gives is not None
        pid, maker = step.gives.key, step.tid
        assert pid not in self.parent, f"{pid} is in use"
        self.parent[pid] = self.parent[maker] if flags & CLONE_PARENT else maker
        self.sid[pid], self.pgid[pid] = self.sid[maker], self.pgid[maker]
        self.tables[pid] = self.tables[maker] if flags & CLONE_FILES else len(self.tables)

    def setsid(self, step: Step) -> None:
        assert step.tid not in self.pgid.values(), f"{step.tid} leads a group"
        self.sid[step.tid] = self.pgid[step.tid] = step.tid

    def setpgid(self, step: Step) -> None:
        group = step.args[1] or step.tid
        assert self.sid[step.tid] != step.tid
        if group != step.tid:
            there = {self.sid[pid] for pid, pgid in self.pgid.items() if pgid == group}
            assert there == {self.sid[step.tid]}, f"{step.tid}: no group {group} in its session"
        self.pgid[step.tid] = group

    def prctl(self, step: Step) -> None:
        (self.subreapers.add if step.args[1] else self.subreapers.discard)(step.tid)

    def exit_group(self, step: Step) -> None:
        self.dead.add(step.tid)
        for pid, parent in self.parent.items():
            if parent == step.tid:
                heir = parent
                while heir not in self.subreapers:
                    heir = self.parent[heir]
                self.parent[pid] = heir

    def wait4(self, step: Step) -> None:
        child = step.args[0] if isinstance(step.args[0], int) else step.args[0].key
        assert child in self.dead
        assert self.parent[child] == step.tid
        for relation in (self.parent, self.sid, self.pgid, self.tables):
            del relation[child]
        self.dead.remove(child)


def tree(*rows: tuple[int, int, int, int]) -> list[Kinsman]:
    """(pid, ppid, pgid, sid) each."""
    return [Kinsman(*row, files_id=row[0]) for row in rows]


def assert_grows(tasks: list[Kinsman]) -> Growth:
    growth = grow(tasks)
    kernel = Kernel()
    kernel.run(growth)
    assert not kernel.dead
    there = {
        pid: (kernel.parent[pid], kernel.pgid[pid], kernel.sid[pid])
        for pid in kernel.parent
        if pid != NURSERY
    }
    assert there == {task.pid: (task.ppid, task.pgid, task.sid) for task in tasks}
    return growth


def test_a_family_in_one_session():
    growth = assert_grows(tree((10, 0, 10, 10), (11, 10, 10, 10), (12, 10, 12, 10), (13, 12, 12, 10)))
    assert [f"{step.tid} {step}" for step in growth.steps] == [
        "0 clone3({CLONE_PARENT, set_tid=10}, 88) = <task 0xa>",
        "10 setsid()",
        "10 clone3({set_tid=11}, 88) = <task 0xb>",
        "10 clone3({set_tid=12}, 88) = <task 0xc>",
        "12 clone3({set_tid=13}, 88) = <task 0xd>",
        "12 setpgid(0, 0)",
        "11 setpgid(0, 10)",
        "13 setpgid(0, 12)",
    ]
    assert growth.helpers == ()


def test_the_init_of_a_pid_namespace():
    """Its number outside is the kernel's choice, so that the answer cannot be known."""
    growth = grow(tree((1, 0, 1, 1), (7, 1, 7, 7)), last_pid=12)
    assert [f"{step.tid} {step} -> {step.expect}" for step in growth.steps] == [
        "0 clone3({CLONE_PARENT|CLONE_NEWPID, set_tid=1}, 88) = <task 0x1> -> None",
        '1 openat(-100, "/proc/sys/kernel/ns_last_pid", 1, 0) -> 0',
        '1 write(0, "12", 2) -> 2',
        "1 close(0) -> 0",
        "1 setsid() -> 1",
        "1 clone3({set_tid=7}, 88) = <task 0x7> -> 7",
        "7 setsid() -> 7",
    ]


def test_a_child_from_before_its_parents_setsid():
    assert_grows(tree((10, 0, 10, 10), (11, 10, 11, 11), (12, 11, 10, 10), (13, 11, 11, 11)))


def test_a_grandchild_from_before_two_setsids():
    assert_grows(tree((10, 0, 10, 10), (11, 10, 11, 11), (12, 11, 12, 12), (13, 12, 10, 10)))


def test_a_session_whose_leader_is_dead():
    growth = assert_grows(tree((10, 0, 10, 10), (12, 10, 11, 11), (13, 10, 13, 11), (14, 12, 11, 11)))
    assert growth.helpers == (11,)
    assert growth.told == {10}


def test_an_orphan_whose_session_leader_is_its_brother():
    assert_grows(tree((10, 0, 10, 10), (11, 10, 11, 11), (13, 10, 11, 11), (14, 13, 11, 11)))


def test_an_orphan_whose_session_leader_is_further_below():
    assert_grows(tree((10, 0, 10, 10), (11, 10, 10, 10), (12, 11, 12, 12), (14, 10, 12, 12)))


def test_orphans_of_one_dead_leader_at_two_levels():
    assert_grows(
        tree((10, 0, 10, 10), (11, 10, 10, 10), (13, 11, 12, 12), (14, 10, 14, 12), (15, 14, 12, 12))
    )


def test_an_orphan_that_leads_a_session_of_orphans_below():
    assert_grows(
        tree((10, 0, 10, 10), (12, 10, 11, 11), (13, 12, 13, 13), (15, 12, 14, 14), (16, 10, 14, 14))
    )


def test_a_group_without_its_leader():
    growth = assert_grows(tree((10, 0, 10, 10), (12, 10, 11, 10), (13, 10, 11, 10)))
    assert growth.helpers == (11,)
    assert growth.told == frozenset()


def test_a_job_of_a_shell_stays_in_its_session():
    growth = grow(tree((10, 0, 10, 5), (11, 10, 10, 5), (12, 10, 4, 5)))
    kernel = Kernel()
    kernel.run(growth)
    assert {kernel.sid[pid] for pid in (10, 11, 12)} == {OUTSIDE}
    assert (kernel.pgid[10], kernel.pgid[11], kernel.pgid[12]) == (10, 10, 4)
    growth = grow(tree((10, 0, 4, 5), (11, 10, 4, 5)))
    assert [step.call for step in growth.steps] == ["clone3", "clone3"]


def test_a_shared_descriptor_table():
    tasks = tree((10, 0, 10, 10), (11, 10, 10, 10), (12, 10, 10, 10))
    tasks[2] = tasks[2]._replace(files_id=10)
    kernel = Kernel()
    kernel.run(grow(tasks))
    assert kernel.tables[12] == kernel.tables[10] != kernel.tables[11]


def test_what_cannot_be_is_refused():
    with pytest.raises(ImageError, match="task 13 cannot have the session 12"):
        grow(tree((10, 0, 10, 10), (11, 10, 10, 10), (12, 10, 12, 12), (13, 11, 12, 12)))


@st.composite
def histories(draw: st.DrawFn) -> list[Kinsman]:
    """A tree as it may come about: by forks, setsids, setpgids, and deaths under a root that adopts all orphans."""
    parent, sid, pgid = {10: 0}, {10: 10}, {10: 10}
    following = 11
    for _ in range(draw(st.integers(1, 25))):
        pid = draw(st.sampled_from(sorted(parent)))
        match draw(st.sampled_from(["fork", "fork", "fork", "setsid", "setpgid", "join", "die"])):
            case "fork":
                parent[following], sid[following], pgid[following] = pid, sid[pid], pgid[pid]
                following += 1
            case "setsid" if pid not in pgid.values():
                sid[pid] = pgid[pid] = pid
            case "setpgid" if sid[pid] != pid:
                pgid[pid] = pid
            case "join" if sid[pid] != pid:
                pgid[pid] = draw(st.sampled_from(sorted({pgid[one] for one in sid if sid[one] == sid[pid]})))
            case "die" if pid != 10:
                parent = {one: 10 if above == pid else above for one, above in parent.items()}
                del parent[pid], sid[pid], pgid[pid]
    found = [Kinsman(pid, parent[pid], pgid[pid], sid[pid], pid) for pid in sorted(parent)]
    return _parents_first(found)


def _parents_first(tasks: list[Kinsman]) -> list[Kinsman]:
    placed: list[Kinsman] = []
    while tasks:
        here = {0, *(task.pid for task in placed)}
        placed += [task for task in tasks if task.ppid in here]
        tasks = [task for task in tasks if task.ppid not in here]
    return placed


@settings(max_examples=300)
@given(histories())
def test_whatever_has_come_about_can_be_grown(tasks: list[Kinsman]) -> None:
    assert_grows(tasks)


def test_what_is_shared_with_the_parent() -> None:
    tasks = tree((10, 0, 10, 10), (11, 10, 10, 10), (12, 10, 10, 10))
    tasks[0] = tasks[0]._replace(fs_id=3)
    tasks[1] = tasks[1]._replace(fs_id=3, shares_io=True)
    tasks[2] = tasks[2]._replace(fs_id=4)
    assert [str(step) for step in grow(tasks).steps[2:5]] == [
        "ioprio_set(1, 0, 0x4004)",
        "clone3({CLONE_FS|CLONE_IO, set_tid=11}, 88) = <task 0xb>",
        "clone3({set_tid=12}, 88) = <task 0xc>",
    ]
    with pytest.raises(ImageError, match="task 12 shares root and working directory with others"):
        grow([tasks[0]._replace(fs_id=2), tasks[1], tasks[2]._replace(fs_id=3)])
