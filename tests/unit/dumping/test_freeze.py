"""A tree that was stopped with events before it, which no image can hold, is stopped again a moment later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from criupy.dumping import dumper
from criupy.options import DumpOptions


@pytest.mark.parametrize(
    ("unread", "stops", "warned"),
    [([0], 1, False), ([16, 32, 0], 3, False), ([16, 16, 16, 16], 4, True)],
)
def test_a_moment_to_read(
    unread: Sequence[int], stops: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    answers = iter(unread)

    @contextmanager
    def freeze_tree(*_: Any, **__: Any) -> Iterator[Any]:
        happened.append("stop")
        yield SimpleNamespace(processes=())
        happened.append("go")

    monkeypatch.setattr(dumper, "freeze_tree", freeze_tree)
    monkeypatch.setattr(dumper, "_TO_READ", (0.001, 0.001, 0.001))
    table: Any = SimpleNamespace(unread=lambda _: next(answers))
    log: Any = SimpleNamespace(warning=happened.append)
    watch = dumper.Stopwatch()
    with ExitStack() as frozen:
        dumper._freeze(DumpOptions(tree=7, images_dir=".", work_dir="."), None, table, frozen, watch, log)
        expected = ["stop", *["go", "stop"] * (stops - 1)]
        assert happened[: len(expected)] == expected
        assert [*map(type, happened[len(expected) :])] == [str] * warned
        watch.stop("frozen")
    assert happened[-1] == "go"
    assert next(answers, None) is None
