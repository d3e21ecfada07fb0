"""Sweeps: a queued run for each combination of values, all checked before the first is started."""

import json

import numpy as np
import pytest

from llf_core.config import ConfigError
from llf_core.launch import sweep
from llf_core.launch.parameter_sweep import MAX_RUNS, combination_label
from llf_core.runs import list_runs


@pytest.fixture
def config(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "Hi", "output": "Yo"}]))
    return {"model_name_or_path": "smollm2-135m-instruct", "dataset": str(tmp_path / "rows.json"), "run_name": "tune"}


@pytest.fixture
def no_start(monkeypatch):
    """Folders are made; nothing is started."""
    monkeypatch.setattr("llf_core.launch.launchers.launcher.start_supervisor", lambda *_: None)


def test_a_sweep_is_a_run_for_each_combination(config, no_start):
    runs = sweep(config, {"learning_rate": np.array([1e-4, 3e-4]), "lora_rank": range(8, 33, 24)}, name="tune")
    assert [run.folder.config.exists() and run.folder.queue.exists() for run in runs] == [True] * 4
    names = [row.name for row in list_runs(sort="oldest").rows]
    assert sorted(names) == sorted(
        f"tune learning_rate={rate} lora_rank={rank}" for rate in ("1e-4", "3e-4") for rank in (8, 32)
    )
    asked = [run.folder.config.read_text() for run in runs]
    assert ["learning_rate: 3.0e-4" in text for text in asked] == [False, False, True, True]
    assert ["lora_rank: 32" in text for text in asked] == [False, True, False, True]


def test_a_second_name_of_a_key_is_swept_over(no_start):
    runs = sweep({"dataset": "llf_demo", "warmup_steps": 3}, {"warmup_ratio": [0.1, 0.2]})
    texts = [run.folder.config.read_text() for run in runs]
    assert [f"warmup_steps: {share}" in text for text, share in zip(texts, (0.1, 0.2), strict=True)] == [True, True]


def test_rows_from_a_cell_can_be_swept_over(no_start):
    rows = iter([{"instruction": "Hi", "output": "Yo"}])
    runs = sweep({"model_name_or_path": "smollm2-135m-instruct"}, {"lora_rank": [4, 8]}, rows=rows)
    assert all((run.folder.data / "rows.parquet").exists() or list(run.folder.data.iterdir()) for run in runs)


def test_a_single_reward_needs_no_list(no_start):
    def brief(answer):
        return -len(answer)

    config = {"model_name_or_path": "smollm2-135m-instruct", "dataset": "llf_demo", "stage": "grpo"}
    (one,) = sweep(config, {"seed": [1]}, rewards=brief)
    assert [path.name for path in one.folder.code.iterdir()] == ["brief.py"]
    (other,) = sweep(config, {"seed": [1]}, rewards="correct")
    assert "reward_functions: correct" in other.folder.config.read_text()


def test_where_one_combination_is_wrong_nothing_starts(config, no_start):
    with pytest.raises(ConfigError, match="lora_rank"):
        sweep(config, {"lora_rank": [8, "many"]})
    assert list_runs().total == 0


@pytest.mark.parametrize(
    "values",
    [{}, {"lora_rank": []}, {"template": "llama3"}, {"seed": 3}, {"seed": {1: 2}}, {"lora_rank": list(range(1, 102))}],
)
def test_what_is_no_sweep_is_refused(config, no_start, values):
    with pytest.raises(ValueError, match="Expected"):
        sweep(config, values)
    assert MAX_RUNS == 100


@pytest.mark.parametrize("values", [None, [], 5, "learning_rate"])
def test_values_without_keys_are_a_sentence(config, no_start, values):
    with pytest.raises(TypeError, match=r"The values are .*\. Expected lists by key"):
        sweep(config, values)


def test_no_value_is_a_value_of_a_sweep(config, no_start):
    runs = sweep(config, {"quantization_bit": [None, 4], "enable_thinking": [None]})
    texts = [run.folder.config.read_text() for run in runs]
    assert ["quantization_bit: 4" in text for text in texts] == [False, True]
    assert ["enable_thinking: null" in text for text in texts] == [True, True]


def test_what_was_started_before_an_error_is_told(config, monkeypatch):
    left = iter(range(2))

    def full(*_):
        if next(left, None) is None:
            raise OSError("No space left on device.")

    monkeypatch.setattr("llf_core.launch.launchers.launcher.start_supervisor", full)
    said = r"^No space left on device\. 2 of the 3 runs had already been started and stay in the queue\.$"
    with pytest.raises(RuntimeError, match=said):
        sweep(config, {"lora_rank": [2, 4, 8]})


def test_a_label_writes_values_as_a_config_file_does():
    one = {"learning_rate": 1e-4, "quantization_bit": None, "use_dora": True, "lora_target": ["q", "v"], "x": {"a": 1}}
    assert combination_label(one) == (
        'learning_rate=1e-4 quantization_bit=null use_dora=true lora_target=q,v x={"a": 1}'
    )
