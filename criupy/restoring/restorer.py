"""Restore: from an image set to running tasks, or to nothing at all.

The commit point is `StubTree.release`: until then everything that was created dies on any failure, and with criupy.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from criupy.errors import PidInUse, PrivilegeError, RestoreError
from criupy.images.directory import ImageDirectory, write_stats
from criupy.images.pb.inventory_pb2 import stats_entry
from criupy.linux import processes
from criupy.linux.capability import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN
from criupy.linux.features import probe
from criupy.log import Log, Report
from criupy.model.plan import Ref, RestorePlan, Stage, Step, TaskPlan
from criupy.model.snapshot import Snapshot, load
from criupy.options import RestoreOptions
from criupy.planner import plan
from criupy.resources.fileplan import SPARE_NUMBERS
from criupy.resources.registry import FILE_KINDS
from criupy.restoring.runner import Answers, run_queues, run_stage
from criupy.tracee.stub import StubThread, StubTree

_WORTH_A_SECOND_THREAD = 8 << 20


@dataclass
class Stopwatch:
    """Durations of a restore, in microseconds."""

    started: float = field(default_factory=time.monotonic)
    forking: int = 0

    def passed(self) -> int:
        return int((time.monotonic() - self.started) * 1e6)


def restore(options: RestoreOptions, log: Log, report: Report) -> int:
    """Restore the image set in ``options.images_dir``; returns the pid of its root, a child of ours (0: a plan only).

    Raises `ImageError` before anything was created, `RestoreError` after everything created is gone.
    """
    watch = Stopwatch()
    features = probe()
    with ImageDirectory(options.images_dir) as directory:
        snapshot = load(directory)
        the_plan = plan(snapshot, features)
        if options.plan:
            report.line(str(the_plan))
            return 0
        for warning in the_plan.warnings:
            log.warning(warning)
            report.line(f"Note: {warning}")
        if not (features.has_capability(CAP_SYS_ADMIN) or features.has_capability(CAP_CHECKPOINT_RESTORE)):
            message = "CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE is needed to give a task its pid"
            raise PrivilegeError(message, hint="run criupy as root")
        for task in the_plan.tasks:
            _check_free(task)
        for check in FILE_KINDS.checks(snapshot):
            check.run()
        with _outcome():
            root = _create(the_plan, snapshot, directory, options, watch, log)
    _tell(the_plan, options, watch, log, report)
    return root


@contextmanager
def _outcome() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note("Nothing of the tree was left behind; the images are untouched.")
        raise


def _check_free(task: TaskPlan) -> None:
    """Says by whom a pid or tid is in use before anything is created."""
    for number in (thread.tid for thread in task.threads):
        if os.path.exists(f"/proc/{number}"):
            message = f"pid {number} is in use by {processes.describe(number)}"
            hint = (
                "end that task (a zombie needs its parent to wait for it), or restore in a new pid namespace"
            )
            raise PidInUse(message, hint=hint)


def _create(
    the_plan: RestorePlan,
    snapshot: Snapshot,
    directory: ImageDirectory,
    options: RestoreOptions,
    watch: Stopwatch,
    log: Log,
) -> int:
    """Make the tree, bring it to where every task is ready, and let it go; returns the pid of its root."""
    (task,) = the_plan.tasks
    suspend_seccomp = any(step.stage is Stage.SECCOMP for step in the_plan.steps)
    with ExitStack() as stack:
        pages = stack.enter_context(_open_pages(snapshot, directory))
        tree = stack.enter_context(StubTree(task, dict(pages.values()), suspend_seccomp=suspend_seccomp))
        leader = tree.create_root()
        watch.forking = watch.passed()
        log.info(f"Created task {task.pid}")
        _run(the_plan, tree, leader, Answers({ref: number for ref, (number, _) in pages.items()}), log)
        if options.pidfile is not None:
            _write_pidfile(options, task.pid)
        tree.release(stopped=task.stopped or options.leave_stopped)
    return task.pid


@contextmanager
def _open_pages(snapshot: Snapshot, directory: ImageDirectory) -> Iterator[dict[Ref, tuple[int, int]]]:
    """For each pages file, the number that it gets in the task, above all of the task's own, and our descriptor."""
    task = snapshot.root
    number = max((info.fd for info in snapshot.fds(task)), default=-1) + 1 + SPARE_NUMBERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft <= number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert task.pagemap is not None
    descriptor = directory.open_fd(task.pagemap.pages_file)
    if descriptor is None:
        yield {}
        return
    try:
        yield {Ref("pages", task.pagemap.pages_id): (number, descriptor)}
    finally:
        os.close(descriptor)


def _run(the_plan: RestorePlan, tree: StubTree, leader: StubThread, answers: Answers, log: Log) -> None:
    stages = dict(the_plan.stages())
    for stage in Stage:
        steps = stages.get(stage, [])
        log.debug(f"{stage.name.lower()}: {len(steps)} steps")
        if stage is Stage.THREADS:
            tree.create_threads()
        elif stage is Stage.CONTENT:
            _fill(steps, tree, leader, answers)
            closing = [
                Step(leader.tid, stage, "close", (ref,)) for ref in answers.values if ref.kind == "pages"
            ]
            run_stage(closing, tree.threads, answers)
        else:
            run_stage(steps, tree.threads, answers)


def _fill(steps: Sequence[Step], tree: StubTree, leader: StubThread, answers: Answers) -> None:
    """Page contents, by two threads of the address space where there is much of it."""
    total = sum(step.expect or 0 for step in steps)
    if total < _WORTH_A_SECOND_THREAD:
        run_queues([(leader, steps)], answers)
        return
    with tree.extra_thread() as second:
        run_queues([(leader, steps[::2]), (second, steps[1::2])], answers)


def _write_pidfile(options: RestoreOptions, pid: int) -> None:
    name = os.path.join(options.work_dir, options.pidfile or "")
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RestoreError(f"the pidfile {name} cannot be written", errno=error.errno or 0) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(str(pid))


def _tell(the_plan: RestorePlan, options: RestoreOptions, watch: Stopwatch, log: Log, report: Report) -> None:
    (task,) = the_plan.tasks
    content = sum(step.expect or 0 for step in the_plan.steps if step.stage is Stage.CONTENT)
    stats = stats_entry()
    stats.restore.pages_compared = 0
    stats.restore.pages_skipped_cow = 0
    stats.restore.forking_time = watch.forking
    stats.restore.restore_time = watch.passed()
    stats.restore.pages_restored = content >> 12
    write_stats(options.work_dir, "stats-restore", stats)
    log.info("Restore finished successfully. Tasks resumed.")
    threads = f"{len(task.threads)} thread{'s' * (len(task.threads) != 1)}"
    seconds = watch.passed() / 1e6
    report.line(
        f"Restored task {task.pid}: {threads}, {content / (1 << 20):.1f} MiB of memory, in {seconds:.2f} s."
    )
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
