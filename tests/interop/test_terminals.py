"""A real criu restores what criupy wrote of terminals, and criupy what criu wrote, with programs of everyday."""

from __future__ import annotations

import os

import pytest
from harness.window import PROMPT, SHELL, Window, a_job

pytestmark = pytest.mark.usefixtures("_subreaper")


@pytest.fixture(params=["criupy-to-criu", "criu-to-criupy"])
def pair(request, criupy, criu):
    """Who dumps and who restores."""
    return (criupy, criu) if request.param == "criupy-to-criu" else (criu, criupy)


def test_a_shell(target, pair, images):
    """It has nobody below it, from whom criu would take the terminal."""
    dumper, restorer = pair
    process = target("terminal_server.py", SHELL, PS1=PROMPT, TERM="xterm", HISTFILE="")
    window = Window(directory=process.directory)
    window.expect(PROMPT)
    dumper.dump(process, images)
    process.wait_gone()
    restorer.restore(process, images)
    window.run("sleep 1000")
    window.type("\x03")
    window.expect(PROMPT)
    window.run("echo $((6 * 7))")
    window.expect("42\r\n")
    window.run("exit")
    process.ask()


def test_shell_job(place, pair, images):
    with a_job(place, images, *pair) as (_, pid):
        assert os.getpgid(pid) == pid
