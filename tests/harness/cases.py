"""The small programs, one per kernel object, that live and interop tests share."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """A program with its environment; why a real criu cannot do it (at all, or with --leave-running)."""

    program: str
    environment: dict[str, str] = field(default_factory=dict)
    not_criu: str = ""
    not_criu_running: str = ""

    def __str__(self) -> str:
        return "-".join([self.program.removesuffix(".c"), *map(str.lower, self.environment)])


PROGRAMS = [
    "alternate_stacks.c", "chrooted.c", "clocks.c", "credentials.c", "epoll.c", "event_counters.c", "fpu_state.c",
    "guard_regions.c", "huge_pages.c", "identity.c", "interval_timers.c", "layout.c", "limits.c",
    "memory_advice.c", "memory_barriers.c", "memory_kinds.c", "pipes.c", "posix_timers.c", "regular_files.c",
    "restartable_sequences.c", "scheduling.c", "seccomp_filter.c", "seccomp_shared.c", "seccomp_strict.c",
    "shared_descriptions.c", "signals.c", "thread_ends.c", "zero_memory.c",
]  # fmt: skip
BEYOND_CRIU = {
    "event_counters.c": "has no place for an eventfd's flag and the upper half of its count",
    "identity.c": "does not restore timer slack and personality",
    "pipes.c": "refuses packets",
    "regular_files.c": "drops O_DIRECTORY",
    "scheduling.c": "does not restore affinity",
    "signals.c": "resets an ignored SIGTRAP",
    "credentials.c": "asks for limits of another user's task, which takes CAP_SYS_RESOURCE",
}
CASES = [
    *map(Case, PROGRAMS),
    *(Case(program, {"BEYOND_CRIU": "1"}, not_criu=reason) for program, reason in BEYOND_CRIU.items()),
    Case("credentials.c", {"BEYOND_CRIU": "1", "THREADS": "1"}, not_criu=BEYOND_CRIU["credentials.c"]),
    Case("locked_privileges.c", not_criu=BEYOND_CRIU["credentials.c"]),
    Case("thread_clock.c", not_criu="makes the timer one of the main thread's CPU time"),
    Case("blocked_calls.c", not_criu_running="ends blocked calls with EINTR"),
]
