"""The doctor at a run's folder: real runs that are ill and real runs that are well."""

import json
import mmap
import random
from pathlib import Path

import numpy as np
import psutil
import pytest

from llf_core.config.declaration import StageDeclaration
from llf_core.config.registry import declared
from llf_core.doctor import Doctor
from llf_core.doctor.loss_rules import RULES
from llf_core.doctor.rule import RunMetrics
from llf_core.launch import Run
from llf_core.runs import RunReader, RunWriter
from llf_core.runs.config_file import read_config
from llf_core.runs.listing import read_row
from llf_core.runs.run_text import overview, table
from llf_core.runs.status import read_status
from llf_core.training.session import run_attempt
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.monitor.status_text import header_json
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


def at_every_step(folder):
    """The rules that would have said something at some step of a run, whatever else goes on this machine."""
    columns, config = RunReader(folder).metrics(), read_config(folder.config)
    names = [name for name in columns.names if name not in {"memory", "tokens_per_second"}]
    found = set()
    for step in columns.steps("loss").tolist():
        until = {name: columns.steps(name) <= step for name in names}
        so_far = {name: (columns.steps(name)[until[name]], columns.values(name)[until[name]]) for name in names}
        one = RunMetrics(so_far, step, config["max_steps"], config=config, learning_rate=config["learning_rate"])
        found |= {rule.name for rule in RULES if rule.applies_to(one.stage) and rule.look(one)}
    return found


@pytest.fixture
def pairs_file(tmp_path):
    """`pairs_file(better, worse)`: a file of pairs, their answers made of a number and a source of chance."""

    def write(better, worse, count=60):
        chance = random.Random(0)
        rows = [
            {"prompt": f"What is {n}?", "chosen": better(n, chance), "rejected": worse(n, chance)} for n in range(count)
        ]
        path = tmp_path / "pairs.json"
        path.write_text(json.dumps(rows))
        return str(path)

    return write


def babble(_number, chance):
    return " ".join(chance.choice(["the", "sea", "ship", "lamp", "rain"]) for _ in range(5))


