"""``criupy dump``."""

from __future__ import annotations

import os
from typing import Any

import click

from criupy.cli.arguments import log_options, parameters
from criupy.cli.scripts import hooks
from criupy.cli.session import session
from criupy.errors import UsageError
from criupy.options import DumpOptions


def run(**values: Any) -> None:
    """Freeze a running program, write it to image files, and end it (or leave it running or stopped)."""
    _require_directory(values["images_dir"])
    with session(log_options(values), "Dumping FAILED.") as (log, report):
        from criupy.dumping.dumper import dump as dump_tree

        options = _options(values)
        scripts = hooks(values["action_script"], options.images_dir, options.work_dir, log)
        dump_tree(options, log, report, scripts)


def _require_directory(path: str) -> None:
    """As criu has it, a name that was mistyped is an error and not a new directory; the log goes there too."""
    if not os.path.isdir(path):
        what = "is not a directory" if os.path.exists(path) else "there is no such directory"
        raise click.ClickException(f"{path}: {what}; make one with: mkdir -m 700 {path}")


def _options(values: dict[str, Any]) -> DumpOptions:
    if values["tree"] is None:
        raise UsageError("pid not specified", hint="name the task to dump with -t PID")
    if values["tree"] <= 0:
        raise UsageError(f"{values['tree']} is not a pid")
    return DumpOptions(
        tree=values["tree"],
        images_dir=values["images_dir"],
        work_dir=values["work_dir"] or values["images_dir"],
        leave_running=values["leave_running"] and not values["leave_stopped"],
        leave_stopped=values["leave_stopped"],
        shell_job=values["shell_job"],
        sync=values["sync"],
        timeout=values["timeout"],
        display_stats=values["display_stats"],
        freeze_cgroup=values["freeze_cgroup"],
        ghost_limit=values["ghost_limit"],
        link_remap=values["link_remap"],
        file_locks=values["file_locks"],
        file_validation=values["file_validation"],
        embed_mapped_files=values["embed_mapped_files"],
        ext_unix_sk=values["ext_unix_sk"],
        external=tuple(values["external"]),
    )


dump = click.Command("dump", callback=run, params=parameters("dump"), help=run.__doc__)
