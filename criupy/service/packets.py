"""Packets of the RPC: each is one message, on a SOCK_SEQPACKET socket."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from criupy.errors import PrivilegeError, UsageError
from criupy.images.pb.rpc_pb2 import criu_req, criu_resp
from criupy.linux import namespaces
from criupy.linux.capability import CAP_SYS_ADMIN, CAP_SYS_PTRACE
from criupy.linux.procfs import task

_LARGEST = 1 << 20
"""Bytes of a request: far more than all options take."""
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True)
class Peer:
    """The process at the other end, as it was when it connected (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        size = _CREDENTIALS.size
        return cls(*_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))

    def require_privilege(self) -> None:
        """`PrivilegeError` if it could not do what criupy does itself: the service is nobody's way to more rights."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as status:
                effective = task.credentials(status.read()).cap_effective
            at_home = namespaces.identify(self.pid).get("user") == namespaces.identify(os.getpid()).get(
                "user"
            )
        except (FileNotFoundError, ProcessLookupError) as error:
            raise PrivilegeError(f"the client, process {self.pid}, is gone") from error
        if not at_home or not all(effective >> number & 1 for number in (CAP_SYS_ADMIN, CAP_SYS_PTRACE)):
            message = f"the client, process {self.pid} of user {self.uid}, may not dump or restore tasks"
            raise PrivilegeError(message, hint="it needs CAP_SYS_ADMIN and CAP_SYS_PTRACE")

    def directory(self, number: int) -> int:
        """A descriptor of our own for one of its directories.  `UsageError` if it is none."""
        path = f"/proc/{self.pid}/fd/{number}"
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            message = f"descriptor {number} of process {self.pid} is no directory: {error.strerror}"
            raise UsageError(message) from error


def receive(connection: socket.socket) -> criu_req | None:
    """The next request; None when the client is gone, or sends what is none.  Descriptors in it are not taken."""
    packet, _, flags, _ = connection.recvmsg(_LARGEST)
    if not packet or flags & socket.MSG_TRUNC:
        return None
    try:
        return criu_req.FromString(packet)
    except DecodeError:
        return None


def send(connection: socket.socket, response: criu_resp) -> bool:
    """Whether it could be sent: a client may be gone."""
    try:
        connection.send(response.SerializeToString())
    except OSError:
        return False
    return True
