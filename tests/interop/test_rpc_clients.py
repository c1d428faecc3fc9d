"""CRIU's own Python client drives criupy, as a program of its own and as a service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.target import wait_until

CLIENT = """
import os, sys
import pycriu
way, server, images, pid = sys.argv[1:]
criu = pycriu.criu()
criu.use_binary(server) if way == "binary" else criu.use_sk(server)
criu.check()
criu.opts.images_dir_fd = os.open(images, os.O_RDONLY | os.O_DIRECTORY)
criu.opts.pid = int(pid)
try:
    criu.opts.pid = 4000000
    criu.dump()
except Exception as error:
    print(type(error).__name__, getattr(error, "errno", None))
criu.opts.pid = int(pid)
criu.dump()
while os.path.exists(f"/proc/{pid}"):  # its parent reaps it
    pass
print("dumped")
print("restored", criu.restore().pid)
"""


@pytest.fixture
def pycriu(criu):
    """Where the module is."""
    packages = Path(criu.path).parent / "root/usr/lib/python3/dist-packages"
    if not (packages / "pycriu").is_dir():
        pytest.skip("needs pycriu beside the real criu: scripts/real-criu")
    return packages


@pytest.fixture
def server(criupy, place, request):
    """What pycriu is told: the program, or the socket of a service."""
    if request.param == "binary":
        yield request.param, criupy.path
        return
    running = subprocess.Popen(
        [criupy.path, "service", "-W", str(place), "-o", "service.log", "-v4"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until("it listens", lambda: "ready" in log_of(place))
        yield request.param, str(place / "criu_service.socket")
    finally:
        running.kill()
        running.wait(20)


def log_of(place):
    """That of the service."""
    log = place / "service.log"
    return log.read_text() if log.exists() else ""


@pytest.mark.parametrize("server", ["binary", "socket"], indirect=True)
def test_pycriu(server, pycriu, target, images):
    process = target("avx_threads.c")
    process.record()
    images.mkdir(mode=0o700)
    output = images.parent / "client"
    with output.open("wb") as out:
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, *server, str(images), str(process.pid)],
            env={**os.environ, "PYTHONPATH": str(pycriu)},
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    wait_until("it is dumped", lambda: process.has_ended() or client.poll() is not None)
    client.wait(60)
    assert output.read_text().splitlines()[1:] == ["dumped", f"restored {process.pid}"], output.read_text()
    assert output.read_text().startswith("CRIUExceptionExternal")
    process.expect_progress()
    process.ask()
