"""Programs in terminals: shells with job control, editors, whoever sits at them notices nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.engine import EngineError
from harness.observe import TreeObservation, assert_unharmed
from harness.target import wait_until
from harness.window import (
    PROMPT,
    SHELL,
    Screen,
    Window,
    a_job,
    children,
    foreground,
    sleeping_child,
    terminal,
)

from criupy.linux import tty

pytestmark = pytest.mark.usefixtures("_subreaper")
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
    for turn in range(CYCLES):
        again(process, criupy, images)
        window.run(f"on it goes {turn}")
        window.expect(f"on it goes {turn}\r\n")
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


def test_shell_job(place, criupy, images):
    with a_job(place, images, criupy, criupy) as (screen, pid):
        screen.type("\x1a")
        screen.expect("Stopped")
        screen.expect(PROMPT)
        assert foreground(screen) == screen.pid
        screen.run("fg")
        wait_until("it has the terminal", lambda: foreground(screen) == pid)
        screen.run("more")
        screen.expect("more\r\n")


def lines_of_vim(screen):
    """As many as it believes that it has."""
    screen.type("\x1b:echo 'has' &lines 'lines'\r")
    return int(screen.expect(r"has (\d+) lines")[1])


def test_a_job_in_raw_mode(place, criupy, images):
    """The terminal is as the program wants it again, and as the shell wants it in the end; it has another size."""
    if shutil.which("vim") is None:
        pytest.skip("vim is missing")
    images.mkdir(mode=0o700)
    with terminal(place) as screen:
        screen.type("vim -u NONE -N -n text\n")
        screen.expect(r"\[New( File)?\]")
        screen.type("ione line")
        screen.expect("one line")
        pid = sleeping_child(screen.pid, "vim")
        tty.set_window_size(screen.master, (27, 90, 0, 0))
        wait_until("vim has the size", lambda: lines_of_vim(screen) == 27)
        done = criupy.run("dump", "--shell-job", "-t", str(pid), "-D", str(images), cwd=place)
        assert done.returncode == 0, done
        screen.expect(PROMPT)
        tty.set_window_size(screen.master, (31, 90, 0, 0))
        screen.type(f"stty sane; {criupy.path} restore --shell-job -D {images}; stty -a | grep -c ' echo '\n")
        wait_until("it has the terminal", lambda: foreground(screen) == pid)
        wait_until("vim has the new size", lambda: lines_of_vim(screen) == 31)
        screen.type("A more\x1b:wq\r")
        text = place / "text"
        wait_until("the text is there", lambda: text.exists() and text.read_text() == "one line more\n")
        screen.expect("1\r\n")
        screen.expect(PROMPT)


@dataclass
class Pane(Screen):
    """A window of a tmux server: all that a client would see of it now."""

    directory: Path = Path()
    number: int = 0

    def shown(self):
        return tmux(self.directory, "capture-pane", "-p", "-t", f":{self.number}").encode()

    def expect(self, pattern, *, timeout=30.0):
        self.seen = 0
        return super().expect(pattern, timeout=timeout)

    def type(self, text):
        tmux(self.directory, "send-keys", "-t", f":{self.number}", "-l", text)


def tmux(directory, *command):
    """One command of a client, which does not look for a terminal of its own."""
    done = subprocess.run(
        ["tmux", "-S", directory / "socket", *command],
        env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_tmux(target, criupy, images):
    """A server with three windows: an editor, a program that shows something new all the time, a shell with a job."""
    for program in ("vim", "top"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    process = target("tmux_server.sh", TERM="xterm", HOME="/nonexistent")
    place = process.directory
    wait_until("the server listens", (place / "socket").exists)
    tmux(place, "new-session", "-d", "-x", "80", "-y", "24", "-c", str(place), "vim -u NONE -N -n text")
    tmux(place, "new-window", "-d", "-c", str(place), "top -d 0.5")
    tmux(place, "new-window", "-d", "-c", str(place), f"env PS1='{PROMPT}' HISTFILE= {SHELL}")
    assert tmux(place, "display", "-p", "#{pid}").strip() == str(process.pid)
    editor, top, shell = (Pane(directory=place, number=number) for number in range(3))
    editor.expect("New")
    editor.type("ione line")
    editor.expect("one line")
    shell.expect(PROMPT.rstrip())
    shell.type("cat\n")
    shell.expect("cat\n")
    sleeping_child(int(tmux(place, "display", "-p", "-t", ":2", "#{pane_pid}")), "cat")
    for turn in range(CYCLES):
        top.expect("load average")
        again(process, criupy, images)
        editor.type(f"\nline {turn}")
        editor.expect(f"\nline {turn}\n")
        shell.type(f"turn {turn}\n")
        shell.expect(f"turn {turn}\nturn {turn}\n")
    tmux(place, "send-keys", "-t", ":2", "C-c")
    shell.expect(r"\^C\n" + PROMPT.rstrip())
    tmux(place, "send-keys", "-t", ":0", "Escape", ":wq", "Enter")
    text = place / "text"
    written = "one line\n" + "".join(f"line {turn}\n" for turn in range(CYCLES))
    wait_until("it is written", lambda: text.exists() and text.read_text() == written)
    tmux(place, "kill-server")
    process.wait_gone()


# What cannot be


def dump_of(engine, pid, images, *options):
    """The outcome of a dump of a process that is no target."""
    images.mkdir(mode=0o700, exist_ok=True)
    return engine.run("dump", "-t", str(pid), "-D", str(images), *options, cwd=images.parent)


def test_a_terminal_of_somebody_else(place, criupy, images):
    with terminal(place) as screen:
        before = TreeObservation.of(screen.pid)
        refused = dump_of(criupy, screen.pid, images)
        assert refused.returncode != 0
        assert "it is a pseudo terminal that somebody outside of the tree looks after" in refused.output
        assert "--shell-job" in refused.output
        assert_unharmed(before)


def test_two_terminals_of_others(place, criupy, images):
    with terminal(place) as screen, terminal(place) as another:
        screen.run(f"exec 5<>/dev/pts/{tty.number(another.master, tty.TIOCGPTN)}")
        screen.run("cat")
        pid = sleeping_child(screen.pid, "cat")
        refused = dump_of(criupy, pid, images, "--shell-job")
        assert refused.returncode != 0
        assert "fd 5 (terminal /dev/pts/" in refused.output
        assert "another pseudo terminal than the one that the tree is dumped for" in refused.output
        screen.run("unharmed")
        screen.expect("unharmed\r\n")


def test_the_other_end_is_outside(target, criupy, images):
    process = target("terminals.c", BEYOND_CRIU="1")
    links = {fd: os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")}
    slaves = {int(link.split("/")[3]) for link in links.values() if re.fullmatch(r"/dev/pts/\d+", link)}
    infos = (
        Path(f"/proc/{process.pid}/fdinfo/{fd}").read_text() for fd, link in links.items() if "ptmx" in link
    )
    masters = {int(match[1]) for info in infos if (match := re.search(r"tty-index:\t(\d+)", info))}
    unopened = max(masters - slaves)
    holder = subprocess.Popen(
        ["sleep", "1000"], stdin=os.open(f"/dev/pts/{unopened}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    )
    try:
        with pytest.raises(EngineError, match=rf"its other end is open in .*{holder.pid}|{os.getpid()}"):
            criupy.dump(process, images)
    finally:
        holder.kill()
        holder.wait()
    assert not process.has_ended()


def test_a_number_in_use(target, criupy, images):
    """It is said whose it is, and nothing of the tree is left; the same images restore when it is free."""
    process = target("terminal_server.py", SHELL, **ENVIRONMENT)
    (window,) = windows(process, 1)
    window.expect(PROMPT)
    criupy.dump(process, images)
    process.wait_gone()
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        index = tty.number(master, tty.TIOCGPTN)
        with pytest.raises(EngineError, match=rf"/dev/pts/{index} is in use by {os.getpid()} "):
            criupy.restore(process, images)
    finally:
        os.close(master)
    assert not process.left()
    criupy.restore(process, images)
    window.run("exit")
    process.ask()


def test_a_job_without_a_terminal(place, criupy, images):
    with terminal(place) as screen:
        screen.run("cat")
        pid = sleeping_child(screen.pid, "cat")
        done = dump_of(criupy, pid, images, "--shell-job")
        assert done.returncode == 0, done
        for options, why in (
            ([], "the tree has a terminal that somebody outside of it looked after"),
            (["--shell-job"], "standard input is no terminal"),
        ):
            refused = criupy.run("restore", "-d", "-D", str(images), *options, cwd=place)
            assert refused.returncode != 0
            assert why in refused.output
            assert not os.path.exists(f"/proc/{pid}")


def test_a_failed_restore_leaves_the_terminal_as_it_is(place, criupy, images):
    with terminal(place) as screen:
        screen.run("cat")
        pid = sleeping_child(screen.pid, "cat")
        done = dump_of(criupy, pid, images, "--shell-job")
        assert done.returncode == 0, done
        screen.expect(PROMPT)
        screen.run("touch pidfile")
        screen.expect(PROMPT)
        before = tty.termios(screen.master)
        screen.run(f"{criupy.path} restore --shell-job -D {images} --pidfile {place}/pidfile")
        screen.expect("the pidfile .* cannot be written")
        screen.expect(PROMPT)
        assert foreground(screen) == screen.pid
        wait_until("the shell has it as before", lambda: tty.termios(screen.master) == before)
        assert not os.path.exists(f"/proc/{pid}")


HUNG_UP = """
import fcntl, os, signal, termios, time
master, slave = os.openpty()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
os.close(slave), os.open("/dev/tty", os.O_RDWR), os.close(master)
print("ready", flush=True)
time.sleep(1000)
"""


UNSEEN = """
import fcntl, os, termios, time
master, slave = os.openpty()
if os.fork():
    os.close(slave)
    time.sleep(1000)
