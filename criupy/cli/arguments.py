"""Click parameters out of `criupy.options.OPTIONS`, and the spellings that click alone does not take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from criupy.options import OPTIONS, LogOptions, Option

_DEFAULT_LEVEL = 2


def parameters(command: str) -> list[click.Parameter]:
    """The click options of ``command``."""
    return [_parameter(option) for option in OPTIONS if command in option.commands]


def _parameter(option: Option) -> click.Option:
    names = [f"--{option.name}", *([f"-{option.short}"] if option.short else [])]
    if option.kind == "flag":
        return click.Option(names, is_flag=True, default=False, help=option.meaning, hidden=option.hidden)
    if option.kind == "list":
        return click.Option(names, multiple=True, metavar=option.metavar, help=option.meaning)
    kinds: dict[str, Any] = {
        "text": str,
        "number": int,
        "level": int,
        "size": Size(),
        "choice": click.Choice(option.choices),
    }
    return click.Option(
        names, type=kinds[option.kind], default=option.default, metavar=option.metavar, help=option.meaning
    )


class Size(click.ParamType[int]):
    """Bytes, with one of criu's suffixes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,18})([KMG]?)", value)
        if match is None:
            self.fail(f"{value!r} is no size: a number of bytes, or one with K, M or G", param, ctx)
        return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def spelled(arguments: Sequence[str]) -> list[str]:
    """The command line with spellings of criu's made plain.

    ``-v`` adds one to the level, ``-vNUM`` sets it; an attached text that is neither counts as 0.  ``-x1,2`` is
    ``--external unix[1] --external unix[2]``.
    """
    return list(_spelled(arguments))


def _spelled(arguments: Sequence[str]) -> Iterator[str]:
    level = _DEFAULT_LEVEL
    for index, argument in enumerate(arguments):
        if argument == "--":
            yield from arguments[index:]
            return
        short = re.fullmatch(r"-v(.*)", argument)
        long = re.fullmatch(r"--verbosity(?:=(.*))?", argument)
        if short or long:
            level = _level(level, (short or long or [""])[1] or "")
            yield f"--verbosity={level}"
        elif inodes := re.fullmatch(r"(?:-x|--ext-unix-sk=)(\d+(?:,\d+)*)", argument):
            yield from (f"--external=unix[{inode}]" for inode in inodes[1].split(","))
        else:
            yield argument


def _level(level: int, text: str) -> int:
    if not text.strip("v"):
        return level + 1 + len(text)
    return int(text) if text.isdigit() else 0


def log_options(values: dict[str, Any]) -> LogOptions:
    """The part of the parsed options that says where the log goes."""
    work_dir = values.get("work_dir") or values.get("images_dir") or "."
    return LogOptions(
        work_dir=work_dir, log_file=values.get("log_file"), verbosity=max(values["verbosity"], 0)
    )
