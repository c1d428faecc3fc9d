"""Deleted files of an overlay, whose directory is the argument: one of its lower layer, one of its upper."""

import mmap
import os
import sys
import time
from pathlib import Path


def main() -> None:
    os.chdir(sys.argv[1])
    old = os.open("old", os.O_RDONLY)
    new = os.open("new", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(new, b"of the upper layer")
    linked = os.open("linked", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(linked, b"linked")
    os.link("linked", "elsewhere")
    os.unlink("linked")
    lower = mmap.mmap(old, 0, prot=mmap.PROT_READ)
    upper = mmap.mmap(new, 0)
    os.unlink("old")
    os.unlink("new")
    os.chdir(os.environ["CRIUPY_TEST_TARGET"])
    print("ready", file=sys.stderr, flush=True)
    while not Path("go").exists():
        time.sleep(0.01)
    upper[:2] = b"OF"
    found = os.pread(old, 100, 0), os.pread(new, 100, 0), lower[:], upper[:]
    wanted = b"of the lower layer", b"OF the upper layer"
    is_linked = os.path.samestat(os.fstat(linked), os.stat(Path(sys.argv[1], "elsewhere")))
    good = found == wanted * 2 and is_linked
    print("PASS" if good else f"FAIL: {found}, {is_linked}", file=sys.stderr, flush=True)


main()
