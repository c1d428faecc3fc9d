"""``criupy check``: of the kernel, or of one tree."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from criupy.cli.arguments import log_options, parameters
from criupy.cli.session import session
from criupy.errors import NotDumpable, UsageError
from criupy.options import DumpOptions

if TYPE_CHECKING:
    from criupy.log import Log


def run(**values: Any) -> None:
    """Say whether this kernel, and the caller's privileges, suffice; with --pid, whether one tree can be dumped."""
    with session(log_options(values), "Does not look good.") as (log, _report):
        if values["pid"] is None:
            _check_kernel(log, as_json=values["json"])
        else:
            _check_tree(values["pid"], log, shell_job=values["shell_job"], as_json=values["json"])


def _check_kernel(log: Log, *, as_json: bool) -> None:
    from criupy.checking import missing

    lacking = missing()
    for item in lacking:
        log.error(str(item))
    if as_json:
        found = [{"name": one.name, "purpose": one.purpose, "remedy": one.remedy} for one in lacking]
        click.echo(json.dumps({"good": not lacking, "missing": found}))
    else:
        click.echo("Does not look good." if lacking else "Looks good.")
        for item in lacking:
            click.echo(f"  {item}")
    if lacking:
        sys.exit(1)


def _check_tree(pid: int, log: Log, *, shell_job: bool, as_json: bool) -> None:
    """Everything that stands in the way, with what helps."""
    from criupy.dumping import firstlook
    from criupy.linux.features import probe

    if pid <= 0:
        raise UsageError(f"{pid} is not a pid")
    options = DumpOptions(tree=pid, images_dir=".", work_dir=".", shell_job=shell_job)
    warnings: list[str] = []
    obstacles: tuple[Any, ...] = ()
    try:
        warnings = firstlook.look(options, probe())
    except NotDumpable as refusal:
        obstacles = refusal.obstacles
    for obstacle in obstacles:
        log.error(str(obstacle))
    if as_json:
        found = [obstacle._asdict() for obstacle in obstacles]
        click.echo(json.dumps({"dumpable": not obstacles, "obstacles": found, "warnings": warnings}))
    else:
        click.echo(f"The tree of {pid} can{'not' if obstacles else ''} be dumped here.")
        for obstacle in obstacles:
            click.echo(f"  {obstacle}" + (f"\n    {obstacle.hint}" if obstacle.hint else ""))
        for warning in warnings:
            click.echo(f"  Note: {warning}")
    if obstacles:
        sys.exit(1)


check = click.Command("check", callback=run, params=parameters("check"), help=run.__doc__)
