"""Log lines in criu's form."""

from __future__ import annotations

import re

from criupy.log import DEBUG, WARNING, Log


def opened(tmp_path, level: int) -> tuple[Log, list[str]]:
    log = Log(level)
    log.warning("before the log was open")
    log.open(str(tmp_path), "dump.log")
    log.error("first")
    log.error("second\nline")
    log.info("information")
    log.close()
    return log, (tmp_path / "dump.log").read_text().splitlines()


def test_stamped_lines_have_a_stamp_of_twelve_characters(tmp_path):
    log, lines = opened(tmp_path, DEBUG)
    assert all(re.match(r"\(\d\d\.\d{6}\) ", line) for line in lines)
    texts = [line[12:] for line in lines]
    assert texts[0] == f"CRIU run id = {log.run_id}"
    assert texts[1].startswith("Version: ")
    assert texts[2].startswith("Running on ")
    assert re.fullmatch(r"Warn  \(test_log.py:\d+\): before the log was open", texts[3])
    assert re.fullmatch(r"Error \(test_log.py:\d+\): first", texts[4])
    assert texts[6] == "line"
    assert texts[7] == "information"
    assert log.first_error == texts[4]


def test_below_information_there_is_no_stamp(tmp_path):
    _, lines = opened(tmp_path, WARNING)
    assert [line.split(" ")[0] for line in lines] == ["Warn", "Error", "Error", "line"]


def test_the_stamp_keeps_its_width_after_a_hundred_seconds(tmp_path, monkeypatch):
    log = Log(DEBUG)
    log.open(str(tmp_path), "x.log")
    monkeypatch.setattr("criupy.log.time.monotonic", lambda: log._start + 123.456789)
    log.info("late")
    log.close()
    assert (tmp_path / "x.log").read_text().splitlines()[-1] == "(123.45678) late"


def test_without_a_log_early_lines_go_to_stderr(capsys):
    log = Log(WARNING)
    log.error("an option is wrong")
    log.close()
    assert "an option is wrong" in capsys.readouterr().err


def test_the_log_is_private_and_follows_no_link(tmp_path):
    opened(tmp_path, WARNING)
    assert (tmp_path / "dump.log").stat().st_mode & 0o777 == 0o600
