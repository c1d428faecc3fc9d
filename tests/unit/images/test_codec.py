"""Images are read and written byte for byte, and no bytes do more than raise ImageError."""

from __future__ import annotations

import io
import resource
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from unit.images import arbitrary

from criupy.errors import ImageError
from criupy.images import codec
from criupy.images.codec import BY_NAME, Record, encode_image, kind_of_file, read_any, read_records
from criupy.images.pb import core_pb2, files_pb2, namespaces_pb2

RECORDED = Path(__file__).parents[2] / "data/criu/images-4.2"
IMAGES = sorted(p for p in RECORDED.iterdir() if p.suffix != ".c" and not p.name.startswith("pages-"))
KINDS = arbitrary.readable_kinds()

several = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(data: bytes, name: str = "pstree.img", version: int = 2) -> list[Record]:
    return list(read_records(io.BytesIO(data), kind_of_file(name), name, version=version))


def parse_anything(data: bytes) -> list[Record] | None:
    """The records, or None if there was an ImageError: nothing else may happen."""
    try:
        return list(read_any(io.BytesIO(data), "image")[1])
    except ImageError as error:
        assert error.file == "image"  # noqa: PT017 - an error is as good as none here
        return None


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_recorded_images_are_written_as_they_were_read(path):
    data = path.read_bytes()
    assert encode_image(kind_of_file(path.name), read(data, path.name)) == data


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.pattern)
def test_every_kind_is_written_as_it_was_read(kind):
    for seed in range(5):
        records = arbitrary.records(kind, seed, own_fields=True)
        data = encode_image(kind, records)
        found = list(read_records(io.BytesIO(data), kind, "image"))
        assert found == records
        assert encode_image(kind, found) == data


def test_kinds_are_found_by_name():
    assert kind_of_file("core-17.img") == BY_NAME["CORE"]
    assert kind_of_file("ghost-file-ff.img") == BY_NAME["GHOST_FILE"]
    assert kind_of_file("pagemap-shmem-3.img") == BY_NAME["SHMEM_PAGEMAP"]
    assert kind_of_file("ipcns-var-3.img") == BY_NAME["IPC_VAR"]
    for name in ("core-.img", "core-x.img", "dump.log", "xcore-1.img", "core-1ximg", "core-1.img\n"):
        assert kind_of_file(name) is None
    assert BY_NAME["TCP_STREAM"].file_name(255) == "tcp-stream-ff.img"


