"""Fixtures of all tests.  ``--engine criu`` runs the live tests with a real criu: that tests the harness."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import build, engine, reaper
from harness.target import Target, Unsupported
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine", choices=["criupy", "criu"], default="criupy", help="what dumps and restores in live tests"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their directory; what needs root is skipped without it."""
    for item in items:
        kind = item.path.relative_to(HERE).parts[0]
        if kind in ("live", "interop"):
            item.add_marker(kind)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))
        if kind == "interop" and engine.criu() is None:
            item.add_marker(pytest.mark.skip(reason="needs a real criu: scripts/real-criu"))


def pytest_report_header() -> str:
    peer = engine.criu()
    if peer is None:
        return "real criu: none"
    with tempfile.TemporaryDirectory() as directory:
        version = peer.run("--version", cwd=Path(directory)).output.split("\n")[0]
    return f"real criu: {peer.path}, {version}"


@pytest.fixture(scope="session")
def _subreaper() -> None:
    reaper.become_subreaper()


@pytest.fixture(scope="session")
def criupy() -> engine.Engine:
    """The criupy under test."""
    return engine.criupy()


@pytest.fixture(scope="session")
def criu() -> engine.Engine:
    """A real criu."""
    peer = engine.criu()
    if peer is None:
        pytest.skip("needs a real criu: scripts/real-criu")
    return peer


@pytest.fixture(scope="session")
def crit() -> Callable[[Path], object]:
    """The crit that belongs to the real criu, as ``crit(image) -> JSON``."""
    peer = engine.criu()
    program = Path(peer.path).with_name("crit") if peer else None
    if program is None or not program.exists():
        pytest.skip("needs criu's crit beside criu: scripts/real-criu")

    def decode(image: Path) -> object:
        done = subprocess.run([program, "decode", "-i", image], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, f"{image.name}: {done.stderr.decode()}"
        return json.loads(done.stdout)

    return decode


@pytest.fixture(scope="session")
def under_test(request: pytest.FixtureRequest) -> engine.Engine:
    """What ``--engine`` names."""
    fixture: engine.Engine = request.getfixturevalue(request.config.getoption("--engine"))
    return fixture


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user may enter, gone after the test."""
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        os.chmod(directory, 0o755)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def images(place: Path) -> Path:
    """Where this test's images go."""
    return place / "images"


@pytest.fixture(scope="session")
def _huge_pages() -> Iterator[None]:
    """A few hugetlb pages more than the machine has set aside, if it lets us."""
    setting = Path("/proc/sys/vm/nr_hugepages")
    before = setting.read_text()
    with contextlib.suppress(OSError):
        setting.write_text(str(int(before) + 4))
    yield
    with contextlib.suppress(OSError):
        setting.write_text(before)


@pytest.fixture
def target(request: pytest.FixtureRequest, place: Path, _subreaper: None) -> Iterator[Callable[..., Target]]:
    """``target(program, *arguments)`` starts one of ``tests/programs`` and waits until it is ready."""
    started: list[Target] = []

    def start(program: str, *arguments: str, **environment: str) -> Target:
        try:
            argv = build.argv_of(program)
        except build.ToolMissing as missing:
            pytest.skip(str(missing))
        if program == "huge_pages.c" or "HUGE" in environment:
            request.getfixturevalue("_huge_pages")
        new = Target([*argv, *arguments], place / f"target-{len(started)}", environment)
        started.append(new)
        try:
            return new.start()
        except Unsupported as unsupported:
            pytest.skip(f"this machine: {unsupported}")

    yield start
    for one in started:
        one.end()
