"""Golden plans of unix sockets, and sockets that cannot be."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criupy.errors import ImageError, RestoreError, UsageError
from criupy.images.pb import core_pb2, fdtable_pb2, files_pb2, inventory_pb2, sockets_pb2
from criupy.linux.features import KernelFeatures
from criupy.linux.sockdiag import CLOSE, ESTABLISHED, LISTEN
from criupy.model.integrity import _check_sockets
from criupy.model.plan import NURSERY, StubPlan
from criupy.model.snapshot import Snapshot, SocketPacket, TaskImages
from criupy.options import Outside
from criupy.resources import sockopts
from criupy.resources.files import unixmaking, unixqueue
from criupy.resources.kind import PlanSubject
from criupy.resources.registry import FILE_KINDS

FEATURES = KernelFeatures(capabilities=(1 << 41) - 1, pagemap_scan=True)
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
NOBODY = core_pb2.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
PIDS = (100, 101)
STUB = StubPlan(0, nursery_fd=90)


def usk(ino, kind=STREAM, state=ESTABLISHED, peer=0, name=b"", flags=os.O_RDWR | os.O_NONBLOCK, **more):
    """A socket whose file id is its inode; its options are of no interest here."""
    return sockets_pb2.unix_sk_entry(
        id=ino, ino=ino, type=kind, state=state, flags=flags, uflags=more.pop("uflags", 0),
        backlog=more.pop("backlog", 0), peer=peer, fown=NOBODY, opts=sockopts.NOTHING, name=name, **more,
    )  # fmt: skip


def packet(id_for, content, *rights, **more):
    entry = sockets_pb2.sk_packet_entry(id_for=id_for, length=len(content), **more)
    if rights:
        entry.scm.add(type=1, rights=rights)
    return SocketPacket(entry, content)


def snapshot(socks, *packets, files=(), held=None):
    """Two tasks; the first has all sockets but those that ``held`` (by inode) gives to the second, or to nobody."""
    by_id = {sock.id: fdtable_pb2.file_entry(type=fdtable_pb2.UNIXSK, id=sock.id, usk=sock) for sock in socks}
    by_id |= {entry.id: entry for entry in files}
    tables = {2: [], 3: []}
    for number, sock in enumerate(socks):
        table = (held or {}).get(sock.ino, 2)
        if table:
            tables[table].append(
                fdtable_pb2.fdinfo_entry(id=sock.id, fd=number, flags=0, type=fdtable_pb2.UNIXSK)
            )
    tasks = []
    for pid, table in zip(PIDS, tables, strict=True):
        core = core_pb2.core_entry()
        core.thread_core.creds.euid = core.thread_core.creds.egid = 0 if table == 2 else 1000
        ids = core_pb2.task_kobj_ids_entry(vm_id=table, files_id=table, fs_id=table, sighand_id=table)
        pstree = core_pb2.pstree_entry(pid=pid, ppid=0, pgid=pid, sid=pid, threads=[pid])
        tasks.append(TaskImages(pid, pstree, core, ids=ids, threads={pid: core}))
    inventory = inventory_pb2.inventory_entry(img_version=2)
    return Snapshot(inventory, tuple(tasks), by_id, tables, sk_queues=packets)


def planned(saved, warnings=None):
    subject = PlanSubject(
        NURSERY, saved.root, saved, FEATURES, ([] if warnings is None else warnings).append, STUB
    )
    steps, _ = FILE_KINDS.plan_shared(subject)
    return [
        f"{step.tid or 'nursery'} {step}"
        for step in steps
        if step.call != "setsockopt" and not (step.call == "fcntl" and step.args[1] == 4)
    ]


def test_a_pair():
    saved = snapshot([usk(1, peer=2), usk(2, peer=1)], packet(2, b"hello"))
    assert planned(saved) == [
        "nursery socketpair(1, 2, 0, &<socketpair -0x1>)",
        "100 pidfd_getfd(90, 1, 0)",
        "100 socketpair(1, 2049, 0, &<socketpair 0x1>)",
        "100 sendmsg(0, {0 bytes, with 2 files}, 64)",
        "100 close_range(0, 2, 0)",
        "nursery recvmsg(0, {0 bytes, with 2 files}, 64)",
        "nursery sendmsg(2, {5 bytes}, 0x4040)",
        "nursery close(0)",
        "nursery close(1)",
    ]


def test_many_pairs_in_few_messages():
    """In a task numbers are those around the nursery's descriptor."""
    saved = snapshot([usk(ino, peer=ino - 1 if ino % 2 == 0 else ino + 1) for ino in range(1, 401)])
    steps = planned(saved)
    assert [step for step in steps if " socketpair" not in step] == [
        "100 pidfd_getfd(90, 1, 0)",
        "100 sendmsg(0, {0 bytes, with 252 files}, 64)",
        "100 close_range(0, 89, 0)",
        "100 close_range(91, 253, 0)",
        "nursery recvmsg(0, {0 bytes, with 252 files}, 64)",
        "100 pidfd_getfd(90, 1, 0)",
        "100 sendmsg(0, {0 bytes, with 148 files}, 64)",
        "100 close_range(0, 89, 0)",
        "100 close_range(91, 149, 0)",
        "nursery recvmsg(0, {0 bytes, with 148 files}, 64)",
        "nursery close(0)",
        "nursery close(1)",
    ]


