"""The small programs, one per kernel object, that live and interop tests share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Case:
    """A program with its environment; why a real criu cannot do it (at all, or with --leave-running).

    ``criu_dumps``: it is only the restore that criu cannot do, its images say all.  ``criu_restores``: it is only the
    dump, criu restores the images of criupy.  ``refused``: what criupy says of
    it before anything is stopped.
    """

    program: str
    environment: dict[str, str] = field(default_factory=dict)
    not_criu: str = ""
    not_criu_running: str = ""
    criu_dumps: bool = False
    criu_restores: bool = False
    refused: str = ""

    def __str__(self) -> str:
        words = (name if value == "1" else f"{name}-{value}" for name, value in self.environment.items())
        return "-".join([self.program.removesuffix(".c"), *map(str.lower, words)])


PROGRAMS = [
    "alternate_stacks.c", "chrooted.c", "clocks.c", "consoles.c", "credentials.c", "deleted_files.c", "epoll.c",
    "event_counters.c", "fanotify.c", "fpu_state.c", "guard_regions.c", "huge_pages.c", "identity.c",
    "inotify.c", "interval_timers.c", "layout.c", "limits.c", "memory_advice.c", "memory_barriers.c",
    "memory_kinds.c", "pipes.c", "posix_timers.c", "regular_files.c", "restartable_sequences.c",
    "scheduling.c", "seccomp_filter.c", "seccomp_shared.c", "seccomp_strict.c", "shared_descriptions.c",
    "signal_descriptors.c", "signals.c", "terminals.c", "thread_ends.c", "timer_descriptors.c",
    "zero_memory.c",
]  # fmt: skip
BEYOND_CRIU = {
    "deleted_files.c": "refuses a directory that went with the one above it",
    "event_counters.c": "has no place for an eventfd's flag and the upper half of its count",
    "identity.c": "does not restore timer slack and personality",
    "fanotify.c": "knows no marks on file systems, and wants to find mounts in images",
    "inotify.c": "follows a symbolic link that is watched itself, and forgets IN_ONESHOT",
    "pipes.c": "refuses packets",
    "regular_files.c": "drops O_DIRECTORY",
    "scheduling.c": "does not restore affinity",
    "signals.c": "resets an ignored SIGTRAP",
    "timer_descriptors.c": "loses the phase of a periodic timer, and a time of day",
    "terminals.c": "changes what was typed and printed, and drops exclusive mode and a stop",
    "credentials.c": "asks for limits of another user's task, which takes CAP_SYS_RESOURCE",
}
WATCHED = "looks for the files of an epoll instance in the first of its processes only"
LEADERLESS = "refuses a process whose main thread has ended"
SEGMENTS = "dumps System V segments only with an IPC namespace"
# Sockets, with images that both write.
SOCKETS = [
    *(Case("unix_sockets.c", {"TYPE": kind}) for kind in ("stream", "dgram", "seqpacket")),
    *(
        Case(
            "unix_sockets.c",
            {"TYPE": kind, "BEYOND_CRIU": "1"},
            not_criu="loses names of connections and senders",
        )
        for kind in ("stream", "dgram", "seqpacket")
    ),
    Case("unix_messages.c"),
    *(
        Case("unix_messages.c", {"BEYOND_CRIU": "1"} | more, not_criu="refuses messages with credentials")
        for more in ({}, {"OWN_PIDS": "1"})
    ),
    Case("unix_names.c"),
    Case("unix_names.c", {"BEYOND_CRIU": "1"}, not_criu="does not restore SO_PEEK_OFF and SO_TIMESTAMP"),
]
CASES = [
    *map(Case, PROGRAMS),
    *(Case(program, {"BEYOND_CRIU": "1"}, not_criu=reason) for program, reason in BEYOND_CRIU.items()),
    Case("credentials.c", {"BEYOND_CRIU": "1", "THREADS": "1"}, not_criu=BEYOND_CRIU["credentials.c"]),
    Case("locked_privileges.c", not_criu=BEYOND_CRIU["credentials.c"]),
    Case("thread_clock.c", not_criu="makes the timer one of the main thread's CPU time"),
    Case("epoll_strays.c", not_criu="takes one number for two registrations of a file"),
    Case("blocked_calls.c", not_criu_running="ends blocked calls with EINTR"),
    *SOCKETS,
    Case("sysv_segments.c", not_criu=SEGMENTS),
    Case("sysv_segments.c", {"HUGE": "1"}, not_criu=SEGMENTS),
]
# Those that hold numbers of tasks, or come back by way of /proc, are also run in a pid namespace of their own.
WITH_NUMBERS = {
    "deleted_files.c", "posix_timers.c", "shared_descriptions.c", "signals.c", "sysv_segments.c", "thread_ends.c",
}  # fmt: skip
TREES_WITH_NUMBERS = {
    "tree_family.c", "tree_orphans.c", "tree_zombies.c", "tree_stopped.c", "tree_files.c", "tree_tables.c",
    "tree_dead_leader.c", "tree_deep.c", "tree_shared_memory.c", "tree_terminal.c",
    "process_descriptors.c",
}  # fmt: skip


def in_own_pids(cases: list[Case], programs: set[str]) -> list[Case]:
    """The cases of these programs, each as the init of a pid namespace."""
    chosen = [case for case in cases if case.program in programs]
    return [replace(case, environment={**case.environment, "OWN_PIDS": "1"}) for case in chosen]


CASES += in_own_pids(CASES, WITH_NUMBERS)

# What CRIU cannot do of tables that processes share.
TABLES = {
    "files": "",
    "fs": "refuses a shared cwd",
    "vm": "refuses a shared address space",
    "sighand": "refuses a shared address space",
    "io": "does not restore I/O priorities and contexts",
}
# Programs of several processes, whose tree is the same at every moment between "ready" and "go".
TREES = [
    Case("tree_family.c"),
    Case(
        "tree_family.c", {"BEYOND_CRIU": "1"}, criu_dumps=True,
        not_criu="cannot form a group that its leader has left",
    ),
    Case("tree_orphans.c"),
    Case(
        "tree_orphans.c", {"SESSIONS": "1"}, criu_dumps=True,
        not_criu="gives orphans of other sessions to the reaper outside of the tree",
    ),
    Case(
        "tree_orphans.c", {"DEEP": "1"}, criu_dumps=True,
        not_criu="finds no leader for a session that is not a child's of the root",
    ),
    Case(
        "tree_orphans.c", {"FURTHER": "1"}, criu_dumps=True,
        not_criu="gives orphans of other sessions to the reaper outside of the tree",
    ),
    Case("tree_zombies.c"),
    Case("tree_zombies.c", {"BEYOND_CRIU": "1"}, criu_dumps=True, not_criu="keeps seven bits of an exit code"),
    Case("tree_stopped.c", not_criu_running="leaves a second stop signal pending"),
    Case(
        "tree_stopped.c", {"BEYOND_CRIU": "1"},
        not_criu="reports a stop for the second time", not_criu_running="leaves a second stop signal pending",
    ),
    Case("tree_files.c"),
    Case(
        "tree_files.c", {"BEYOND_CRIU": "1"},
        not_criu=WATCHED,
    ),
    Case("tree_watchers.c", not_criu=WATCHED),
    *(Case("tree_tables.c", {"SHARE": share}, not_criu=reason) for share, reason in TABLES.items()),
    Case("tree_deleted.c"),
    Case("tree_sockets.c"),
    *(
        Case("tree_sockets.c", {"BEYOND_CRIU": "1"} | more, not_criu="does not restore credentials of peers")
        for more in ({}, {"OWN_PIDS": "1"})
    ),
    Case("tree_shared_memory.c"),
    Case("tree_shared_memory.c", {"SYSV": "1"}, not_criu=SEGMENTS),
    Case("tree_cow.c"),
    Case("tree_cow.c", {"BEYOND_CRIU": "1"}),
    Case("process_descriptors.c"),
    Case("tree_deep.c"),
    Case("pid_namespace.c", {"OWN_PIDS": "1"}),
    Case(
        "pid_namespace.c", {"OWN_PIDS": "1", "BEYOND_CRIU": "1"}, criu_dumps=True,
        not_criu="gives descriptors to threads that are not there yet",
    ),
    Case("tree_terminal.c"),
    Case(
        "tree_terminal.c", {"BEYOND_CRIU": "1"},
        not_criu="takes the terminal from all but the leader of a session, and changes what was typed and printed",
    ),
    *(
        Case("tree_dead_leader.c", environment, not_criu=LEADERLESS, criu_restores=True)
        for environment in ({}, {"ROOT": "1"})
    ),
    Case(
        "tree_dead_leader.c", {"KILLED": "1"}, not_criu=LEADERLESS,
        refused="a seccomp filter has killed its main thread alone",
    ),
    Case("tree_leaderless.c", not_criu=LEADERLESS, criu_restores=True),
    Case("tree_leaderless.c", {"BEYOND_CRIU": "1"}, not_criu=LEADERLESS),
]  # fmt: skip
TREES += in_own_pids(TREES, TREES_WITH_NUMBERS)
