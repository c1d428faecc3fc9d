"""CRIU's RPC, spoken as runc and libcriu speak it."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from harness import rpc as client
from harness.observe import Observation, assert_unharmed
from harness.target import wait_until

from criupy.images.pb import rpc_pb2 as rpc

DUMP_MOMENTS = ["pre-dump", "query-ext-files", "post-dump"]
RESTORE_MOMENTS = ["pre-restore", "post-restore", "pre-resume", "post-resume"]


@pytest.fixture
def connect(under_test, place):
    """Starts ``swrk``: a context manager that gives the client and the server's process."""
    return lambda: client.swrk(under_test, place)


def test_version_and_features_on_one_connection(connect):
    with connect() as (criu, server):
        version = criu.request(rpc.VERSION, keep_open=True)
        assert version.success
        assert (version.version.major_number, version.version.minor_number) == (4, 2)
        features = criu.request(rpc.FEATURE_CHECK, features=rpc.criu_features(mem_track=True))
        assert features.success
        assert len(features.features.ListFields()) == 3
    assert server.returncode == 0


def test_check(connect):
    with connect() as (criu, server):
        answer = criu.request(rpc.CHECK)
        assert answer.type == rpc.CHECK
        assert answer.success
    assert server.returncode == 0


@pytest.mark.parametrize("program", ["avx_threads.c", "tree_workers.c"])
def test_dump_and_restore(program, connect, target, images):
    process = target(program)
    with client.directory(images) as descriptor:
        with connect() as (criu, server):
            answer = client.dump(criu, process, descriptor, notify_scripts=True)
            assert answer.success, answer.cr_errmsg
            assert answer.type == rpc.DUMP
            assert not answer.dump.restored
            assert [moment for moment, _ in criu.notes] == DUMP_MOMENTS
        assert server.returncode == 0
        process.wait_gone()
        with connect() as (criu, server):
            opts = rpc.criu_opts(images_dir_fd=descriptor, log_file=b"again.log", notify_scripts=True)
            answer = criu.request(rpc.RESTORE, opts=opts)
            assert answer.success, answer.cr_errmsg
            assert answer.restore.pid == process.pid
            assert [moment for moment, _ in criu.notes] == RESTORE_MOMENTS
            assert dict(criu.notes)["post-restore"] == process.pid
        assert server.returncode == 0
    assert (images / "criu.log").stat().st_mode & 0o777 == 0o600
    assert (images / "again.log").exists()
    process.expect_progress()
    process.ask()


def test_leave_running(connect, target, images):
    process = target("avx_threads.c")
    before = Observation.of(process.pid)
    with client.directory(images) as descriptor, connect() as (criu, _):
        answer = client.dump(criu, process, descriptor, leave_running=True, notify_scripts=True)
        assert answer.success, answer.cr_errmsg
    assert_unharmed(before)
    process.ask()


def test_directories_by_name_and_by_number(connect, target, images, place):
    process = target("avx_threads.c")
    images.mkdir()
    with client.directory(place / "work") as work, connect() as (criu, _):
        process.record()
        opts = rpc.criu_opts(images_dir_fd=-1, images_dir=bytes(images), work_dir_fd=work, pid=process.pid)
        assert criu.request(rpc.DUMP, opts=opts).success
    assert (images / "inventory.img").exists()
    assert (place / "work" / "criu.log").exists()
    assert (place / "work" / "stats-dump").exists()
    process.wait_gone()


@pytest.mark.parametrize("moment", DUMP_MOMENTS)
def test_a_client_that_does_not_agree_to_a_dump(moment, connect, target, images):
    process = target("avx_threads.c")
    before = Observation.of(process.pid)
    with client.directory(images) as descriptor, connect() as (criu, server):
        opts = rpc.criu_opts(images_dir_fd=descriptor, pid=process.pid, notify_scripts=True)
        answer = criu.request(rpc.DUMP, opts=opts, agree=lambda asked: asked != moment)
        assert not answer.success
        assert criu.notes[-1][0] == moment
    assert server.returncode == 1
    assert_unharmed(before)
    process.ask()