def test_a_pair_made_by_somebody_who_is_gone():
    ids = {"peer_pid": 7, "peer_uid": 5, "peer_gid": 6}
    saved = snapshot([usk(1, DGRAM, peer=2, **ids), usk(2, DGRAM, peer=1, **ids)])
    assert planned(saved) == [
        "nursery prctl(28, 4, 0, 0, 0)",
        "nursery setresgid(0xffffffff, 6, 0xffffffff)",
        "nursery setresuid(0xffffffff, 5, 0xffffffff)",
        "nursery socketpair(1, 2050, 0, &<socketpair 0x1>)",
        "nursery setresuid(0xffffffff, 0, 0xffffffff)",
        "nursery setresgid(0xffffffff, 0, 0xffffffff)",
        "nursery prctl(28, 0, 0, 0, 0)",
    ]


GONE = {"peer_pid": 7, "peer_uid": 0, "peer_gid": 0}
PERMS = sockets_pb2.file_perms_entry(mode=0o140600, uid=3, gid=4)


def test_a_server_with_clients():
    """One that is accepted, two that wait, who came in the order that the listener says."""
    saved = snapshot(
        [
            usk(1, state=LISTEN, name=b"/run/server\0", backlog=5, file_perms=PERMS, pending=[5, 4], **GONE),
            usk(2, peer=3, name=b"/run/server\0", file_perms=PERMS, **GONE),
            usk(3, peer=2, **GONE),
            usk(4, peer=1, **GONE),
            usk(5, peer=1, **GONE),
        ],
        held={3: 3, 4: 3, 5: 3},
    )
    assert [step for step in planned(saved) if " set" not in step and "prctl" not in step] == [
        "nursery socket(1, 2049, 0)",
        'nursery unlink("/run/server")',
        "nursery bind(0, {/run/server}, 14)",
        'nursery lchown("/run/server", 3, 4)',
        'nursery chmod("/run/server", 384)',
        "nursery socket(1, 2049, 0)",
        "nursery socket(1, 2049, 0)",
        "nursery listen(0, 5)",
        "nursery socket(1, 2049, 0)",
        "nursery connect(3, {/run/server}, 14)",
        "nursery accept4(0, 0, 0, 2048)",
        "101 pidfd_getfd(90, 2, 0)",
        "101 connect(0, {/run/server}, 14)",
        "101 close(0)",
        "101 pidfd_getfd(90, 1, 0)",
        "101 connect(0, {/run/server}, 14)",
        "101 close(0)",
    ]


def test_what_peers_see_without_fields_of_our_own():
    """CRIU's images: who has the other end, with the ids that it has."""
    saved = snapshot([usk(1, peer=2), usk(2, peer=1)], held={1: 3, 2: 3})
    assert planned(saved)[2:6] == [
        "101 prctl(28, 4, 0, 0, 0)",
        "101 setresgid(0xffffffff, 1000, 0xffffffff)",
        "101 setresuid(0xffffffff, 1000, 0xffffffff)",
        "101 socketpair(1, 2049, 0, &<socketpair 0x1>)",
    ]


def test_a_name_that_was_given_by_a_listener_who_is_not_here_is_not_bound():
    """It may be in use."""
    name = {"name": b"/run/server\0", "file_perms": PERMS} | GONE
    saved = snapshot([usk(1, peer=2, **name), usk(2, peer=1, **GONE)])
    assert planned(saved) == ["nursery socketpair(1, 2049, 0, &<socketpair 0x1>)"]
    assert list(unixmaking.checks(saved)) == []


