"""Descriptors of events that cannot be dumped are refused by name, and what does not come back is said."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from harness.observe import Observation, assert_unharmed

from criupy.resources.registry import FILE_KINDS

REFUSED = {
    "watch": "fd 3 (inotify): what it watches (inode ",
    "decides": "(fanotify): it decides over accesses to files (FAN_CLASS_CONTENT)",
    "unprivileged": "(fanotify): its task has no CAP_SYS_ADMIN",
    "process": "(pidfd): it leads to process ",
    "thread": "(pidfd): it leads to the thread ",
    "namespace": "(namespace file): it leads to a uts namespace in which the task does not live",
    "io_uring": "(io_uring): ",
    "userfaultfd": "(userfaultfd): ",
    "bpf": "(bpf object): ",
    "tun": "(tun device /dev/net/tun): ",
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("option", ["--leave-running", ""])
def test_refused_by_name(kind, option, target, criupy, images):
    process = target("odd_events.c", KIND=kind)
    before = Observation.of(process.pid)
    images.mkdir()
    outcome = criupy.run("dump", "-t", str(process.pid), "-D", str(images), *option.split(), cwd=images)
    assert outcome.returncode != 0
    assert REFUSED[kind] in outcome.output, outcome
    assert "Hint:" in outcome.output
    assert not (images / "inventory.img").exists()
    assert_unharmed(before)
    process.ask()


def test_unread_events_are_told(target, criupy, images):
    process = target("odd_events.c", KIND="unread", RESTORED="1")
    outcome = criupy.dump(process, images)
    assert "fd 3 (inotify): 16 bytes of events that it has not read yet are lost unless" in outcome.output
    assert "16 bytes of events were not read, and a restore does not bring them back" in outcome.log
    process.wait_gone()
    criupy.restore(process, images)
    process.ask()


def test_what_is_watched_is_gone(target, criupy, images, place):
    """Said before anything is made; with the file back in its place the same images do."""
    process = target("odd_events.c", KIND="unread", RESTORED="1")
    criupy.dump(process, images)
    process.wait_gone()
    watched = place / "target-0" / "here"
    watched.rename(place / "moved")
    outcome = criupy.run("restore", "-d", "-D", str(images), cwd=images)
    assert outcome.returncode != 0
    assert "target-0/here, which the dump needs: No such file or directory" in outcome.output
    assert not process.left()
    (place / "moved").rename(watched)
    criupy.restore(process, images)
    process.ask()


def test_unread_events_are_seen_of_a_frozen_task(target):
    process = target("odd_events.c", KIND="unread")
    table = FILE_KINDS.table()
    table.look_ahead(process.pid)
    pidfd = os.pidfd_open(process.pid)
    try:
        assert table.unread([SimpleNamespace(pid=process.pid, pidfd=pidfd)]) == 16
        process.ask()
    finally:
        os.close(pidfd)
