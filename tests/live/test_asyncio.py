"""An asyncio program with timers, signals and child processes goes through dumps and restores."""

from __future__ import annotations

import os

CYCLES = int(os.environ.get("CRIUPY_CYCLES", "3"))


def test_undisturbed(target):
    process = target("py_asyncio.py")
    process.expect_progress()
    process.ask()


def test_cycles(target, under_test, place):
    process = target("py_asyncio.py")
    for cycle in range(CYCLES):
        process.expect_progress()
        images = place / f"images-{cycle}"
        under_test.dump(process, images)
        process.wait_gone()
        under_test.restore(process, images)
        process.expect_progress()
    process.ask()