def test_images_of_version_1_have_no_common_magic():
    data = (RECORDED / "seccomp.img").read_bytes()
    assert read(data[4:], "seccomp.img", version=1) == read(data, "seccomp.img")
    with pytest.raises(ImageError, match="head word"):
        read(data[4:], "seccomp.img")
    with pytest.raises(ImageError, match="head word"):
        read(data, "seccomp.img", version=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x19\x43", "truncated"),
        (struct.pack("<I", 0x12345678), "unknown magic 0x12345678, not PSTREE"),
        (struct.pack("<II", 0x54564319, 0x55053847), "image of kind CORE, not PSTREE"),
        (struct.pack("<II", 0x54564319, 0x50273030) + b"\1\0", "truncated"),
        (struct.pack("<III", 0x54564319, 0x50273030, 100) + b"abc", "only 3 are left"),
        (struct.pack("<III", 0x54564319, 0x50273030, 0xFFFFFFFF), "a record of 4294967295 bytes"),
        (struct.pack("<III", 0x54564319, 0x50273030, 3) + b"\xff\xff\xff", "not a pstree_entry"),
        (struct.pack("<III", 0x54564319, 0x50273030, 2) + b"\x08\1", "pstree_entry lacks ppid, pgid, sid"),
    ],
)
def test_broken_images_say_what_is_wrong(data, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        read(data)
    assert caught.value.file == "pstree.img"
    assert caught.value.offset is not None


def test_payload_must_be_there():
    record = Record(files_pb2.pipe_data_entry(pipe_id=1, bytes=0xFFFFFFFF), b"short")
    with pytest.raises(ImageError, match="a payload of 4294967295 bytes, but only 5 are left"):
        read(encode_image(BY_NAME["PIPES_DATA"], [record]), "pipes-data.img")


def test_payload_of_a_ghost_file_is_the_rest():
    ghost = files_pb2.ghost_file_entry(uid=0, gid=0, mode=0o100644)
    whole = encode_image(BY_NAME["GHOST_FILE"], [Record(ghost, b"all of it")])
    assert read(whole, "ghost-file-1.img")[0].payload == b"all of it"


def test_unknown_enum_value_is_an_error():
    data = struct.pack("<III", 0x54564319, 0x56303138, 4) + b"\x08\x63\x10\x01"
    with pytest.raises(ImageError, match="file_entry lacks type"):
        read(data, "files.img")


def nested_directories(depth: int) -> bytes:
    """cgroup.img with directories in directories."""
    directory = b"\x0a\x01d"
    for _ in range(depth):
        directory = b"\x0a\x01d\x12" + _varint(len(directory)) + directory
    controller = b"\x12" + _varint(len(directory)) + directory
    data = b"\x12" + _varint(len(controller)) + controller
    return struct.pack("<III", 0x54564319, 0x59383330, len(data)) + data


def test_deep_nesting_is_an_error():
    assert len(read(nested_directories(20), "cgroup.img")) == 1
    with pytest.raises(ImageError, match="not a cgroup_entry"):
        read(nested_directories(5000), "cgroup.img")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "pstree.img"
    path.write_bytes((RECORDED / "pstree.img").read_bytes())
    with path.open("rb", buffering=0) as stream:
        records = read_records(stream, BY_NAME["PSTREE"], path.name)
        next(records)
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(ImageError, match="is being changed"):
            list(records)


@several
@given(st.binary(max_size=200))
def test_random_bytes(data):
    parse_anything(data)


@several
@given(st.sampled_from(KINDS), st.binary(max_size=300))
@example(BY_NAME["CORE"], b"\0\0\0\0")
def test_random_bytes_behind_a_magic(kind, data):
    parse_anything(codec.encode_head(kind) + data)


@several
@given(st.sampled_from(IMAGES), st.data())
def test_truncated_images(path, data):
    whole = path.read_bytes()
    parse_anything(whole[: data.draw(st.integers(0, len(whole)))])


@several
@given(st.sampled_from(IMAGES), st.data())
def test_images_with_flipped_bits(path, data):
    changed = bytearray(path.read_bytes())
    for bit in data.draw(st.lists(st.integers(0, 8 * len(changed) - 1), min_size=1, max_size=8)):
        changed[bit // 8] ^= 1 << bit % 8
    parse_anything(bytes(changed))


def test_memory_is_bounded_by_the_file(tmp_path):
    """A sparse file that claims a gigabyte, and a queue that claims four billion messages."""
    path = tmp_path / "pipes-data.img"
    head = encode_image(BY_NAME["PIPES_DATA"], [])
    path.write_bytes(head + struct.pack("<I", 1 << 30))
    desc = namespaces_pb2.ipc_desc_entry(key=0, uid=0, gid=0, cuid=0, cgid=0, mode=0, id=0)
    queue = namespaces_pb2.ipc_msg_entry(desc=desc, qbytes=0, qnum=0xFFFFFFFF)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with path.open("r+b") as stream:
        stream.truncate(2 << 30)
        with pytest.raises(ImageError, match="a record of 1073741824 bytes"):
            list(read_records(stream, BY_NAME["PIPES_DATA"], path.name))
    assert parse_anything(encode_image(BY_NAME["IPCNS_MSG"], [Record(queue)])) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_message_without_a_required_field_is_not_written():
    with pytest.raises(codec.EncodeError):
        encode_image(BY_NAME["FS"], [Record(core_pb2.fs_entry(cwd_id=1))])
