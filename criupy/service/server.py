"""The two servers and their answers: ``swrk`` on an inherited descriptor, ``service`` on a socket of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from criupy.checking import missing
from criupy.dumping.dumper import dump
from criupy.errors import CriupyError, HookError, UsageError
from criupy.hooks import NOBODY, Hooks, Moment
from criupy.images.pb import rpc_pb2 as rpc
from criupy.log import Log
from criupy.options import LogOptions
from criupy.restoring.restorer import restore
from criupy.service import requests
from criupy.service.packets import Peer, receive, send

CRIU_VERSION = (4, 2)
"""Whose images and interfaces these are."""
_LONGEST_MESSAGE = 1023
_BACKLOG = 16
_MAY_BE_KEPT = frozenset(
    {
        rpc.PAGE_SERVER, rpc.PAGE_SERVER_CHLD, rpc.CPUINFO_DUMP, rpc.CPUINFO_CHECK, rpc.FEATURE_CHECK, rpc.VERSION,
    }
)  # fmt: skip
"""Types of requests after which a client may keep the connection open."""
_NOT_BUILT = {
    rpc.PRE_DUMP: "a pre-dump",
    rpc.SINGLE_PRE_DUMP: "a pre-dump",
    rpc.PAGE_SERVER: "a page server",
    rpc.PAGE_SERVER_CHLD: "a page server",
    rpc.CPUINFO_DUMP: "an image of the processor",
    rpc.CPUINFO_CHECK: "a check of the processor",
}
_OK, _FAILED, _OTHER = 0, 1, 255


@dataclass(frozen=True)
class LogReport:
    """Lines for a person go to the log."""

    log: Log

    def line(self, text: str) -> None:
        self.log.info(text)

    def progress(self, label: str, done: int, total: int) -> None:
        """A log has no use for it."""


@dataclass(frozen=True)
class Client:
    """Hooks: the client is told of every moment, and waited for."""

    connection: socket.socket
    are_set = True

    def act(self, moment: Moment, pid: int) -> None:
        note = rpc.criu_notify(script=moment)
        if moment == "post-restore":
            note.pid = pid
        send(self.connection, rpc.criu_resp(type=rpc.NOTIFY, success=True, notify=note))
        answer = receive(self.connection)
        if answer is None or answer.type != rpc.NOTIFY or not answer.notify_success:
            raise HookError(f"the client did not agree to {moment}")
        if answer.opts.external:
            raise HookError("external resources cannot be named at this moment yet")


class Connection:
    """One client.  ``standalone``: it came to the service's socket, and need not be a friend."""

    def __init__(self, connection: socket.socket, *, standalone: bool) -> None:
        self._connection = connection
        self._peer = Peer.of(connection)
        self._standalone = standalone

    def serve(self) -> int:
        """Answers until the connection shall end; the exit code for that."""
        while True:
            request = receive(self._connection)
            if request is None or (request.keep_open and request.type not in _MAY_BE_KEPT):
                return _OTHER
            response = self._answer(request)
            if not send(self._connection, response):
                return _OTHER
            if not request.keep_open or not response.success:
                return self._code(request, response)

    def _code(self, request: rpc.criu_req, response: rpc.criu_resp) -> int:
        if response.success or request.type in (rpc.CHECK, rpc.FEATURE_CHECK, rpc.WAIT_PID):
            return _OK
        return _FAILED if request.type in (rpc.DUMP, rpc.RESTORE) else _OTHER

    def _answer(self, request: rpc.criu_req) -> rpc.criu_resp:
        answers: dict[int, Callable[[rpc.criu_req], rpc.criu_resp]] = {
            rpc.DUMP: self._dump,
            rpc.RESTORE: self._restore,
            rpc.CHECK: lambda _: rpc.criu_resp(type=rpc.CHECK, success=not missing()),
            rpc.FEATURE_CHECK: _features,
            rpc.VERSION: _version,
            rpc.WAIT_PID: _wait,
        }
        if request.type in _NOT_BUILT:
            message = f"{_NOT_BUILT[request.type]} is not built yet"
            return rpc.criu_resp(type=request.type, success=False, cr_errmsg=message)
        if request.type not in answers:
            return rpc.criu_resp(type=rpc.EMPTY, success=False)
        return answers[request.type](request)

    def _dump(self, request: rpc.criu_req) -> rpc.criu_resp:
        response = rpc.criu_resp(type=rpc.DUMP, success=False)
        response.dump.restored = False

        def run(there: requests.Place, log: Log) -> None:
            options = requests.dump_options(request.opts, there, self._peer)
            dump(options, log, LogReport(log), self._hooks(request))

        self._run(request, response, "Dumping FAILED.", run)
        return response

    def _restore(self, request: rpc.criu_req) -> rpc.criu_resp:
        response = rpc.criu_resp(type=rpc.RESTORE, success=False)
        response.restore.pid = -1

        def run(there: requests.Place, log: Log) -> None:
            options = requests.restore_options(request.opts, there)
            response.restore.pid = restore(options, log, LogReport(log), self._hooks(request))

        self._run(request, response, "Restoring FAILED.", run)
        return response

    def _hooks(self, request: rpc.criu_req) -> Hooks:
        return Client(self._connection) if request.opts.notify_scripts else NOBODY

    def _run(
        self,
        request: rpc.criu_req,
        response: rpc.criu_resp,
        failure: str,
        run: Callable[[requests.Place, Log], None],
    ) -> None:
        """``run`` with its directories and its log; every error becomes one response."""
        log = Log(max(request.opts.log_level, 0))
        try:
            if self._standalone:
                self._peer.require_privilege()
            with requests.place(request.opts, self._peer) as there:
                _open(log, requests.log_options(request.opts, there.work_dir))
                for warning in requests.warnings(request.opts):
                    log.warning(warning)
                run(there, log)
            response.success = True
        except CriupyError as error:
            _log_error(log, error, failure)
            if error.rpc_errno:
                response.cr_errno = error.rpc_errno
        except Exception as error:  # noqa: BLE001 - a client gets an answer whatever it is, and the log the rest
            log.error(f"{type(error).__name__}: {error}")
            log.error(traceback.format_exc())
            log.error(failure)
        finally:
            log.close()
        if log.first_error:
            response.cr_errmsg = f"{log.first_error}\n".encode()[:_LONGEST_MESSAGE].decode("utf-8", "ignore")


