"""``criupy service``."""

from __future__ import annotations

import os
from typing import Any

import click

from criupy.cli.arguments import log_options, parameters
from criupy.cli.session import session
from criupy.errors import UsageError
from criupy.linux import processes


def run(**values: Any) -> None:
    """Serve CRIU's RPC to all who come to a unix socket, until a signal ends it."""
    with session(log_options(values), "The service FAILED.") as (log, report):
        from criupy.service import server

        work_dir = values["work_dir"] or "."
        address = os.path.join(work_dir, values["address"])

        def ready() -> None:
            if values["daemon"]:
                _go_to_background()
            if values["pidfile"]:
                _write_pidfile(os.path.join(work_dir, values["pidfile"]))
            log.info(f"The service is ready at {address}, as {os.getpid()}")
            report.line(f"Listening at {address}.")
            _tell_ready(values["status_fd"])

        server.service(address, ready)


def _go_to_background() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)


def _write_pidfile(path: str) -> None:
    try:
        processes.write_pidfile(path, os.getpid())
    except OSError as error:
        raise UsageError(f"the pidfile {path} cannot be written: {error.strerror}") from error


def _tell_ready(descriptor: int | None) -> None:
    if descriptor is None:
        return
    try:
        os.write(descriptor, b"\0")
        os.close(descriptor)
    except OSError as error:
        raise UsageError(f"--status-fd {descriptor}: {error.strerror}") from error


service = click.Command("service", callback=run, params=parameters("service"), help=run.__doc__)
