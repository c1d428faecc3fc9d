"""How terminals come back.

criupy itself makes the pairs, with their numbers, attributes and content, before there is a tree, and gives the nursery
what it holds of them, as it does with the pages files.  A session leader takes its terminal right after setsid(2), so
that who is born of it has the terminal too; who is in the foreground is said when all groups are there.  The terminal
of a shell's job is the one that criupy was started in, and is changed at the very last.

Source: Linux drivers/tty/tty_jobctrl.c, pty.c.
"""

from __future__ import annotations

import os
import signal
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from criupy.errors import ImageError, RestoreError, TerminalInUse
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux import processes, tty
from criupy.linux.tty import Termios
from criupy.model.plan import NURSERY, Arg, Ref, Stage, Step, StubPlan, Terminal, data, outer_pid, path
from criupy.model.snapshot import Snapshot
from criupy.resources import terminalcontent
from criupy.resources.terminalcontent import Content, Held, Pair

MASTER, SLAVE, GONE, DEVICE, CURRENT, JOB = "master", "slave", "gone", "device", "current", "job"
"""What an end of a terminal is.  All but a slave of the tree's own pairs are given to the nursery: GONE is a slave that
hung up, DEVICE a console, CURRENT the place for one of /dev/tty, JOB the terminal that criupy was started in.
"""
_PTMX_OLD = 5 << 8 | 2
_MOST_PAIRS = 1 << 12
_AT_FDCWD = -100
_KEPT_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK
_TAKING_OVER = {signal.SIGTTOU, signal.SIGTTIN}


def role(info: files_pb2.tty_info_entry) -> str:
    """Of an end of a terminal, as far as it can be seen by itself."""
    if info.type == files_pb2.CTTY:
        return CURRENT
    if not info.HasField("termios"):
        return GONE
    if info.type != files_pb2.PTY:
        return DEVICE
    return MASTER if info.rdev == _PTMX_OLD else SLAVE


class Terminals:
    """What an image set says of terminals, by what is open."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.files = [entry for entry in snapshot.files.values() if entry.type == fdtable_pb2.TTY]
        self.masters: dict[int, fdtable_pb2.file_entry] = {}
        """By N of /dev/pts/N."""
        for entry in self.files:
            info = self.info(entry)
            if role(info) == MASTER and self.masters.setdefault(info.pty.index, entry) is not entry:
                raise ImageError("files.img", f"two masters lead to /dev/pts/{info.pty.index}")

    def info(self, entry: fdtable_pb2.file_entry) -> files_pb2.tty_info_entry:
        return self.snapshot.terminals[entry.tty.tty_info_id]

    def given(self) -> tuple[Terminal, ...]:
        """What the nursery has to be given, in this order."""
        found = dict.fromkeys(filter(None, map(self._given, self.files)))
        if sum(one.kind == JOB for one in found) > 1:
            raise ImageError("tty-info.img", "several terminals were looked after from outside of the tree")
        return tuple(found)

    def _given(self, entry: fdtable_pb2.file_entry) -> Terminal | None:
        """For a descriptor; None for the slave of a pair."""
        info = self.info(entry)
        match role(info):
            case "master":
                return Terminal(MASTER, info.pty.index)
            case "slave" if info.pty.index in self.masters:
                return None
            case "slave":
                return Terminal(JOB, info.id)
            case "device":
                root = self.snapshot.root.pstree
                is_job = bool(info.sid) and info.sid == root.sid != root.pid
                return Terminal(JOB if is_job else DEVICE, info.id)
        return Terminal(role(info), entry.id)

    def controlling(self) -> dict[int, Terminal]:
        """The terminal of each session that has its leader in the tree."""
        leaders = {
            task.pid for task in self.snapshot.tasks if task.pstree.sid == task.pid and not task.zombie
        }
        found: dict[int, Terminal] = {}
        for entry in self.files:
            info = self.info(entry)
            if info.sid in leaders and role(info) in (MASTER, SLAVE, DEVICE):
                found[info.sid] = self._given(entry) or Terminal(MASTER, info.pty.index)
        return found

    def foreground(self, sid: int) -> int:
        """The process group in the foreground of a session's terminal; 0 if that is not in the tree."""
        groups = {task.pstree.pgid for task in self.snapshot.tasks if task.pstree.sid == sid}
        named = (info.pgrp for info in map(self.info, self.files) if info.sid == sid and info.pgrp)
        return next((pgrp for pgrp in named if pgrp in groups), 0)


