"""What cannot be done with unix sockets is said by name, and nothing comes to harm by it."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from harness.engine import EngineError
from harness.observe import Observation, assert_unharmed

from criupy.resources.files import unixqueue

SO_PEEK_OFF = 42


def refusal(engine, process, images, *options):
    """What a dump says that does not come about; the program is as it was."""
    before = Observation.of(process.pid)
    with pytest.raises(EngineError) as caught:
        engine.dump(process, images, *options)
    assert_unharmed(before)
    assert not (images / "inventory.img").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("early data", "it has sent to a connection that is not accepted yet"),
        ("gone client", "who has connected to it went before that was accepted"),
        ("moved", "socket, where nothing can be found"),
        ("urgent", "urgent data (MSG_OOB) is in it"),
        ("program", "it has an eBPF filter"),
    ],
)
def test_refused(what, said, target, criupy, images):
    process = target("unix_refused.c", WHAT=what)
    assert said in refusal(criupy, process, images)
    process.ask()


@pytest.fixture
def server(place):
    """Sockets of ours that a program can connect to."""
    made = []

    def start(kind, name):
        sock = socket.socket(socket.AF_UNIX, kind)
        made.append(sock)
        sock.bind(address(place, name).replace("@", "\0", 1) if name.startswith("@") else str(place / name))
        if kind == socket.SOCK_STREAM:
            sock.listen(5)
        sock.setblocking(False)
        return sock

    def accept(listener):
        made.append(listener.accept()[0])
        return made[-1]

    start.accept = accept
    yield start
    for sock in made:
        sock.close()


@pytest.mark.parametrize("kind", ["stream", "dgram"])
def test_who_is_connected_to_others(kind, server, place, target, criupy, images):
    ours = server(getattr(socket, f"SOCK_{kind.upper()}"), "server")
    process = target("unix_client.c", ADDRESS=str(place / "server"), TYPE=kind)
    if kind == "stream":
        ours = server.accept(ours)
    ino = os.fstat(ours.fileno()).st_ino
    said = refusal(criupy, process, images)
    assert (
        f"it is connected to socket {ino} ({place / 'server'}), which is not dumped; {os.getpid()} (" in said
    )
    process.ask()
    assert ours.recv(10) == b"ping"


def test_who_waits_for_others(server, place, target, criupy, images):
    """Nobody has accepted it, so who listens is named."""
    ours = server(socket.SOCK_STREAM, "server")
    process = target("unix_client.c", ADDRESS=str(place / "server"), TYPE="stream")
    said = refusal(criupy, process, images)
    assert f"it is connected to socket {os.fstat(ours.fileno()).st_ino} (" in said
    process.ask()


@pytest.mark.parametrize("name", ["server", "@server"])
def test_datagrams_to_others(name, server, place, target, criupy, images):
    """A syslog client, say: it finds the same name again, or whoever has that now."""
    ours = server(socket.SOCK_DGRAM, name)
    process = target("unix_client.c", ADDRESS=address(place, name), TYPE="dgram", RESTORED="1")
    criupy.dump(process, images, "--ext-unix-sk")
    process.wait_gone()
    restore_fails(criupy, process, images, "with --ext-unix-sk")
    ours.close()
    (place / "server").unlink(missing_ok=True)
    restore_fails(criupy, process, images, f"unix socket .*connect.*{address(place, name)}")
    ours = server(socket.SOCK_DGRAM, name)
    criupy.restore(process, images, "--ext-unix-sk")
    process.ask()
    assert ours.recv(10) == b"ping"


@pytest.mark.parametrize("kind", ["stream", "dgram"])
def test_a_connection_to_others_is_cut(kind, server, place, target, criupy, images):
    """By the inode of the one that is dumped; the program sees that its peer is gone."""
    ours = server(getattr(socket, f"SOCK_{kind.upper()}"), "server")
    process = target("unix_client.c", ADDRESS=str(place / "server"), TYPE=kind, RESTORED="1", CUT="1")
    (link,) = (os.readlink(fd) for fd in Path(f"/proc/{process.pid}/fd").iterdir() if is_socket(fd))
    option = "--external" if kind == "stream" else f"-x{link[8:-1]}"
    criupy.dump(process, images, *([option, f"unix{link[7:]}"] if kind == "stream" else [option]))
    process.wait_gone()
    criupy.restore(process, images)
    process.ask()
    assert ours.fileno() >= 0


def is_socket(fd):
    return os.readlink(fd).startswith("socket:[")


def address(place, name):
    return str(place / name) if not name.startswith("@") else f"@criupy-test-{os.getpid()}"


def restore_fails(criupy, process, images, said):
    options = [] if "with --ext-unix-sk" in said else ["--ext-unix-sk"]
    with pytest.raises(EngineError, match=said):
        criupy.restore(process, images, *options)
    assert not process.left()


def test_a_path_that_is_in_use(target, criupy, images):
    process = target("unix_sockets.c", TYPE="stream", RESTORED="1")
    path = process.directory / "named"
    criupy.dump(process, images)
    process.wait_gone()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        restore_fails(criupy, process, images, f"{path}: somebody else has that name by now")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))  # it does still
    path.unlink()
    path.write_text("precious")
    restore_fails(criupy, process, images, f"{path}: another file has its path")
    assert path.read_text() == "precious"
    path.unlink()
    criupy.restore(process, images)
    process.ask()


@pytest.mark.parametrize("stale", [True, False])
def test_a_failed_restore_leaves_no_path_behind(stale, target, criupy, images, place):
    """A step after the sockets fails: where there was nothing is nothing, and where one was left is one."""
    process = target("unix_sockets.c", TYPE="stream", RESTORED="1")
    path = process.directory / "named"
    criupy.dump(process, images)
    process.wait_gone()
    if not stale:
        path.unlink()
    with pytest.raises(EngineError, match="pidfile"):
        criupy.restore(process, images, "--pidfile", str(place / "nowhere" / "pidfile"))
    assert not process.left()
    assert path.exists() == stale
    criupy.restore(process, images)
    process.ask()


def test_an_abstract_name_that_is_in_use(target, criupy, images):
    process = target("unix_names.c", RESTORED="1")
    criupy.dump(process, images)
    process.wait_gone()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(f"\0criupy-{process.pid}-odd\0z\0")
        restore_fails(criupy, process, images, "somebody else has that name by now")
    criupy.restore(process, images)
    process.ask()


def test_a_directory_that_is_gone(target, criupy, images):
    process = target("unix_names.c", RESTORED="1")
    directory = process.directory / "directory"
    criupy.dump(process, images)
    process.wait_gone()
    directory.rename(directory.with_name("away"))
    restore_fails(criupy, process, images, f"there is no directory {directory}")
    directory.with_name("away").rename(directory)
    criupy.restore(process, images)
    process.ask()


def test_a_socket_is_as_it_was_when_criupy_is_killed():
    """In the middle of a look behind the first message."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader, writer = os.pipe()
    one.send(b"first")
    one.send(b"second")
    child = os.fork()
    if child == 0:
        with unixqueue.Guard() as guard:
            guard.protect(other, -1)
            other.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 5)
            os.kill(os.getpid(), signal.SIGKILL)
    assert child > 0
    os.close(writer)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert os.read(reader, 1) == b"", "the guard has ended"
    os.close(reader)
    assert other.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF) == -1
    assert other.recv(10, socket.MSG_PEEK) == b"first"
    for sock in (one, other):
        sock.close()


def test_a_program_that_moves_its_looks():
    """All of the queue is dumped, and the next look of the program begins where it would have."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    one.send(b"0123456789")
    other.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 4)
    with unixqueue.Guard() as guard:
        (packet,) = unixqueue.collect(other, lambda: guard)
    assert packet.content == b"0123456789"
    assert other.recv(3, socket.MSG_PEEK) == b"456"
    for sock in (one, other):
        sock.close()
