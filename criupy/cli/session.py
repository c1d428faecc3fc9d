"""What every verb does around its engine: open the log, report on the terminal, answer errors and signals."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from criupy.errors import CriupyError, UsageError
from criupy.log import Log
from criupy.options import LogOptions

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interrupted(BaseException):
    """A signal asked criupy to end; everything borrowed is given back on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


class TerminalReport:
    """Tells a person what happens: plain lines, and on a terminal a bar while memory moves."""

    _WIDTH = 30

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._last = 0.0

    def line(self, text: str) -> None:
        """One line of what happened."""
        click.echo(f"\r\x1b[K{text}" if self._terminal else text)

    def progress(self, label: str, done: int, total: int) -> None:
        """How far a long piece of memory work is, in bytes."""
        now = time.monotonic()
        if not self._terminal or (now - self._last < 0.05 and done < total):
            return
        self._last = now
        filled = self._WIDTH * done // max(total, 1)
        bar = "#" * filled + "-" * (self._WIDTH - filled)
        click.echo(f"\r\x1b[K{label} [{bar}] {done >> 20}/{total >> 20} MiB", nl=False)


@contextmanager
def session(options: LogOptions, failure: str) -> Iterator[tuple[Log, TerminalReport]]:
    """A run of a verb: its log and report.  ``failure`` is the log's last line when it fails (``Dumping FAILED.``).

    Leaves by ``SystemExit`` with the error's code after telling what went wrong.
    """
    log = Log(options.verbosity)
    for number in _ENDING:
        signal.signal(number, _interrupt)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        try:
            log.open(options.work_dir, options.log_file)
        except OSError as error:
            message = f"cannot open the log {options.log_file!r} in {options.work_dir!r}: {error.strerror}"
            raise UsageError(message) from error
        yield log, TerminalReport()
    except CriupyError as error:
        _tell(log, error, failure, logged=options.log_file is not None)
        sys.exit(error.exit_code)
    except Interrupted as error:
        log.error(str(error))
        log.error(failure)
        _tell_outcome(error)
        sys.exit(128 + error.number)
    finally:
        log.close()
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise Interrupted(number)


def _tell(log: Log, error: CriupyError, failure: str, *, logged: bool) -> None:
    place = _place(error)
    for line in str(error).split("\n"):
        log.error(line, place=place)
    log.error(failure)
    if logged or log.level < 1:
        click.echo(f"Error: {error}", err=True)
    _tell_outcome(error, error.hint)


def _tell_outcome(error: BaseException, hints: str = "") -> None:
    for hint in filter(None, hints.split("\n")):
        click.echo(f"Hint:  {hint}", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(note, err=True)


def _place(error: BaseException) -> str:
    """``file:line`` where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else ""
