"""A real criu restores sockets that criupy wrote, and criupy restores those that criu wrote."""

from __future__ import annotations

import json
import socket

import pytest
from click.testing import CliRunner
from harness.cases import SOCKETS

from criupy.cli.crit import crit as criupy_crit

SHARED = [case for case in SOCKETS if not case.not_criu]


@pytest.fixture(params=["criupy-to-criu", "criu-to-criupy"])
def pair(request, criupy, criu):
    """Who dumps and who restores."""
    return (criupy, criu) if request.param == "criupy-to-criu" else (criu, criupy)


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_sockets(case, target, pair, images):
    dumper, restorer = pair
    process = target(case.program, **case.environment, RESTORED="1")
    dumper.dump(process, images)
    process.wait_gone()
    restorer.restore(process, images)
    process.ask()


def test_datagrams_to_others(target, pair, place, images):
    """A connection to a name outside of the tree."""
    dumper, restorer = pair
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(place / "server"))
        process = target("unix_client.c", ADDRESS=str(place / "server"), TYPE="dgram", RESTORED="1")
        dumper.dump(process, images, "--ext-unix-sk")
        process.wait_gone()
        restorer.restore(process, images, "--ext-unix-sk")
        process.ask()
        ours.setblocking(False)
        assert ours.recv(10) == b"ping"


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_crit_decodes_the_same(case, target, criupy, crit, images):
    process = target(case.program, **case.environment)
    criupy.dump(process, images)
    for name in ("files.img", "sk-queues.img"):
        if not (images / name).exists():
            continue
        ours = CliRunner().invoke(criupy_crit, ["decode", "-i", str(images / name)])
        assert ours.exit_code == 0, ours.output
        assert json.loads(ours.output) == crit(images / name), name
