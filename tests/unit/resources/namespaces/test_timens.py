"""Clocks: offsets as the kernel writes and reads them, and what a restore asks of the nursery."""

from __future__ import annotations

import os
import time

import pytest

from criupy.errors import ImageError
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs.task import timens_offsets
from criupy.model.plan import NURSERY, Stage
from criupy.resources.namespaces import timens

FEATURES = KernelFeatures(capabilities=-1, pagemap_scan=True)
SECOND = 10**9


def test_offsets_are_read() -> None:
    text = b"monotonic         -12         500000000\nboottime            3         0\n"
    assert timens_offsets(text) == {"monotonic": -11_500_000_000, "boottime": 3 * SECOND}


def test_our_own_clocks_are_what_we_see() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    found = timens.collect(os.getpid())
    assert before <= found.monotonic <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def test_clocks_go_on_from_where_they_were() -> None:
    entry = timens.encode(timens.Clocks(5 * SECOND + 1, 7 * SECOND))
    assert (entry.monotonic.tv_sec, entry.monotonic.tv_nsec, entry.boottime.tv_sec) == (5, 1, 7)
    steps, warnings = timens.plan(entry, timens.Clocks(20 * SECOND, 6 * SECOND), FEATURES)
    assert warnings == []
    assert {(step.tid, step.stage) for step in steps} == {(NURSERY, Stage.NURSERY)}
    assert [step.call for step in steps] == ["unshare", "openat", "write", "close"]
    assert steps[2].args[1].parts == (b"monotonic -15 1\nboottime 1 0\n",)  # type: ignore[union-attr]


def test_without_the_right_the_machine_s_clocks_are_given_and_that_is_said() -> None:
    entry = timens.encode(timens.Clocks(1, 1))
    steps, warnings = timens.plan(entry, timens.Clocks(2, 2), KernelFeatures(0, pagemap_scan=True))
    assert steps == []
    assert "CAP_SYS_TIME" in warnings[0]
    assert timens.plan(None, timens.Clocks(2, 2), FEATURES) == ([], [])


def test_nonsense_is_refused() -> None:
    entry = timens.encode(timens.Clocks(1, 1))
    entry.boottime.tv_nsec = SECOND
    with pytest.raises(ImageError, match="boottime"):
        timens.plan(entry, timens.Clocks(2, 2), FEATURES)
