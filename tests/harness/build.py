"""Builds the target programs of ``tests/programs``, once per content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "programs"
BUILT = ROOT / "build" / "programs"
CFLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")
# What scripts call that a small Debian may lack.
TOOLS = {
    "tmux_server.sh": ["bash", "tmux"],
    "bash_pipeline.sh": ["bash"],
    "make_builds.sh": ["bash", "make"],
    "followers.sh": ["bash", "inotifywait"],
}


# Its performance counters would be a file in /tmp, which it deletes when it sees a process with its pid gone.
JAVA = ["java", "-Xmx64m", "-XX:-UsePerfData"]


class ToolMissing(Exception):
    """A compiler is not on this machine; the message names it."""


def argv_of(program: str) -> list[str]:
    """The command of ``tests/programs/PROGRAM``: built if it is C, Go or Java, else interpreted."""
    source = PROGRAMS / program
    match source.suffix:
        case ".c":
            return [
                _built(source, "gcc", ["gcc", *CFLAGS, "-o", "OUTPUT", str(source), "-lrt"], headers=True)
            ]
        case ".go":
            return [_built(source, "go", ["go", "build", "-o", "OUTPUT", str(source)])]
        case ".java":
            classes = _built(source, "javac", ["javac", "-d", "OUTPUT", str(source)])
            return [*JAVA, "-cp", classes, source.stem]
        case ".js":
            if shutil.which("node") is None:
                raise ToolMissing("node is missing")
            return ["node", str(source)]
        case ".py":
            return [os.path.realpath(sys.executable), "-I", str(source)]
        case ".sh":
            if missing := [tool for tool in TOOLS.get(program, ()) if shutil.which(tool) is None]:
                raise ToolMissing(f"{', '.join(missing)} is missing")
            return ["bash", str(source)]
    raise ValueError(f"{program}: neither C, Go, Java, JavaScript, Python nor bash")


def _built(source: Path, tool: str, command: list[str], *, headers: bool = False) -> str:
    if shutil.which(tool) is None:
        raise ToolMissing(f"{tool} is missing")
    digest = hashlib.sha256(" ".join(command).encode())
    for file in [source, *(sorted(PROGRAMS.glob("*.h")) if headers else [])]:
        digest.update(file.read_bytes())
    output = BUILT / f"{source.stem}-{digest.hexdigest()[:12]}"
    if not output.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        partial = output.with_suffix(f".{os.getpid()}")
        environment = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": ""}
        environment.setdefault("GOCACHE", str(BUILT / "go-cache"))
        command = [str(partial) if word == "OUTPUT" else word for word in command]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=110, check=False
        )
        if done.returncode != 0:
            raise AssertionError(f"{source.name} does not build:\n{done.stderr}")
        partial.rename(output)
    return str(output)
