from __future__ import annotations

from pathlib import Path

import pytest

from llf_core.config import ConfigError
from llf_core.data.precheck import dataset_problems
from llf_core.runs import home, list_runs
from llf_widgets import start

ROWS = [{"instruction": "Say hi.", "output": "Hi."}]


@pytest.fixture
def launched(monkeypatch):
    """What `launch` was called with, instead of a process."""
    calls = []
    monkeypatch.setattr(start, "launch", lambda *args, **named: calls.append((args, named)))
    return calls


@pytest.mark.parametrize(
    "config",
    [
        "stage: sft\ndataset: demo\n",
        Path("config.yaml"),
        {"dataset": "demo"},
        {"dataset": ["demo", "more.jsonl"]},
        {"dataset": Path("rows.jsonl")},
        {"stage": "sft"},
    ],
)
def test_a_config_that_names_its_data_goes_as_it_is(launched, config):
    start.train(config, name="mine")
    named = {"name": "mine", "rows": None, "rewards": None, "notebook": None, "queue": False, "on": None}
    assert launched == [((config,), named | {"data_check": dataset_problems})]


def test_rows_are_handed_over_apart(launched):
    config = {"stage": "sft", "dataset": ROWS}
    start.train(config)
    named = {"name": None, "rows": ROWS, "rewards": None, "notebook": None, "queue": False, "on": None}
    named["data_check"] = dataset_problems
    assert launched == [(({"stage": "sft"},), named)]
    assert config["dataset"] is ROWS, "the caller's dict is left alone"


@pytest.mark.parametrize(
    "begin", [start.train, lambda config: start.sweep(config, {"learning_rate": [1e-4, 1e-3]})], ids=["train", "sweep"]
)
def test_rows_with_unknown_columns_start_nothing(begin):
    with pytest.raises(ConfigError) as raised:
        begin({"dataset": [{"q": 1, "a": 2}]})
    said = "The data set (rows of the cell) has the columns q, a, which match no known format."
    assert str(raised.value).startswith(said)
    assert raised.value.problems[0].key == "dataset"
    assert list_runs().total == 0
    assert [path for path in home().rglob("*") if path.is_file()] == []


def test_a_file_with_unknown_columns_starts_nothing(tmp_path):
    file = tmp_path / "odd.jsonl"
    file.write_text('{"q": 1, "a": 2}\n')
    with pytest.raises(ConfigError, match=r"The data set odd\.jsonl has the columns q, a, which match no"):
        start.train({"dataset": str(file)})
    assert list_runs().total == 0


def test_a_frame_is_rows():
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    rest, rows = start.split_rows({"dataset": frame})
    assert rest == {}
    assert rows is frame


def test_a_tuple_of_names_is_no_rows():
    config = {"dataset": ("llf_demo", "rows.jsonl")}
    assert start.split_rows(config) == (config, None)


def test_an_empty_list_is_rows_that_are_missing():
    assert start.split_rows({"dataset": []}) == ({}, [])


class Shell:
    """What a kernel's IPython shell says of itself."""

    execution_count = 7

    def __init__(self):
        self.user_ns = {}
        self.parent = {}

    def has_trait(self, name):
        return name == "kernel"

    def get_parent(self):
        return self.parent


@pytest.fixture
def shell(monkeypatch):
    import IPython

    shell = Shell()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return shell


def test_the_notebook_and_its_cell_are_known(shell, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "work/tune.ipynb")
    shell.parent = {"metadata": {"cellId": "c0ffee"}}
    assert start.notebook_location() == {"path": "work/tune.ipynb", "cell": "c0ffee"}


def test_an_editor_tells_the_path_in_its_own_way(shell):
    shell.user_ns = {"__vsc_ipynb_file__": "/home/user/tune.ipynb"}
    assert start.notebook_location() == {"path": "/home/user/tune.ipynb", "cell": "In [7]"}


def test_a_script_has_no_notebook(monkeypatch):
    import IPython

    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert start.notebook_location() is None
