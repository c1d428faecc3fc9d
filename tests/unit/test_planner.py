"""Plans of the recorded tree without its descriptors."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest

from criupy.images.directory import ImageDirectory
from criupy.linux.features import KernelFeatures
from criupy.model.plan import RestorePlan, Stage
from criupy.model.snapshot import Snapshot, load
from criupy.planner import plan

RECORDED = Path(__file__).parents[1] / "data/criu/images-4.2"
ROOT, CHILD, THREAD = 25169, 25171, 25173
FEATURES = KernelFeatures(capabilities=(1 << 41) - 1, pagemap_scan=True)


@pytest.fixture
def snapshot() -> Snapshot:
    with ImageDirectory(str(RECORDED)) as directory:
        whole = load(directory)
    return dataclasses.replace(copy.deepcopy(whole), fdinfo={}, remaps=())


def of(steps: RestorePlan, stage: Stage, tid: int) -> list[str]:
    return [step.call for step in steps.steps if step.stage is stage and step.tid == tid]


def test_a_leader_that_has_ended_does_its_part_first(snapshot):
    before = plan(snapshot, FEATURES)
    snapshot.root.core.tc.dead_leader = 7 << 8
    after = plan(snapshot, FEATURES)
    assert [task.tids for task in before.tasks] == [(ROOT, THREAD), (CHILD,)]
    assert [task.tids for task in after.tasks] == [(THREAD,), (CHILD,)]
    for stage in (Stage.FILES, Stage.MAPPINGS, Stage.CONTENT):
        assert of(after, stage, ROOT) == of(before, stage, ROOT), stage
    end = [step for step in after.steps if step.stage is Stage.ZOMBIES and step.tid == ROOT]
    assert [str(end[0]), str(end[-1])] == ['prctl(15, "many")', "exit(7)"]
    assert "setresuid" in [step.call for step in end]
    assert not [step for step in after.steps if step.stage > Stage.ZOMBIES and step.tid == ROOT]
    for stage in (Stage.LAYOUT, Stage.FILESYSTEM, Stage.LIMITS):
        assert of(after, stage, THREAD) == of(before, stage, ROOT), stage
