"""Which threads can be seized while a cgroup is frozen."""

from __future__ import annotations

import pytest

from criupy.linux.cgroup import V1, V2, Cgroup
from criupy.linux.family import Member
from criupy.tracee import cgroup as cgroups

MEMBER = Member(10, 1, frozenset({10, 11, 12}))


@pytest.fixture
def seizable(monkeypatch):
    """``seizable(freezer, all_stand=..., of={tid: (wchan, syscall)})``"""

    def ask(freezer, *, all_stand, of):
        monkeypatch.setattr(Cgroup, "is_frozen", lambda _: all_stand)
        monkeypatch.setattr(cgroups, "_wchan", lambda _, tid: of[tid][0])
        monkeypatch.setattr(cgroups, "_syscall", lambda _, tid: of[tid][1])
        (member,) = cgroups.seizable(Cgroup("/nowhere", freezer), [MEMBER])
        assert member[:2] == MEMBER[:2]
        return member.tids

    return ask


def test_who_is_stopped_by_a_signal_is_left_to_the_v1_freezer(seizable):
    of = {10: ("hrtimer_nanosleep", "230"), 11: ("do_signal_stop", "230"), 12: ("ptrace_stop", "0")}
    assert seizable(V1, all_stand=True, of=of) == {10, 12}
    assert seizable(V2, all_stand=True, of=of) == {10, 11, 12}


def test_a_kernel_without_symbols_says_of_nobody(seizable):
    of = dict.fromkeys(MEMBER.tids, ("0", "230"))
    assert seizable(V1, all_stand=True, of=of) == set()


def test_not_all_stand(seizable):
    of = {10: ("__refrigerator", "59"), 11: ("hrtimer_nanosleep", "230"), 12: ("pipe_read", "0")}
    assert seizable(V1, all_stand=False, of=of) == {10}
    assert seizable(V2, all_stand=False, of=of) == {10, 11, 12}


@pytest.mark.parametrize("call", ["59", "322", "running"])
@pytest.mark.parametrize("freezer", [V1, V2])
def test_nobody_whose_process_may_execute_a_program(seizable, freezer, call):
    of = {10: ("begin_new_exec", call), 11: ("__refrigerator", "34"), 12: ("__refrigerator", "34")}
    assert seizable(freezer, all_stand=False, of=of) == set()
