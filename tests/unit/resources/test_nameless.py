"""Which files have no name any more, and what is said of them."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import pytest

from criupy.images.directory import ImageWriter
from criupy.images.pb.files_pb2 import GHOST, LINKED
from criupy.images.pb.inventory_pb2 import inventory_entry
from criupy.linux.syscalls import NFS_MAGIC, PROC_MAGIC
from criupy.options import FileOptions
from criupy.resources import nameless

PLAIN = FileOptions()


def look(fd: int) -> tuple[int, bytes, os.stat_result]:
    return fd, os.fsencode(os.readlink(f"/proc/self/fd/{fd}")), os.fstat(fd)


@pytest.fixture
def file(tmp_path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, b"content")
    yield fd
    os.close(fd)


def test_a_file_with_its_name(file, tmp_path):
    assert nameless.problem(*look(file), PLAIN) is None
    assert not nameless.is_ghost(*look(file))
    os.rename(tmp_path / "file", tmp_path / "other")
    assert not nameless.has_lost_its_name(*look(file))


def test_a_name_that_only_looks_deleted(file, tmp_path):
    os.rename(tmp_path / "file", tmp_path / "file (deleted)")
    assert not nameless.is_ghost(*look(file))
    assert not nameless.has_lost_its_name(*look(file))


def test_a_deleted_file_and_its_limit(file, tmp_path):
    os.unlink(tmp_path / "file")
    assert nameless.is_ghost(*look(file))
    assert nameless.problem(*look(file), PLAIN) is None
    os.posix_fallocate(file, 0, 3 << 20)
    why, hint = nameless.problem(*look(file), PLAIN) or ("", "")
    assert f"its {os.fstat(file).st_blocks * 512} bytes are more" in why
    assert hint == "allow more: --ghost-limit 3M"
    assert nameless.problem(*look(file), FileOptions(ghost_limit=3 << 20)) is None
    os.ftruncate(file, 0)
    os.ftruncate(file, 1 << 40)  # nothing but a hole
    assert nameless.problem(*look(file), PLAIN) is None


def test_another_name(file, tmp_path):
    os.link(tmp_path / "file", tmp_path / "other")
    os.link(tmp_path / "file", tmp_path / "third")
    os.unlink(tmp_path / "file")
    assert nameless.has_lost_its_name(*look(file))
    assert nameless.problem(*look(file), PLAIN) == (
        "its name is gone, while it has 2 names elsewhere",
        "let criupy give it one beside: --link-remap",
    )
    assert nameless.problem(*look(file), FileOptions(link_remap=True)) is None


def test_what_is_out_of_sight_is_nobodys(file, tmp_path):
    """Others say that it cannot be reached."""
    os.link(tmp_path / "file", tmp_path / "other")
    os.unlink(tmp_path / "file")
    fd, _, stat_ = look(file)
    allowed = FileOptions(link_remap=True)
    assert nameless.problem(fd, b"(unreachable)/file (deleted)", stat_, allowed) is None
    found = nameless.Nameless(allowed, lambda: 1)
    found.add(5, fd, b"(unreachable)/file (deleted)", stat_)
    assert 5 not in found


def test_a_silly_name_goes_with_who_has_it(tmp_path, monkeypatch):
    """NFS renames what is deleted while it is open."""
    fd = os.open(tmp_path / ".nfs0000000001", os.O_RDWR | os.O_CREAT)
    assert not nameless.has_lost_its_name(*look(fd))
    monkeypatch.setattr(nameless, "file_system", lambda _: NFS_MAGIC)
    assert nameless.has_lost_its_name(*look(fd))
    assert nameless.problem(*look(fd), PLAIN) is not None
    os.close(fd)


def test_pseudo_file_systems(file, tmp_path, monkeypatch):
    os.unlink(tmp_path / "file")
    monkeypatch.setattr(nameless, "file_system", lambda _: PROC_MAGIC)
    why, _ = nameless.problem(*look(file), FileOptions(link_remap=True)) or ("", "")
    assert "nobody can make its like again" in why


def test_what_is_noted(tmp_path):
    """One ghost for all that are of one inode; one more name for each that has others."""
    ids = iter(range(100, 200))
    found = nameless.Nameless(FileOptions(link_remap=True), lambda: next(ids))
    with (tmp_path / "gone").open("wb+") as gone, (tmp_path / "kept").open("wb+") as kept:
        other = os.open(tmp_path / "gone", os.O_RDONLY)
        os.unlink(tmp_path / "gone")
        os.link(tmp_path / "kept", tmp_path / "new")
        os.unlink(tmp_path / "kept")
        (tmp_path / "link_remap.100").touch()  # of another set
        for file_id, fd in enumerate((gone.fileno(), other, kept.fileno()), 1):
            found.add(file_id, *look(fd))
        os.close(other)
        images = ImageWriter(str(tmp_path / "images"))
        with found.linked(images) as names:
            assert names == [os.fsencode(tmp_path / "link_remap.100.1")]
            assert os.path.samefile(os.fsdecode(names[0]), tmp_path / "new")
        (tmp_path / "link_remap.100.1").unlink()
        with pytest.raises(KeyError), found.linked(images):
            raise KeyError
        assert not (tmp_path / "link_remap.100.1").exists()
        assert (tmp_path / "link_remap.100").exists()
        images.commit(inventory_entry(img_version=2))
        with pytest.raises(KeyError), found.linked(images):
            raise KeyError
        images.close()
        assert (tmp_path / "link_remap.100.1").exists()
        remaps = [(one.orig_id, one.remap_type, one.remap_id) for one in found.remaps()]
        assert remaps == [(1, GHOST, 1), (2, GHOST, 1), (3, LINKED, 100)]
        (entry,) = found.entries()
        assert (entry.id, entry.reg.name) == (100, names[0])
        found.close()


def test_devices_of_ghosts():
    found = os.stat("/dev/null")
    entry = nameless.ghost_entry(found)
    assert stat.S_ISCHR(entry.mode)
    assert entry.rdev == 0x103
    facts = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
    large = SimpleNamespace(**{**facts, "st_rdev": os.makedev(0x123, 0x45678)})
    assert nameless.ghost_entry(large).rdev == 0x78 | 0x123 << 8 | 0x45600 << 12  # type: ignore[arg-type]