# Plan


def place(stub: StubPlan, terminal: Terminal) -> int:
    """The number that it has in the nursery."""
    return len(stub.pages) + stub.terminals.index(terminal)


def given_for(stub: StubPlan, entry: fdtable_pb2.file_entry, info: files_pb2.tty_info_entry) -> int | None:
    """The number of what the nursery was given for a descriptor; None for the slave of a pair."""
    what = role(info)
    number = {MASTER: info.pty.index, SLAVE: info.id, DEVICE: info.id}.get(what, entry.id)
    kinds = (JOB, DEVICE) if what in (SLAVE, DEVICE) else (what,)
    pair = what == SLAVE and Terminal(MASTER, info.pty.index) in stub.terminals
    for kind in kinds if not pair else ():
        if Terminal(kind, number) in stub.terminals:
            return place(stub, Terminal(kind, number))
    return None


def plan_leader(sid: int, terminal: Terminal, stub: StubPlan) -> Iterator[Step]:
    """A session that has just been made takes its terminal."""
    yield from _by(sid, stub, terminal, tty.TIOCSCTTY, 0, about=f"the terminal of session {sid}")


def plan_foreground(terminals: Terminals, stub: StubPlan) -> Iterator[Step]:
    """Who is in the foreground of each, and who has left the terminal of its session."""
    controlling = terminals.controlling()
    for sid, terminal in controlling.items():
        pgrp = terminals.foreground(sid)
        if pgrp and pgrp != sid:
            group = data(struct.pack("i", pgrp), f"[{pgrp}]")
            yield from _by(sid, stub, terminal, tty.TIOCSPGRP, group, about=f"foreground of session {sid}")
    for task in terminals.snapshot.tasks:
        if task.core.tc.no_terminal and task.pstree.sid in controlling and task.pid != task.pstree.sid:
            own = Ref("terminal", task.pid)
            args = (_AT_FDCWD, path(b"/dev/tty"), os.O_RDWR, 0)
            yield Step(task.pid, Stage.TREE, "openat", args, gives=own)
            yield Step(task.pid, Stage.TREE, "ioctl", (own, tty.TIOCNOTTY))
            yield Step(task.pid, Stage.TREE, "close", (own,))


def _by(
    pid: int, stub: StubPlan, terminal: Terminal, request: int, arg: Arg, *, about: str
) -> Iterator[Step]:
    """An ioctl by a task, on what the nursery has."""
    own = Ref(about, pid)
    fetch = (stub.nursery_fd, place(stub, terminal), 0)
    yield Step(pid, Stage.TREE, "pidfd_getfd", fetch, gives=own, about=about)
    yield Step(pid, Stage.TREE, "ioctl", (own, request, arg), about=about)
    yield Step(pid, Stage.TREE, "close", (own,), about=about)


