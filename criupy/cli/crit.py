"""``criupy crit``: image files as JSON and back, with the commands and the output of CRIU's crit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import click

from criupy.cli.output import errors, printable, write

if TYPE_CHECKING:
    from criupy.images.codec import ImageKind, Record
    from criupy.images.text import Style

_IN = click.option("-i", "--in", "source", metavar="FILE", help="Image to read, standard input by default.")
_OUT = click.option(
    "-o", "--out", "target", metavar="FILE", help="Where to write, standard output by default."
)
_OWN = click.option("--own-fields", is_flag=True, help="Show fields that criupy adds and CRIU does not know.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def crit() -> None:
    """Look into image files, or change them."""


@crit.command()
@_IN
@_OUT
@_OWN
@click.option("--pretty", is_flag=True, help="Indented, with numbers in the form that suits them.")
def decode(source: str | None, target: str | None, own_fields: bool, pretty: bool) -> None:
    """Convert an image to JSON."""
    from criupy.images.text import Style

    _show(source, target, Style(pretty=pretty, own_fields=own_fields))


@crit.command()
@click.argument("source", metavar="FILE")
@click.option(
    "--nopl", is_flag=True, help="Show only the size of what follows a record, such as pipe content."
)
@_OWN
def show(source: str, nopl: bool, own_fields: bool) -> None:
    """Convert an image to indented JSON on standard output."""
    from criupy.images.text import Style

    _show(source, None, Style(pretty=True, payload=not nopl, own_fields=own_fields))


@crit.command()
@_IN
@_OUT
def encode(source: str | None, target: str | None) -> None:
    """Convert JSON, plain or pretty, to an image."""
    import json

    from criupy.errors import ImageError
    from criupy.images import text
    from criupy.images.codec import encode_image

    with errors(), _opened(source) as stream:
        try:
            image = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise ImageError(source or "standard input", f"is not JSON: {error}") from error
        content = encode_image(*text.encode(image))
        _write(target, content)


@crit.command()
@click.argument("source", metavar="FILE")
def info(source: str) -> None:
    """Say what kind of image a file is, and how many entries it has."""
    import json

    with errors(), _image(source) as (kind, records):
        count = sum(1 for _ in records)
        if kind.name == "PAGEMAP" and count:
            count -= 1  # crit does not count the head
        _write(None, (json.dumps({"magic": kind.name, "count": count}, indent=4) + "\n").encode())


@crit.command("x")
@click.argument("directory", metavar="DIR")
@click.argument("what", type=click.Choice(("ps", "fds", "mems", "rss")))
def explore(directory: str, what: str) -> None:
    """Explore an image set: its tasks, descriptors, mappings or saved pages."""
    from criupy.images.directory import ImageDirectory
    from criupy.images.explore import REPORTS

    terminal = sys.stdout.isatty()
    with errors(), ImageDirectory(directory) as images:
        for line in REPORTS[what](images):
            write((printable(line.expandtabs()) if terminal else line).encode() + b"\n")


def _show(source: str | None, target: str | None, style: Style) -> None:
    import json

    from criupy.images import text

    with errors(), _image(source) as (kind, records):
        shown = json.dumps(text.decode(kind, records, style), indent=4 if style.pretty else None)
        _write(target, (shown + ("" if target else "\n")).encode())


@contextmanager
def _opened(source: str | None) -> Iterator[IO[bytes]]:
    """A seekable stream of a file or of what standard input has."""
    import io

    if source is None:
        yield io.BytesIO(sys.stdin.buffer.read())
        return
    with open(source, "rb") as stream:
        yield stream if stream.seekable() else io.BytesIO(stream.read())


@contextmanager
def _image(source: str | None) -> Iterator[tuple[ImageKind, Iterator[Record]]]:
    from criupy.images.codec import read_any

    with _opened(source) as stream:
        yield read_any(stream, source or "standard input")


def _write(target: str | None, content: bytes) -> None:
    if target is None:
        write(content)
        return
    with open(target, "wb") as stream:
        stream.write(content)
