"""``criupy crit x`` prints what the real crit prints, and ``criupy show`` knows the images of a real criu."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import engine
from unit.images import built

from criupy.cli.main import cli

RECORDED = Path(__file__).parents[1] / "data/criu/images-4.2"
REPORTS = ["ps", "fds", "mems", "rss"]


@pytest.fixture(scope="session")
def real():
    """``crit x`` of the real crit: what it printed."""
    peer = engine.criu()
    program = Path(peer.path).with_name("crit") if peer else None
    if program is None or not program.exists():
        pytest.skip("needs criu's crit beside criu: scripts/real-criu")

    def explore(images: Path, report: str) -> bytes:
        done = subprocess.run([program, "x", images, report], capture_output=True, timeout=60, check=False)
        # It ends in a traceback at a zombie, of which it looks for more images than there are.
        assert done.returncode == 0 or b"FileNotFoundError" in done.stderr, done.stderr.decode()
        return done.stdout

    return explore


def ours(*words: object) -> bytes:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout_bytes


@pytest.mark.parametrize("report", REPORTS)
def test_recorded_images(real, report):
    assert ours("crit", "x", RECORDED, report) == real(RECORDED, report)


@pytest.mark.parametrize("report", REPORTS)
def test_odd_images(real, report, tmp_path):
    images = built.odd_set(tmp_path / "images")
    assert ours("crit", "x", images, report) == real(images, report)


def test_fresh_images(real, target, criu, images):
    """Of a tree with a session of its own, a stopped task, a shared descriptor table and, last, a zombie."""
    process = target("shown_tree.c")
    criu.dump(process, images)
    process.wait_gone()
    for report in REPORTS:
        assert ours("crit", "x", images, report) == real(images, report), report
    lines = ours("show", images, "--files").decode().splitlines()
    assert lines[1] == "4 tasks (1 zombie), 4 threads"
    tasks = [line for line in lines[5:] if re.match(r"(\d+|[|`]- \d+) ", line)]
    program = process.argv[0]
    expected = [
        rf"{process.pid} {program}  running, session leader, 1 thread, .* 3 files, 2 pipes, 2 unix sockets, .*",
        rf"\|- \d+ leader: {program}  running, session leader, 2 threads, .* 3 files, 2 pipes, .*",
        rf"\|- \d+ {program}  stopped by SIGSTOP, 1 thread, .* saved of .*, descriptors of {process.pid}",
        rf"`- \d+ {Path(program).name[:15]}  zombie, exited with 7",
    ]
    for line, form in zip(tasks, expected, strict=True):
        assert re.fullmatch(form, line)
    assert sum("7 bytes in it" in line for line in lines) == 4  # two ends of a pipe in two tables
    assert any(re.search(r" memfd +secret, 8,192 bytes", line) for line in lines)


def test_images_of_criupy(real, target, criupy, images):
    process = target("memory_kinds.c")
    criupy.dump(process, images)
    for report in REPORTS:
        assert ours("crit", "x", images, report) == real(images, report), report
