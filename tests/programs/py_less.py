"""less on a text that was deleted under it, in a terminal that this program looks after."""

import os
import pty
import select
import sys
import time
from pathlib import Path

LINES = 20000


class Screen:
    """What less has written to its terminal since the last look."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.shown = b""

    def drain(self, seconds: float = 0.01) -> None:
        """Take what comes within a moment."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                self.shown += os.read(self.master, 1 << 16)
            except OSError:  # less has ended
                return

    def shows(self, text: bytes) -> bool:
        """Wait until it does; False after a while."""
        deadline = time.monotonic() + 20
        while text not in self.shown and time.monotonic() < deadline:
            self.drain()
        found = text in self.shown
        self.shown = b""
        return found


def main() -> None:
    Path("text").write_text("".join(f"line {number} of the text\n" for number in range(1, LINES + 1)))
    child, master = pty.fork()
    if child == 0:
        os.execvpe("less", ["less", "text"], {**os.environ, "TERM": "vt100", "LESS": "", "LESSHISTFILE": "-"})
    screen = Screen(master)
    if not screen.shows(b"line 5 of the text"):
        print(f"cannot set up: {screen.shown!r}", file=sys.stderr, flush=True)
        sys.exit(2)
    os.unlink("text")
    print("ready", file=sys.stderr, flush=True)
    while not Path("go").exists():
        screen.drain()
    failed = []
    for keys, number in ((b"G", LINES), (b"777g", 780), (b"g", 3)):
        text = f"line {number} of the text"
        os.write(master, keys)
        if not screen.shows(text.encode()):
            failed.append(text)
    os.write(master, b"q")
    _, status = os.waitpid(child, 0)
    print("PASS" if not failed and status == 0 else f"FAIL: {failed}, {status}", file=sys.stderr, flush=True)


main()
