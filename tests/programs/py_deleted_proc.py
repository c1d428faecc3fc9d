"""An open file of /proc, of a process that is gone."""

import os
import sys
import time
from pathlib import Path


def main() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    stat = os.open(f"/proc/{child}/stat", os.O_RDONLY)
    os.kill(child, 9)
    os.waitpid(child, 0)
    print("ready", file=sys.stderr, flush=True)
    while not Path("go").exists():
        time.sleep(0.01)
    try:
        os.read(stat, 1)
        print("FAIL: it can be read", file=sys.stderr, flush=True)
    except ProcessLookupError:
        print("PASS", file=sys.stderr, flush=True)


main()
