"""`do_predict` with `do_train` in one file: the result answers the evaluation data after training, in the same run."""

import json
import signal
import time

import pytest
import yaml
from rouge_score import rouge_scorer

from llf_core.config import RunConfig, validate
from llf_core.launch import launch
from llf_core.runs import RunReader
from llf_core.runs.jsonl import records
from llf_core.runs.listing import last_model_event

ROWS = [
    {"instruction": f"Say {'very ' * (7 * at % 5)}{at}.", "input": "", "output": f"It is {at}."} for at in range(60)
]
FOREVER = 240.0
MANY = {"max_new_tokens": 48, "predict_with_generate": False, "per_device_eval_batch_size": 2}
"""Predictions in small batches, of which most are still to be made when the first are there."""


@pytest.fixture
def settings(tmp_path, tiny_model_dir):
    """LLaMA-Factory's settings of a run that trains, evaluates and predicts."""
    (tmp_path / "rows.json").write_text(json.dumps(ROWS[:12]))
    (tmp_path / "held_out.json").write_text(json.dumps(ROWS[12:17]))
    return {
        "model_name_or_path": str(tiny_model_dir), "stage": "sft", "do_train": True, "do_eval": True,
        "do_predict": True, "predict_with_generate": True, "finetuning_type": "lora", "template": "default",
        "dataset": str(tmp_path / "rows.json"), "eval_dataset": str(tmp_path / "held_out.json"), "max_steps": 2,
        "per_device_train_batch_size": 2, "learning_rate": 1.0e-3, "save_steps": 2, "logging_steps": 1,
        "output_dir": str(tmp_path / "result"), "max_new_tokens": 8, "do_sample": True, "temperature": 1.0,
        "top_p": 1.0, "top_k": 0,
    }  # fmt: skip


def started(settings, **changes):
    return launch(RunConfig.load(settings | changes))


def responses(folder):
    return list(records(folder / "generated_predictions.jsonl"))


def wait_for(condition, what):
    until = time.monotonic() + FOREVER
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def values_of(folder):
    return {one["step"]: one["values"] for one in records(folder.metrics)}