def plan_current(terminals: Terminals, entry: fdtable_pb2.file_entry, stub: StubPlan) -> Iterator[Step]:
    """/dev/tty, opened by somebody whose terminal it is, and kept by the nursery."""
    opener = _opener(terminals, entry)
    kept, own, pidfd, copy = (
        place(stub, Terminal(CURRENT, entry.id)),
        *(Ref(f"{what} of /dev/tty", entry.id) for what in ("descriptor", "opener", "copy")),
    )
    flags = entry.tty.flags & _KEPT_FLAGS
    about = "/dev/tty"

    def step(tid: int, call: str, *args: Arg, gives: Ref | None = None) -> Step:
        return Step(tid, Stage.TREE, call, args, gives=gives, about=about)

    yield step(opener, "openat", _AT_FDCWD, path(b"/dev/tty"), flags, 0, gives=own)
    yield step(NURSERY, "pidfd_open", outer_pid(opener), 0, gives=pidfd)
    yield step(NURSERY, "pidfd_getfd", pidfd, own, 0, gives=copy)
    yield step(NURSERY, "dup3", copy, kept, os.O_CLOEXEC)
    yield step(NURSERY, "close", copy)
    yield step(NURSERY, "close", pidfd)
    yield step(opener, "close", own)


def _opener(terminals: Terminals, entry: fdtable_pb2.file_entry) -> int:
    """Somebody who has it, best in the session that it says."""
    snapshot, sid = terminals.snapshot, terminals.info(entry).sid
    sessions = set(terminals.controlling())
    if snapshot.root.pstree.sid != snapshot.root.pid:
        sessions.add(snapshot.root.pstree.sid)
    living = (task for task in snapshot.tasks if not task.zombie and not task.core.tc.no_terminal)
    able = [task for task in living if task.pstree.sid in sessions]
    holders = [task for task in able if any(info.id == entry.id for info in snapshot.fds(task))]
    for task in sorted(holders or able, key=lambda task: task.pstree.sid != sid):
        return task.pid
    raise ImageError("files.img", "/dev/tty is open, and nobody has a controlling terminal")


# Before there is a tree


@contextmanager
def provide(terminals: Terminals, wanted: Sequence[Terminal], *, shell_job: bool) -> Iterator[list[int]]:
    """A descriptor for each of ``wanted``; slaves stay open until the end.

    Raises `RestoreError`: a number is taken, or there is no terminal for a job.
    """
    with ExitStack() as stack:
        found: dict[Terminal, int] = {}
        # who is gone needs a number for a moment only, and the kernel gives the lowest that is free
        for one in sorted(wanted, key=lambda one: (one.kind != GONE, one.number)):
            descriptor = _provide(terminals, one, stack, shell_job=shell_job)
            stack.callback(os.close, descriptor)
            found[one] = descriptor
        yield [found[one] for one in wanted]


def _provide(terminals: Terminals, one: Terminal, stack: ExitStack, *, shell_job: bool) -> int:
    match one.kind:
        case "gone":
            return _gone(terminals, one)
        case "master":
            return _pair(terminals, one.number, stack)
        case "device":
            return _device(terminals, one)
        case "job":
            return _own_terminal(terminals, shell_job=shell_job)
    return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


def _device(terminals: Terminals, one: Terminal) -> int:
    """A console, the same as then."""
    entry = next(entry for entry in terminals.files if entry.tty.tty_info_id == one.number)
    name = _name(terminals, entry)
    if tty.old_encoding(os.stat(name).st_rdev) != terminals.info(entry).rdev:
        raise RestoreError(f"{_shown(name)} is another device than then")
    try:
        return os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(f"{_shown(name)} cannot be opened", errno=error.errno or 0) from error


def _open_master(name: bytes, index: int | None, flags: int) -> int:
    """A new pair with this number; the kernel gives the lowest that is free."""
    spare: list[int] = []
    try:
        for _ in range(_MOST_PAIRS):
            master = os.open(name, flags | os.O_NOCTTY | os.O_CLOEXEC)
            spare.append(master)
            if os.fstat(master).st_rdev != tty.PTMX:
                raise RestoreError(f"{_shown(name)} is no /dev/ptmx")
            number = tty.number(master, tty.TIOCGPTN)
            if index is None or number == index:
                return spare.pop()
            if number > index:
                break
    except OSError as error:
        raise RestoreError(
            f"a pair of pseudo terminals cannot be made with {_shown(name)}", errno=error.errno or 0
        ) from error
    finally:
        for one in spare:
            os.close(one)
    raise TerminalInUse(
        f"/dev/pts/{index} is in use{_by_whom(index)}",
        hint="end that program, or restore where /dev/pts is another one (unshare --mount, mount -t devpts)",
    )


