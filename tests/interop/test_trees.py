"""A real criu restores trees that criupy wrote, and criupy restores those that criu wrote."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from harness.cases import TREES
from harness.observe import shape_of
from harness.target import wait_until

from criupy.cli.crit import crit as criupy_crit

WORKING = [
    "tree_workers.c",
    "py_tree.py",
    "py_sockets.py",
    "bash_pipeline.sh",
    "make_builds.sh",
    "followers.sh",
]


@pytest.fixture(params=["criupy-to-criu", "criu-to-criupy"])
def pair(request, criupy, criu):
    """Who dumps and who restores."""
    return (criupy, criu) if request.param == "criupy-to-criu" else (criu, criupy)


def passes(process, dumper, restorer, images):
    """Dump with one, restore with the other, and ask."""
    shape = shape_of(process.pid)
    dumper.dump(process, images)
    process.wait_gone()
    restorer.restore(process, images)
    wait_until("the tree has its form again", lambda: shape_of(process.pid) == shape)
    process.ask()


@pytest.mark.parametrize("case", [case for case in TREES if not case.not_criu], ids=str)
def test_trees(case, target, pair, images):
    passes(target(case.program, **case.environment, RESTORED="1"), *pair, images)


@pytest.mark.parametrize("case", [case for case in TREES if case.criu_dumps], ids=str)
def test_criupy_restores_what_criu_dumps_and_cannot_restore(case, target, criupy, criu, images):
    passes(target(case.program, **case.environment, RESTORED="1"), criu, criupy, images)


@pytest.mark.parametrize("case", [case for case in TREES if case.criu_restores], ids=str)
def test_criu_restores_what_criupy_dumps_and_criu_cannot_dump(case, target, criupy, criu, images):
    passes(target(case.program, **case.environment, RESTORED="1"), criupy, criu, images)


@pytest.mark.parametrize("program", WORKING)
def test_working_trees(program, target, pair, images):
    dumper, restorer = pair
    process = target(program)
    process.expect_progress()
    dumper.dump(process, images)
    process.wait_gone()
    restorer.restore(process, images)
    process.expect_progress()
    process.ask()


@pytest.mark.parametrize("program", ["tree_zombies.c", "tree_files.c", "tree_shared_memory.c"])
def test_crit_decodes_the_same(program, target, criupy, crit, images):
    """crit reads every image that criupy writes of a tree, and ``criupy crit decode`` prints the same JSON."""
    process = target(program)
    criupy.dump(process, images)
    decoded = 0
    for image in sorted(images.glob("*.img")):
        if image.name.startswith("pages-"):
            continue
        ours = CliRunner().invoke(criupy_crit, ["decode", "-i", str(image)])
        assert ours.exit_code == 0, ours.output
        assert json.loads(ours.output) == crit(image), image.name
        decoded += 1
    assert decoded > 20
