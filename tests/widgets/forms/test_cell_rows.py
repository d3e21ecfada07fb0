"""Rows of a cell in the form: shown, looked at, mapped, started, swept; and what is said of rows that are none."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import llf_core.launch
import llf_core.launch.parameter_sweep
from llf_core.config import RunConfig
from llf_core.launch import Run
from llf_core.runs import create_run
from llf_widgets.forms import Studio
from llf_widgets.forms.column_mapping import find_columns
from llf_widgets.forms.state import FormState
from llf_widgets.start import train

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"instruction": f"{n}?", "output": f"{n}!"} for n in range(40)]
ODD = [{"q": f"{n}?", "gold_reply": f"{n}!", "lang": "en"} for n in range(40)]


def tell(widget: Any, *, buffers: tuple[bytes, ...] = (), **content: Any) -> None:
    widget._handle_custom_msg(content, list(buffers))


def row(studio: Studio, key: str) -> dict[str, Any]:
    return next(one for section in studio._sections.values() for one in section._rows if one["key"] == key)


def started(config: Any) -> tuple[RunConfig, list[dict[str, Any]]]:
    """What `llf.train` would train on."""
    import pyarrow.parquet as pq

    loaded = RunConfig.load(config)
    (name,) = loaded.data.dataset
    return loaded, pq.read_table(name).to_pylist()


@pytest.mark.parametrize("rows", [ROWS, pd.DataFrame(ROWS), tuple(ROWS)], ids=["dicts", "frame", "tuple"])
def test_rows_are_the_data_set(rows: Any) -> None:
    state = FormState({"dataset": rows, "lora_rank": 4})
    assert state.errors() == ()
    assert state.text("dataset") == "40 rows from this cell"
    assert '"dataset": rows,' in state.python()
    config, held = started(state.yaml())
    assert (held, config.get("lora_rank")) == (ROWS, 4)


def test_a_dataset_of_hugging_face_is_taken_too() -> None:
    from datasets import Dataset

    state = FormState({"dataset": Dataset.from_list(ROWS)})
    assert (state.text("dataset"), state.errors()) == ("40 rows from this cell", ())


def test_the_same_rows_are_kept_once() -> None:
    first, again = FormState({"dataset": ROWS}), FormState({"dataset": [dict(one) for one in ROWS]})
    assert first.config_values["dataset"] == again.config_values["dataset"]


def test_rows_can_be_left_and_taken_again_by_their_words(tmp_path: Path) -> None:
    studio = Studio({"dataset": ROWS})
    shown = row(studio, "dataset")
    assert (shown["text"], shown["suggestions"][0]) == ("40 rows from this cell", "40 rows from this cell")
    data = studio._sections["Data"]
    tell(data, type="edit", key="dataset", text="llf_demo")
    assert not studio.state.uses_cell_rows
    assert '"dataset": "llf_demo"' in studio._text._python
    tell(data, type="edit", key="dataset", text="40 rows from this cell")
    assert studio.state.uses_cell_rows
    tell(studio._presets, type="preset", name="lora")
    assert studio.state.uses_cell_rows  # a preset leaves the data alone


def test_start_and_sweep_hand_the_rows_to_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    got: list[tuple[Any, Any]] = []

    def launch(config: Any, *, rows: Any = None, **more: Any) -> Run:
        got.append((config, rows))
        loaded = RunConfig.load(config, [] if rows is None else ["dataset=rows.jsonl"])
        return Run(create_run(loaded.yaml(defaults=True), more["name"]))

    monkeypatch.setattr(llf_core.launch, "launch", launch)
    monkeypatch.setattr(llf_core.launch.parameter_sweep, "launch", launch)
    studio = Studio({"dataset": ROWS})
    studio.start()
    studio.sweep({"seed": [1, 2]})
    assert [rows.to_pylist() for _, rows in got] == [ROWS, ROWS, ROWS]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "The data set has no rows. Expected at least one."),
        ([{"a": 1}, "b"], "Row 2 of the data set is a str. Expected a dict."),
        ([{"a": 1}, ["b"]], "Row 2 of the data set is a list. Expected a dict."),
        ([{"a": 1}, {"a": "b"}], "Column 'a' of the data set cannot be converted to a column: "),
        ({"a": [1]}, "The data set is a dict. Expected a list of dicts, a DataFrame or a Dataset."),
        (7, "The data set is a int. Expected a list of dicts, a DataFrame or a Dataset."),
    ],
)
def test_rows_that_are_none_are_told_beside_the_field(rows: Any, said: str) -> None:
    studio = Studio({"dataset": rows})
    (message,) = row(studio, "dataset")["messages"]
    assert message["text"].startswith(said)
    assert message["level"] == "error"
    assert not studio._start.ready
    tell(studio._sections["Data"], type="edit", key="dataset", text="llf_demo")
    assert row(studio, "dataset")["messages"] == []  # it was said of what the field held
    assert studio._start.ready


def test_odd_columns_are_mapped_and_the_mapping_ends_up_in_the_config() -> None:
    studio = Studio({"dataset": ODD})
    (message,) = row(studio, "dataset")["messages"]
    assert message["text"].startswith("The data set (rows of the cell) has the columns q, gold_reply, lang")
    pane = studio._columns
    assert pane._expanded
    assert pane._view["names"] == ["q", "gold_reply", "lang"]
    assert pane._view["rows"] == [[f"{n}?", f"{n}!", "en"] for n in range(3)]
    # proposed by their names, and nothing of it counts before Apply
    chosen = {role: column for role, _, _, column in pane._view["roles"]}
    assert (chosen["prompt"], chosen["response"]) == ("q", "gold_reply")
    assert "dataset_columns" not in studio.state.config_values
    tell(pane, type="role", role="response", column="lang")
    tell(pane, type="role", role="response", column="")
    assert pane._view["missing"] == ["Response"]
    tell(pane, type="apply")
    assert "dataset_columns" not in studio.state.config_values
    tell(pane, type="role", role="response", column="gold_reply")
    tell(pane, type="apply")
    assert studio._start.ready
    assert not pane._expanded
    assert pane._view["summary"] == "Read as alpaca: prompt from `q`, response from `gold_reply`."
    assert studio.config.get("dataset_columns") == {"prompt": "q", "response": "gold_reply"}
    tell(pane, type="reset")
    assert not studio._start.ready


def test_python_pane_trains_what_the_form_trains() -> None:
    state = FormState({"dataset": ODD})
    state.apply({"dataset_format": "alpaca", "dataset_columns": {"prompt": "q", "response": "gold_reply"}})
    seen: dict[str, Any] = {}
    code = state.python().replace("import llf_widgets as llf\n", "").replace("llf.Monitor(run)\n", "")
    exec(code, {"rows": ODD, "llf": type("llf", (), {"train": staticmethod(seen.update)})})
    assert seen.pop("dataset") is ODD
    assert seen == {key: value for key, value in state.config.flat().items() if key != "dataset"}
    assert callable(train)


def test_columns_of_pairs_judged_answers_and_texts_can_be_named_by_the_stage() -> None:
    rows = [{"asked": "a", "good one": "b", "bad one": "c"}]
    state = FormState({"dataset": rows, "stage": "dpo"})
    found = find_columns(state.report.config, state.report.config.data.dataset)
    assert found.suggest("alpaca") == {"prompt": "asked", "chosen": "good one", "rejected": "bad one"}
    state.apply({"dataset_format": "alpaca", "dataset_columns": found.suggest("alpaca")})
    assert state.errors() == ()


def test_shipped_sets_and_those_with_an_entry_have_no_columns_to_choose(tmp_path: Path) -> None:
    (tmp_path / "ours.jsonl").write_text(json.dumps(ODD[0]))
    entry = {"file_name": "ours.jsonl", "columns": {"prompt": "q", "response": "gold_reply"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"ours": entry}))
    state = FormState({"dataset": "llf_demo,ours", "dataset_dir": str(tmp_path)})
    assert find_columns(state.report.config, ("llf_demo", "ours")) is None


def test_upload_becomes_the_value_and_its_note_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    studio = Studio()
    data = studio._sections["Data"]
    answers: list[dict[str, Any]] = []
    monkeypatch.setattr(data._uploads, "_send", answers.append)
    text = "".join(json.dumps(one) + "\n" for one in ROWS).encode()
    about = {"type": "upload", "id": "1", "key": "dataset", "name": "mine.jsonl", "total": len(text)}
    tell(data, offset=0, buffers=(text[:1000],), **about)
    assert answers == [{"type": "upload", "id": "1", "received": 1000, "done": False}]
    assert row(studio, "dataset")["text"] == "llf_demo"
    tell(data, offset=1000, buffers=(text[1000:],), **about)
    assert answers[-1] == {"type": "upload", "id": "1", "received": len(text), "done": True}
    shown = row(studio, "dataset")
    assert (shown["text"], studio._start.ready) == ("mine.jsonl", True)
    assert [one["text"] for one in shown["messages"]] == [
        "Saved as `mine.jsonl` in the folder of the notebook: 40 rows."
    ]
    tell(data, type="edit", key="dataset", text="llf_demo")
    assert row(studio, "dataset")["messages"] == []
    # one that is none leaves the field as it is
    about |= {"name": "photo.png", "id": "2", "total": 3}
    tell(data, offset=0, buffers=(b"PNG",), **about)
    shown = row(studio, "dataset")
    assert (shown["text"], studio._start.ready) == ("llf_demo", True)
    assert shown["messages"][0]["level"] == "warning"


def test_columns_named_for_other_data_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("odd.jsonl", ODD), ("plain.jsonl", ROWS)):
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in rows))
    state = FormState({"dataset": ODD})
    mapping = {"dataset_format": "alpaca", "dataset_columns": {"prompt": "q", "response": "gold_reply"}}
    state.apply(mapping)
    state.set_dataset("dataset", "odd.jsonl")
    assert mapping.items() <= state.config_values.items()
    state.set_dataset("dataset", "plain.jsonl")
    assert (state.errors(), "dataset_format" in state.config_values) == ((), False)
    state.apply(mapping)  # typed, not uploaded: the fix says how
    (problem,) = state.problems("dataset")
    assert [fix.label for fix in problem.fixes] == ["Detect automatically"]
    state.apply(problem.fixes[0].changes)
    assert state.errors() == ()


def test_a_piece_that_was_lost_ends_the_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    studio = Studio()
    data = studio._sections["Data"]
    monkeypatch.setattr(data._uploads, "_send", lambda _: None)
    about = {"type": "upload", "id": "1", "key": "dataset", "name": "mine.jsonl", "total": 30}
    tell(data, offset=0, buffers=(b'{"a": 1}\n',), **about)
    tell(data, offset=20, buffers=(b'{"a": 1}\n',), **about)
    assert "a part of it is missing" in row(studio, "dataset")["messages"][0]["text"]
    assert list(tmp_path.iterdir()) == []


def test_a_form_that_is_used_keeps_its_rows(llf_home: Path) -> None:
    studio = Studio({"dataset": ROWS})
    (file,) = (llf_home / "uploads").iterdir()
    os.utime(file, (0, 0))
    studio.set(seed=1)
    assert file.stat().st_mtime > 0
    file.unlink()
    studio.set(seed=2)
    assert file.exists()
