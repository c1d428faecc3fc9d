"""Shows criupy at work: starts ``primes.py``, dumps it in the middle, shows what was saved, restores it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CRIUPY = Path(sys.prefix) / "bin" / "criupy"
PRIMES = Path(__file__).with_name("primes.py")
EXPECTED = "done: 348,513 primes below 5,000,000"  # pi(5,000,000), from any table of primes
TERMINAL = sys.stdout.isatty()


def title(text: str) -> None:
    """A heading, bold on a terminal."""
    print(f"\n\033[1m{text}\033[0m" if TERMINAL else f"\n== {text}", flush=True)


def run(*arguments: object) -> str:
    """Run criupy, say what it was told and how long it took; its output."""
    words = [str(word) for word in arguments]
    began = time.monotonic()
    done = subprocess.run(
        [CRIUPY, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    print(f"$ criupy {' '.join(words)}      ({time.monotonic() - began:.2f} s)", flush=True)
    if done.returncode != 0:
        sys.exit(f"criupy {words[0]} failed with exit {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until ``condition`` holds, but not for ever."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def primes(log: Path) -> Iterator[int]:
    """The program, started; killed at the end, whichever incarnation of it lives then."""
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", str(PRIMES), str(log)],
        {"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
        file_actions=[(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in (0, 1, 2)]
        + [(os.POSIX_SPAWN_CLOSE, number) for number in map(int, os.listdir("/proc/self/fd")) if number > 2],
        setsid=True,
    )
    try:
        yield pid
    finally:
        if is_primes(pid, log):
            pidfd = os.pidfd_open(pid)
            if is_primes(pid, log):  # the pidfd is of the process that was looked at
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def is_primes(pid: int, log: Path) -> bool:
    """Whether the process with this pid is our program."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(OSError):
        return str(log).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


def main() -> None:
    """The demonstration."""
    place = Path(tempfile.mkdtemp(prefix="criupy-demo-"))
    log, images = place / "log", place / "images"
    images.mkdir(mode=0o700)

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    try:
        with primes(log) as pid:
            title("A program with four busy threads is started")
            print("$ python examples/primes.py LOG")
            wait_for("progress", lambda: len(lines()) > 30)
            print(f"pid {pid} writes:\n  ...", *lines()[-3:], sep="\n  ")

            title("It is dumped, which ends it")
            run("dump", "-t", pid, "-D", images)
            wait_for("its end", lambda: not is_primes(pid, log))
            stopped = lines()
            print(f"pid {pid} is gone; the last that it wrote:\n  {stopped[-1]}")

            title("What was saved")
            print(run("show", images, "--files"), end="")

            title("A second later it is restored")
            time.sleep(1)
            assert lines() == stopped, "something still writes"
            run("restore", "-d", "-D", images)
            wait_for("it goes on", lambda: len(lines()) > len(stopped) + 3)
            threads = len(os.listdir(f"/proc/{pid}/task"))
            after = lines()
            assert after[: len(stopped)] == stopped, "it did not go on where it stopped"
            print(f"pid {pid} is back with {threads} threads, and goes on where it stopped:")
            print(f"  {stopped[-1]}", "  ~~~ dumped, gone, restored ~~~", sep="\n")
            print("", *after[len(stopped) : len(stopped) + 3], "...", sep="\n  ", end="\n")

            title("It runs to its end")
            wait_for("the end", lambda: lines()[-1].startswith("done"))
            wait_for("its exit", lambda: not is_primes(pid, log))
            print(f"  {lines()[-1]}")
            if lines()[-1] != EXPECTED:
                sys.exit(f"WRONG: expected {EXPECTED}")
            print("which is right.")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
