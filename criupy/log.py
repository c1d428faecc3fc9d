"""The log, in criu's form: other programs read it (runc echoes lines with ``Error``, zdtm greps ``Warn``).

At level 3 and above each line starts with a 12-character stamp; error and warning lines name their place in the code.
Lines that come before the log file is open are kept and written then.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Protocol, TextIO

from criupy import __version__

ERROR, WARNING, INFO, DEBUG = 1, 2, 3, 4

_EARLY_LIMIT = 1024


class Report(Protocol):
    """Who is told what happens, beside the log: lines for a person, and how far memory work is, in bytes."""

    def line(self, text: str) -> None: ...

    def progress(self, label: str, done: int, total: int) -> None: ...


class Log:
    """Lines up to ``level`` go to ``stream``; ``run_id`` names this run in the log and in the images."""

    def __init__(self, level: int = WARNING) -> None:
        self.level = level
        self.run_id = _random_uuid()
        self._stream: TextIO | None = None
        self._owned = False
        self._early: list[tuple[int, str]] = []
        self._start = time.monotonic()
        self.first_error = ""

    def open(self, directory: str, name: str | None) -> None:
        """Send everything to ``name`` in ``directory`` (``-``: stdout, None: stderr), what was kept included.

        Raises ``OSError`` when the file cannot be made.
        """
        if name is None or name == "-":
            self._stream = sys.stderr if name is None else sys.stdout
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(os.path.join(directory, name), flags, 0o600)
            self._stream = os.fdopen(
                descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace"
            )
            self._owned = True
        self._start = time.monotonic()
        system = os.uname()
        uname = f"{system.nodename} {system.sysname} {system.release} {system.version} {system.machine}"
        self.info(f"CRIU run id = {self.run_id}")
        self.info(f"Version: criupy {__version__}")
        self.info(f"Running on {uname}")
        early, self._early = self._early, []
        for level, line in early:
            self._write(level, line, "(00.000000) ")

    @property
    def descriptor(self) -> int:
        """Where a program's output goes that shall be in the log; what was logged before is written out."""
        stream = self._stream or sys.stderr
        stream.flush()
        return stream.fileno()

    def close(self) -> None:
        """Write out what was kept if no log was ever opened, and close a log file of our own."""
        if self._stream is None:
            self._stream = sys.stderr
            for level, line in self._early:
                self._write(level, line, "(00.000000) ")
        if self._owned:
            self._stream.close()
            self._stream, self._owned = sys.stderr, False

    def error(self, text: str, *, place: str = "") -> None:
        """An error line; the first one of a run is remembered.  ``place``: ``file:line``, if not the caller's."""
        line = f"Error ({place or self._place()}): {text}"
        self.first_error = self.first_error or line
        self._emit(ERROR, line)

    def warning(self, text: str) -> None:
        """A warning line."""
        self._emit(WARNING, f"Warn  ({self._place()}): {text}")

    def info(self, text: str) -> None:
        """What happens."""
        self._emit(INFO, text)

    def debug(self, text: str) -> None:
        """What happens, in detail."""
        self._emit(DEBUG, text)

    @staticmethod
    def _place() -> str:
        frame = sys._getframe(2)  # noqa: SLF001 - what logging does too, at a hundredth of its import
        return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"

    def _emit(self, level: int, line: str) -> None:
        if level > self.level:
            return
        if self._stream is None:
            if sum(len(kept) for _, kept in self._early) + len(line) <= _EARLY_LIMIT:
                self._early.append((level, line))
            return
        self._write(level, line, self._stamp())

    def _stamp(self) -> str:
        passed = time.monotonic() - self._start
        stamp = f"({int(passed):02d}.{int(passed % 1 * 1e6):06d}"
        return f"{stamp[:10]}) "

    def _write(self, level: int, line: str, stamp: str) -> None:
        if level > self.level or self._stream is None:
            return
        prefix = stamp if self.level >= INFO else ""
        self._stream.write("".join(f"{prefix}{part}\n" for part in line.split("\n")))


def _random_uuid() -> str:
    """A version 4 UUID as text; the uuid module takes 6 ms to import."""
    bits = bytearray(os.urandom(16))
    bits[6] = bits[6] & 0x0F | 0x40
    bits[8] = bits[8] & 0x3F | 0x80
    digits = bits.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
