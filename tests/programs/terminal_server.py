"""A terminal server, as tmux and sshd are: each of its arguments is a command that gets a window, a terminal.

What is appended to the file ``typed-N`` is typed in window N; ``shown-N`` is all that it has shown.
tests/harness/window.py is the other side.
"""

import contextlib
import fcntl
import os
import pty
import select
import shlex
import struct
import sys
import termios

ROWS, COLUMNS = 24, 80


class Window:
    def __init__(self, number: int, command: str) -> None:
        self.number, self.typed = number, 0
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            words = shlex.split(command)
            os.execvp(words[0], words)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        os.set_blocking(self.master, False)

    def type(self) -> None:
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            with open(f"typed-{self.number}", "rb") as file:
                file.seek(self.typed)
                text = file.read()
            if text:
                self.typed += os.write(self.master, text)

    def show(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            text = os.read(self.master, 65536)
            with open(f"shown-{self.number}", "ab") as file:
                file.write(text)


def main() -> None:
    windows = [Window(number, command) for number, command in enumerate(sys.argv[1:])]
    os.write(2, b"ready\n")
    while not os.path.exists("go"):
        select.select([window.master for window in windows], [], [], 0.02)
        for window in windows:
            window.type()
            window.show()
    for window in windows:
        os.close(window.master)
        os.waitpid(window.pid, 0)
    os.write(2, b"PASS\n")


main()