def _by_whom(index: int | None) -> str:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for entry in os.scandir(f"/proc/{name}/fd"):
                if os.readlink(entry.path).endswith("/ptmx"):
                    with open(f"/proc/{name}/fdinfo/{entry.name}") as file:
                        if f"tty-index:\t{index}\n" in file:
                            return f" by {processes.describe(int(name))}"
    return ""


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _name(terminals: Terminals, entry: fdtable_pb2.file_entry) -> bytes:
    """The path of a terminal, which has to be a device before it is opened."""
    name: bytes = terminals.snapshot.files[entry.tty.regf_id].reg.name
    try:
        found = os.stat(name)
    except OSError as error:
        raise RestoreError(f"{_shown(name)}, which the dump needs", errno=error.errno or 0) from error
    if not stat.S_ISCHR(found.st_mode) or not tty.is_terminal(found.st_rdev):
        raise RestoreError(f"{_shown(name)} is no terminal")
    return name


def _pair(terminals: Terminals, index: int, stack: ExitStack) -> int:
    """A master, with all that both ends have; its slave is open until the end if it ever was."""
    entry = terminals.masters[index]
    info = terminals.info(entry)
    others = [
        one for one in map(terminals.info, terminals.files) if one.pty.index == index and one.HasField("pty")
    ]
    slaves = [one for one in others if role(one) == SLAVE]
    attributes = slaves[0] if slaves else info
    master = _open_master(_name(terminals, entry), index, entry.tty.flags & os.O_ACCMODE)
    try:
        tty.set_number(master, tty.TIOCSPTLCK, 0)
        slave = None
        if slaves or info.peer_closed or info.sid:
            slave = terminalcontent.open_slave(master)
            stack.callback(os.close, slave)
        _fill(
            Pair(master, slave, termios(attributes.termios)),
            attributes,
            _held(terminals.snapshot, info, attributes),
        )
        if info.packet_mode:
            tty.set_number(master, tty.TIOCPKT, 1)
    except OSError as error:
        os.close(master)
        raise RestoreError(f"/dev/pts/{index} cannot be made what it was", errno=error.errno or 0) from error
    except BaseException:
        os.close(master)
        raise
    return master


def _held(snapshot: Snapshot, master: files_pb2.tty_info_entry, slave: files_pb2.tty_info_entry) -> Held:
    def unread(number: int) -> Content:
        entry = snapshot.terminal_data.get(number)
        return Content(entry.data, tuple(entry.ends)) if entry is not None else Content()

    typed = unread(slave.id) if slave.id != master.id else Content()
    return Held(unread(master.id), typed, master.stopped or slave.stopped)


def _fill(pair: Pair, info: files_pb2.tty_info_entry, held: Held) -> None:
    size = info.winsize
    tty.set_window_size(pair.master, (size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel))
    tty.set_termios(pair.master, pair.termios)
    terminalcontent.put(pair, held)
    if held.stopped and pair.slave is not None:
        terminalcontent.stop(pair.slave, pair.termios)
    locked = termios(info.termios_locked)
    if any(locked[:4]) or any(locked.cc) or locked.line:
        tty.lock_termios(pair.master, locked)


def _gone(terminals: Terminals, one: Terminal) -> int:
    """A slave that has lost its master."""
    entry = terminals.snapshot.files[one.number]
    index = terminals.info(entry).pty.index
    try:
        master = _open_master(b"/dev/ptmx", index, os.O_RDWR)
    except TerminalInUse:  # nobody can tell, but by the name of what is not there any more
        master = _open_master(b"/dev/ptmx", None, os.O_RDWR)
    try:
        tty.set_number(master, tty.TIOCSPTLCK, 0)
        return tty.peer(master, entry.tty.flags & _KEPT_FLAGS)
    finally:
        os.close(master)


