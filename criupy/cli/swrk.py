"""``criupy swrk``: how container managers call criu."""

from __future__ import annotations

import sys

import click

from criupy.errors import UsageError


def run(fd: int) -> None:
    """Serve CRIU's RPC to the client at the connected SOCK_SEQPACKET descriptor FD."""
    from criupy.service import server

    try:
        code = server.swrk(fd)
    except UsageError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)


swrk = click.Command(
    "swrk", callback=run, params=[click.Argument(["fd"], type=click.IntRange(min=0))], help=run.__doc__
)
