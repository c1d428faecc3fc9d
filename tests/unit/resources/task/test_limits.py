"""Resource limits and oom_score_adj, with and without CAP_SYS_RESOURCE."""

from __future__ import annotations

import dataclasses
import errno

import pytest

from criupy.errors import ImageError
from criupy.images.pb.core_pb2 import core_entry
from criupy.resources.task.oom import NO_LOGIN_UID, OomScore, ProcFacts
from criupy.resources.task.rlimits import NAMES, Rlimits

INFINITY = (1 << 64) - 1
CAP_SYS_RESOURCE = 1 << 24


@pytest.fixture
def limits(planning):
    for _ in NAMES:
        planning.core().tc.rlimits.rlimits.add(cur=INFINITY, max=INFINITY)
    return planning.core().tc.rlimits.rlimits


def without_capability(planning, **values):
    powers = planning.features.capabilities & ~CAP_SYS_RESOURCE
    planning.features = dataclasses.replace(planning.features, capabilities=powers, **values)


def test_limits_come_late_except_room_for_descriptors(planning, limits) -> None:
    limits[7].cur, limits[7].max = 100, 500
    limits[11].cur = 7
    lines = planning.lines(Rlimits())
    assert lines[0] == "FILES 7 prlimit64(0, 7, {unlimited, unlimited}, 0)"
    assert lines[8] == "LIMITS 7 prlimit64(0, 7, {100, 500}, 0)"
    assert lines[-1] == "CREDENTIALS 7 prlimit64(0, 11, {7, unlimited}, 0)"
    assert len(lines) == 17
    assert planning.warnings == []


def test_a_soft_limit_above_the_hard_one_is_lowered(planning, limits) -> None:
    limits[3].max = 4096
    assert "LIMITS 7 prlimit64(0, 3, {4096, 4096}, 0)" in planning.lines(Rlimits())


def test_hard_limits_go_as_high_as_allowed(planning, limits) -> None:
    own = tuple(1000 if name == "NPROC" else INFINITY for name in NAMES)
    without_capability(planning, hard_limits=own)
    limits[6].cur = 500
    assert "LIMITS 7 prlimit64(0, 6, {500, 1000}, 0)" in planning.lines(Rlimits())
    (warning,) = planning.warnings
    assert warning.startswith(
        "task 7: the hard limit RLIMIT_NPROC of unlimited can be restored as 1000 only:"
    )
    planning.features = dataclasses.replace(planning.features, capabilities=CAP_SYS_RESOURCE)
    assert "LIMITS 7 prlimit64(0, 6, {500, unlimited}, 0)" in planning.lines(Rlimits())


def test_fewer_limits_are_fine_and_none_or_more_are_not(planning) -> None:
    with pytest.raises(ImageError, match="no limits"):
        planning.lines(Rlimits())
    planning.core().tc.rlimits.SetInParent()
    assert len(planning.lines(Rlimits())) == 1
    for _ in range(17):
        planning.core().tc.rlimits.rlimits.add(cur=0, max=0)
    with pytest.raises(ImageError, match="17 limits"):
        planning.lines(Rlimits())


def test_limits_are_read_without_asking_the_task(frozen, kernel, sink) -> None:
    text = b"Limit\n" + b"%-25s %-20s %-20s \n" % (b"Max cpu time", b"5", b"unlimited") * 16
    facts = Rlimits().collect(frozen(limits=text), kernel.batch)(kernel.answer())
    core = core_entry()
    Rlimits().encode(facts, core, sink)
    assert kernel.calls == []
    assert [(limit.cur, limit.max) for limit in core.tc.rlimits.rlimits] == [(5, INFINITY)] * 16


def test_oom_score_and_login_uid(frozen, kernel, sink, planning) -> None:
    facts = OomScore().collect(frozen(oom_score_adj=b"-17\n", loginuid=b"1000"), kernel.batch)(
        kernel.answer()
    )
    assert facts == ProcFacts(-17, 1000)
    OomScore().encode(facts, planning.core(), sink)
    lines = planning.lines(OomScore())
    assert lines[:3] == [
        'LAYOUT 7 openat(-100, "/proc/self/oom_score_adj", 0x80001, 0) = <oom_score_adj 0x7>',
        'LAYOUT 7 write(<oom_score_adj 0x7>, "-17", 3)',
        "LAYOUT 7 close(<oom_score_adj 0x7>)",
    ]
    assert 'write(<loginuid 0x7>, "1000", 4)' in lines[4]
    write = list(OomScore().plan(planning.core(), planning.subject()))[4]
    assert write.tolerate == {errno.EPERM}


def test_a_kernel_without_login_uids(frozen, kernel, sink, planning) -> None:
    facts = OomScore().collect(frozen(oom_score_adj=b"0\n"), kernel.batch)(kernel.answer())
    OomScore().encode(facts, planning.core(), sink)
    assert not planning.core().tc.HasField("loginuid")
    planning.core().tc.loginuid = NO_LOGIN_UID
    assert planning.lines(OomScore()) == []


def test_the_score_is_raised_but_not_lowered_without_the_capability(planning) -> None:
    without_capability(planning, oom_score_adj=100)
    planning.core().tc.oom_score_adj = 0
    assert planning.lines(OomScore()) == []
    assert planning.warnings == [
        "task 7: oom_score_adj 0 is restored as 100: lowering it needs CAP_SYS_RESOURCE"
    ]
    planning.core().tc.oom_score_adj = 200
    assert len(planning.lines(OomScore())) == 3


def test_warnings_before_the_freeze(planning) -> None:
    import os

    without_capability(planning, hard_limits=(0,) * 16, oom_score_adj=1001)
    warned = list(Rlimits().warnings(os.getpid(), planning.features))
    assert any("RLIMIT_STACK" in text for text in warned)
    assert "is restored as 1001" in next(OomScore().warnings(os.getpid(), planning.features))
    planning.features = dataclasses.replace(planning.features, capabilities=CAP_SYS_RESOURCE)
    assert not list(Rlimits().warnings(os.getpid(), planning.features))
    assert not list(OomScore().warnings(os.getpid(), planning.features))