@pytest.mark.parametrize("moment", RESTORE_MOMENTS)
def test_a_client_that_does_not_agree_to_a_restore(moment, connect, target, images):
    process = target("avx_threads.c")
    with client.directory(images) as descriptor:
        with connect() as (criu, _):
            assert client.dump(criu, process, descriptor).success
        process.wait_gone()
        too_late = moment in ("pre-resume", "post-resume")
        with connect() as (criu, server):
            opts = rpc.criu_opts(images_dir_fd=descriptor, notify_scripts=True)
            answer = criu.request(rpc.RESTORE, opts=opts, agree=lambda asked: asked != moment)
            assert answer.success == too_late
        assert server.returncode == (0 if too_late else 1)
    if too_late:
        process.ask()
    else:
        wait_until("nothing is left", lambda: not process.left())


def test_a_client_that_leaves_while_the_tree_is_frozen(connect, target, images):
    process = target("avx_threads.c")
    before = Observation.of(process.pid)
    with client.directory(images) as descriptor, connect() as (criu, _):
        opts = rpc.criu_opts(images_dir_fd=descriptor, pid=process.pid, notify_scripts=True)
        criu.send(rpc.criu_req(type=rpc.DUMP, opts=opts))
        while criu.receive().notify.script != "query-ext-files":
            criu.send(rpc.criu_req(type=rpc.NOTIFY, notify_success=True))
    assert_unharmed(before)
    process.ask()


def test_no_such_task(connect, images):
    with client.directory(images) as descriptor, connect() as (criu, server):
        opts = rpc.criu_opts(images_dir_fd=descriptor, pid=4_000_000)
        answer = criu.request(rpc.DUMP, opts=opts)
        assert not answer.success
        assert answer.cr_errno == errno.ESRCH
        assert answer.cr_errmsg.startswith("Error (")
    assert server.returncode == 1


def test_a_pid_in_use(connect, target, images):
    process = target("avx_threads.c")
    with client.directory(images) as descriptor:
        with connect() as (criu, _):
            assert client.dump(criu, process, descriptor, leave_running=True).success
        with connect() as (criu, _):
            answer = criu.request(rpc.RESTORE, opts=rpc.criu_opts(images_dir_fd=descriptor))
            assert not answer.success
            assert answer.cr_errno == errno.EEXIST
    process.ask()


@pytest.mark.parametrize(
    ("fields", "of_criupy"),
    [
        ({"images_dir_fd": -1}, "names no directory"),
        ({"images_dir_fd": 4000}, "is no directory"),
        ({"log_file": b"a/b"}, "no subdirectories"),
        ({"empty_ns": 1}, "not built yet"),
    ],
)
def test_bad_options(fields, of_criupy, connect, target, images, under_test):
    process = target("avx_threads.c")
    with client.directory(images) as descriptor, connect() as (criu, _):
        opts = rpc.criu_opts(**{"images_dir_fd": descriptor, "pid": process.pid, **fields})
        answer = criu.request(rpc.DUMP, opts=opts)
        assert not answer.success
        assert answer.cr_errno == errno.EBADRQC
        if under_test.name == "criupy":
            assert of_criupy in answer.cr_errmsg
    process.ask()


@pytest.mark.parametrize("kind", [rpc.DUMP, rpc.CHECK, rpc.WAIT_PID])
def test_who_may_not_keep_a_connection_open(kind, connect):
    with connect() as (criu, server):
        assert criu.request(kind, keep_open=True) is None
    assert server.returncode == 255


@pytest.mark.parametrize("kind", [rpc.EMPTY, rpc.NOTIFY])
def test_what_is_no_request(kind, connect):
    with connect() as (criu, server):
        answer = criu.request(kind)
        assert (answer.type, answer.success) == (rpc.EMPTY, False)
    assert server.returncode == 255


def test_what_is_not_built_is_told(connect, images, criupy, place):
    with client.directory(images) as descriptor, client.swrk(criupy, place) as (criu, _):
        answer = criu.request(rpc.PRE_DUMP, opts=rpc.criu_opts(images_dir_fd=descriptor))
        assert (answer.type, answer.success) == (rpc.PRE_DUMP, False)
        assert "not built yet" in answer.cr_errmsg


@pytest.mark.parametrize("number", ["999", "0", "x", "-1"])
def test_no_socket(number, criupy, place):
    outcome = criupy.run("swrk", number, cwd=place)
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.output


# The service


