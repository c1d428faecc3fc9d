"""Terminals: images of what was found, plans of what comes back, and images that contradict themselves."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from criupy.errors import ImageError
from criupy.images.directory import ImageDirectory
from criupy.images.pages import PagesFile
from criupy.images.pb import core_pb2, fdtable_pb2, files_pb2, inventory_pb2
from criupy.linux import tty
from criupy.linux.abi import device_number
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs import task as procfs
from criupy.model import integrity
from criupy.model.plan import NURSERY, StubPlan, Terminal
from criupy.model.snapshot import Snapshot, TaskImages, load
from criupy.resources import terminalrestore
from criupy.resources.kind import PlanSubject
from criupy.resources.registry import FILE_KINDS
from criupy.resources.terminalrestore import Terminals

RECORDED = Path(__file__).parents[2] / "data/criu/images-4.2"
SERVER, SHELL, JOB, LONER = 10, 20, 21, 22
MASTER, SLAVE, CURRENT = 7, 6, terminalrestore.CURRENT
NOBODY = core_pb2.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
PTS = 3


def attributes(**more: int) -> files_pb2.termios_entry:
    zero = dict.fromkeys(("c_iflag", "c_oflag", "c_cflag", "c_lflag", "c_line", "c_ispeed", "c_ospeed"), 0)
    return files_pb2.termios_entry(**{**zero, **more}, c_cc=[0x03020100, 0x07060504, *[0] * 17])


def end(number: int, rdev: int, **more: Any) -> files_pb2.tty_info_entry:
    """An end of a terminal; ``type`` is PTY if nothing else is said."""
    entry = files_pb2.tty_info_entry(
        id=number, type=more.pop("type", files_pb2.PTY), locked=False, exclusive=False, packet_mode=False,
        sid=0, pgrp=0, rdev=rdev,
    )  # fmt: skip
    if entry.type == files_pb2.PTY:
        entry.pty.index = number >> 1
    entry.termios.CopyFrom(attributes())
    entry.termios_locked.CopyFrom(attributes())
    entry.winsize.CopyFrom(files_pb2.winsize_entry(ws_row=24, ws_col=80, ws_xpixel=0, ws_ypixel=0))
    for name, value in more.items():
        setattr(entry, name, value)
    return entry


def opened(number: int, info: int, name: bytes, flags: int = os.O_RDWR) -> dict[int, fdtable_pb2.file_entry]:
    """A descriptor, and behind it the entry of its path."""
    path = files_pb2.reg_file_entry(id=number + 100, name=name, flags=flags, pos=0, fown=NOBODY, mode=0o20620)
    body = files_pb2.tty_file_entry(
        id=number, tty_info_id=info, flags=flags, fown=NOBODY, regf_id=number + 100
    )
    return {
        number: fdtable_pb2.file_entry(type=fdtable_pb2.TTY, id=number, tty=body),
        number + 100: fdtable_pb2.file_entry(type=fdtable_pb2.REG, id=number + 100, reg=path),
    }


def task(pid: int, ppid: int, pgid: int, sid: int) -> TaskImages:
    entry = core_pb2.pstree_entry(pid=pid, ppid=ppid, pgid=pgid, sid=sid, threads=[pid])
    ids = core_pb2.task_kobj_ids_entry(vm_id=pid, files_id=pid, fs_id=pid, sighand_id=pid)
    core = core_pb2.core_entry()
    core.tc.no_terminal = pid in (SERVER, LONER)
    return TaskImages(pid, entry, core, ids=ids, threads={pid: core})


def snapshot(**more: Any) -> Snapshot:
    """A server with the master; a shell that leads a session, a job of its in the foreground, one that has left."""
    tasks = (task(SERVER, 0, 10, 10), task(SHELL, 10, 20, 20), task(JOB, 20, 21, 20), task(LONER, 20, 22, 20))
    files = {
        **opened(1, PTS << 1 | 1, b"/dev/ptmx", os.O_RDWR | os.O_NONBLOCK),
        **opened(2, PTS << 1, b"/dev/pts/3"),
        **opened(3, 2012, b"/dev/tty"),
    }
    ends = [
        end(PTS << 1 | 1, 1282, sid=SHELL, pgrp=JOB, locked=True),
        end(PTS << 1, 34819, sid=SHELL, pgrp=JOB),
        end(2012, 1280, type=files_pb2.CTTY, sid=SHELL, pgrp=JOB),
    ]
    fdinfo = {
        SERVER: [fdtable_pb2.fdinfo_entry(id=1, fd=5, flags=0, type=fdtable_pb2.TTY)],
        SHELL: [
            fdtable_pb2.fdinfo_entry(id=2, fd=0, flags=0, type=fdtable_pb2.TTY),
            fdtable_pb2.fdinfo_entry(id=3, fd=9, flags=1, type=fdtable_pb2.TTY),
        ],
    }
    given = {"files": files, "fdinfo": fdinfo, "terminals": {one.id: one for one in ends}, **more}
    return Snapshot(inventory_pb2.inventory_entry(img_version=2), tasks, **given)


def stub_of(terminals: Terminals) -> StubPlan:
    return StubPlan(0, nursery_fd=90, pages=(PagesFile(0, 1),), terminals=terminals.given())


def shown(steps: Any) -> list[str]:
    return [f"{step.stage.name.lower()} {step.tid}: {step}" for step in steps]


def test_what_the_nursery_is_given() -> None:
    terminals = Terminals(snapshot())
    assert terminals.given() == (Terminal("master", PTS), Terminal("current", 3))
    assert terminals.controlling() == {SHELL: Terminal("master", PTS)}
    assert terminals.foreground(SHELL) == JOB
    assert terminals.foreground(SERVER) == 0


def test_a_session_takes_its_terminal() -> None:
    terminals = Terminals(snapshot())
    stub = stub_of(terminals)
    assert shown(terminalrestore.plan_leader(SHELL, Terminal("master", PTS), stub)) == [
        "tree 20: pidfd_getfd(90, 1, 0) = <the terminal of session 20 0x14>",
        "tree 20: ioctl(<the terminal of session 20 0x14>, 0x540e, 0)",
        "tree 20: close(<the terminal of session 20 0x14>)",
    ]
    assert shown(terminalrestore.plan_foreground(terminals, stub)) == [
        "tree 20: pidfd_getfd(90, 1, 0) = <foreground of session 20 0x14>",
        "tree 20: ioctl(<foreground of session 20 0x14>, 0x5410, [21])",
        "tree 20: close(<foreground of session 20 0x14>)",
        'tree 22: openat(-100, "/dev/tty", 2, 0) = <terminal 0x16>',
        "tree 22: ioctl(<terminal 0x16>, 0x5422)",
        "tree 22: close(<terminal 0x16>)",
    ]


def test_descriptors_of_terminals() -> None:
    saved = snapshot()
    subject = PlanSubject(
        NURSERY, saved.root, saved, KernelFeatures(capabilities=-1, pagemap_scan=True), print, stub_of(Terminals(saved))
    )  # fmt: skip
    steps, shared = FILE_KINDS.plan_shared(subject)
    assert shared.at == {1: 1, 2: 3, 3: 2}
    assert shown(steps) == [
        "hold 0: fcntl(1, 4, 2048)",
        "attributes 0: ioctl(1, 0x40045431, [1])",
        'hold 0: openat(-100, "/dev/pts/3", 258, 0)',
        'tree 20: openat(-100, "/dev/tty", 2, 0) = <descriptor of /dev/tty 0x3>',
        "tree 0: pidfd_open(<process 0x14>, 0) = <opener of /dev/tty 0x3>",
        "tree 0: pidfd_getfd(<opener of /dev/tty 0x3>, <descriptor of /dev/tty 0x3>, 0) = <copy of /dev/tty 0x3>",
        "tree 0: dup3(<copy of /dev/tty 0x3>, 2, 0x80000)",
        "tree 0: close(<copy of /dev/tty 0x3>)",
        "tree 0: close(<opener of /dev/tty 0x3>)",
        "tree 20: close(<descriptor of /dev/tty 0x3>)",
    ]


def test_a_slave_alone_is_the_terminal_of_a_job() -> None:
    saved = snapshot()
    del saved.files[1]  # type: ignore[attr-defined]
    terminals = Terminals(saved)
    assert Terminal("job", PTS << 1) in terminals.given()
    entry = saved.files[2]
    assert terminalrestore.given_for(stub_of(terminals), entry, terminals.info(entry)) == 1


def test_a_slave_without_attributes_is_gone() -> None:
    saved = snapshot()
    for part in ("termios", "termios_locked", "winsize"):
        saved.terminals[PTS << 1].ClearField(part)
    assert Terminal("gone", 2) in Terminals(saved).given()


def test_a_console_is_a_job_only_in_the_session_that_is_joined() -> None:
    saved = snapshot()
    saved.terminals[PTS << 1].type = files_pb2.VT
    saved.terminals[PTS << 1].rdev = 0x0403
    assert Terminal("device", PTS << 1) in Terminals(saved).given()
    saved.terminals[PTS << 1].sid = saved.root.pstree.sid = 5
    assert Terminal("job", PTS << 1) in Terminals(saved).given()


def test_two_terminals_from_outside() -> None:
    saved = snapshot()
    del saved.files[1]  # type: ignore[attr-defined]
    saved.files.update(opened(4, 8, b"/dev/pts/4"))  # type: ignore[attr-defined]
    saved.terminals[8] = end(8, 34820)  # type: ignore[index]
    saved.fdinfo[SHELL].append(fdtable_pb2.fdinfo_entry(id=4, fd=4, flags=0, type=fdtable_pb2.TTY))  # type: ignore[attr-defined]
    with pytest.raises(ImageError, match="several terminals"):
        Terminals(saved).given()


def test_two_masters_of_one_number() -> None:
    saved = snapshot()
    saved.files.update(opened(4, PTS << 1 | 1, b"/dev/ptmx"))  # type: ignore[attr-defined]
    saved.fdinfo[SERVER].append(fdtable_pb2.fdinfo_entry(id=4, fd=4, flags=0, type=fdtable_pb2.TTY))  # type: ignore[attr-defined]
    with pytest.raises(ImageError, match="two masters lead to /dev/pts/3"):
        Terminals(saved)


def test_nobody_has_dev_tty() -> None:
    saved = snapshot()
    for info in saved.terminals.values():
        info.sid = 0
    terminals = Terminals(saved)
    with pytest.raises(ImageError, match="nobody has a controlling terminal"):
        list(terminalrestore.plan_current(terminals, saved.files[3], stub_of(terminals)))


def test_attributes_have_four_characters_to_a_word() -> None:
    found = terminalrestore.termios(attributes(c_iflag=5, c_ospeed=9600))
    assert found.cc[:8] == bytes(range(8))
    assert len(found.cc) == tty.NCCS
    assert (found.iflag, found.ospeed) == (5, 9600)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda info, _: info.ClearField("winsize"), "has only a part of its attributes"),
        (lambda info, _: info.ClearField("pty"), "has no number"),
        (lambda info, _: setattr(info.pty, "index", 1 << 30), "has the number"),
        (lambda info, _: info.termios.c_cc.__delitem__(slice(8, None)), "has 8 characters"),
        (lambda info, _: setattr(info.termios, "c_line", 1 << 9), "line discipline 512"),
        (lambda info, _: setattr(info.winsize, "ws_row", 1 << 16), "has no size"),
        (lambda info, _: setattr(info, "pgrp", 1 << 30), "sid or pgrp"),
        (lambda info, _: setattr(info, "type", files_pb2.TtyType.UNKNOWN), "has type 0"),
        (
            lambda _, data: data.update({9: files_pb2.tty_data_entry(tty_id=9, data=b"")}),
            "there is no terminal 9",
        ),
        (lambda _, data: setattr(data[6], "data", bytes(1 << 17)), "131072 bytes"),
        (lambda _, data: data[6].ends.extend([2, 1]), "its ends"),
        (lambda _, data: data[6].ends.append(4), "its ends"),
    ],
)
def test_images_that_cannot_be(change: Any, said: str) -> None:
    with ImageDirectory(str(RECORDED)) as directory:
        saved = load(directory)
    info, unread = end(6, 34819), {6: files_pb2.tty_data_entry(tty_id=6, data=b"abc", ends=[1, 3])}
    saved = dataclasses.replace(saved, terminals={6: info}, terminal_data=unread)
    integrity.check(saved)
    change(info, unread)
    with pytest.raises(ImageError, match=said):
        integrity.check(saved)


def test_a_terminal_that_is_not_there() -> None:
    with ImageDirectory(str(RECORDED)) as directory:
        saved = load(directory)
    saved = dataclasses.replace(saved, files={**saved.files, **opened(5000, 77, b"/dev/pts/0")})
    with pytest.raises(ImageError, match=r"is of a terminal that is not in tty-info\.img"):
        integrity.check(saved)


def test_device_numbers() -> None:
    assert device_number(34816) == os.makedev(136, 0)
    assert tty.pts_index(os.makedev(137, 5)) == 261
    assert tty.pts_device(261) == os.makedev(137, 5)
    assert tty.pts_index(os.makedev(4, 5)) is None
    nouns = {
        (5, 1): "console",
        (4, 7): "virtual console",
        (4, 64): "serial line",
        (136, 1): "pseudo terminal",
    }
    assert {device: tty.noun(os.makedev(*device)) for device in nouns} == nouns


def test_controlling_terminal_of_a_task() -> None:
    line = b"7 (a) b) S 1 7 7 34817 9 " + b" ".join([b"0"] * 44)
    assert (procfs.stat(line).terminal, procfs.stat(line).foreground) == (os.makedev(136, 1), 9)
    none = b"7 (a) S 1 7 7 0 -1 " + b" ".join([b"0"] * 44)
    assert (procfs.stat(none).terminal, procfs.stat(none).foreground) == (0, -1)
