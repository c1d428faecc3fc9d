"""Spellings of the command line."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from criupy.cli.arguments import log_options, parameters, spelled
from criupy.cli.main import cli
from criupy.options import OPTIONS


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (["-v"], 3),
        (["-vv"], 4),
        (["-v", "-v"], 4),
        (["-v4"], 4),
        (["-v0"], 0),
        (["-verbosity=0"], 0),
        (["--verbosity=1"], 1),
        (["--verbosity"], 3),
    ],
)
def test_verbosity(words, level):
    assert spelled(["dump", *words])[-1] == f"--verbosity={level}"


def test_words_behind_two_dashes_are_left_alone():
    assert spelled(["restore", "--", "-v"]) == ["restore", "--", "-v"]


def parsed(command: str, *words: str) -> dict[str, object]:
    seen: dict[str, object] = {}
    verb = click.Command(command, callback=lambda **values: seen.update(values), params=parameters(command))
    verb.main(spelled(words), standalone_mode=False)
    return seen


@pytest.mark.parametrize("command", ["dump", "restore", "check", "service"])
def test_every_option_has_its_default(command):
    values = parsed(command)
    for option in OPTIONS:
        if command in option.commands:
            default = () if option.kind == "list" else option.default
            assert values[option.field] == default, option.name


def test_short_and_long_spellings_mean_the_same():
    long = parsed(
        "dump", "--tree", "5", "--images-dir", "d", "--log-file", "l", "--leave-running", "--work-dir=w"
    )
    assert long == parsed("dump", "-t5", "-Dd", "-ol", "-R", "-Ww")
    assert (long["tree"], long["images_dir"], long["leave_running"]) == (5, "d", True)


def test_log_and_statistics_go_to_the_work_directory_or_to_the_images():
    assert log_options(parsed("dump", "-D", "d")).work_dir == "d"
    assert log_options(parsed("dump", "-D", "d", "-W", "w")).work_dir == "w"
    assert log_options(parsed("dump")).work_dir == "."


def test_every_verb_has_a_help():
    for verb in ("dump", "restore", "check", "show", "crit"):
        result = CliRunner().invoke(cli, [verb, "--help"])
        assert result.exit_code == 0, result.output
        assert result.output.startswith("Usage:")
