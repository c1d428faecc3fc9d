"""Text for terminals: nothing in it moves the cursor, and it is as wide as it claims."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.cli.output import clipped, columns, errors, printable
from criupy.errors import ImageError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä€ 漢字", "plain ä€ 漢字"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x7f\x9b1m", "\\x7f\\x9b1m"),
        ("right\u202eleft\u2028", "right\\u202eleft\\u2028"),
        (b"\xff\xfe/x".decode("utf-8", "surrogateescape"), "\\xff\\xfe/x"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_printable_is(text):
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("ä€", 2), ("漢字", 4), ("e\u0301", 1), ("\uff41b", 3)]
)
def test_columns(text, width):
    assert columns(text) == width


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("漢字漢字", 5, "漢字…"),
        ("漢字漢字", 4, "漢…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("", 0, ""),
    ],
)
def test_clipped(text, width, cut):
    assert clipped(text, width) == cut


@given(st.text(), st.integers(0, 30))
def test_clipped_fits(text, width):
    assert columns(clipped(printable(text), width)) <= width


def test_errors_carry_their_hint_and_nothing_for_the_terminal():
    with pytest.raises(click.ClickException) as caught, errors():
        raise ImageError("\x1b[2J", "is broken", hint="dump again")
    assert caught.value.message == "\\x1b[2J: is broken\nHint:  dump again"
    with pytest.raises(click.FileError), errors():
        raise PermissionError(13, "Permission denied", "images")
