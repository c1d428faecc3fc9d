"""Real multi-threaded programs survive many dumps and restores in a row without a wrong result."""

from __future__ import annotations

import os

import pytest

CYCLES = int(os.environ.get("CRIUPY_CYCLES", "3"))
PROGRAMS = ["avx_threads.c", "py_threads.py", "go_workers.go", "JavaWorkers.java", "node_events.js"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_cycles(program, target, under_test, place):
    process = target(program)
    for cycle in range(CYCLES):
        process.expect_progress()
        images = place / f"images-{cycle}"
        under_test.dump(process, images)
        process.wait_gone()
        work = process.beat
        under_test.restore(process, images)
        assert process.beat >= work, "work was lost"
        process.expect_progress()
    process.ask()


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_same_images_restore_again(program, target, under_test, images):
    process = target(program)
    under_test.dump(process, images)
    process.wait_gone()
    for _ in range(2):
        under_test.restore(process, images)
        process.expect_progress()
        process.end()
    under_test.restore(process, images)
    assert process.is_ours()
