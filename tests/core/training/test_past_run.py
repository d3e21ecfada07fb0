"""What a run leaves for later forecasts, and that the forecast from its config is the one from its loaded model."""

import json
import math
from pathlib import Path

import pytest

from llf_core.config import RunConfig
from llf_core.data.text_lengths import estimate
from llf_core.estimate import Forecaster, find_devices
from llf_core.estimate.past_runs import known_lengths, past_runs, table_file
from llf_core.runs.config_file import run_config
from llf_core.training.past_run import mean_seconds


def event(folder, kind: str) -> dict[str, object]:
    found = [json.loads(line) for line in folder.events.read_text().splitlines()]
    return next(one for one in found if one["type"] == kind)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"finetuning_type": "full"}, {"finetuning_type": "freeze", "freeze_trainable_layers": 1}, {"packing": True},
        {"pure_bf16": True, "finetuning_type": "full"}, {"optim": "adafactor"}, {"gradient_checkpointing": True},
        {"lora_rank": 32, "bf16": True},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())) or "lora",
)  # fmt: skip
def test_the_forecast_of_the_config_is_that_of_the_loaded_model(trained, changes: dict[str, object]) -> None:
    folder, code = trained(max_steps=3, save_strategy="no", save_steps=None, use_cpu=True, **changes)
    assert code == 0
    config = run_config(folder)
    lengths = known_lengths(config) or pytest.fail("The run left no lengths.")
    assert lengths.examples == 24
    forecast = Forecaster(config, lengths, find_devices()[-1])
    parts = forecast.uncorrected_memory(checkpointing=bool(changes.get("gradient_checkpointing")))
    assert parts is not None
    told = event(folder, "memory")["forecast"]
    assert isinstance(told, int)
    # rows of packed data have a column of the cutoff; all else is equal to the byte but for rounding
    assert parts.total == pytest.approx(told, abs=4)


def test_a_run_adds_itself_and_the_next_forecast_uses_it(trained, settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llf_core.estimate.past_runs.LARGEST_RATIO", math.inf)  # however busy the machine is
    folder, _ = trained(use_cpu=True)
    (run,) = past_runs()
    assert (run.method, run.stage, run.examples) == ("lora adamw_torch_fused", "sft", 24)
    assert run.memory > 100e6
    steps = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    seconds = sorted(one["values"]["step_seconds"] for one in steps[1:] if "step_seconds" in one["values"])
    assert seconds[0] <= run.seconds <= seconds[-1]
    found = estimate({**settings, "use_cpu": True})
    assert found.duration is not None
    assert found.duration.step_seconds == pytest.approx(run.seconds, rel=0.1)
    assert "one past run" in found.duration.basis
    assert any(sentence.startswith("Lengths of the examples as a run of") for sentence in found.basis)
    again, _ = trained(use_cpu=True)
    told = event(again, "forecast")
    assert told["low"] < told["step_seconds"] < told["high"]
    assert told["step_seconds"] == pytest.approx(run.seconds, rel=0.1)
    assert told["memory"] == pytest.approx(run.memory, rel=0.02)
    assert len(past_runs()) == 2


def test_a_run_trains_on_where_the_table_cannot_be_written(trained, llf_home: Path) -> None:
    table_file().mkdir(parents=True)
    _, code = trained(max_steps=3, use_cpu=True)
    assert code == 0
    assert past_runs() == ()


def test_a_run_of_one_step_adds_nothing(trained) -> None:
    trained(max_steps=1, use_cpu=True)
    assert past_runs() == ()


def test_other_data_is_not_taken_for_the_same(trained, settings, tmp_path: Path) -> None:
    trained(use_cpu=True)
    assert known_lengths(RunConfig.load(settings)) is not None
    assert known_lengths(RunConfig.load({**settings, "cutoff_len": 64})) is not None
    assert known_lengths(RunConfig.load({**settings, "template": "chatml"})) is None
    rows = Path(settings["dataset"])
    rows.write_text(rows.read_text().replace("number", "the number"))
    assert known_lengths(RunConfig.load(settings)) is None


def test_the_seconds_of_a_step_are_a_mean_without_pauses() -> None:
    """0.1 s and 1 ms a token; one step waits for a minute, and counts as 3 usual ones of its length."""
    tokens = {1: 100.0, 2: 100.0, 3: 100.0, 4: 1900.0}
    seconds = {step: 0.1 + count / 1000 for step, count in tokens.items()}
    assert mean_seconds(seconds, tokens) == pytest.approx((3 * 0.2 + 2.0) / 4)
    assert mean_seconds(seconds | {2: 60.0}, tokens) == pytest.approx((2 * 0.2 + 2.0 + 3 * 0.2) / 4)
    assert mean_seconds(seconds, {}) == pytest.approx(0.2)
