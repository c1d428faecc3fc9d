"""``criupy restore``."""

from __future__ import annotations

import os
from typing import Any

import click

from criupy.cli.arguments import log_options, parameters
from criupy.cli.scripts import hooks
from criupy.cli.session import session
from criupy.options import RestoreOptions


def run(**values: Any) -> None:
    """Bring a program back from its image files; without -d, wait until it ends."""
    with session(log_options(values), "Restoring FAILED.") as (log, report):
        from criupy.restoring.restorer import restore as restore_tree

        if values["tree"] is not None:
            log.warning("--tree is ignored by restore: the images say what is restored")
        options = RestoreOptions(
            images_dir=values["images_dir"],
            work_dir=values["work_dir"] or values["images_dir"],
            leave_stopped=values["leave_stopped"],
            pidfile=values["pidfile"],
            plan=values["plan"],
            host_clocks=values["host_clocks"],
            display_stats=values["display_stats"],
            file_validation=values["file_validation"],
            ext_unix_sk=values["ext_unix_sk"],
            shell_job=values["shell_job"],
        )
        scripts = hooks(values["action_script"], options.images_dir, options.work_dir, log)
        root = restore_tree(options, log, report, scripts)
    if root and not values["restore_detached"]:
        _wait(root, values)


def _wait(root: int, values: dict[str, Any]) -> None:
    if values["shell_job"] and not values["leave_stopped"]:
        from criupy.restoring import foreground

        foreground.wait(root)
    else:
        os.waitpid(root, 0)


restore = click.Command("restore", callback=run, params=parameters("restore"), help=run.__doc__)