def _open(log: Log, options: LogOptions) -> None:
    try:
        log.open(options.work_dir, options.log_file)
    except OSError as error:
        message = f"cannot open the log {options.log_file!r} in {options.work_dir!r}: {error.strerror}"
        raise UsageError(message) from error


def _log_error(log: Log, error: CriupyError, failure: str) -> None:
    for line in (*str(error).split("\n"), *filter(None, error.hint.split("\n")), failure):
        log.error(line)


def _features(_: rpc.criu_req) -> rpc.criu_resp:
    """All that can be asked for belongs to incremental dumps and lazy restores, which are not built."""
    none = rpc.criu_features(mem_track=False, lazy_pages=False, pidfd_store=False)
    return rpc.criu_resp(type=rpc.FEATURE_CHECK, success=True, features=none)


def _version(_: rpc.criu_req) -> rpc.criu_resp:
    major, minor = CRIU_VERSION
    version = rpc.criu_version(major_number=major, minor_number=minor, name="criupy")
    return rpc.criu_resp(type=rpc.VERSION, success=True, version=version)


def _wait(request: rpc.criu_req) -> rpc.criu_resp:
    """The wait status of a child of this server; 0 would mean any."""
    try:
        if request.pid <= 0:
            raise ChildProcessError
        _, status = os.waitpid(request.pid, 0)
    except (ChildProcessError, OverflowError):
        return rpc.criu_resp(type=rpc.WAIT_PID, success=False)
    return rpc.criu_resp(type=rpc.WAIT_PID, success=True, status=status)


def swrk(descriptor: int) -> int:
    """Serve the client at a connected descriptor; the exit code.  `UsageError` if it is no such socket."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        connection = socket.socket(fileno=descriptor)
        kind = connection.family, connection.type
    except OSError as error:
        raise UsageError(f"descriptor {descriptor} is no socket: {error.strerror}") from error
    if kind != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise UsageError(f"descriptor {descriptor} is no unix SOCK_SEQPACKET socket")
    connection.set_inheritable(False)
    with connection:
        return Connection(connection, standalone=False).serve()


def service(address: str, ready: Callable[[], None]) -> None:
    """Listen at ``address``, and fork a worker for every client, for ever.  ``ready`` is called once it listens."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            _remove_stale(address)
            listener.bind(address)
        except OSError as error:
            raise UsageError(f"cannot listen at {address}: {error.strerror}") from error
        os.chmod(address, 0o666)  # noqa: S103 - as criu has it: what a client may do is judged by its credentials
        listener.listen(_BACKLOG)
        signal.signal(signal.SIGCHLD, _reap)
        ready()
        while True:
            connection, _ = listener.accept()
            with connection:
                _fork(connection, listener)


def _remove_stale(address: str) -> None:
    """The socket of a service that is gone; a file of another kind is somebody's, and is in the way."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(address).st_mode):
            os.unlink(address)


def _fork(connection: socket.socket, listener: socket.socket) -> None:
    if os.fork():
        return
    code = _OTHER
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        code = Connection(connection, standalone=True).serve()
    finally:
        os._exit(code)


def _reap(_number: int, _frame: FrameType | None) -> None:
    """Workers that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
