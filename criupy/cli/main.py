"""The ``criupy`` command: finds the verb, runs it, and turns every error into one message and an exit code.

A verb lives in a module of its own, imported when it is called, so that ``--help`` costs little more than click.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from criupy import __version__
from criupy.cli.arguments import spelled

_VERBS = {
    "dump": "Freeze a running program and write it to image files.",
    "restore": "Bring a program back from its image files.",
    "check": "Say whether this kernel has what is needed.",
    "show": "Show what an image set holds: tasks, memory, descriptors.",
    "swrk": "Serve CRIU's RPC to the one client at an inherited socket.",
    "service": "Serve CRIU's RPC to all who come to a unix socket.",
    "crit": "Look into image files, or change them.",
}


class _Verbs(click.Group):
    """Knows the names and one-line helps of the verbs without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"criupy.cli.{cmd_name}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="Version: %(version)s")
def cli() -> None:
    """Checkpoint and restore running Linux programs, in CRIU's image format."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code (1 for bad usage, as criu has it).

    A run is short: collecting garbage and taking the interpreter apart would be a fifth of it.
    """
    gc.disable()
    code = _run(spelled(sys.argv[1:] if arguments is None else arguments))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # whoever read it is gone
            stream.flush()
    os._exit(code)


def _run(words: Sequence[str]) -> int:
    try:
        return int(cli.main(words, prog_name="criupy", standalone_mode=False) or 0)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        error.show()
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    return 1


if __name__ == "__main__":
    main()
