"""Somebody at a terminal: types, and looks at what it shows, in order, waiting for what is expected."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.engine import Engine
from harness.target import TargetError, wait_until

PROMPT = "READY> "
SHELL = "bash --norc --noprofile -i"
ENVIRONMENT = {
    "PS1": PROMPT,
    "TERM": "xterm",
    "HISTFILE": "",
    "PATH": os.environ["PATH"],
    "LC_ALL": "C.UTF-8",
}


@dataclass
class Screen:
    """What a terminal has shown so far, ``seen`` bytes of which were looked at."""

    seen: int = 0

    def shown(self) -> bytes:
        raise NotImplementedError

    def type(self, text: str) -> None:
        raise NotImplementedError

    def expect(self, pattern: str, *, timeout: float = 30.0) -> re.Match[bytes]:
        """The first match behind what was seen, which is seen by that."""
        wanted = re.compile(pattern.encode(), re.DOTALL)
        try:
            wait_until(
                f"a terminal shows {pattern!r}",
                lambda: wanted.search(self.shown(), self.seen) is not None,
                timeout=timeout,
            )
        except TargetError as late:
            raise TargetError(f"{late}: {self.shown()[self.seen :]!r}") from None
        match = wanted.search(self.shown(), self.seen)
        assert match is not None
        self.seen = match.end()
        return match

    def run(self, command: str) -> None:
        """Types a command, and sees its echo."""
        self.type(f"{command}\n")
        self.expect(re.escape(command) + "\r\n")


@dataclass
class Window(Screen):
    """One of ``tests/programs/terminal_server.py``, which works in ``directory``."""

    directory: Path = Path()
    number: int = 0

    def shown(self) -> bytes:
        path = self.directory / f"shown-{self.number}"
        return path.read_bytes() if path.exists() else b""

    def type(self, text: str) -> None:
        with (self.directory / f"typed-{self.number}").open("ab") as file:
            file.write(text.encode())


@dataclass
class Terminal(Screen):
    """A terminal of the test itself, with a shell that is its child ``pid``."""

    pid: int = 0
    master: int = -1
    content: bytes = b""

    def shown(self) -> bytes:
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.content += os.read(self.master, 65536)
            except OSError:  # nobody is at the other end
                break
        return self.content

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())


@contextmanager
def terminal(directory: Path) -> Iterator[Terminal]:
    """A shell in a terminal, with nothing of ours but that; killed in the end, with all that it has started."""
    pid, master = pty.fork()
    if pid == 0:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir(directory)
        os.execvpe("bash", SHELL.split(), ENVIRONMENT)
    assert pid > 1
    try:
        found = Terminal(pid=pid, master=master)
        found.expect(PROMPT)
        yield found
    finally:
        os.close(master)  # its session gets SIGHUP
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def children(pid: int) -> list[int]:
    """Of a process with one thread."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sleeping_child(pid: int, name: str) -> int:
    """The child of a shell that runs the program ``name``, once it waits for something, as for input."""

    def find() -> list[int]:
        found = []
        for child in children(pid):
            comm, _, rest = Path(f"/proc/{child}/stat").read_text().partition("(")[2].rpartition(") ")
            if comm == name and rest[0] == "S":
                found.append(child)
        return found

    wait_until(f"{name} runs", lambda: bool(find()))
    return find()[0]


@contextmanager
def a_job(place: Path, images: Path, dumper: Engine, restorer: Engine) -> Iterator[tuple[Terminal, int]]:
    """A job of a shell: dumped from outside, restored by a command in the same terminal, ended by Ctrl-C."""
    images.mkdir(mode=0o700)
    with terminal(place) as screen:
        screen.run("cat")
        pid = sleeping_child(screen.pid, "cat")
        screen.run("hello")
        screen.expect("hello\r\n")
        done = dumper.run("dump", "--shell-job", "-t", str(pid), "-D", str(images), cwd=place)
        assert done.returncode == 0, done
        screen.expect(PROMPT)
        screen.type(f"{restorer.path} restore --shell-job -D {images}\n")
        wait_until(
            "it has the terminal", lambda: os.path.exists(f"/proc/{pid}") and foreground(screen) == pid
        )
        screen.seen = len(screen.shown())
        screen.run("again")
        screen.expect("again\r\n")
        yield screen, pid
        screen.type("\x03")
        screen.expect(PROMPT)
        assert not os.path.exists(f"/proc/{pid}")
        screen.run("cat")
        sleeping_child(screen.pid, "cat")
        screen.run("and the shell has its terminal")
        screen.expect("and the shell has its terminal\r\n")
        screen.type("\x04")
        screen.expect(PROMPT)


def foreground(screen: Terminal) -> int:
    """The group that is in the foreground."""
    return os.tcgetpgrp(screen.master)
