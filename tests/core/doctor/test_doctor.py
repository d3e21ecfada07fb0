"""The doctor at a run's folder: real runs that are ill and real runs that are well."""

import json

import pytest

from llf_core.doctor import Doctor
from llf_core.runs import RunWriter
from llf_core.stages.session import run_attempt
from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]


def rules(folder):
    return [finding.rule for finding in Doctor(folder).look()]


WELL = {
    "lora": {"max_steps": 40, "val_size": 0.25, "eval_strategy": "steps", "eval_steps": 10},
    "full": {"finetuning_type": "full", "max_steps": 30},
    "a small rate": {"learning_rate": 1e-5, "max_steps": 30},
}


@pytest.mark.parametrize("name", WELL)
def test_a_real_run_that_is_well_has_no_finding(trained, name):
    folder, code = trained(save_strategy="no", **WELL[name])
    assert code == 0
    assert rules(folder) == []


def test_a_learning_rate_times_one_hundred(trained):
    """A rate at which a tiny model learns to speak, then a hundred times that for the model that can."""
    same = {"finetuning_type": "full", "save_strategy": "no"}
    well, _ = trained(learning_rate=2e-3, max_steps=40, **same)
    ill, _ = trained(learning_rate=2e-1, max_steps=30, model_name_or_path=str(well.output), **same)
    assert rules(well) == []
    (finding,) = [one for one in Doctor(ill).look() if one.rule == "diverged"]
    assert "the learning rate 0.2 is too high" in finding.message
    assert finding.change == {"learning_rate": 0.02}


def test_an_evaluation_of_what_is_trained_on(trained, data_file):
    folder, _ = trained(eval_dataset=str(data_file), save_strategy="no")
    (finding,) = Doctor(folder).look()
    assert finding.message.startswith("24 of the 24 examples to evaluate on are trained on too")


def test_a_thing_is_said_once_an_attempt_whoever_says_it(trained, data_file):
    folder, _ = trained(eval_dataset=str(data_file), save_strategy="no")
    doctor = Doctor(folder)
    (finding,) = doctor.look()
    assert doctor.look() == []
    RunWriter(folder, 1).event("finding", **finding.event())
    assert Doctor(folder).look() == []


def test_the_rate_is_the_one_that_holds_now(make_run):
    folder = make_run(learning_rate=1e-3)
    writer = RunWriter(folder, 1)
    for step in range(1, 20):
        writer.metric(step, {"loss": 2.0 if step < 10 else 9.0})
    writer.event("steered", step=3, changes={"learning_rate": 5e-2}, id="a")
    (finding,) = Doctor(folder).look()
    assert "the learning rate 0.05 is too high" in finding.message


def test_a_leak_of_memory(make_run, monkeypatch):
    """Real memory: each step keeps eight megabytes."""
    from llf_core.stages.progress import RunProgress

    kept = []
    original = RunProgress.on_step_end

    def on_step_end(self, *arguments, **kwargs):
        kept.append(bytearray(8_000_000))
        return original(self, *arguments, **kwargs)

    folder = make_run(max_steps=60, save_strategy="no")
    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "on_step_end", on_step_end)
        assert run_attempt(folder, 1) == 0
    (finding,) = [one for one in Doctor(folder, 8e9).look() if one.rule == "memory_creeps"]
    assert "a step, from" in finding.message


def test_a_folder_of_another_making_is_no_trouble(make_run):
    folder = make_run()
    folder.config.write_text("- no\n- mapping\n")
    with folder.events.open("a") as file:
        file.write(json.dumps({"v": 1, "type": "steered", "changes": None}) + "\n{broken\n")
    assert Doctor(folder).look() == []
