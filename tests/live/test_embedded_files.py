"""Executables and libraries that were upgraded between dump and restore."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from harness.engine import EngineError

LIBC = "lib/libc.so.6"
UPGRADED = (LIBC, "loader", "program")


def upgrade(path: Path) -> None:
    """Another file takes the place of a library, of the same size and mode: no instruction is where it was."""
    content = path.read_bytes()
    new = path.with_suffix(".new")
    new.write_bytes(content[:4096] + content[-1:4095:-1])
    new.chmod(path.stat().st_mode)
    new.replace(path)


def test_undisturbed(target):
    target("upgraded_libc.c").ask()


def test_upgraded_in_between(target, criupy, images):
    process = target("upgraded_libc.c")
    criupy.dump(process, images, "--embed-mapped-files")
    process.wait_gone()
    for name in UPGRADED:
        upgrade(process.directory / name)
    there = {*process.directory.rglob("*")}
    outcome = criupy.restore(process, images)
    assert {*process.directory.rglob("*")} == there
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    for name in UPGRADED:
        shown = re.search(rf"{process.directory}/{name}\.cr\.\w+\.\w+\.ghost \(deleted\)", maps)
        assert shown, maps
        assert f"{process.directory}/{name} shows as {shown[0]}" in outcome.output
    assert re.search(r"/loader\.cr\.\S+ \(deleted\)", os.readlink(f"/proc/{process.pid}/exe"))
    criupy.dump(process, images / "again", "--ghost-limit", "4M")
    process.wait_gone()
    criupy.restore(process, images / "again")
    process.ask()


def test_removed_in_between(target, criupy, images):
    process = target("upgraded_libc.c")
    criupy.dump(process, images, "--embed-mapped-files")
    process.wait_gone()
    for name in UPGRADED:
        (process.directory / name).unlink()
    criupy.restore(process, images)
    assert f"{process.directory}/{LIBC} (deleted)" in Path(f"/proc/{process.pid}/maps").read_text()
    process.ask()


def test_what_is_the_same_is_used(target, criupy, images):
    """Untouched, and written anew with the same content."""
    process = target("upgraded_libc.c")
    criupy.dump(process, images, "--embed-mapped-files")
    process.wait_gone()
    library = process.directory / LIBC
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(content)
    library.chmod(0o755)
    criupy.restore(process, images)
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "ghost" not in maps
    assert str(library) in maps
    process.ask()


def test_without_the_option_the_error_says_it(target, criupy, images):
    process = target("upgraded_libc.c")
    criupy.dump(process, images)
    process.wait_gone()
    library = process.directory / LIBC
    content = library.read_bytes()
    library.write_bytes(content[:-1])
    with pytest.raises(EngineError) as failure:
        criupy.restore(process, images)
    expected = (
        f"{LIBC} is not the file that was dumped: its size was {len(content)}, and is {len(content) - 1}"
    )
    assert expected in str(failure.value)
    assert "--embed-mapped-files" in str(failure.value)
    library.write_bytes(content)
    criupy.restore(process, images)
    process.ask()


def test_validation_by_size_alone(target, criupy, images):
    process = target("upgraded_libc.c")
    criupy.dump(process, images)
    process.wait_gone()
    program = process.directory / "program"
    content = program.read_bytes()
    note = content.index(b"\4\0\0\0\x14\0\0\0\3\0\0\0GNU\0") + 16
    program.write_bytes(content[:note] + bytes(20) + content[note + 20 :])
    with pytest.raises(
        EngineError, match=rf"its build id was {content[note : note + 20].hex()}, and is 00"
    ) as failure:
        criupy.restore(process, images)
    assert "--file-validation filesize" in str(failure.value)
    criupy.restore(process, images, "--file-validation", "filesize")
    process.end()
    program.write_bytes(content)
    process = target("upgraded_libc.c")
    criupy.dump(process, images / "by size", "--file-validation", "filesize")
    process.wait_gone()
    program = process.directory / "program"
    program.write_bytes(content[:note] + bytes(20) + content[note + 20 :])
    criupy.restore(process, images / "by size")
    process.ask()


def test_a_directory_that_is_read_only(target, criupy, images):
    """Nothing can be made there, not even for a moment."""
    process = target("upgraded_libc.c")
    criupy.dump(process, images, "--embed-mapped-files")
    process.wait_gone()
    upgrade(process.directory / LIBC)
    lib = process.directory / "lib"
    if subprocess.run(["mount", "--bind", lib, lib], check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", lib], check=True)
        outcome = criupy.restore(process, images)
        assert "libc.so.6 shows as /memfd:libc.so.6 (deleted)" in outcome.output
        assert "/memfd:libc.so.6 (deleted)" in Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        subprocess.run(["umount", "-l", lib], check=True)
    process.ask()


def test_a_real_criu_restores_it_if_nothing_was_changed(target, criupy, criu, images):
    process = target("upgraded_libc.c")
    criupy.dump(process, images, "--embed-mapped-files")
    process.wait_gone()
    criu.restore(process, images)
    process.ask()
