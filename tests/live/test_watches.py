"""Names of what is watched are found on all kinds of file systems, or that there are none is said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from criupy.linux import syscalls
from criupy.linux.procfs import fdinfo
from criupy.linux.procfs.fdinfo import Inode
from criupy.resources import watched

WATCH = syscalls.IN_DELETE_SELF | syscalls.IN_DONT_FOLLOW


def inodes(*names: bytes) -> list[Inode]:
    """What a watch of each name shows."""
    fd = syscalls.inotify_init()
    try:
        wds = [syscalls.inotify_add_watch(fd, name, WATCH) for name in names]
        text = Path(f"/proc/self/fdinfo/{fd}").read_bytes()
        by_wd = {watch.wd: watch.inode for watch in fdinfo.inotify_watches(fdinfo.parse(text).rest)}
        return [by_wd[wd] for wd in wds]
    finally:
        os.close(fd)


def tree(place: Path) -> list[bytes]:
    (place / "directory" / "below").mkdir(parents=True)
    (place / "directory" / "file").write_text("one")
    (place / "link").symlink_to("nowhere")
    (place / "spaces and\nlines").write_text("two")
    names = ("", "directory", "directory/below", "directory/file", "link", "spaces and\nlines")
    return [os.fsencode(place / name) for name in names]


Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """``mount(type, options)``: where it is mounted; in the mount namespace that the tests run in."""
    mounted: list[Path] = []

    def make(fstype: str, options: str = "") -> Path:
        point = tmp_path / f"{fstype}-{len(mounted)}"
        point.mkdir()
        extra = ["-o", options] if options else []
        done = subprocess.run(
            ["mount", "-t", fstype, *extra, "none", point], capture_output=True, check=False, timeout=20
        )
        if done.returncode:
            pytest.skip(f"cannot mount {fstype}: {done.stderr.decode().strip()}")
        mounted.append(point)
        return point

    yield make
    for point in reversed(mounted):
        subprocess.run(["umount", "-l", point], check=True, timeout=20)


def overlay(mount: Mount, lower: Path, upper: Path, options: str = "") -> Path:
    (upper / "upper").mkdir()
    (upper / "work").mkdir()
    return mount("overlay", f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work{options}")


def test_by_handle(tmp_path: Path, mount: Mount) -> None:
    for place in (tmp_path / "here", mount("tmpfs")):
        names = tree(place)
        assert watched.names(inodes(*names), os.getpid()) == names


@pytest.mark.parametrize("lower", ["tmpfs", "disk"])
@pytest.mark.parametrize("options", ["", ",index=on,nfs_export=on"])
def test_on_an_overlay(tmp_path: Path, mount: Mount, lower: str, options: str) -> None:
    below = mount("tmpfs") if lower == "tmpfs" else tmp_path / "lower"
    tree(below)
    place = overlay(mount, below, mount("tmpfs"), options)
    (place / "changed").write_text("above")
    (place / "directory" / "file").write_text("copied up")
    names = [
        os.fsencode(place / name) for name in ("directory", "directory/below", "directory/file", "changed")
    ]
    assert watched.names(inodes(*names), os.getpid()) == names


def test_near_by_and_anywhere(tmp_path: Path) -> None:
    """Of procfs no handle can be opened: open files, and what is beside them; of a sealed-off place, all of it."""
    status = b"/proc/%d/status" % os.getpid()
    with open(status), open(tmp_path / "open", "w"):
        names = [status, os.path.dirname(status), *tree(tmp_path)]
        assert watched.names(inodes(*names), os.getpid()) == names


def test_no_name_any_more(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.write_text("x")
    with gone.open():
        (inode,) = inodes(os.fsencode(gone))
        gone.unlink()
        gone.write_text("another")
        assert watched.names([inode], os.getpid()) == [None]
        assert str(inode.ino) in watched.lost(inode)[0]
