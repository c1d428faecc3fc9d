"""The schema is CRIU's, field by field; what is generated from it and written about it is current."""

from __future__ import annotations

import csv
import filecmp
import re
import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from criupy.images.codec import BY_NAME, COMMON_MAGIC, KINDS, SERVICE_MAGIC, message_class
from criupy.images.display import BINARY, FORMS
from criupy.images.text import OWN_FIELDS

ROOT = Path(__file__).parents[3]
TABLES = ROOT / "tests/data/criu"
MODULES = sorted(path.stem for path in (ROOT / "proto").glob("*.proto"))
TYPES = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def table(name):
    with (TABLES / name).open() as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def descriptors():
    """Message descriptors by CRIU's name."""
    found = {}
    for module in MODULES:
        file = __import__(f"criupy.images.pb.{module}_pb2", fromlist=["DESCRIPTOR"]).DESCRIPTOR
        found |= file.message_types_by_name
    return found


def enums():
    found = {}
    for module in MODULES:
        file = __import__(f"criupy.images.pb.{module}_pb2", fromlist=["DESCRIPTOR"]).DESCRIPTOR
        found |= file.enum_types_by_name
        for message in file.message_types_by_name.values():
            found |= {f"{message.name}.{enum.name}": enum for enum in message.enum_types}
    return found


def label(field):
    return "required" if field.is_required else "repeated" if field.is_repeated else "optional"


def type_name(field):
    kind = field.message_type or field.enum_type
    return kind.full_name.removeprefix("criupy.") if kind else TYPES[field.type]


def default(field):
    if not field.has_default_value:
        return ""
    if field.enum_type:
        return field.enum_type.values_by_number[field.default_value].name
    return str(field.default_value).lower()


def expected_fields():
    """Rows of the table; field options have a table of their own here instead of CRIU_Opts."""
    return [row for row in table("messages.tsv") if row["message"] != "CRIU_Opts"]


def test_every_field_is_as_in_the_table():
    found = descriptors()
    for row in expected_fields():
        where = f"{row['message']}.{row['field']}"
        field = found[row["message"]].fields_by_name[row["field"]]
        assert (field.number, label(field), default(field)) == (
            int(row["number"]),
            row["label"],
            row["default"],
        ), where
        assert type_name(field) in (row["type"], "bytes" if row["type"] == "string" else row["type"]), where


def test_there_is_nothing_more_than_in_the_table():
    expected = {(row["message"], row["field"]) for row in expected_fields()}
    found = {
        (name, field.name)
        for name, message in descriptors().items()
        for field in message.fields
        if field.number < OWN_FIELDS
    }
    assert found == expected


def test_enums_are_as_in_the_table():
    expected = {(row["enum"], row["name"], int(row["value"])) for row in table("enums.tsv")}
    found = {(name, value.name, value.number) for name, enum in enums().items() for value in enum.values}
    assert found == expected


def test_display_forms_are_as_in_the_table():
    expected = {
        f"{r['message']}.{r['field']}": r["display_option"] for r in expected_fields() if r["display_option"]
    }
    assert expected == FORMS


def test_binary_fields_are_what_the_table_calls_bytes():
    expected = {f"{row['message']}.{row['field']}" for row in expected_fields() if row["type"] == "bytes"}
    own = {
        f"{name}.{field.name}"
        for name, message in descriptors().items()
        for field in message.fields
        if field.number >= OWN_FIELDS and TYPES[field.type] == "bytes"
    }
    assert expected | own == BINARY


def test_every_kind_of_file_is_as_in_the_table():
    by_pattern = {kind.pattern: kind for kind in KINDS}
    rows = {row["kind"]: row for row in table("image-files.tsv")}
    assert int(rows.pop("(head)")["magic"], 16) == SERVICE_MAGIC
    for name, row in rows.items():
        if name in ("PAGES_OLD", "SHM_PAGES_OLD"):  # never written by any CRIU that this reads
            continue
        for pattern in re.sub("%l[ud]", "%u", row["file_name (printf style)"]).split(", "):
            kind = by_pattern[pattern]
            assert kind.name == name
            assert kind.magic == (int(row["magic"], 16) if row["magic"] else None), name
            assert kind.head == (
                SERVICE_MAGIC
                if "service" in row["note"]
                else 0
                if name == "INVENTORY" or kind.magic is None
                else COMMON_MAGIC
            )
            assert kind.legacy == ("legacy" in row["note"]), name
            messages = [path.partition(".")[2] for path in (kind.message, kind.then) if path]
            if row["message"] and kind.magic is not None and "(old)" not in row["message"]:
                assert ", then ".join(messages) == row["message"]


def test_every_message_of_a_kind_exists():
    for kind in KINDS:
        for path in filter(None, (kind.message, kind.then)):
            assert message_class(path).DESCRIPTOR.name == path.partition(".")[2]
    assert BY_NAME["PAGEMAP"].pattern == "pagemap-%u.img"


def test_own_fields_are_written_down():
    text = (ROOT / "docs/own-fields.md").read_text()
    written = re.findall(r"^\| (\w+_entry) \| (\w+) \| (\d+) \|", text, re.MULTILINE)
    found = [
        (name, field.name, str(field.number))
        for name, message in descriptors().items()
        for field in message.fields
        if field.number >= OWN_FIELDS
    ]
    assert sorted(written) == sorted(found)
    assert not any(
        field.is_required
        for message in descriptors().values()
        for field in message.fields
        if field.number >= OWN_FIELDS
    )


def test_generated_code_is_current(tmp_path):
    pytest.importorskip("grpc_tools")
    subprocess.run([ROOT / "scripts/generate-proto", tmp_path], check=True, timeout=60)
    committed, fresh = ROOT / "criupy/images/pb", tmp_path / "criupy/images/pb"
    names = sorted(path.name for path in committed.glob("*_pb2.py*"))
    assert names == sorted(path.name for path in fresh.iterdir())
    assert filecmp.cmpfiles(committed, fresh, names, shallow=False)[1:] == ([], [])
