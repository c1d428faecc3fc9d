"""JSON of images, as crit has it, and back; the command around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.images import arbitrary

from criupy.cli.crit import crit
from criupy.errors import ImageError
from criupy.images import text
from criupy.images.codec import BY_NAME, Record, encode_image
from criupy.images.pb import core_pb2, files_pb2, memory_pb2, namespaces_pb2, sockets_pb2
from criupy.images.text import Style

RECORDED = Path(__file__).parents[2] / "data/criu/images-4.2"
FOWN = core_pb2.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)


def shown(message, **style):
    return text.message_to_json(message, Style(pretty=True, **style))


@pytest.mark.parametrize("kind", arbitrary.readable_kinds(), ids=lambda kind: kind.pattern)
@pytest.mark.parametrize("pretty", [False, True], ids=["plain", "pretty"])
def test_every_kind_survives_json(kind, pretty):
    for seed in range(3):
        records = arbitrary.records(kind, seed, own_fields=True)
        style = Style(pretty=pretty, own_fields=True)
        value = json.loads(json.dumps(text.decode(kind, records, style)))
        named, found = text.encode(value)
        assert (named.magic, found) == (kind.magic, records)


def test_only_fields_that_are_there_in_the_order_of_their_numbers():
    entry = core_pb2.core_entry(mtype=1, tc=core_pb2.task_core_entry(task_state=0))
    entry.thread_info.SetInParent()
    assert text.message_to_json(entry, Style()) == {
        "mtype": "X86_64",
        "thread_info": {},
        "tc": {"task_state": 0},
    }


def test_pretty_forms():
    vma = memory_pb2.vma_entry(
        start=0x400000, end=0x401000, pgoff=4096, shmid=1, prot=5, flags=0x40022, status=0x10001, fd=-1
    )
    assert shown(vma) == {
        "start": "0x400000",
        "end": "0x401000",
        "pgoff": 4096,
        "shmid": 1,
        "prot": "PROT_READ | PROT_EXEC",
        "flags": "MAP_PRIVATE | MAP_ANON | 0x40000",
        "status": "VMA_AREA_REGULAR | 0x10000",
        "fd": -1,
    }
    assert shown(memory_pb2.pagemap_entry(flags=0)) == {"flags": ""}
    assert shown(core_pb2.task_core_entry(task_state=3, flags=7)) == {"task_state": "Zombie", "flags": 7}
    assert shown(core_pb2.task_core_entry(task_state=2)) == {"task_state": 2}
    ghost = files_pb2.ghost_file_entry(dev=254 << 20 | 1, rdev=1 << 8 | 3)
    assert shown(ghost) == {"dev": "254:1", "rdev": "1:3"}
    inet = sockets_pb2.inet_sk_entry(family=10, src_addr=[16777343], dst_addr=[0, 0, 0, 16777216])
    assert shown(inet) == {"family": "INET6", "src_addr": ["127.0.0.1"], "dst_addr": ["::1"]}


def test_hexadecimal_is_inherited():
    core = core_pb2.core_entry(mtype=1)
    core.thread_info.gpregs.ip = 255
    core.thread_info.fpregs.rip = 255
    assert shown(core)["thread_info"] == {"gpregs": {"ip": "0xff"}, "fpregs": {"rip": 255}}


def test_bytes_and_names():
    assert text.message_to_json(core_pb2.siginfo_entry(siginfo=b""), Style()) == {"siginfo": ""}
    long = text.message_to_json(core_pb2.siginfo_entry(siginfo=bytes(60)), Style())["siginfo"]
    assert long == "A" * 76 + "\n" + "A" * 4 + "\n"
    assert text.message_to_json(sockets_pb2.unix_sk_entry(name=b"\0a=b"), Style()) == {"name": "=00a=3Db"}
    path = files_pb2.reg_file_entry(name=b"/tmp/\xff")
    assert json.dumps(text.message_to_json(path, Style())) == r'{"name": "/tmp/\udcff"}'


def test_payloads():
    pipe = Record(files_pb2.pipe_data_entry(pipe_id=1, bytes=3), b"abc")
    value = text.decode(BY_NAME["PIPES_DATA"], [pipe])
    assert value == {"magic": "PIPES_DATA", "entries": [{"pipe_id": 1, "bytes": 3, "extra": "YWJj\n"}]}
    hidden = text.decode(BY_NAME["PIPES_DATA"], [pipe], Style(payload=False))
    assert hidden["entries"][0]["extra"] == "... <3B>"
    desc = namespaces_pb2.ipc_desc_entry(key=0, uid=0, gid=0, cuid=0, cgid=0, mode=0, id=0)
    semaphores = Record(namespaces_pb2.ipc_sem_entry(desc=desc, nsems=2), b"\1\0\2\0\0\0\0\0")
    assert text.decode(BY_NAME["IPCNS_SEM"], [semaphores])["entries"][0]["extra"] == [1, 2]


@pytest.mark.parametrize(
    ("size", "expected"), [(0, "0B"), (1023, "1023B"), (1024, "1KB"), (1536, "1.5KB"), (3 << 20, "3MB")]
)
def test_sizes(size, expected):
    pipe = Record(files_pb2.pipe_data_entry(pipe_id=1, bytes=size), bytes(size))
    value = text.decode(BY_NAME["PIPES_DATA"], [pipe], Style(payload=False))
    assert value["entries"][0]["extra"] == f"... <{expected}>"


def test_own_fields_are_shown_when_asked_for():
    eventfd = files_pb2.eventfd_file_entry(id=1, flags=0, fown=FOWN, counter=1, semaphore=True)
    assert "semaphore" not in text.message_to_json(eventfd, Style())
    assert text.message_to_json(eventfd, Style(own_fields=True))["semaphore"] is True


@pytest.mark.parametrize(
    "value",
    [
        None, [], {}, {"magic": "PSTREE"}, {"magic": "NONE", "entries": []}, {"magic": "PAGES", "entries": []},
        {"magic": "FS", "entries": [{"cwd_id": "x"}]}, {"magic": "FS", "entries": [{"cwd_id": -1}]},
        {"magic": "FS", "entries": [{"cwd_id": 1 << 70}]},
        {"magic": "FS", "entries": [{"no_such_field": 1}]}, {"magic": "FS", "entries": [5]},
        {"magic": "FS", "entries": [{"cwd_id": [1]}]}, {"magic": "FS", "entries": [], "x": 1} | {"entries": 7},
        {"magic": "PIPES_DATA", "entries": [{"pipe_id": 1, "bytes": 1, "extra": "%%%"}]},
        {"magic": "FDINFO", "entries": [{"type": "NOTHING"}]}, {"magic": "MM", "entries": [{"vmas": [{"prot": "X"}]}]},
        {"magic": "FS", "entries": [{"cwd_id": 1, "extra": "YQ=="}]},
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(value):
    with pytest.raises(ImageError):
        text.encode(value)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["FS", "PSTREE", "IPCNS_MSG"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["magic", "entries", "extra", "cwd_id", "threads", "desc"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(values, st.sampled_from(sorted(BY_NAME)))
def test_any_json_is_an_image_or_refused(value, magic):
    for candidate in (value, {"magic": magic, "entries": value}, {"magic": magic, "entries": [value]}):
        try:
            kind, records = text.encode(candidate)
        except ImageError:
            continue
        assert kind.magic is not None
        assert all(isinstance(record, Record) for record in records)


# The command


def run(*arguments, stdin=None):
    return CliRunner().invoke(crit, [str(argument) for argument in arguments], input=stdin)


@pytest.mark.parametrize(
    "image",
    sorted(p for p in RECORDED.iterdir() if p.suffix != ".c" and "pages-" not in p.name),
    ids=lambda p: p.name,
)
@pytest.mark.parametrize("pretty", [[], ["--pretty"]], ids=["plain", "pretty"])
def test_decode_and_encode(image, pretty, tmp_path):
    assert run("decode", "-i", image, "-o", tmp_path / "text", *pretty).exit_code == 0
    assert run("encode", "-i", tmp_path / "text", "-o", tmp_path / "image").exit_code == 0
    assert (tmp_path / "image").read_bytes() == image.read_bytes()


def test_standard_streams():
    image = (RECORDED / "pstree.img").read_bytes()
    decoded = run("decode", stdin=image)
    assert decoded.stdout == run("decode", "-i", RECORDED / "pstree.img").stdout
    assert decoded.stdout.endswith("}\n")
    assert run("encode", stdin=decoded.stdout).stdout_bytes == image


def test_info_counts_records():
    assert json.loads(run("info", RECORDED / "pstree.img").stdout) == {"magic": "PSTREE", "count": 3}
    pagemap = RECORDED / "pagemap-25169.img"
    entries = json.loads(run("decode", "-i", pagemap).stdout)["entries"]
    assert json.loads(run("info", pagemap).stdout)["count"] == len(entries) - 1


def test_show_hides_payloads():
    assert '"extra": "... <11B>"' in run("show", "--nopl", RECORDED / "pipes-data.img").stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "reason"),
    [
        (["decode", "-i", "/no/such/file"], None, "No such file"),
        (["decode"], b"garbage!", "unknown magic 0x62726167"),
        (["decode"], b"", "truncated"),
        (["encode"], b"{", "is not JSON"),
        (["encode"], b"[" * 100000, "is not JSON"),
        (["encode"], b"[]", "is not the text of an image"),
        (["decode", "-i", RECORDED / "pstree.img", "-o", "/no/such/file"], None, "No such file"),
    ],
)
def test_errors_are_one_line(arguments, stdin, reason):
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reader_that_goes_away(tmp_path):
    image = tmp_path / "pipes-data.img"
    pipe = Record(files_pb2.pipe_data_entry(pipe_id=1, bytes=1 << 20), bytes(1 << 20))
    image.write_bytes(encode_image(BY_NAME["PIPES_DATA"], [pipe]))
    command = [sys.executable, "-m", "criupy.cli.main", "crit", "decode", "-i", image]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_is_larger_than_a_pipe(tmp_path, unbuffered):
    image = tmp_path / "pipes-data.img"
    pipe = Record(files_pb2.pipe_data_entry(pipe_id=1, bytes=1 << 20), bytes(1 << 20))
    image.write_bytes(encode_image(BY_NAME["PIPES_DATA"], [pipe]))
    command = [sys.executable, "-m", "criupy.cli.main", "crit", "decode", "-i", image]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, capture_output=True, check=True, timeout=30, env=environment)
    assert text.encode(json.loads(done.stdout))[1] == [pipe]


def test_help_imports_no_image_code():
    script = "import sys, criupy.cli.crit; sys.exit('google.protobuf' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