os.setsid()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
os.close(slave), os.close(master)
print(os.getpid(), flush=True)
time.sleep(1000)
"""


def test_a_session_whose_terminal_nobody_has_open(criupy, images):
    process = subprocess.Popen(
        [sys.executable, "-c", UNSEEN],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    leader = 0
    try:
        assert process.stdout is not None
        leader = int(process.stdout.readline())
        done = dump_of(criupy, leader, images, "--leave-running")
        assert done.returncode == 0, done
        assert f"task {leader}: nobody has the pseudo terminal of its session open" in done.output
    finally:
        if leader > 1:
            os.kill(leader, signal.SIGKILL)
        process.kill()
        process.communicate()


def test_a_hung_up_dev_tty(criupy, images):
    process = subprocess.Popen(
        [sys.executable, "-c", HUNG_UP],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        refused = dump_of(criupy, process.pid, images)
        assert refused.returncode != 0
        assert "(terminal /dev/tty): it was hung up" in refused.output
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


TAKER = """
import os, sys
from criupy.linux import tty
from criupy.resources import terminalcontent
master, slave = map(int, sys.argv[1:])
pair = terminalcontent.Pair(master, slave, tty.termios(master))
os.write(1, b"x")
while True:
    terminalcontent.take([pair])
"""


def test_content_survives_kills():
    """What is taken out to be seen is put back, whenever criupy is killed."""
    master, slave = os.openpty()
    os.write(master, b"one\ntwo\x04half a line")
    wait_until("the echo has come", lambda: tty.number(master, tty.FIONREAD) == 19)
    os.write(slave, b"printed\n")
    wait_until("it has arrived", lambda: tty.number(master, tty.FIONREAD) == 28)
    pair_termios = tty.termios(master)
    for turn in range(12):
        taker = subprocess.Popen(
            [sys.executable, "-c", TAKER, str(master), str(slave)],
            pass_fds=(master, slave),
            stdout=subprocess.PIPE,
        )
        assert taker.stdout is not None
        taker.stdout.read(1)
        signal.sigtimedwait([], turn * 0.0037)
        guardians = children(taker.pid)
        taker.kill()
        taker.communicate()
        for guardian in guardians:
            wait_until("the guardian is done", lambda: is_done(guardian))  # noqa: B023
    assert tty.termios(master) == pair_termios
    os.set_blocking(slave, False)
    assert os.read(slave, 100) == b"one\n"
    assert os.read(slave, 100) == b"two"
    os.write(master, b"\n")
    os.set_blocking(slave, True)
    assert os.read(slave, 100) == b"half a line\n"
    assert os.read(master, 100).startswith(b"one\r\ntwohalf a lineprinted\r\n")


def is_done(pid):
    """Whether a child of somebody who died has ended; it is ours then."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not os.path.exists(f"/proc/{pid}")
