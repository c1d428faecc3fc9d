"""Image directories: what is refused, and that a set is whole or is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from criupy.errors import ImageError
from criupy.images.directory import ImageDirectory, ImageWriter, write_stats
from criupy.images.pb.core_pb2 import fs_entry, task_kobj_ids_entry
from criupy.images.pb.inventory_pb2 import inventory_entry, restore_stats_entry, stats_entry

RECORDED = Path(__file__).parents[2] / "data/criu/images-4.2"


@pytest.fixture
def images(tmp_path):
    """A copy of the recorded image set."""
    return Path(shutil.copytree(RECORDED, tmp_path / "images"))


def inventory():
    return inventory_entry(
        img_version=2, root_ids=task_kobj_ids_entry(vm_id=1, files_id=1, fs_id=1, sighand_id=1)
    )


def refused(directory: Path, act, reason: str) -> None:
    with ImageDirectory(str(directory)) as opened, pytest.raises(ImageError, match=reason):
        act(opened)


def test_images_are_read_by_kind_and_number(images):
    with ImageDirectory(str(images)) as directory:
        assert directory.version == 2
        pids = [record.message.pid for record in directory.records("PSTREE")]
        assert directory.only("FS", pids[0]).HasField("cwd_id")
        assert directory.first("SK_QUEUES").length > 0
        assert directory.first("TTY_INFO") is None
        assert list(directory.records("CGROUP")) == []


def test_a_descriptor_of_a_directory_will_do(images):
    fd = os.open(images, os.O_RDONLY | os.O_DIRECTORY)
    with ImageDirectory(fd) as directory:
        assert directory.inventory().img_version == 2
    os.close(fd)  # still ours


def test_missing_directory(tmp_path):
    with pytest.raises(ImageError, match="no such directory"):
        ImageDirectory(str(tmp_path / "none"))


def test_file_in_place_of_the_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="is not a directory"):
        ImageDirectory(str(tmp_path / "file"))


def test_directory_without_an_inventory(images):
    (images / "inventory.img").unlink()
    with ImageDirectory(str(images)) as directory, pytest.raises(ImageError) as caught:
        directory.inventory()
    assert "is not an image set: inventory.img is missing" in str(caught.value)
    assert "a dump that did not finish leaves none" in caught.value.hint


def test_unknown_image_version(images):
    with ImageWriter(str(images)) as writer:
        writer.commit(inventory_entry(img_version=3))
    refused(images, lambda directory: directory.inventory(), "img_version is 3")


def test_symbolic_link_is_not_followed(images):
    (images / "pstree.img").rename(images.parent / "elsewhere")
    (images / "pstree.img").symlink_to(images.parent / "elsewhere")
    refused(images, lambda directory: directory.only("PSTREE"), "is a symbolic link")


@pytest.mark.timeout(10)
def test_fifo_does_not_block(images):
    (images / "pstree.img").unlink()
    os.mkfifo(images / "pstree.img")
    refused(images, lambda directory: directory.only("PSTREE"), "is not a regular file")


def test_path_outside_is_not_opened(images):
    refused(images, lambda directory: directory.open_fd("../elsewhere"), "cannot be opened")
    refused(images, lambda directory: directory.open_fd("/etc/passwd"), "cannot be opened")


def test_missing_and_empty_images(images):
    (images / "pstree.img").write_bytes((images / "pstree.img").read_bytes()[:8])
    refused(images, lambda directory: directory.only("PSTREE"), "pstree.img: is missing or empty")
    refused(images, lambda directory: directory.only("MM", 7), "mm-7.img: is missing or empty")
    (images / "pstree.img").write_bytes(b"")
    refused(images, lambda directory: directory.only("PSTREE"), "pstree.img, offset 0: .*truncated")


def test_parent_is_followed(images, tmp_path):
    child = tmp_path / "child"
    child.mkdir()
    (child / "parent").symlink_to("../images")
    with ImageDirectory(str(child)) as directory:
        parent = directory.parent()
        assert parent is not None
        with parent:
            assert parent.inventory().img_version == 2
            assert parent.parent() is None


def test_parent_that_is_gone_or_no_link(images):
    (images / "parent").symlink_to("nowhere")
    refused(images, lambda directory: directory.parent(), "parent -> nowhere: cannot be opened")
    (images / "parent").unlink()
    (images / "parent").mkdir()
    refused(images, lambda directory: directory.parent(), "is not a symbolic link")


def test_written_set_is_private_and_whole(tmp_path):
    target = tmp_path / "new"
    with ImageWriter(str(target)) as writer:
        writer.write("FS", [fs_entry(cwd_id=1, root_id=2)], 7)
        assert not (target / "inventory.img").exists()
        writer.commit(inventory(), sync=True)
    assert target.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(target)) == ["fs-7.img", "inventory.img"]
    assert {path.stat().st_mode & 0o777 for path in target.iterdir()} == {0o600}
    with ImageDirectory(str(target)) as directory:
        assert directory.only("FS", 7) == fs_entry(cwd_id=1, root_id=2)


def test_abandoned_set_leaves_nothing(tmp_path):
    target = tmp_path / "new"
    with ImageWriter(str(target)) as writer:
        writer.write("FS", [fs_entry(cwd_id=1, root_id=2)], 7)
        assert os.listdir(target) == ["fs-7.img"]
    assert not target.exists()


def test_abandoned_set_leaves_what_is_not_its_own(tmp_path):
    target = tmp_path / "new"
    with ImageWriter(str(target)) as writer:
        writer.write("FS", [fs_entry(cwd_id=1, root_id=2)], 7)
        (target / "dump.log").write_text("why it failed")
    assert os.listdir(target) == ["dump.log"]
    with ImageWriter(str(target)) as writer:
        writer.write("FS", [fs_entry(cwd_id=1, root_id=2)], 7)
    assert os.listdir(target) == ["dump.log"]


def test_used_directory_is_no_set_until_the_commit(images):
    with ImageWriter(str(images)) as writer:
        assert not (images / "inventory.img").exists()
        writer.write("FS", [fs_entry(cwd_id=1, root_id=2)], 7)
        writer.commit(inventory())
    left = set(os.listdir(images))
    pagemaps = {path.name for path in RECORDED.glob("pagemap-*.img")}
    pages = {path.name for path in RECORDED.glob("pages-*.img")}
    assert left == {"fs-7.img", "inventory.img", "stats-dump", "many.c"} | pagemaps | pages


def test_nothing_is_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target = tmp_path / "new"
    target.mkdir()
    (target / "fs-7.img").symlink_to(victim)
    (target / "inventory.img").symlink_to(victim)
    with ImageWriter(str(target)) as writer:
        writer.write("FS", [fs_entry(cwd_id=1, root_id=2)], 7)
        writer.commit(inventory())
    assert victim.read_text() == "precious"
    assert not (target / "fs-7.img").is_symlink()
    assert not (target / "inventory.img").is_symlink()


def test_unwritable_places(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none/new", tmp_path / "file"):
        with pytest.raises(ImageError):
            ImageWriter(str(path))
    with ImageWriter(str(tmp_path / "new")) as writer, pytest.raises(ImageError, match="cannot be created"):
        writer.create("no/such/file")
    with (
        ImageWriter(str(tmp_path / "new")) as writer,
        pytest.raises(ImageError, match="not the name of an image"),
    ):
        writer.write_named("fs.img", [])


def test_statistics_stand_alone(tmp_path):
    restore = restore_stats_entry(pages_compared=0, pages_skipped_cow=0, forking_time=5, restore_time=7)
    write_stats(str(tmp_path), "stats-restore", stats_entry(restore=restore))
    write_stats(str(tmp_path), "stats-restore", stats_entry(restore=restore))
    assert os.listdir(tmp_path) == ["stats-restore"]
    with ImageWriter(str(tmp_path)) as writer:
        writer.commit(inventory())
    assert sorted(os.listdir(tmp_path)) == ["inventory.img", "stats-restore"]
    with pytest.raises(ImageError):
        write_stats(str(tmp_path), "core-1.img", stats_entry())
