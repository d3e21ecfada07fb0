"""The exports of a run, as its views list them."""

import json
from dataclasses import asdict, replace

import pytest

from llf_core.runs.exports import FILE, RecordedExport, exports_of, record_export

ONE = RecordedExport("/somewhere", "gguf", "2026-11-27T10:00:00+00:00", passed=True, bytes=12, step=4)


def test_the_newest_comes_first(folder, tmp_path):
    there = replace(ONE, folder=str(tmp_path), step=None)
    for one in (ONE, there):
        record_export(folder, one)
    assert exports_of(folder) == [there, ONE]
    assert [one.there for one in exports_of(folder)] == [True, False]


def test_a_folder_that_no_disk_can_have_is_not_there():
    assert not replace(ONE, folder="/" + "x" * 300).there


@pytest.mark.parametrize("wrong", [{"bytes": 10**400}, {"bytes": -1}, {"step": 10**400}, {"step": True}])
def test_a_number_that_no_view_can_write_costs_its_line(folder, wrong):
    record_export(folder, ONE)
    with (folder.path / FILE).open("a") as file:
        file.write(json.dumps(asdict(ONE) | wrong) + "\n")
    assert exports_of(folder) == [ONE]
