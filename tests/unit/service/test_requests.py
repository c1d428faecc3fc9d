from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.errors import UsageError
from criupy.images.pb import rpc_pb2 as rpc
from criupy.options import DumpOptions, RestoreOptions
from criupy.service import requests
from criupy.service.packets import Peer, receive, send
from criupy.service.requests import Place

PEER = Peer(os.getpid(), 0, 0)
PLACE = Place("/images", "/work")


def opts(**fields: object) -> rpc.criu_opts:
    return rpc.criu_opts(images_dir_fd=-1, **fields)


def test_an_empty_request_has_the_defaults_of_the_command_line() -> None:
    assert requests.dump_options(opts(pid=7), PLACE, PEER) == DumpOptions(7, *PLACE)
    assert requests.restore_options(opts(), PLACE) == RestoreOptions(*PLACE)


def test_options_have_the_names_of_the_fields() -> None:
    asked = opts(pid=7, shell_job=True, timeout=3, freeze_cgroup=b"/c", leave_running=True)
    expected = DumpOptions(7, *PLACE, shell_job=True, timeout=3, freeze_cgroup="/c", leave_running=True)
    assert requests.dump_options(asked, PLACE, PEER) == expected
    asked = opts(pid=7, ghost_limit=5, link_remap=True, file_locks=True)
    expected = DumpOptions(7, *PLACE, ghost_limit=5, link_remap=True, file_locks=True)
    assert requests.dump_options(asked, PLACE, PEER) == expected
    assert requests.restore_options(opts(leave_stopped=True), PLACE).leave_stopped
    files = requests.dump_options(opts(pid=7, ghost_limit=5, external=[b"unix[1]", b"unix[2]"]), PLACE, PEER)
    assert (files.ghost_limit, files.external) == (5, ("unix[1]", "unix[2]"))
    assert files.outside.external == {"unix[1]", "unix[2]"}


def test_stopped_comes_after_running() -> None:
    found = requests.dump_options(opts(pid=7, leave_running=True, leave_stopped=True), PLACE, PEER)
    assert (found.leave_running, found.leave_stopped) == (False, True)


def test_without_a_pid_it_is_the_client() -> None:
    assert requests.dump_options(opts(), PLACE, PEER).tree == os.getpid()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"pid": 0}, "0 is not a pid"),
        ({"pid": -1}, "-1 is not a pid"),
        ({"lazy_pages": True}, "a lazy restore is not built yet"),
        ({"parent_img": b".."}, "an incremental dump is not built yet"),
        ({"exec_cmd": [b"sh"]}, "exec_cmd is not built yet"),
        ({"config_file": b"/etc/passwd"}, "configuration files are not built yet: /etc/passwd"),
    ],
)
def test_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        requests.dump_options(opts(**{"pid": 7, **fields}), PLACE, PEER)


def test_what_is_asked_for_in_vain_is_no_reason() -> None:
    asked = opts(pid=7, lazy_pages=False, empty_ns=0, config_file=b"/nowhere/criu.conf", tcp_established=True)
    assert requests.dump_options(asked, PLACE, PEER) == DumpOptions(7, *PLACE)


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({}, False),
        ({"manage_cgroups": True}, True),
        ({"manage_cgroups": True, "manage_cgroups_mode": rpc.IGNORE}, False),
        ({"manage_cgroups_mode": rpc.SOFT}, True),
    ],
)
def test_warnings(fields: dict[str, object], warned: bool) -> None:
    assert bool([*requests.warnings(opts(**fields))]) == warned


def test_log() -> None:
    assert requests.log_options(opts(), "/work") == ("/work", "criu.log", 2)
    assert requests.log_options(opts(log_file=b"a", log_level=4), "/work") == ("/work", "a", 4)
    assert requests.log_options(opts(log_to_stderr=True), "/work").log_file is None
    with pytest.raises(UsageError, match="no subdirectories"):
        requests.log_options(opts(log_file=b"../a"), "/work")


def test_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no directory"), requests.place(opts(), PEER):
        pass
    with requests.place(opts(images_dir=b"/a"), PEER) as there:
        assert there == ("/a", "/a")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        asked = rpc.criu_opts(images_dir_fd=descriptor, work_dir_fd=descriptor)
        with requests.place(asked, PEER) as there:
            assert there == (str(tmp_path), str(tmp_path))
        tmp_path.rename(tmp_path.with_name("moved"))
        tmp_path.mkdir()  # another one has the name now
        with requests.place(asked, PEER) as there:
            assert os.path.samestat(os.stat(there.images_dir), os.fstat(descriptor))
    finally:
        os.close(descriptor)
    file = os.open("/dev/null", os.O_RDONLY)
    try:
        with (
            pytest.raises(UsageError, match="is no directory"),
            requests.place(rpc.criu_opts(images_dir_fd=file), PEER),
        ):
            pass
    finally:
        os.close(file)


@given(st.binary(min_size=1, max_size=300))
def test_any_packet(packet: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(packet)
        request = receive(theirs)
        if request is not None and request.HasField("opts"):
            with contextlib.suppress(UsageError):
                requests.dump_options(request.opts, PLACE, PEER)


def test_packets() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            assert Peer.of(theirs).pid == os.getpid()
            ours.send(b"")
            assert receive(theirs) is None
            assert send(theirs, rpc.criu_resp(type=rpc.DUMP, success=True))
            assert rpc.criu_resp.FromString(ours.recv(100)).success
        assert receive(ours) is None
        assert not send(ours, rpc.criu_resp(type=rpc.DUMP, success=True))