PREFERENCES = {
    "dpo": {"learning_rate": 1e-4},
    "dpo, until nothing is left to learn": {"learning_rate": 5e-3, "finetuning_type": "full"},
    "hinge": {"learning_rate": 1e-3, "pref_loss": "hinge"},
    "rm": {"stage": "rm", "learning_rate": 5e-3},
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_a_real_run_on_pairs_that_is_well_has_no_finding_at_any_step(trained, pairs_file, name):
    data = {"dataset": pairs_file(lambda n, _: f"It is number {n}.", babble), "max_steps": 40, "val_size": 0.2}
    held = {"eval_strategy": "steps", "eval_steps": 10, "save_strategy": "no"}
    folder, code = trained(**({"stage": "dpo"} | data | held | PREFERENCES[name]))
    assert code == 0
    assert RunReader(folder).metrics().last("eval_rewards/accuracies") > 0.9
    assert at_every_step(folder) == set()


@pytest.mark.long
def test_pairs_in_which_nothing_is_better(trained, pairs_file):
    data = {"dataset": pairs_file(babble, babble, 1600), "max_steps": 50, "learning_rate": 1e-5}
    folder, _ = trained(stage="dpo", save_strategy="no", per_device_train_batch_size=16, **data)
    (finding,) = [one for one in Doctor(folder).look() if one.rule == "no_preference"]
    assert finding.config == {"learning_rate": 3e-5}


def test_chosen_answers_that_fall_with_the_rejected_ones(trained, pairs_file):
    """Answers that begin alike, and a rate that is far too high."""
    near = {"better": lambda n, _: f"the sea {n} lamp", "worse": lambda n, _: f"the sea {n} rain"}
    data = {"dataset": pairs_file(**near), "max_steps": 40, "learning_rate": 2e-2, "finetuning_type": "full"}
    folder, _ = trained(stage="dpo", save_strategy="no", **data)
    assert "likelihood_falls" in rules(folder)


def test_answers_that_are_being_written_are_no_stalled_step(make_run):
    folder = make_run()
    writer = RunWriter(folder, 1)
    writer.status(state="running", step=3, total=10, step_seconds=1.0)
    writer.flush()
    doctor = Doctor(folder)
    assert doctor.look(now=0.0) == []
    writer.event("progress", what="rollout", rows=8, of=64)
    assert doctor.look(now=119.0) == []
    assert doctor.look(now=238.0) == []
    assert [one.rule for one in doctor.look(now=240.0)] == ["stalled"]


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
    assert finding.message.startswith("24 of the 24 evaluation examples are in the training set too")


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
    """Each step keeps 1/120 of the process's memory, taken from the system and not of what the process had freed."""
    from llf_core.training.metrics_callback import MetricsCallback

    kept = []
    size = psutil.Process().memory_info().rss // 120
    original = MetricsCallback.on_step_end

    def on_step_end(self, *arguments, **kwargs):
        kept.append(mmap.mmap(-1, size))
        kept[-1].write(b"x" * size)
        return original(self, *arguments, **kwargs)

    folder = make_run(max_steps=60, save_strategy="no")
    with monkeypatch.context() as patch:
        patch.setattr(MetricsCallback, "on_step_end", on_step_end)
        assert run_attempt(folder, 1) == 0
    for block in kept:
        block.close()
    last = RunReader(folder).metrics().last("memory")
    (finding,) = [one for one in Doctor(folder, last - 1).look() if one.rule == "memory_creeps"]
    assert "a step, from" in finding.message
    assert not [one for one in Doctor(folder, last + 1e9).look() if one.rule == "memory_creeps"]  # it ends before


def test_a_folder_of_another_making_is_no_trouble(make_run):
    folder = make_run()
    folder.config.write_text("- no\n- mapping\n")
    with folder.events.open("a") as file:
        file.write(json.dumps({"v": 1, "type": "steered", "changes": None}) + "\n{broken\n")
    assert Doctor(folder).look() == []


@pytest.mark.parametrize("value", ["many", [1], {}, None, 1.5, True])
def test_counts_of_data_that_are_none_are_no_trouble(make_run, value):
    folder = make_run()
    counts = dict.fromkeys(("examples", "eval_examples", "leaked", "copies"), value)
    with folder.events.open("a") as file:
        file.write(json.dumps({"v": 1, "type": "data", **counts}) + "\n")
    assert Doctor(folder).look() == []


@pytest.mark.parametrize("beta", ["much", [1], -1, 0, None])
def test_a_beta_that_is_none_counts_as_the_default(make_run, beta):
    folder = make_run(stage="dpo", dataset="llf_demo_pairs")
    config = json.loads(json.dumps(read_config(folder.config))) | {"pref_beta": beta}
    folder.config.write_text(json.dumps(config))
    writer = RunWriter(folder, 1)
    for step in range(1, 41):
        rewards = {"rewards/chosen": -step / 5, "rewards/rejected": -step / 4, "logps/chosen": -40.0 - 2 * step}
        writer.metric(step, {"loss": 0.5, **rewards})
    found = [one.message for one in Doctor(folder).look() if one.rule == "likelihood_falls"]
    assert ["by 71 of" in one for one in found] == [True]


REAL_RUNS = [json.loads(line) for line in (Path(__file__).parent / "real_runs.jsonl").read_text().splitlines()]
"""Losses of real runs of smollm2-135m-instruct with LoRA rank 8 and batches of two, logged at each step."""


@pytest.mark.parametrize("run", REAL_RUNS, ids=lambda run: f"{run['stage']} {run['rate']:g} {run['seed']}")
def test_a_real_run_has_diverged_where_its_median_is_three_times_the_first_loss(run):
    loss, config = np.array(run["loss"]), {"stage": run["stage"], "finetuning_type": "lora"}
    steps = np.arange(1, len(loss) + 1)
    found = [
        rule.look(RunMetrics({"loss": (steps[:end], loss[:end])}, config=config, learning_rate=run["rate"]))
        for end in steps
        for rule in RULES
        if rule.name == "diverged" and rule.applies_to(declared(StageDeclaration)[run["stage"]])
    ]
    tripled = [np.median(loss[end - 5 : end]) >= 3 * loss[0] for end in range(5, len(loss) + 1)]
    assert any(found) == any(tripled)
    assert bool(found[-1] and found[-1].outcome) == (min(loss[-1], np.median(loss[-5:])) > 1.5 * loss[0])


def test_a_run_that_ends_high_says_so_wherever_its_state_is_shown(trained):
    same = {"finetuning_type": "full", "save_strategy": "no"}
    well, _ = trained(learning_rate=2e-3, max_steps=40, **same)
    ill, _ = trained(learning_rate=2e-1, max_steps=12, model_name_or_path=str(well.output), **same)
    assert read_status(well).finding is None
    losses = RunReader(ill).metrics().values("loss")
    last, first = losses[-1], losses[0]
    said = (
        f"The loss ended at {last:.2f}, {last / first:.1f} times the first one ({first:.2f}). Lower the learning rate"
    )
    assert read_status(ill).finding == f"{said} to 0.02."
    row = read_row(ill)
    assert said in "\n".join(table([row], [ill.id], 200))
    assert said in " ".join(" ".join(overview(Run(ill).summary(), changed={})).split())
    tracker = RunTracker(ill)
    tracker.refresh()
    head = header_json(tracker.snapshot, 0.0)
    assert (head["level"], head["finding"]) == ("warn", True)
    assert said in head["status_text"]
