from __future__ import annotations

import pytest

from criupy.linux.procfs import mountinfo

TEXT = (
    b"22 27 0:21 / /proc rw,nosuid shared:12 master:3 - proc proc rw\n"
    b"30 27 254:16 /sub\\040dir /mnt/a\\134b ro,relatime - ext4 /dev/my\\040disk rw,errors=remount-ro\n"
)


def test_parse() -> None:
    proc, disk = mountinfo.parse(TEXT)
    assert (proc.id, proc.parent, proc.device) == (22, 27, (0, 21))
    assert proc.propagation == (b"shared:12", b"master:3")
    assert (disk.root, disk.point, disk.source) == (b"/sub dir", b"/mnt/a\\b", b"/dev/my disk")
    assert (disk.fstype, disk.options) == (b"ext4", (b"ro", b"relatime"))
    assert disk.super_options == (b"rw", b"errors=remount-ro")


@pytest.mark.parametrize("line", [b"22 27", b"a 27 0:21 / /proc rw - proc proc rw"])
def test_not_mountinfo(line: bytes) -> None:
    with pytest.raises(ValueError):
        mountinfo.parse(line)
