"""The values of a result's evaluation in `eval_results.json`: those of the log, and the perplexity of pre-training."""

import json
import math

import pytest
from transformers import TrainerState

from llf_core.config import RunConfig
from llf_core.runs import RunReader
from llf_core.training.save_run_result import evaluation_results

TEXTS = ["Rain fell on the old harbour all night.", "Seven boats were missing when the sun came up.", "Nobody spoke."]


def config(**changes):
    return RunConfig.load(
        {"model_name_or_path": "m", "stage": "pt", "dataset": "t", "eval_dataset": "a.json,b"} | changes
    )


def state(**values):
    """A log with evaluations after the steps 2 and 4, the last step."""
    log = [{"step": 2, "epoch": 0.5, "eval_loss": math.log(8)}, {"step": 4, "epoch": 1.0, "loss": 1.0}]
    return TrainerState(global_step=4, log_history=[*log, {"step": 4, "epoch": 1.0} | values])


def test_pre_training_has_the_perplexity_of_each_loss():
    log = {"eval_loss": math.log(2), "eval_a_loss": 0.0, "eval_b_loss": 709.79, "eval_b_accuracy": 0.5}
    found = evaluation_results(config(), state(**log))
    # The largest float is exp(709.7827).
    assert found == log | {
        "epoch": 1.0, "eval_perplexity": pytest.approx(2.0), "eval_a_perplexity": 1.0, "eval_b_perplexity": math.inf
    }  # fmt: skip
    assert set(evaluation_results(config(stage="sft"), state(**log))) == {*log, "epoch"}


def test_the_values_are_of_the_weights_that_are_saved():
    made = state(eval_loss=1.0)
    made.best_global_step = 2
    chosen = {"load_best_model_at_end": True, "eval_steps": 2, "save_steps": 2, "eval_strategy": "steps"}
    best = evaluation_results(config(**chosen), made)
    assert best == {"eval_loss": math.log(8), "eval_perplexity": pytest.approx(8.0), "epoch": 0.5}
    assert evaluation_results(config(), made)["eval_loss"] == 1.0
    assert evaluation_results(config(), TrainerState(global_step=5, log_history=made.log_history)) == {}


def test_a_run_writes_them_beside_its_result(trained, tmp_path):
    for name in ("texts", "calm", "storm"):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"text": f"{name}: {one}"} for one in TEXTS]))
    folder, code = trained(
        stage="pt", dataset=str(tmp_path / "texts.json"), eval_on_each_dataset=True, max_steps=2, packing=False,
        eval_dataset=f"{tmp_path / 'calm.json'},{tmp_path / 'storm.json'}", eval_strategy="steps", eval_steps=2,
    )  # fmt: skip
    assert code == 0
    found = json.loads((folder.output / "eval_results.json").read_text())
    logged = RunReader(folder).metrics()
    for prefix in ("eval", "eval_calm", "eval_storm"):
        loss = float(logged.values(f"{prefix}_loss")[-1])
        assert found[f"{prefix}_loss"] == loss
        assert found[f"{prefix}_perplexity"] == pytest.approx(math.exp(loss), rel=1e-12)
    assert found["eval_calm_perplexity"] != found["eval_storm_perplexity"]
