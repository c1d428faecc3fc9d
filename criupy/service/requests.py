"""What a request asks for: its directories, and the options that the command line would have given.

An option that gives leave to something (``tcp_established``, say) may be ignored as long as it is not built: the tree
is refused by name then.  One that would change what is done is refused itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

from criupy.errors import UsageError
from criupy.images.pb.rpc_pb2 import IGNORE, criu_opts
from criupy.options import DumpOptions, LogOptions, RestoreOptions
from criupy.service.packets import Peer

_REFUSED = {
    "ps": "a page server",
    "parent_img": "an incremental dump",
    "track_mem": "an incremental dump",
    "lazy_pages": "a lazy restore",
    "exec_cmd": "exec_cmd",
    "rst_sibling": "a restore as the client's child (rst_sibling)",
    "inherit_fd": "inherit_fd",
    "join_ns": "join_ns",
    "empty_ns": "an empty namespace",
    "lsm_profile": "lsm_profile",
    "lsm_mount_context": "lsm_mount_context",
    "cg_root": "a root of cgroups",
    "veths": "network devices",
    "skip_mnt": "skip_mnt",
    "unprivileged": "the unprivileged mode",
}
"""By the field, what it asks for that is not built yet."""
_DEFAULT_LOG = "criu.log"
_CGROUPS = "cgroups are neither dumped nor restored yet: tasks come back in the cgroup of criupy"


class Place(NamedTuple):
    """Directories of a request, as paths of this process."""

    images_dir: str
    work_dir: str


@contextmanager
def place(opts: criu_opts, peer: Peer) -> Iterator[Place]:
    """Opens the directories; numbers of descriptors are the peer's.  `UsageError` if there is none."""
    with ExitStack() as stack:
        if opts.images_dir_fd >= 0:
            images = _borrowed(peer.directory(opts.images_dir_fd), stack)
        elif opts.images_dir:
            images = os.fsdecode(opts.images_dir)
        else:
            raise UsageError("the request names no directory for images (images_dir_fd or images_dir)")
        work = images
        if opts.HasField("work_dir_fd") and opts.work_dir_fd >= 0:
            work = _borrowed(peer.directory(opts.work_dir_fd), stack)
        yield Place(images, work)


def _borrowed(descriptor: int, stack: ExitStack) -> str:
    """The path by which a directory is found; it may have another name here than for the peer, or none."""
    stack.callback(os.close, descriptor)
    magic = f"/proc/self/fd/{descriptor}"
    name = os.readlink(magic)
    try:
        same = os.path.samestat(os.stat(name), os.fstat(descriptor))
    except OSError:
        same = False
    return name if same else magic


def log_options(opts: criu_opts, work_dir: str) -> LogOptions:
    """Where the log goes.  `UsageError` for a name that leaves the directory."""
    name = os.fsdecode(opts.log_file)
    if "/" in name:
        raise UsageError(f"log_file {name!r}: no subdirectories are allowed")
    to_stderr = opts.log_to_stderr and not name
    return LogOptions(work_dir, None if to_stderr else name or _DEFAULT_LOG, max(opts.log_level, 0))


def dump_options(opts: criu_opts, there: Place, peer: Peer) -> DumpOptions:
    """Raises `UsageError` for what is not built yet, and for a pid that is none."""
    pid = opts.pid if opts.HasField("pid") else peer.pid
    if pid <= 0:
        raise UsageError(f"{pid} is not a pid")
    options = _filled(DumpOptions(pid, *there), opts)
    return options._replace(leave_running=options.leave_running and not options.leave_stopped)


def restore_options(opts: criu_opts, there: Place) -> RestoreOptions:
    """Raises `UsageError` for what is not built yet."""
    return _filled(RestoreOptions(*there), opts)


def warnings(opts: criu_opts) -> Iterator[str]:
    """What of a request is done otherwise, or not at all."""
    if opts.manage_cgroups_mode != IGNORE if opts.HasField("manage_cgroups_mode") else opts.manage_cgroups:
        yield _CGROUPS


Options = TypeVar("Options", DumpOptions, RestoreOptions)


def _filled(options: Options, opts: criu_opts) -> Options:
    """Options have the names of the fields.  Configuration files are not built, and one that is missing is no error."""
    for field, value in opts.ListFields():
        if field.name in _REFUSED and value:
            raise UsageError(f"{_REFUSED[field.name]} is not built yet", hint=f"do without {field.name}")
    config = os.fsdecode(opts.config_file)
    if config and os.path.exists(config):
        raise UsageError(f"configuration files are not built yet: {config}")
    known = set(options._fields) - {"images_dir", "work_dir", "tree"}
    given = {field.name: _plain(value) for field, value in opts.ListFields() if field.name in known}
    return options._replace(**given)


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, str, int)):
        return os.fsdecode(value) if isinstance(value, bytes) else value
    return tuple(map(_plain, value))
