"""Criupy's crit and the real one say the same of the same images, and read what the other encodes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import engine
from unit.images import arbitrary

from criupy.cli.crit import crit as command
from criupy.images.codec import ImageKind, encode_image

RECORDED = Path(__file__).parents[1] / "data/criu/images-4.2"

NO_HANDLER = {"PIDFD", "SIGNAL", "PSIGNAL", "BINFMT_MISC", "BINFMT_MISC_OLD"}
"""Kinds that the real crit cannot decode."""
NO_ENCODER = {"BPFMAP_DATA", "IPCNS_SHM"}
"""Kinds that it decodes, but cannot encode."""

KINDS = [kind for kind in arbitrary.readable_kinds() if kind.name not in NO_HANDLER]


@pytest.fixture(scope="session")
def real():
    """The real crit: arguments to standard output."""
    peer = engine.criu()
    program = Path(peer.path).with_name("crit") if peer else None
    if program is None or not program.exists():
        pytest.skip("needs criu's crit beside criu: scripts/real-criu")

    def run(*arguments: str | os.PathLike[str]) -> bytes:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode().strip().split("\n")[-1]
        return done.stdout

    return run


def ours(*arguments: object) -> bytes:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout_bytes


def same_text(real, image: Path, *commands: str) -> None:
    for command_line in commands:
        arguments = command_line.split()
        assert ours(*arguments, image) == real(*arguments, image), f"{arguments} {image.name}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.file_name(*[1] * kind.pattern.count("%")))
def test_arbitrary_images(real, kind: ImageKind, tmp_path: Path) -> None:
    image, text, again = tmp_path / "image", tmp_path / "text", tmp_path / "again"
    image.write_bytes(encode_image(kind, arbitrary.records(kind, seed=1)))
    same_text(real, image, "decode -i", "decode --pretty -i")
    if kind.name in NO_ENCODER:
        return
    ours("decode", "--pretty", "-i", image, "-o", text)
    real("encode", "-i", text, "-o", again)
    assert ours("decode", "-i", again) == ours("decode", "-i", image)


@pytest.mark.parametrize(
    "image",
    [
        path
        for path in sorted(RECORDED.iterdir())
        if path.suffix != ".c" and not path.name.startswith("pages-")
    ],
    ids=lambda path: path.name,
)
def test_recorded_images(real, image: Path) -> None:
    same_text(real, image, "decode --pretty -i")
    if b'"extra"' in ours("decode", "-i", image):
        same_text(real, image, "show --nopl")
    if image.name.startswith("pagemap-"):
        assert ours("info", image) == real("info", image)
