"""The programs that dump and restore, behind one face: criupy and a real criu take the same arguments."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.target import Target


class EngineError(AssertionError):
    """A command failed; the message carries its output and its log."""


@dataclass(frozen=True)
class Outcome:
    """How one command ended, and after how many ``seconds``."""

    command: tuple[str, ...]
    returncode: int
    output: str
    log: str
    seconds: float

    def __str__(self) -> str:
        tail = "\n".join(self.log.splitlines()[-60:])
        return f"{' '.join(self.command)}: exit {self.returncode}\n{self.output}\n--- log\n{tail}"


@dataclass(frozen=True)
class Engine:
    """``name`` is criupy or criu; ``path`` its program."""

    name: str
    path: str

    def run(self, *arguments: str, cwd: Path, timeout: float = 60.0, log: Path | None = None) -> Outcome:
        """Run one command in ``cwd`` to its end, whatever that is.

        Output goes to files: a restored task that kept a pipe of ours open would make us wait for it.
        """
        output = cwd / "output"
        began = time.perf_counter()
        with output.open("wb") as out:
            done = subprocess.run(
                [self.path, *arguments],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        seconds = time.perf_counter() - began
        logged = log.read_text(errors="replace") if log is not None and log.exists() else ""
        text = output.read_text(errors="replace")
        return Outcome((self.name, *arguments), done.returncode, text, logged, seconds)

    def dump(self, target: Target, images: Path, *options: str, timeout: float = 60.0) -> Outcome:
        """Dump ``target`` and all of its tree into ``images``; ``EngineError`` if that fails."""
        target.record()
        images.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = images / "dump.log"
        outcome = self.run(
            "dump", "-t", str(target.pid), "-D", str(images), "-o", "dump.log", "-v4", *options,
            cwd=images.parent, timeout=timeout, log=log,
        )  # fmt: skip
        if outcome.returncode != 0:
            raise EngineError(str(outcome))
        return outcome

    def restore(self, target: Target, images: Path, *options: str, timeout: float = 60.0) -> Outcome:
        """Restore ``target`` from ``images`` and come back when it runs; ``EngineError`` if that fails."""
        log = images / "restore.log"
        pidfile = images.parent / "pidfile"
        pidfile.unlink(missing_ok=True)
        if target.has_own_pids:
            options = (*options, "--pidfile", str(pidfile))
        outcome = self.run(
            "restore", "-d", "-D", str(images), "-o", "restore.log", "-v4", *options,
            cwd=images.parent, timeout=timeout, log=log,
        )  # fmt: skip
        if outcome.returncode != 0:
            raise EngineError(str(outcome))
        if target.has_own_pids:
            target.pid = int(pidfile.read_text())
        if not target.is_ours():
            raise EngineError(f"pid {target.pid} is not there after\n{outcome}\n{target.log}")
        target.record()
        return outcome


def criupy() -> Engine:
    """The criupy of this environment, as users would call it (``CRIUPY_BIN`` names another)."""
    return Engine("criupy", os.environ.get("CRIUPY_BIN") or str(Path(sys.prefix) / "bin" / "criupy"))


def criu() -> Engine | None:
    """A real criu, if ``CRIUPY_CRIU`` or the cache of ``scripts/real-criu`` has one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for path in [os.environ.get("CRIUPY_CRIU"), str(cache / "criupy" / "real-criu" / "criu")]:
        if path and os.access(path, os.X_OK):
            return Engine("criu", path)
    return None
