"""What verbs that only look at images do with the standard streams: whole output, harmless text, errors in a line."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def errors() -> Iterator[None]:
    """Known errors become click's: one line, exit code 1; a hint comes after it."""
    from criupy.errors import CriupyError

    try:
        yield
    except CriupyError as error:
        hint = f"\nHint:  {error.hint}" if error.hint else ""
        raise click.ClickException(printable(str(error)) + hint) from error
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter complains at its end
        sys.exit(1)
    except OSError as error:
        raise click.FileError(os.fsdecode(error.filename or "standard stream"), error.strerror) from error


def write(content: bytes) -> None:
    """Writes all of ``content`` to standard output."""
    left = memoryview(content)
    while left:  # unbuffered output (PYTHONUNBUFFERED) takes what fits into the pipe
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()


def printable(text: str) -> str:
    """``text`` as a terminal may show it: control, formatting and surrogate characters as backslash escapes.

    Images are untrusted: a name in them could move the cursor or turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def columns(text: str) -> int:
    """The columns that printable text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_width(letter) for letter in text)


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def clipped(text: str, width: int) -> str:
    """Printable text cut to ``width`` columns; an ellipsis stands for what was cut."""
    if columns(text) <= width:
        return text
    taken, left = "", width - 1
    for letter in text:
        left -= _width(letter)
        if left < 0:
            break
        taken += letter
    return f"{taken}…" if width > 0 else ""