def termios(entry: files_pb2.termios_entry) -> Termios:
    """The attributes; speeds of 0 are those of ``c_cflag``, as CRIU has it."""
    cc = struct.pack("<8I", *entry.c_cc[:8])[: tty.NCCS]
    return Termios(
        entry.c_iflag,
        entry.c_oflag,
        entry.c_cflag,
        entry.c_lflag,
        entry.c_line,
        cc,
        entry.c_ispeed,
        entry.c_ospeed,
    )


# The terminal of a shell's job


def _own_terminal(terminals: Terminals, *, shell_job: bool) -> int:
    """What criupy was started in: its standard input."""
    if not shell_job:
        raise RestoreError(
            "the tree has a terminal that somebody outside of it looked after",
            hint="restore it in a terminal, with --shell-job",
        )
    if not os.isatty(0):
        raise RestoreError("standard input is no terminal, which --shell-job needs for the tree")
    session = tty.controlled(0)[0]
    if session and any(one.kind == JOB for one in terminals.controlling().values()):
        raise RestoreError(
            f"the tree wants to lead a session on this terminal, which is that of session {session} already",
            hint="give criupy a terminal of its own that controls nobody: criupy restore < /dev/pts/N",
        )
    return os.dup(0)


@contextmanager
def taken_over(terminals: Terminals, wanted: Sequence[Terminal], files: Sequence[int]) -> Iterator[None]:
    """At the very end: what is not the tree's alone gets the attributes that it had, and a job the foreground.

    All comes back if an error does.  ``files``: a descriptor for each of ``wanted``.
    """
    others = [(one, file) for one, file in zip(wanted, files, strict=True) if one.kind in (JOB, DEVICE)]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _TAKING_OVER)
    try:
        with ExitStack() as undo:
            for one, file in others:
                _take_over(terminals, terminals.snapshot.terminals[one.number], file, undo)
            yield
            undo.pop_all()
        for one, file in others:
            _tell_size(terminals, terminals.snapshot.terminals[one.number], file)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _take_over(terminals: Terminals, info: files_pb2.tty_info_entry, file: int, undo: ExitStack) -> None:
    before, foreground = tty.termios(file), tty.controlled(file)[1]
    try:
        undo.callback(_give_back, file, before, 0)
        tty.set_termios(file, termios(info.termios)._replace(line=before.line))
        pgrp = _job_group(terminals, info, file)
        if pgrp:
            undo.callback(_give_back, file, before, foreground)
            os.tcsetpgrp(file, pgrp)
    except OSError as error:
        raise RestoreError("a terminal cannot be given to the tree", errno=error.errno or 0) from error


def _tell_size(terminals: Terminals, info: files_pb2.tty_info_entry, file: int) -> None:
    """To the job in the foreground, if this terminal is not as large as the one that it had."""
    pgrp, size = _job_group(terminals, info, file), info.winsize
    had = (size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel)
    if pgrp > 1 and tty.window_size(file) != had:
        with suppress(ProcessLookupError):
            os.killpg(pgrp, signal.SIGWINCH)


def _give_back(file: int, before: Termios, foreground: int) -> None:
    with suppress(OSError):  # it may have hung up
        tty.set_termios(file, before)
        if foreground:
            os.tcsetpgrp(file, foreground)


def _job_group(terminals: Terminals, info: files_pb2.tty_info_entry, file: int) -> int:
    """The group of the tree that is in the foreground; 0 if this terminal does not control criupy, or none is."""
    session, root = tty.controlled(file)[0], terminals.snapshot.root.pstree
    if (
        terminals.snapshot.has_own_pids
        or session != os.getsid(0)
        or root.sid != info.sid
        or root.sid == root.pid
    ):
        return 0
    return terminals.foreground(root.sid)
