"""What the kernel says of System V segments."""

from __future__ import annotations

import pytest

from criupy.linux.procfs.sysvipc import Segment, parse

HEAD = (
    b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      "
    b"atime      dtime      ctime                   rss                  swap\n"
)
LINES = (
    b"1124073479          0   604                 20380     7     8     10  1000  1001  1002  1003 "
    b"1795557049 1795557050 1795557051                 16384                     0\n"
    b"        -2      98305  3600                  8192     9     0      1     0     0     0     0 "
    b"1795557049          0 1795557052                  4096                     0\n"
)


def test_segments() -> None:
    plain = Segment(
        id=0, key=1124073479, mode=0o604, size=20380, creator=7, last=8, attached=10, uid=1000, gid=1001,
        cuid=1002, cgid=1003, changed=1795557051, destroyed=False, locked=False,
    )  # fmt: skip
    marked = Segment(
        id=98305, key=0xFFFF_FFFE, mode=0o600, size=8192, creator=9, last=0, attached=1, uid=0, gid=0,
        cuid=0, cgid=0, changed=1795557052, destroyed=True, locked=True,
    )  # fmt: skip
    assert parse(HEAD + LINES) == {0: plain, 98305: marked}
    assert parse(HEAD) == {}


@pytest.mark.parametrize("text", [b"key shmid\n", HEAD.replace(b"ctime", b"when"), HEAD + b"1 2 3\n"])
def test_other_forms(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"form|values"):
        parse(text)
