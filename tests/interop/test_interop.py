"""A real criu restores what criupy wrote, and criupy restores what criu wrote."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from harness.cases import PROGRAMS

from criupy.cli.crit import crit as criupy_crit

WORKING = ["avx_threads.c", "py_threads.py", "go_workers.go", "JavaWorkers.java", "node_events.js"]


@pytest.fixture(params=["criupy-to-criu", "criu-to-criupy"])
def pair(request, criupy, criu):
    """Who dumps and who restores."""
    return (criupy, criu) if request.param == "criupy-to-criu" else (criu, criupy)


@pytest.mark.parametrize("program", WORKING)
def test_working_programs(program, target, pair, images):
    dumper, restorer = pair
    process = target(program)
    process.expect_progress()
    dumper.dump(process, images)
    process.wait_gone()
    restorer.restore(process, images)
    process.expect_progress()
    process.ask()


@pytest.mark.parametrize("program", PROGRAMS)
def test_objects(program, target, pair, images):
    dumper, restorer = pair
    process = target(program, RESTORED="1")
    dumper.dump(process, images)
    process.wait_gone()
    restorer.restore(process, images)
    process.ask()


@pytest.mark.parametrize("program", WORKING)
def test_crit_decodes_the_same(program, target, criupy, crit, images):
    """crit reads every image that has a magic, and ``criupy crit decode`` prints the same JSON."""
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
    assert decoded > 8