@pytest.mark.usefixtures("warm_python")
def test_the_result_answers_the_evaluation_data_after_training(llf, tmp_path, settings):
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert llf("validate", path).exit_code == 0
    done = llf("train", path, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    run = launch_of(done)
    assert run.status().state == "finished"
    assert run.status().reason is None
    assert f"5 of 5 records have a prediction: {run.folder.predictions}" in run.log()
    made = responses(run.folder.predictions)
    assert [set(one) for one in made] == [{"prompt", "predict", "label"}] * 5
    assert [one["label"] for one in made] == [row["output"] for row in ROWS[12:17]]
    scores = json.loads((run.folder.predictions / "predict_results.json").read_text())
    assert {"predict_rougeL", "predict_bleu", "predict_samples", "predict_runtime"} <= set(scores)
    assert scores["predict_samples"] == 5
    rouge = rouge_scorer.RougeScorer(["rougeL"])
    each = [rouge.score(one["label"], one["predict"])["rougeL"].fmeasure for one in made]
    assert scores["predict_rougeL"] == pytest.approx(sum(each) / 5)

    copied = tmp_path / "result"
    assert responses(copied) == made
    assert json.loads((copied / "predict_results.json").read_text()) == scores
    evaluated = json.loads((copied / "eval_results.json").read_text())
    assert evaluated["eval_loss"] == values_of(run.folder)[2]["eval_loss"]
    assert llf("validate", path).exit_code == 0  # LLF wrote every file of output_dir, so that it may be replaced

    again = llf("predict", run.id, "--output", tmp_path / "other")
    assert again.exit_code == 0, again.exception
    assert responses(tmp_path / "other") == made  # also the sampling: one implementation, one seed for each record
    same = llf("predict", run.id)
    assert "5 of 5 records have a prediction already" in same.stderr

    phases = [event["name"] for event in run.events() if event["type"] == "phase"]
    assert phases[-1] == "predictions"
    assert not run.folder.trained.exists()
    stored = run.folder.config.read_text()
    assert yaml.safe_load(stored)["do_train"] is True  # else `llf train` would take it for predictions alone


def launch_of(done):
    from llf_core.launch import attach

    return attach(json.loads(done.stdout)["id"])


@pytest.mark.usefixtures("warm_python")
def test_a_killed_prediction_leaves_the_result_and_is_continued(tmp_path, settings):
    (tmp_path / "held_out.json").write_text(json.dumps(ROWS))
    run = started(settings, **MANY)
    partial = run.folder.predictions / "generated_predictions.partial.jsonl"
    wait_for(lambda: partial.is_file() and partial.stat().st_size > 0, run.log())
    trained = last_model_event(run.events())
    assert trained is not None
    state = run.kill()
    assert state.state == "failed"
    assert "The result is complete: resume makes the remaining predictions." in state.reason
    assert (run.folder.output / "adapter_model.safetensors").is_file()
    assert (tmp_path / "result" / "adapter_model.safetensors").is_file()
    before, curve = {one["index"]: one["predict"] for one in records(partial)}, values_of(run.folder)
    assert before

    run.resume()
    end = run.wait(progress=False)
    assert end.state == "finished", run.log()
    made = responses(run.folder.predictions)
    assert [one["label"] for one in made] == [row["output"] for row in ROWS]
    assert all(made[at]["predict"] == text for at, text in before.items())
    assert values_of(run.folder) == curve  # nothing was trained again
    assert RunReader(run.folder).metrics().last("loss") is not None  # the steps before the resume still count
    assert [one["type"] for one in run.events()].count("model") == 1
    assert end.step == 2


@pytest.mark.usefixtures("warm_python")
def test_a_stop_ends_the_predictions_and_names_the_command_that_continues(llf, tmp_path, settings):
    (tmp_path / "held_out.json").write_text(json.dumps(ROWS))
    run = started(settings, output_dir=None, **MANY)
    partial = run.folder.predictions / "generated_predictions.partial.jsonl"
    wait_for(lambda: partial.is_file() and partial.stat().st_size > 0, run.log())
    run.stop()
    end = run.wait(progress=False)
    assert end.state == "finished"
    assert f"`llf predict {run.id}` makes the remaining predictions." in end.reason
    assert not (run.folder.predictions / "generated_predictions.jsonl").exists()
    done = llf("predict", run.id)
    assert done.exit_code == 0, done.exception
    assert "records have a prediction already" in done.stderr
    assert len(responses(run.folder.predictions)) == len(ROWS)


@pytest.mark.usefixtures("warm_python")
def test_a_prediction_that_fails_leaves_the_result(tmp_path, settings):
    run = started(settings, predict_with_generate=False)
    wait_for((tmp_path / "result").is_dir, run.log())
    (tmp_path / "held_out.json").unlink()  # after training, so that only the predictions miss it
    end = run.wait(progress=False)
    assert end.state == "finished"
    assert "The predictions failed." in end.reason
    assert "held_out.json" in end.reason
    assert (run.folder.output / "adapter_model.safetensors").is_file()
    assert [one["key"] for one in run.events() if one["type"] == "warning"][-1] == "do_predict"


@pytest.mark.usefixtures("warm_python")
def test_a_termination_by_the_system_is_a_stop(tmp_path, settings):
    import os

    (tmp_path / "held_out.json").write_text(json.dumps(ROWS))
    run = started(settings, output_dir=None, **MANY)
    partial = run.folder.predictions / "generated_predictions.partial.jsonl"
    wait_for(lambda: partial.is_file() and partial.stat().st_size > 0, run.log())
    os.kill(run.status().pid, signal.SIGTERM)
    end = run.wait(progress=False)
    assert end.state == "finished"
    assert "The predictions were stopped after" in end.reason


def messages(settings, **changes):
    return [one.message for one in validate(settings | changes).problems if one.severity == "error"]


def test_what_cannot_be_predicted_is_an_error_before_the_training(settings):
    assert messages(settings) == []
    assert messages(settings, eval_dataset=None) == [
        "`do_predict` has nothing to answer: there is no evaluation data (`val_size` or `eval_dataset`)."
    ]
    assert messages(settings, num_beams=4) == ["`num_beams` is 4, and predictions have no beam search. Expected 1."]
    ranked = messages(settings, stage="rm", predict_with_generate=False)
    assert any("stage rm has no validation examples with a prompt and an expected answer" in one for one in ranked)
    notes = [one.key for one in validate(settings).not_needed]
    assert "temperature" not in notes  # it samples the predictions
    assert "temperature" in [one.key for one in validate(settings | {"do_predict": False}).not_needed]
