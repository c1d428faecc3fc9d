"""Programs in terminals: shells with job control, editors, whoever sits at them notices nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness.engine import EngineError
from harness.observe import TreeObservation, assert_unharmed
from harness.target import wait_until
from harness.window import PROMPT, SHELL, Window, children, sleeping_child, terminal

CYCLES = int(os.environ.get("CRIUPY_CYCLES", "2"))
ENVIRONMENT = {"PS1": PROMPT, "TERM": "xterm", "HISTFILE": ""}


def windows(process, count):
    return [Window(directory=process.directory, number=number) for number in range(count)]


def again(process, engine, images, *options):
    """Dump, and restore from images of which nothing is left in the end."""
    engine.dump(process, images, *options)
    process.wait_gone()
    engine.restore(process, images)
    shutil.rmtree(images)


def test_job_control(target, criupy, images):
    """bash with a job in the foreground, then a stopped one, then one in the background."""
    process = target("terminal_server.py", SHELL, **ENVIRONMENT)
    (window,) = windows(process, 1)
    window.expect(PROMPT)
    shell = children(process.pid)[0]
    window.run("cat")
    sleeping_child(shell, "cat")
    window.run("hello")
    window.expect("hello\r\n")
    again(process, criupy, images)
    window.run("on it goes")
    window.expect("on it goes\r\n")
    window.type("\x1a")
    window.expect("Stopped")
    window.expect(PROMPT)
    again(process, criupy, images)
    window.run("fg")
    window.expect("cat\r\n")
    window.run("still the same")
    window.expect("still the same\r\n")
    window.type("\x03")
    window.expect(PROMPT)
    window.run("sleep 1000 &")
    window.expect(PROMPT)
    again(process, criupy, images)
    window.run("jobs")
    window.expect("Running +sleep 1000")
    window.expect(PROMPT)
    window.run("kill %1; wait; echo nobody left")
    window.expect("nobody left\r\n")
    window.run("exit")
    process.ask()


def test_full_screen_programs(target, criupy, images):
    """An editor, with a line that was not written, and a program that shows something new all the time."""
    for program in ("vim", "top"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    process = target(
        "terminal_server.py", "vim -u NONE -N -n text", "top -d 0.5", **ENVIRONMENT, HOME="/nonexistent"
    )
    editor, top = windows(process, 2)
    editor.expect(r"\[New( File)?\]")
    editor.type("ione line")
    editor.expect("one line")
    for _ in range(CYCLES):
        top.expect("load average")
        again(process, criupy, images)
        top.seen = len(top.shown())
        top.expect("load average|%Cpu")
    editor.type(" more\x1b:wq\r")
    text = process.directory / "text"
    wait_until("the text is there", lambda: text.exists() and text.read_text() == "one line more\n")
    top.type("q")
    process.ask()


def in_a_terminal(place, criupy, images, dumper, restorer):
    """A job of a shell: dumped from outside, restored by a command in the same terminal."""
    images.mkdir(mode=0o700)
    with terminal(place) as screen:
        screen.run("cat")
        pid = sleeping_child(screen.pid, "cat")
        screen.run("hello")
        screen.expect("hello\r\n")
        done = dumper.run("dump", "--shell-job", "-t", str(pid), "-D", str(images), cwd=place)
        assert done.returncode == 0, done
        screen.expect(PROMPT)
        screen.type(f"{restorer.path} restore --shell-job -D {images}\n")
        wait_until("cat is back", lambda: os.path.exists(f"/proc/{pid}"))
        wait_until("it has the terminal", lambda: os.tcgetpgrp(screen.master) == pid)
        screen.seen = len(screen.shown())
        screen.run("again")
        screen.expect("again\r\n")
        yield screen, pid
        screen.type("\x03")
        screen.expect(PROMPT)
        assert not os.path.exists(f"/proc/{pid}")
        screen.run("cat")
        sleeping_child(screen.pid, "cat")
        screen.run("and the shell has its terminal")
        screen.expect("and the shell has its terminal\r\n")
        screen.type("\x04")
        screen.expect(PROMPT)


def test_shell_job(place, criupy, images, _subreaper):
    for screen, pid in in_a_terminal(place, criupy, images, criupy, criupy):
        screen.type("\x1a")
        screen.expect("Stopped")
        screen.expect(PROMPT)
        assert os.tcgetpgrp(screen.master) == screen.pid
        screen.run("fg")
        wait_until("it has the terminal", lambda: os.tcgetpgrp(screen.master) == pid)  # noqa: B023
        screen.run("more")
        screen.expect("more\r\n")


def test_a_job_in_raw_mode(place, criupy, images, _subreaper):
    """The terminal is as the program wants it again, and as the shell wants it in the end."""
    if shutil.which("vim") is None:
        pytest.skip("vim is missing")
    images.mkdir(mode=0o700)
    with terminal(place) as screen:
        screen.type("vim -u NONE -N -n text\n")
        screen.expect(r"\[New( File)?\]")
        screen.type("ione line")
        screen.expect("one line")
        pid = sleeping_child(screen.pid, "vim")
        done = criupy.run("dump", "--shell-job", "-t", str(pid), "-D", str(images), cwd=place)
        assert done.returncode == 0, done
        screen.expect(PROMPT)
        screen.type(f"stty sane; {criupy.path} restore --shell-job -D {images}; stty -a | grep -c ' echo '\n")
        wait_until("it has the terminal", lambda: os.tcgetpgrp(screen.master) == pid)
        screen.type(" more\x1b:wq\r")
        text = place / "text"
        wait_until("the text is there", lambda: text.exists() and text.read_text() == "one line more\n")
        screen.expect("1\r\n")
        screen.expect(PROMPT)