@pytest.fixture
def service(under_test, place):
    """Its socket; it ends with the test."""
    os.chmod(place, 0o755)
    with (place / "service.output").open("wb") as output:
        server = subprocess.Popen(
            [under_test.path, "service", "-W", str(place), "--address", "socket", "-o", "service.log", "-v4"],
            cwd=place, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until("the service listens", lambda: _listens(place / "socket"))
        yield place / "socket"
        assert server.poll() is None, "the service has ended"
    finally:
        server.kill()
        server.wait(20)


def _listens(path: Path) -> bool:
    try:
        _connected(path).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(client.TIMEOUT)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def test_service(service, target, images):
    process = target("avx_threads.c")
    with client.directory(images) as descriptor:
        with _connected(service) as connection:
            assert client.dump(client.Client(connection), process, descriptor).success
        process.wait_gone()
        with _connected(service) as connection:
            opts = rpc.criu_opts(images_dir_fd=descriptor)
            answer = client.Client(connection).request(rpc.RESTORE, opts=opts)
            assert answer.success, answer.cr_errmsg
            assert answer.restore.pid == process.pid
    process.expect_progress()
    process.ask()


def test_what_is_no_message_does_no_harm(service):
    rng = random.Random(3)
    for _ in range(300):
        with _connected(service) as connection:
            connection.send(rng.randbytes(rng.randrange(1, 200)))
            while connection.recv(1 << 16):  # some are requests by chance
                pass
    with _connected(service) as connection:
        assert client.Client(connection).request(rpc.VERSION).success


def _as_nobody(service: Path, packet: bytes) -> bytes:
    """What a client without any rights is answered."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                with _connected(service) as connection:
                    connection.send(packet)
                    theirs.send(connection.recv(1 << 16))
            finally:
                os._exit(0)
        theirs.close()
        answer = ours.recv(1 << 16)
        os.waitpid(child, 0)
    return answer


def test_who_may_not_dump_may_not_have_it_done(service, target, images, under_test):
    """Anybody may connect; what they may have done is what they may do."""
    if under_test.name == "criu":
        pytest.skip("criu has rules of its own")
    process = target("avx_threads.c")
    before = Observation.of(process.pid)
    images.mkdir()
    os.chmod(images, 0o777)
    opts = rpc.criu_opts(images_dir_fd=-1, images_dir=bytes(images), pid=process.pid)
    packet = rpc.criu_req(type=rpc.DUMP, opts=opts).SerializeToString()
    answer = rpc.criu_resp.FromString(_as_nobody(service, packet))
    assert not answer.success
    assert answer.cr_errno == errno.EPERM
    assert "may not dump or restore tasks" in answer.cr_errmsg
    assert not list(images.iterdir())
    assert_unharmed(before)
    process.ask()


def _has_ended(pid: int) -> bool:
    """Whoever is its parent now."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not os.path.exists(f"/proc/{pid}")


def test_the_service_in_the_background(criupy, place):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.bind(str(place / "socket"))
    read, write = os.pipe()
    words = [
        "service",
        "-W",
        str(place),
        "--address",
        "socket",
        "--daemon",
        "--pidfile",
        "pid",
        "--status-fd",
        str(write),
    ]
    with open(os.devnull) as null:
        started = subprocess.run(
            [criupy.path, *words], stdin=null, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[write], timeout=60, check=False,
        )  # fmt: skip
    os.close(write)
    assert started.returncode == 0
    assert os.read(read, 2) == b"\0"
    assert os.read(read, 2) == b""
    os.close(read)
    pid = int((place / "pid").read_text())
    assert pid > 1
    try:
        with _connected(place / "socket") as connection:
            assert client.Client(connection).request(rpc.VERSION).success
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until("it has ended", lambda: _has_ended(pid))


@pytest.mark.parametrize("address", ["file", "directory", "missing/socket"])
def test_where_nobody_can_listen(address, criupy, place):
    (place / "file").write_text("of somebody")
    (place / "directory").mkdir()
    outcome = criupy.run("service", "--address", address, cwd=place)
    assert outcome.returncode == 1
    assert f"cannot listen at ./{address}" in outcome.output
    assert "Traceback" not in outcome.output
    assert (place / "file").read_text() == "of somebody"


@pytest.mark.parametrize("pid", [0, 1, 4_294_967_295])
def test_waiting_for_who_is_no_child(pid, connect):
    with connect() as (criu, server):
        answer = criu.request(rpc.WAIT_PID, pid=pid)
        assert (answer.type, answer.success) == (rpc.WAIT_PID, False)
    assert server.returncode == 0
