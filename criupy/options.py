"""Every option, described once: the command line, RPC and configuration files are built from this table.

Source of names, spellings and defaults: criu's option list; ``sync`` and ``plan`` are criupy's own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["flag", "text", "number", "level", "list", "size", "choice"]


class Option(NamedTuple):
    """One option: ``name`` is the long spelling, ``field`` (made from it) the attribute of the option values."""

    name: str
    kind: Kind
    commands: frozenset[str]
    meaning: str
    short: str = ""
    metavar: str = ""
    default: str | int | bool | None = None
    own: bool = False
    hidden: bool = False
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")


def _on(*commands: str) -> frozenset[str]:
    return frozenset(commands)


_ALL = _on("dump", "restore", "check", "service")
_IMAGES = _on("dump", "restore")

OPTIONS: tuple[Option, ...] = (
    Option("tree", "number", _IMAGES, "root process of the tree to dump", short="t", metavar="PID"),
    Option(
        "images-dir", "text", _IMAGES, "directory of the image files", short="D", metavar="DIR", default="."
    ),
    Option(
        "work-dir",
        "text",
        _ALL,
        "directory of log, pidfile and statistics [images-dir]",
        short="W",
        metavar="DIR",
    ),
    Option("log-file", "text", _ALL, "where the log goes; '-' is standard output", short="o", metavar="FILE"),
    Option(
        "verbosity",
        "level",
        _ALL,
        "log level 0 to 4; -v adds one, -v4 sets",
        short="v",
        metavar="NUM",
        default=2,
    ),
    Option(
        "leave-running", "flag", _on("dump"), "let the tree run on after the dump", short="R", default=False
    ),
    Option("leave-stopped", "flag", _IMAGES, "leave the tree stopped afterwards", short="s", default=False),
    Option(
        "shell-job",
        "flag",
        _on("dump", "restore", "check"),
        "the tree belongs to a session of the shell",
        short="j",
        default=False,
    ),
    Option(
        "ext-unix-sk",
        "flag",
        _IMAGES,
        "datagram sockets may be connected to named ones of others",
        short="x",
        default=False,
    ),
    Option(
        "external",
        "list",
        _IMAGES,
        "what may lie outside of the tree: unix[INODE] for the peer of a socket; may be given several times",
        metavar="KIND[ID]",
    ),
    Option("timeout", "number", _on("dump"), "seconds that freezing may take", metavar="NUM", default=10),
    Option(
        "freeze-cgroup",
        "text",
        _on("dump"),
        "stop the tree by the freezer of its cgroup (v1 or v2), all of it at once",
        metavar="PATH",
    ),
    Option(
        "link-remap",
        "flag",
        _on("dump"),
        "give files that lost the name they were opened by one more (link_remap.N), kept with the images",
        default=False,
    ),
    Option(
        "ghost-limit",
        "size",
        _on("dump"),
        "most that a deleted file may take in the images; K, M and G are units of 1024",
        metavar="SIZE",
        default=1 << 20,
    ),
    Option(
        "file-locks",
        "flag",
        _IMAGES,
        "take locks of files along (flock, POSIX, OFD, leases); a restore always gives back what the images have",
        short="l",
        default=False,
    ),
    Option(
        "file-validation",
        "choice",
        _IMAGES,
        "what tells whether a file is still the same: its size alone, or its build id too",
        choices=("filesize", "buildid"),
        default="buildid",
    ),
    Option(
        "embed-mapped-files",
        "flag",
        _on("dump"),
        "store executables and libraries too, so that a restore does without those that were upgraded meanwhile",
        default=False,
        own=True,
    ),
    Option(
        "sync",
        "flag",
        _on("dump"),
        "make the images durable before the tree is ended",
        default=False,
        own=True,
    ),
    Option("display-stats", "flag", _IMAGES, "print statistics at the end", default=False),
    Option("restore-detached", "flag", _on("restore"), "end when the tree runs", short="d", default=False),
    Option(
        "action-script",
        "list",
        _IMAGES,
        "program to run at each moment of the dump or restore; may be given several times",
        metavar="PATH",
    ),
    Option(
        "daemon", "flag", _on("service"), "go to the background once it listens", short="d", default=False
    ),
    Option(
        "address",
        "text",
        _on("service"),
        "where it listens, relative to work-dir",
        metavar="PATH",
        default="criu_service.socket",
    ),
    Option(
        "status-fd",
        "number",
        _on("service"),
        "write a zero byte to this descriptor, and close it, once it listens",
        metavar="FD",
    ),
    Option(
        "pidfile",
        "text",
        _on("restore", "service"),
        "write the pid of the root task, or of the service, to FILE",
        metavar="FILE",
    ),
    Option(
        "plan",
        "flag",
        _on("restore"),
        "print every step of the restore and do nothing",
        default=False,
        own=True,
    ),
    Option(
        "host-clocks",
        "flag",
        _on("restore"),
        "give the tree this machine's clocks: what passed since the dump shows in all of them",
        default=False,
        own=True,
    ),
    Option(
        "pid",
        "number",
        _on("check"),
        "say instead whether the tree of this process can be dumped here; nothing is stopped",
        metavar="PID",
        own=True,
    ),
    Option("json", "flag", _on("check"), "print the answer as one JSON object", default=False, own=True),
    Option(
        "ms", "flag", _on("check"), "accepted for older guides; changes nothing", default=False, hidden=True
    ),
)


class LogOptions(NamedTuple):
    """Where the log of a run goes; ``work_dir`` is where relative names start."""

    work_dir: str
    log_file: str | None = None
    verbosity: int = 2


class Outside(NamedTuple):
    """What of a tree may be connected to others: ``ext_unix_sk`` and ``external``."""

    named_datagrams: bool = False
    external: frozenset[str] = frozenset()


class FileOptions(NamedTuple):
    """What a dump may do about files.  ``ghost_limit`` in bytes that a file takes on its disk."""

    ghost_limit: int = 1 << 20
    link_remap: bool = False
    file_locks: bool = False
    build_ids: bool = True
    embed: bool = False
    shell_job: bool = False
    """One terminal may be looked after from outside."""
    outside: Outside = Outside()


class DumpOptions(NamedTuple):
    """What `criupy.dumping.dump` is asked for.

    ``timeout`` in seconds, 0 for no limit, or with ``freeze_cgroup``, the directory of a cgroup, for the usual one.
    """

    tree: int
    images_dir: str
    work_dir: str
    leave_running: bool = False
    leave_stopped: bool = False
    shell_job: bool = False
    sync: bool = False
    timeout: int = 10
    display_stats: bool = False
    freeze_cgroup: str | None = None
    ghost_limit: int = 1 << 20
    link_remap: bool = False
    file_locks: bool = False
    file_validation: str = "buildid"
    embed_mapped_files: bool = False
    ext_unix_sk: bool = False
    external: tuple[str, ...] = ()

    @property
    def outside(self) -> Outside:
        """What may be connected to others."""
        return Outside(self.ext_unix_sk, frozenset(self.external))

    @property
    def files(self) -> FileOptions:
        """What it is allowed to do about files."""
        build_ids = self.file_validation == "buildid"
        return FileOptions(
            self.ghost_limit,
            self.link_remap,
            self.file_locks,
            build_ids,
            self.embed_mapped_files,
            self.shell_job,
            self.outside,
        )


class RestoreOptions(NamedTuple):
    """What `criupy.restoring.restore` is asked for."""

    images_dir: str
    work_dir: str
    leave_stopped: bool = False
    pidfile: str | None = None
    plan: bool = False
    host_clocks: bool = False
    display_stats: bool = False
    file_validation: str = "buildid"
    ext_unix_sk: bool = False
    shell_job: bool = False
