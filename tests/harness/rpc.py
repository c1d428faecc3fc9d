"""A client of the RPC: requests over a socket, one packet each."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from criupy.images.pb import rpc_pb2 as rpc
from harness.engine import Engine
from harness.target import Target

TIMEOUT = 60.0


class Client:
    """One connection; ``notes`` are the names of the moments that it was told of."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.notes: list[tuple[str, int]] = []

    def request(self, kind: int, *, agree: Callable[[str], bool] = lambda _: True, **fields: Any) -> Any:
        """The response; None when the server hangs up.  Moments are answered by ``agree``."""
        self.send(rpc.criu_req(type=kind, **fields))
        while (response := self.receive()) is not None and response.type == rpc.NOTIFY:
            note = response.notify
            self.notes.append((note.script, note.pid))
            self.send(rpc.criu_req(type=rpc.NOTIFY, notify_success=agree(note.script)))
        return response

    def send(self, request: Any) -> None:
        self.connection.send(request.SerializeToString())

    def receive(self) -> Any:
        try:
            packet = self.connection.recv(1 << 16)
        except ConnectionResetError:
            return None
        return rpc.criu_resp.FromString(packet) if packet else None


@contextlib.contextmanager
def swrk(engine: Engine, directory: Path) -> Iterator[tuple[Client, subprocess.Popen[bytes]]]:
    """A server of our own, at the other end of a pair of sockets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(TIMEOUT)
    with ours, (directory / "output").open("wb") as output:
        with theirs:
            server = subprocess.Popen(
                [engine.path, "swrk", str(theirs.fileno())],
                cwd=directory, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield Client(ours), server
            ours.close()
            server.wait(TIMEOUT)
        finally:
            server.kill()
            server.wait(TIMEOUT)


@contextlib.contextmanager
def directory(path: Path) -> Iterator[int]:
    """A descriptor for ``images_dir_fd``."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def dump(client: Client, process: Target, descriptor: int, **options: Any) -> Any:
    """Asks for a dump of a target."""
    process.record()
    opts = rpc.criu_opts(images_dir_fd=descriptor, pid=process.pid, log_level=4, **options)
    return client.request(rpc.DUMP, opts=opts)
