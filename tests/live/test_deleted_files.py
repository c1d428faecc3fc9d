"""Files without a name: what is refused and why, what a restore leaves behind (nothing), and programs that live on."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from harness.engine import EngineError
from harness.observe import Observation, assert_unharmed
from harness.target import wait_until
from live.test_kills import kill_after, start, start_dump

CYCLES = int(os.environ.get("CRIUPY_CYCLES", "3"))


def names(place: Path) -> set[str]:
    """Everything below a directory that the engine itself has not put there."""
    return {str(path.relative_to(place)) for path in place.rglob("*")} - {"beat"}


@pytest.mark.parametrize("program", ["deleted_program.c", "py_queues.py", "py_less.py"])
@pytest.mark.parametrize("direction", ["criupy-to-criupy", "criupy-to-criu", "criu-to-criupy"])
def test_programs_live_on(program, direction, target, criupy, request, images):
    engines = {name: request.getfixturevalue(name) for name in direction.split("-to-")}
    dumper, restorer = (engines[name] for name in direction.split("-to-"))
    if program == "py_less.py" and shutil.which("less") is None:
        pytest.skip("less is missing")
    process = target(program)
    before = names(process.directory)
    for cycle in range(CYCLES if dumper is restorer else 1):
        dumper.dump(process, images / str(cycle))
        process.wait_gone()
        restorer.restore(process, images / str(cycle))
        assert names(process.directory) == before
        if program == "py_queues.py":
            process.expect_progress()
    process.ask()
    assert not [name for name in os.listdir("/dev/shm") if ".ghost" in name]


def test_a_link_remap_is_refused_without_the_option(target, criupy, images):
    process = target("linked_files.c")
    before, there = Observation.of(process.pid), names(process.directory)
    with pytest.raises(
        EngineError, match=r"old name\): its name is gone, while it has 1 name elsewhere"
    ) as refusal:
        criupy.dump(process, images)
    assert "--link-remap" in str(refusal.value)
    assert_unharmed(before)
    assert names(process.directory) == there
    process.ask()


def test_images_with_link_remaps_are_restored_again_and_again(target, criupy, images):
    process = target("linked_files.c")
    before = names(process.directory)
    outcome = criupy.dump(process, images, "--link-remap")
    process.wait_gone()
    new = names(process.directory) - before
    assert len(new) == 2
    for name in new:
        assert re.fullmatch(r"link_remap\.\d+", name)
        assert f"{name}: keep it as long as" in outcome.output
    for _ in range(2):
        criupy.restore(process, images)
        assert names(process.directory) == before | new
        process.end()
    criupy.restore(process, images)
    process.ask()


@pytest.mark.parametrize("direction", ["criupy-to-criu", "criu-to-criupy"])
def test_link_remaps_of_criu(direction, target, criupy, criu, images):
    dumper, restorer = (criupy, criu) if direction == "criupy-to-criu" else (criu, criupy)
    process = target("linked_files.c")
    dumper.dump(process, images, "--link-remap")
    process.wait_gone()
    restorer.restore(process, images)
    process.ask()


def test_link_remaps_of_two_sets(target, criupy, images):
    """A second dump does not take the names of the first."""
    process = target("linked_files.c")
    for name in ("first", "second"):
        criupy.dump(process, images / name, "--link-remap", "--leave-running")
    assert len([name for name in os.listdir(process.directory) if name.startswith("link_remap")]) == 4
    process.end()
    criupy.restore(process, images / "first")
    process.ask()


def test_a_dump_that_fails_takes_its_names_back(target, criupy, images):
    process = target("linked_files.c")
    before = Observation.of(process.pid)
    there = names(process.directory)
    (images / "remap-fpath.img").mkdir(parents=True)
    with pytest.raises(EngineError, match=r"remap-fpath\.img"):
        criupy.dump(process, images, "--link-remap")
    assert names(process.directory) == there
    assert_unharmed(before)
    process.ask()


def test_a_dump_that_is_killed_leaves_names_only_to_whole_images(target, criupy, place):
    process = target("linked_files.c")
    there = names(process.directory)
    began = time.monotonic()
    criupy.dump(process, place / "undisturbed", "--link-remap", "--leave-running")
    whole = time.monotonic() - began
    for path in process.directory.glob("link_remap.*"):
        path.unlink()
    for round_ in range(10):
        images = place / f"images-{round_}"
        killed = start_dump(criupy, process, images, "--link-remap", "--leave-running")
        kill_after(killed, random.uniform(0.5, 1) * whole)
        is_whole = (images / "inventory.img").exists()
        expected = 2 if is_whole else 0
        wait_until(
            f"{expected} names are left of round {round_}",
            lambda expected=expected: len(names(process.directory) - there) == expected,
        )
        for path in process.directory.glob("link_remap.*"):
            path.unlink()
    process.ask()


def test_a_link_remap_that_is_gone(target, criupy, images):
    process = target("linked_files.c")
    criupy.dump(process, images, "--link-remap")
    process.wait_gone()
    for path in process.directory.glob("link_remap.*"):
        path.unlink()
    with pytest.raises(EngineError, match=r"link_remap\.\d+, which the dump needs: No such file"):
        criupy.restore(process, images)


def test_the_limit_is_told_with_the_true_size(target, criupy, images):
    process = target("py_deleted_log.py")
    before = Observation.of(process.pid)
    with pytest.raises(
        EngineError, match=r"log\.1\): it was deleted, and its 41943040 bytes are more than"
    ) as refusal:
        criupy.dump(process, images)
    assert "--ghost-limit 40M" in str(refusal.value)
    assert_unharmed(before)
    criupy.dump(process, images, "--ghost-limit", "40M")
    process.wait_gone()
    criupy.restore(process, images)
    process.ask()


def test_a_restore_that_fails_leaves_nothing(target, criupy, images, place):
    process = target("deleted_files.c", BEYOND_CRIU="1")
    before = names(process.directory)
    criupy.dump(process, images)
    process.wait_gone()
    (place / "taken").touch()
    with pytest.raises(EngineError, match="pidfile"):  # when everything has been brought back
        criupy.restore(process, images, "--pidfile", str(place / "taken"))
    assert names(process.directory) == before
    (process.directory / "gone").write_text("in the way")
    with pytest.raises(EngineError, match=r"gone/below.* cannot be brought back: Not a directory"):
        criupy.restore(process, images)
    assert names(process.directory) == before | {"gone"}
    (process.directory / "gone").unlink()
    criupy.restore(process, images)
    process.ask()


def test_a_restore_that_is_killed_leaves_nothing(target, criupy, images):
    process = target("py_deleted_log.py")
    criupy.dump(process, images, "--ghost-limit", "1G")
    process.wait_gone()
    before = names(process.directory)
    began = time.monotonic()
    criupy.restore(process, images)
    whole = time.monotonic() - began
    process.end()
    for _ in range(10):
        kill_after(start(criupy, images, "restore", "-d"), random.uniform(0, whole))
        wait_until("nothing is left", lambda: names(process.directory) == before)
        process.end()
    criupy.restore(process, images)
    process.ask()


@pytest.fixture(params=["one file system", "two"])
def overlay(request, place):
    """A mounted overlay: (its directory, its lower one), with its layers on as many file systems."""
    places = {name: place / name for name in ("tmpfs", "overlay", "lower")}
    for path in places.values():
        path.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(places["tmpfs"])]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    for name in ("upper", "work", *(["lower"] if request.param != "two" else [])):
        places[name] = places["tmpfs"] / name
        places[name].mkdir()
    options = ",".join(f"{name}dir={places[name]}" for name in ("lower", "upper", "work"))
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", places["overlay"]], check=True)
    yield places["overlay"], places["lower"]
    subprocess.run(["umount", "-l", places["overlay"], places["tmpfs"]], check=True)


def test_deleted_files_of_an_overlay(target, criupy, images, overlay):
    """Both of its lower and its upper layer, open and mapped; and what has another name in the upper one."""
    merged, lower = overlay
    (lower / "old").write_text("of the lower layer")
    process = target("py_overlay.py", str(merged))
    criupy.dump(process, images, "--link-remap")
    process.wait_gone()
    criupy.restore(process, images)
    process.ask()
    (link,) = {*os.listdir(merged)} - {"elsewhere"}
    assert os.path.samefile(merged / link, merged / "elsewhere")
    assert (lower / "old").read_text() == "of the lower layer"


def test_deleted_files_that_nobody_can_make_again(target, criupy, images):
    process = target("py_deleted_proc.py")
    before = Observation.of(process.pid)
    with pytest.raises(EngineError, match=r"/stat\): its name is gone") as refusal:
        criupy.dump(process, images, "--link-remap")
    assert "Froze" not in str(refusal.value)
    assert_unharmed(before)
    process.ask()
