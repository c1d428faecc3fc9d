"""``--action-script``: programs that are run at the moments of a dump or restore.

They get no arguments but the moment in CRTOOLS_SCRIPT_ACTION, the directory of the images in CRTOOLS_IMAGE_DIR and,
once there is one, the pid of the root task in CRTOOLS_INIT_PID; their output goes to the log.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from criupy.errors import HookError, UsageError
from criupy.hooks import NOBODY, Hooks, Moment
from criupy.log import Log


@dataclass(frozen=True)
class Scripts:
    """Hooks: all of them run at every moment, the last one first; one that fails says no."""

    paths: Sequence[str]
    images: int
    work_dir: str
    log: Log
    are_set = True

    def act(self, moment: Moment, pid: int) -> None:
        if moment == "query-ext-files":
            return  # a question for clients of the service
        failed = [path for path in reversed(self.paths) if not self._run(path, moment, pid)]
        if failed:
            raise HookError(
                f"{', '.join(failed)} did not agree to {moment}",
                exit_code=255 if moment == "post-dump" else 1,
            )

    def _run(self, path: str, moment: Moment, pid: int) -> bool:
        import subprocess

        environment = {
            **os.environ,
            "CRTOOLS_SCRIPT_ACTION": moment,
            "CRTOOLS_IMAGE_DIR": f"/proc/{os.getpid()}/fd/{self.images}",
        }
        if pid:
            environment["CRTOOLS_INIT_PID"] = str(pid)
        self.log.debug(f"Running {path} for {moment}")
        output = self.log.descriptor
        try:
            status = subprocess.run(
                [path], cwd=self.work_dir, env=environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
            ).returncode  # fmt: skip
        except OSError as error:
            self.log.error(f"the action script {path} cannot be run: {error.strerror}")
            return False
        if status:
            ending = f"exit code {status}" if status > 0 else f"signal {-status}"
            self.log.error(f"the action script {path} ended with {ending} at {moment}")
        return status == 0


def hooks(paths: Sequence[str], images_dir: str, work_dir: str, log: Log) -> Hooks:
    """The scripts as hooks; nobody if there are none.  `UsageError` if there is no such directory."""
    if not paths:
        return NOBODY
    try:  # open as long as criupy runs
        images = os.open(images_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{images_dir}: {error.strerror}") from error
    return Scripts(paths, images, work_dir, log)