def test_datagrams():
    saved = snapshot(
        [
            usk(1, DGRAM, name=b"\0server"),
            usk(2, DGRAM, state=CLOSE, name=b"here\0", name_dir=b"/srv", file_perms=PERMS, deleted=True),
            usk(3, DGRAM, peer=1),
        ],
        packet(1, b"signed", sender=b"here"),
        packet(1, b"", sender=b"gone"),
    )
    assert planned(saved) == [
        "nursery socket(1, 2050, 0)",
        'nursery chdir("/srv")',
        'nursery unlink("here")',
        "nursery bind(0, {here}, 7)",
        'nursery lchown("here", 3, 4)',
        'nursery chmod("here", 384)',
        "nursery socket(1, 2050, 0)",
        "nursery bind(1, {@server}, 9)",
        "nursery socket(1, 2050, 0)",
        "nursery socket(1, 2050, 0)",
        "nursery sendmsg(0, {6 bytes}, 0x4040)",
        "nursery sendmsg(3, {0 bytes}, 0x4040)",
        "nursery connect(2, {@server}, 9)",
        "nursery close(3)",
        'nursery chdir("/srv")',
        'nursery unlink("here")',
    ]


def test_peers_that_are_gone():
    shut = {"shutdown": sockets_pb2.BOTH} | GONE
    saved = snapshot([usk(1, **shut), usk(2, DGRAM, peer_is_gone=True, **GONE)], packet(1, b"testament"))
    assert planned(saved) == [
        "nursery socketpair(1, 2049, 0, &<socketpair 0x1>)",
        "nursery socketpair(1, 2050, 0, &<socketpair 0x2>)",
        "nursery sendmsg(1, {9 bytes}, 0x4040)",
        "nursery close(1)",
        "nursery close(3)",
    ]


def test_half_of_a_connection_is_shut_when_all_is_sent():
    saved = snapshot(
        [
            usk(1, peer=2, shutdown=sockets_pb2.WRITE, **GONE),
            usk(2, peer=1, shutdown=sockets_pb2.READ, **GONE),
        ],
        packet(2, b"last"),
    )
    assert planned(saved)[1:] == [
        "nursery sendmsg(0, {4 bytes}, 0x4040)",
        "nursery shutdown(0, 1)",
        "nursery shutdown(1, 0)",
    ]


def test_files_on_their_way_are_opened_first():
    pipe = [
        fdtable_pb2.file_entry(
            type=fdtable_pb2.PIPE,
            id=number,
            pipe=files_pb2.pipe_entry(id=number, pipe_id=7, flags=flags, fown=NOBODY),
        )
        for number, flags in ((8, os.O_RDONLY), (9, os.O_WRONLY))
    ]
    pair = [usk(1, peer=2, **GONE), usk(2, peer=1, **GONE)]
    saved = snapshot(pair, packet(2, b"x", 8, 1), files=pipe)
    steps = planned(saved)
    assert steps == [
        "nursery pipe2(&<pipe 0x7>, 2048)",
        "nursery close(1)",
        "nursery socketpair(1, 2049, 0, &<socketpair 0x1>)",
        "nursery sendmsg(1, {1 bytes, with 2 files}, 0x4040)",
    ]
    assert planned(snapshot(pair)) == steps[2:3]


def test_credentials_are_of_somebody_who_lives():
    pair = [usk(1, DGRAM, peer=2, **GONE), usk(2, DGRAM, peer=1, **GONE)]
    ids = {"creds_uid": 4, "creds_gid": 5}
    warnings: list[str] = []
    saved = snapshot(pair, packet(2, b"x", creds_pid=101, **ids), packet(2, b"y", creds_pid=55, **ids))
    assert planned(saved, warnings)[1:] == [
        "101 pidfd_getfd(90, 0, 0)",
        "101 sendmsg(0, {1 bytes, of 101:4:5}, 0x4040)",
        "101 close_range(0, 0, 0)",
        "100 pidfd_getfd(90, 0, 0)",
        "100 sendmsg(0, {1 bytes, of 100:4:5}, 0x4040)",
        "100 close_range(0, 0, 0)",
    ]
    (said,) = warnings
    assert "task 55" in said


def test_a_message_in_memory():
    head = unixqueue.message(b"text", [3, 4], (7, 8, 9), b"\1\0/name\0")
    address, length, vector, count, control, rest = head.parts
    assert address.parts == (b"\1\0/name\0",)
    assert struct.unpack("<II", length)[0] == 8
    assert vector.parts[0].parts == (b"text",)
    assert struct.unpack("<Q", vector.parts[1]) == (4,)
    assert struct.unpack("<Q", count) == (1,)
    content = control.parts[0]
    assert struct.unpack("<Qiiii", content[:24]) == (24, 1, 1, 3, 4)
    assert struct.unpack("<QiiiIIxxxx", content[24:]) == (28, 1, 2, 7, 8, 9)
    assert struct.unpack("<Qii", rest)[0] == len(content)


def test_connections_to_others():
    other = usk(9, DGRAM, state=LISTEN, name=b"/dev/log\0", uflags=1)
    saved = snapshot([usk(1, DGRAM, peer=9), other], held={9: 0})
    assert planned(saved) == ["nursery socket(1, 2050, 0)", "nursery connect(0, {/dev/log}, 11)"]
    with pytest.raises(UsageError, match="/dev/log, which is not in them"):
        FILE_KINDS.refuse_outside(saved, Outside())
    FILE_KINDS.refuse_outside(saved, Outside(named_datagrams=True))
    assert list(unixmaking.checks(saved)) == []


