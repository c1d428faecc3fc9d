"""Images whose vdso is another kernel's: the program is restored and tells the time."""

from __future__ import annotations

import json
import subprocess

import pytest
from harness import build

VDSO, PAGE = 1 << 3, 4096


@pytest.fixture
def replace_vdso(criupy, images):
    """``replace_vdso(pid, change)`` rewrites the vdso in the images with what ``change`` makes of it."""

    def entries(name):
        outcome = criupy.run("crit", "decode", "-i", str(images / name), cwd=images.parent)
        assert outcome.returncode == 0, outcome
        return json.loads(outcome.output)["entries"]

    def number(value):
        return int(str(value), 0)

    def replace(pid, change):
        vma = next(vma for vma in entries(f"mm-{pid}.img")[0]["vmas"] if _status(vma["status"]) & VDSO)
        start, length = number(vma["start"]), number(vma["end"]) - number(vma["start"])
        position = 0
        for piece in entries(f"pagemap-{pid}.img")[1:]:
            first, size = number(piece["vaddr"]), piece["nr_pages"] * PAGE
            if first <= start and start + length <= first + size:
                position += start - first
                break
            position += size
        with (images / "pages-1.img").open("r+b") as pages:
            pages.seek(position)
            old = pages.read(length)
            assert old[:4] == b"\x7fELF", "that is not the vdso"
            new = change(old)
            assert len(new) == length
            pages.seek(position)
            pages.write(new)

    return replace


def _status(text):
    """crit prints bits by name, those without a name as numbers."""
    names = {"VMA_AREA_VDSO": VDSO}
    if isinstance(text, int):
        return text
    return sum(names.get(word.strip(), 0) or _number(word) for word in text.split("|"))


def _number(word):
    try:
        return int(word, 0)
    except ValueError:
        return 0


@pytest.fixture(scope="session")
def other_vdso(tmp_path_factory):
    """The bytes of a vdso that no kernel has."""
    output = tmp_path_factory.mktemp("vdso") / "vdso.so"
    script = build.PROGRAMS / "other_vdso.lds"
    command = [
        "gcc",
        "-shared",
        "-nostdlib",
        "-Wl,--hash-style=both",
        "-Wl,--build-id",
        "-Wl,-T," + str(script),
    ]
    subprocess.run([*command, "-o", output, build.PROGRAMS / "other_vdso.S"], check=True, timeout=60)
    return output.read_bytes()


def test_functions_elsewhere(target, criupy, images, replace_vdso, other_vdso):
    process = target("vdso_by_name.c")
    criupy.dump(process, images)
    process.wait_gone()
    replace_vdso(process.pid, lambda old: other_vdso.ljust(len(old), b"\0")[: len(old)])
    criupy.restore(process, images)
    process.ask()


def test_another_build_with_the_same_layout(target, criupy, images, replace_vdso):
    """glibc has learnt the addresses of the functions by heart: they are where they were, the rest is another's."""

    def change(old):
        table = int.from_bytes(old[40:48], "little")  # e_shoff: behind the code
        return old[: table - 16] + bytes(16) + old[table:]

    process = target("clocks.c")
    criupy.dump(process, images)
    process.wait_gone()
    replace_vdso(process.pid, change)
    criupy.restore(process, images)
    process.ask()


def test_no_vdso_at_all(target, criupy, images, replace_vdso):
    """Bytes that are no vdso: one error, no task."""
    process = target("clocks.c")
    criupy.dump(process, images)
    process.wait_gone()
    replace_vdso(process.pid, lambda old: old[:64].ljust(len(old), b"\xff"))
    outcome = criupy.run("restore", "-d", "-D", str(images), cwd=images.parent)
    assert outcome.returncode == 1
    assert "vdso" in outcome.output
    assert process.has_ended()
