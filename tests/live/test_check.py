"""``criupy check`` says what is there and names what is not."""

from __future__ import annotations

import errno

from criupy import checking
from criupy.linux import syscalls


def test_looks_good_here(criupy, place):
    for words in (("check",), ("check", "--ms")):
        outcome = criupy.run(*words, cwd=place)
        assert (outcome.returncode, outcome.output) == (0, "Looks good.\n")


def test_every_missing_thing_has_a_name_a_purpose_and_a_remedy(monkeypatch):
    def absent(*_: object) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(syscalls, "kcmp_file", absent)
    monkeypatch.setattr(syscalls, "has_clone3_set_tid", lambda: False)
    assert [item.name for item in checking.missing()] == ["kcmp", "clone3 with set_tid"]
    for item in checking.missing():
        assert f"{item.name} is missing: needed to " in str(item)
        assert item.remedy in str(item)
