"""Restore: from an image set to running tasks, or to nothing at all.

The commit point is `StubTree.release`: until then everything that was created dies on any failure, and with criupy.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial

from criupy.errors import HookError, ImageError, PidInUse, PrivilegeError, RestoreError
from criupy.hooks import NOBODY, Hooks, Moment
from criupy.images.codec import BY_NAME
from criupy.images.directory import ImageDirectory, write_stats
from criupy.images.pages import PagesFile
from criupy.images.pb.inventory_pb2 import stats_entry
from criupy.linux import processes
from criupy.linux.capability import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN
from criupy.linux.features import probe
from criupy.linux.procfs import sysvipc
from criupy.log import Log, Report
from criupy.model.plan import NURSERY, RestorePlan, Stage, TaskPlan
from criupy.model.snapshot import Snapshot, load
from criupy.model.tasktree import PASSING
from criupy.options import Outside, RestoreOptions
from criupy.planner import plan
from criupy.resources import sysvshm, terminalrestore
from criupy.resources.namespaces import timens
from criupy.resources.registry import FILE_KINDS
from criupy.restoring import embedded, likeness
from criupy.restoring.builder import build
from criupy.restoring.revival import revive
from criupy.tracee import guardian
from criupy.tracee.stub import StubTree, table_space

_OWN_DESCRIPTORS = 64


@dataclass
class Stopwatch:
    """Durations of a restore, in microseconds."""

    started: float = field(default_factory=time.monotonic)
    forking: int = 0

    def passed(self) -> int:
        return int((time.monotonic() - self.started) * 1e6)


def restore(options: RestoreOptions, log: Log, report: Report, hooks: Hooks = NOBODY) -> int:
    """Restore the image set in ``options.images_dir``; returns the pid of its root, a child of ours (0: a plan only).

    It is the pid that we see, whatever the root's own pid namespace says.

    Raises `ImageError` before anything was created, `RestoreError` after everything created is gone; `HookError` when
    ``hooks`` do, with nothing left either.
    """
    watch = Stopwatch()
    features = probe()
    with ImageDirectory(options.images_dir) as directory:
        snapshot = _load(directory)
        FILE_KINDS.refuse_outside(snapshot, Outside(options.ext_unix_sk))
        clocks = None if options.host_clocks else timens.initial()
        segments = sysvipc.segments()
        the_plan = plan(snapshot, features, clocks, segments)
        if options.plan:
            report.line(str(the_plan))
            return 0
        for warning in the_plan.warnings:
            _note(log, report, warning)
        if not (features.has_capability(CAP_SYS_ADMIN) or features.has_capability(CAP_CHECKPOINT_RESTORE)):
            message = "CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE is needed to give a task its pid"
            raise PrivilegeError(message, hint="run criupy as root")
        _check_free(the_plan)
        sysvshm.check(snapshot, segments)
        for check in FILE_KINDS.checks(snapshot, build_ids=options.file_validation == "buildid"):
            check.run()
        FILE_KINDS.check_locks(snapshot)
        hooks.act("pre-restore", 0)
        with _outcome():
            root = _create(the_plan, snapshot, directory, options, watch, log, report, hooks)
        _after(hooks, "post-resume", root, log)
    _tell(the_plan, root, options, watch, log, report)
    return root


def _note(log: Log, report: Report, warning: str) -> None:
    log.warning(warning)
    report.line(f"Note: {warning}")


def _load(directory: ImageDirectory) -> Snapshot:
    snapshot = load(directory)
    with ExitStack() as stack:
        sets = [directory]
        snapshot = likeness.find(snapshot, cache(lambda file: _pages(stack, sets, file)))
    return embedded.replace(snapshot, directory)


@contextmanager
def _outcome() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note("Nothing of the tree was left behind; the images are untouched.")
        raise


def _check_free(the_plan: RestorePlan) -> None:
    """Says by whom a pid or tid is in use before anything is created; in a new pid namespace none is."""
    if the_plan.stub.own_pids:
        return
    numbers = [thread.tid for task in the_plan.tasks for thread in task.threads]
    for number in dict.fromkeys([*_born(the_plan), *numbers]):
        if os.path.exists(f"/proc/{number}"):
            message = f"pid {number} is in use by {processes.describe(number)}"
            hint = (
                "end that task (a zombie needs its parent to wait for it), or restore in a new pid namespace"
            )
            raise PidInUse(message, hint=hint)


def _born(the_plan: RestorePlan) -> Iterator[int]:
    """The pids with which tasks are born, in that order; those that the kernel may choose are not among them."""
    for step in the_plan.steps:
        if step.call == "clone3" and step.gives and step.gives.key < PASSING:
            yield step.gives.key


def _create(
    the_plan: RestorePlan,
    snapshot: Snapshot,
    directory: ImageDirectory,
    options: RestoreOptions,
    watch: Stopwatch,
    log: Log,
    report: Report,
    hooks: Hooks,
) -> int:
    """Make the tree, bring it to where every task is ready, and let it go; the pid of its root."""
    suspend_seccomp = any(step.stage is Stage.SECCOMP for step in the_plan.steps)
    space = _space(the_plan)
    unwanted = set() if the_plan.stub.own_pids else _numbers(the_plan)
    _make_room(the_plan)
    with ExitStack() as stack:
        sets = [directory]
        pages = [_pages(stack, sets, file) for file in the_plan.stub.pages]
        terminals, wanted = terminalrestore.Terminals(snapshot), the_plan.stub.terminals
        provided = terminalrestore.provide(terminals, wanted, shell_job=options.shell_job)
        given = stack.enter_context(provided)
        revived = stack.enter_context(
            revive(the_plan.stub.revived, snapshot, directory, partial(_note, log, report))
        )
        last = stack.enter_context(ExitStack())  # if not before, when the tree is gone
        tree = stack.enter_context(
            StubTree(the_plan.stub, [*pages, *given, *revived], space, suspend_seccomp=suspend_seccomp)
        )
        tree.create_nursery(unwanted)
        watch.forking = watch.passed()
        guard = partial(_guard_others, last, the_plan, tree)
        build(the_plan, tree, log, report, after_births=guard)
        root = tree.processes[the_plan.tasks[0].pid].pid
        hooks.act("post-restore", root)
        _after(hooks, "pre-resume", root, log)
        if options.pidfile is not None:
            _write_pidfile(options, root)
        with terminalrestore.taken_over(terminals, wanted, given):
            tree.release(the_plan.tasks, stopped=options.leave_stopped)
        last.close()
        return root


def _numbers(the_plan: RestorePlan) -> set[int]:
    """Every pid and tid of the tree, also those that are needed for a moment."""
    return {tid for task in the_plan.tasks for tid in (task.pid, *task.tids)} | {*the_plan.stub.helpers}


def _after(hooks: Hooks, moment: Moment, root: int, log: Log) -> None:
    """Moments at which it is too late to say no."""
    try:
        hooks.act(moment, root)
    except HookError as error:
        log.error(str(error))


def _guard_others(last: ExitStack, the_plan: RestorePlan, tree: StubTree) -> None:
    """What a restore makes dies with its tasks, and they with criupy; but segments and paths of sockets do not."""
    nursery = tree.processes[NURSERY]
    pids = [tree.processes[task.pid].pid for task in the_plan.tasks]
    settles = [FILE_KINDS.aftermath(the_plan.steps)]
    if any(step.call == "shmat" for step in the_plan.steps):
        settles.append(sysvshm.aftermath(the_plan.steps, nursery.pid))
    needed = [settle for settle in settles if settle is not None]
    if not needed:
        return

    def undo() -> None:
        guardian.end(nursery.pidfd)  # it may be about to make one
        if guardian.are_dead(pids):  # and have not just been let go
            for settle in needed:
                settle()

    last.enter_context(guardian.unless_done(undo))


def _space(the_plan: RestorePlan) -> int:
    """What the address space with the most threads needs for the tables of its stubs."""
    spaces: dict[int, list[TaskPlan]] = {}
    for task in the_plan.tasks:
        spaces.setdefault(task.memory or task.pid, []).append(task)
    return max(
        table_space(sum(len(task.threads) for task in tasks), len(tasks) - 1) for tasks in spaces.values()
    )


def _make_room(the_plan: RestorePlan) -> None:
    """Descriptors of the nursery, of every task, and our own: two for each process, and the pages files twice."""
    own = _OWN_DESCRIPTORS + 2 * len(the_plan.tasks) + 3 * the_plan.stub.given
    holding = [step for step in the_plan.steps if step.stage is Stage.HOLD]
    targets = (step.args[1] for step in holding if step.call == "dup3")
    lent = max((number for number in targets if isinstance(number, int)), default=0)
    needed = max(the_plan.stub.nursery_fd + 1, own, the_plan.stub.given + len(holding) + 1, lent + 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))


def _pages(stack: ExitStack, sets: list[ImageDirectory], file: PagesFile) -> int:
    """A descriptor of a pages file; ``sets`` are the image set and the parents that were needed so far."""
    while file.depth >= len(sets):
        parent = sets[-1].parent()
        if parent is None:
            raise ImageError(str(file), "is in a parent set, but there is none")
        sets.append(stack.enter_context(parent))
    name = BY_NAME["PAGES"].file_name(file.pages_id)
    descriptor = sets[file.depth].open_fd(name)
    if descriptor is None:
        raise ImageError(name, "is missing")
    stack.callback(os.close, descriptor)
    return descriptor


def _write_pidfile(options: RestoreOptions, pid: int) -> None:
    name = os.path.join(options.work_dir, options.pidfile or "")
    try:
        processes.write_pidfile(name, pid)
    except OSError as error:
        raise RestoreError(f"the pidfile {name} cannot be written", errno=error.errno or 0) from error


def _tell(
    the_plan: RestorePlan, root: int, options: RestoreOptions, watch: Stopwatch, log: Log, report: Report
) -> None:
    content = sum(step.expect or 0 for step in the_plan.steps if step.call == "pread64")
    stats = stats_entry()
    stats.restore.pages_compared = 0
    stats.restore.pages_skipped_cow = 0
    stats.restore.forking_time = watch.forking
    stats.restore.restore_time = watch.passed()
    stats.restore.pages_restored = content >> 12
    write_stats(options.work_dir, "stats-restore", stats)
    log.info("Restore finished successfully. Tasks resumed.")
    count = sum(len(task.threads) for task in the_plan.tasks)
    born = len({*_born(the_plan)} - {*the_plan.stub.helpers})
    what = f"{born} tasks from {root} on" if born > 1 else f"task {root}"
    threads = f"{count} thread{'s' * (count != 1)}"
    seconds = watch.passed() / 1e6
    report.line(f"Restored {what}: {threads}, {content / (1 << 20):.1f} MiB of memory, in {seconds:.2f} s.")
    if options.display_stats:
        for line in _statistics(stats):
            report.line(line)


def _statistics(stats: stats_entry) -> Iterator[str]:
    entry = stats.restore
    yield "Displaying restore stats:"
    yield f"Pages compared: {entry.pages_compared} (0x{entry.pages_compared:x})"
    yield f"Pages skipped COW: {entry.pages_skipped_cow} (0x{entry.pages_skipped_cow:x})"
    yield f"Pages restored: {entry.pages_restored} (0x{entry.pages_restored:x})"
    yield f"Restore time: {entry.restore_time} us"
    yield f"Forking time: {entry.forking_time} us"
