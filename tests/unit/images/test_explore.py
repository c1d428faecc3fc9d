"""``crit x``: what is expected was printed by the crit of CRIU 4.2.1 (tests/interop/test_looks.py asks it again)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from unit.images import built

from criupy.cli.main import cli
from criupy.errors import ImageError
from criupy.images.directory import ImageDirectory
from criupy.images.explore import REPORTS
from criupy.images.pb import core_pb2, memory_pb2

DATA = Path(__file__).parents[2] / "data/criu"
RECORDED = DATA / "images-4.2"


def report(images: Path, what: str) -> list[str]:
    with ImageDirectory(str(images)) as directory:
        return list(REPORTS[what](directory))


def run(images: Path, what: str) -> tuple[int, bytes, str]:
    result = CliRunner().invoke(cli, ["crit", "x", str(images), what])
    return result.exit_code, result.stdout_bytes, result.stderr


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A copy of the recorded image set."""
    return Path(shutil.copytree(RECORDED, tmp_path / "images"))


@pytest.mark.parametrize("what", REPORTS)
def test_recorded_set(what):
    assert run(RECORDED, what) == (0, (DATA / "crit-x/recorded" / what).read_bytes(), "")


@pytest.mark.parametrize("what", REPORTS)
def test_odd_set(what, tmp_path):
    expected = (DATA / "crit-x/odd" / what).read_bytes()
    assert run(built.odd_set(tmp_path / "odd"), what) == (0, expected, "")


def test_zombies_have_no_files_and_memory(tmp_path):
    """There crit ends in a traceback; the tasks behind a zombie are shown nevertheless."""
    tree = [(1, 0), (2, 1), (3, 1)]
    built.write(tmp_path, "PSTREE", [core_pb2.pstree_entry(pid=pid, ppid=ppid) for pid, ppid in tree])
    for pid in (1, 2, 3):
        built.task(tmp_path, pid, files_id=pid, state=2 if pid == 2 else 1)
        built.write(tmp_path, "FDINFO", [], pid)
    (tmp_path / "ids-2.img").unlink()
    built.write(tmp_path, "FILES", [built.file(built.REG, number, name=b"/") for number in (1, 2)])
    places = ["\t    cwd: /", "\t   root: /"]
    assert report(tmp_path, "fds") == ["1", *places, "3", *places]
    assert len(report(tmp_path, "ps")) == 1 + 3


def test_counts_of_criu_before_4_2(images):
    """Their pagemaps have the count in another field."""
    head = memory_pb2.pagemap_head(pages_id=1)
    built.write(images, "PAGEMAP", [head, memory_pb2.pagemap_entry(vaddr=0x4B7000, compat_nr_pages=3)], 25169)
    assert report(images, "rss")[1] == "\t4b7000 / 3              004b7000 / 4        /tmp/many"


def test_images_of_version_1_have_no_common_magic(tmp_path):
    images = built.odd_set(tmp_path / "old")
    expected = report(images, "fds")
    for image in images.iterdir():
        image.write_bytes(image.read_bytes()[4:])
    assert report(images, "fds") == expected


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ([], "pstree.img: has 0 root tasks"),
        ([(1, 0), (2, 0)], "pstree.img: has 2 root tasks"),
        ([(1, 0), (3, 2)], "pstree.img: the parent 2 of task 3 is not in the tree"),
        ([(1, 0), (2, 3), (3, 2)], "pstree.img: the parent 3 of task 2 is not in the tree"),
        ([(1, 0), (2, 2)], "pstree.img: the parent 2 of task 2 is not in the tree"),
    ],
)
def test_what_is_no_tree(tree, reason, tmp_path):
    built.write(tmp_path, "PSTREE", [core_pb2.pstree_entry(pid=pid, ppid=ppid) for pid, ppid in tree])
    for pid in (1, 2, 3):
        built.task(tmp_path, pid, files_id=1)
    with pytest.raises(ImageError) as caught:
        report(tmp_path, "ps")
    assert reason in str(caught.value)


def test_errors_are_one_line(images):
    def error(what: str) -> str:
        code, _, message = run(images, what)
        assert code == 1
        assert message.count("\n") == 1, message
        return message

    (images / "files.img").write_bytes((images / "mm-25169.img").read_bytes())
    assert error("fds") == "Error: files.img: this is an image of kind MM, not FILES\n"
    whole = (RECORDED / "files.img").read_bytes()
    (images / "files.img").write_bytes(whole[:-3])
    assert "files.img, offset" in error("fds")
    assert "truncated" in error("mems")
    (images / "files.img").unlink()
    assert error("fds") == "Error: files.img: is missing or has no file 0x2\n"
    (images / "files.img").write_bytes(whole)
    (images / "mm-25171.img").write_bytes(b"")
    assert error("rss") == (
        "Error: mm-25171.img, offset 0: a magic of 4 bytes, but only 0 are left: the file is truncated\n"
    )
    (images / "core-25171.img").unlink()
    assert error("ps") == "Error: core-25171.img: is missing\n"
    (images / "pstree.img").unlink()
    (images / "pstree.img").symlink_to("core-25169.img")
    assert "symbolic link" in error("ps")
    shutil.rmtree(images)
    assert "there is no such directory" in error("ps")


def test_nothing_is_printed_for_what_nobody_asked():
    code, _, message = run(RECORDED, "everything")
    assert code != 0
    assert "ps" in message
