"""An asyncio program with timers, signals and child processes goes through dumps and restores."""

from __future__ import annotations

import os

import pytest

from criupy.resources.filetable import Refused
from criupy.resources.registry import FILE_KINDS

CYCLES = int(os.environ.get("CRIUPY_CYCLES", "3"))


def test_undisturbed(target):
    process = target("py_asyncio.py")
    process.expect_progress()
    process.ask()


@pytest.mark.skipif(
    any(isinstance(kind, Refused) and "socket" in kind.match for kind in FILE_KINDS.kinds),
    reason="the loop wakes itself by a socketpair, and unix sockets cannot be dumped yet",
)
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