@pytest.mark.parametrize(
    ("socks", "packets", "reason"),
    [
        ([usk(1, peer=1)], [], "cannot be the peer"),
        ([usk(1, peer=2), usk(2, DGRAM, peer=1)], [], "cannot be the peer"),
        ([usk(1, peer=7)], [], "is not there or has no name"),
        ([usk(1, DGRAM, peer=2), usk(2, DGRAM)], [], "is not there or has no name"),
        ([usk(1, peer=2), usk(2, state=CLOSE, name=b"/x\0")], [], "does not listen"),
        ([usk(1, state=LISTEN)], [], "listens without a name"),
        ([usk(1, state=LISTEN, name=b"x\0")], [], "no directory for it"),
        ([usk(1, state=LISTEN, name=b"/x\0")], [packet(1, b"x")], "nothing can be sent to it"),
        ([usk(1, state=CLOSE)], [packet(1, b"x")], "nobody can send"),
        ([usk(1, DGRAM, state=CLOSE, name=b"/a\0b\0")], [], "impossible name"),
    ],
)
def test_what_cannot_be(socks, packets, reason):
    with pytest.raises(ImageError, match=reason):
        planned(snapshot(socks, *packets))


@pytest.mark.parametrize(
    ("socks", "packets", "reason"),
    [
        ([usk(1, kind=3)], [], "has type 3"),
        ([usk(1, name=b"/" * 110)], [], "name of 110 bytes"),
        ([usk(1, name_dir=b"srv")], [], "the directory of its path"),
        ([usk(1)], [packet(2, b"")], "there is no unix socket 0x2"),
        ([usk(1)], [packet(1, b"", 7)], "there is no file 0x7"),
        ([usk(1)], [packet(1, b"", *[1] * 254)], "254 files"),
    ],
)
def test_integrity(socks, packets, reason):
    saved = snapshot(socks, *packets)
    with pytest.raises(ImageError, match=reason):
        _check_sockets(saved)


def test_paths_are_looked_at_before(tmp_path):
    path = tmp_path / "socket"
    saved = snapshot([usk(1, state=LISTEN, name=bytes(path) + b"\0")])
    (check,) = unixmaking.checks(saved)
    check.run()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        (check,) = unixmaking.checks(saved)
        with pytest.raises(RestoreError, match="somebody else has that name"):
            check.run()
    (check,) = unixmaking.checks(saved)
    check.run()  # what is left of a socket is in nobody's way
    path.unlink()
    path.touch()
    with pytest.raises(RestoreError, match="another file has its path"):
        check.run()
    path.unlink()
    tmp_path.rmdir()
    with pytest.raises(RestoreError, match="there is no directory"):
        check.run()
    tmp_path.mkdir()


def test_who_was_there_before_makes_room():
    """A server was started anew while the old one still runs."""
    old = usk(1, state=LISTEN, name=b"/run/s\0", file_perms=PERMS, deleted=True, **GONE)
    new = usk(2, state=LISTEN, name=b"/run/s\0", file_perms=PERMS, **GONE)
    steps = planned(snapshot([new, old]))
    assert [step.partition(" ")[2] for step in steps if "bind" in step or "unlink" in step] == [
        'unlink("/run/s")',
        "bind(0, {/run/s}, 9)",
        'unlink("/run/s")',
        "bind(1, {/run/s}, 9)",
    ]
    with pytest.raises(ImageError, match="somebody else has its name"):
        planned(snapshot([new, old, usk(3, peer=1)]))


INODES = st.integers(0, 4)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 5]),
            st.sampled_from([ESTABLISHED, CLOSE, LISTEN]),
            INODES,
            st.sampled_from([b"", b"/x\0", b"y\0", b"\0z", b"/x"]),
            st.sampled_from([sockets_pb2.NONE, sockets_pb2.READ, sockets_pb2.BOTH]),
        ),
        max_size=4,
    ),
    st.lists(st.tuples(INODES, st.binary(max_size=3), st.lists(INODES, max_size=2)), max_size=3),
)
def test_any_sockets_give_a_plan_or_an_image_error(socks, packets):
    saved = snapshot(
        [
            usk(ino, kind, state, peer, name, shutdown=shut)
            for ino, (kind, state, peer, name, shut) in enumerate(socks, 1)
        ],
        *(packet(id_for, content, *rights) for id_for, content, rights in packets),
    )
    try:
        _check_sockets(saved)
        planned(saved)
    except ImageError:
        return
