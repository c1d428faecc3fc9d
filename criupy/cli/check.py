"""``criupy check``."""

from __future__ import annotations

import sys
from typing import Any

import click

from criupy.cli.arguments import log_options, parameters
from criupy.cli.session import session


def run(**values: Any) -> None:
    """Say whether this kernel, and the caller's privileges, suffice for dump and restore."""
    with session(log_options(values), "Does not look good.") as (log, _report):
        from criupy.checking import missing

        lacking = missing()
        for item in lacking:
            log.error(str(item))
        if not lacking:
            click.echo("Looks good.")
            return
        click.echo("Does not look good.")
        for item in lacking:
            click.echo(f"  {item}")
        sys.exit(1)


check = click.Command("check", callback=run, params=parameters("check"), help=run.__doc__)
