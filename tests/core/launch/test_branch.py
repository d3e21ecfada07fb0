"""A branch goes on at a checkpoint as the run would have gone on, but for what is otherwise."""

import json
import shutil

import pytest

from llf_core.config import RunConfig
from llf_core.launch.branch import branch, replay
from llf_core.runs import Checkpoints, RunReader, RunWriter, open_run, read_meta, read_status
from llf_core.runs.config_file import read_config, run_config
from llf_core.runs.control import read_changes
from llf_core.training.session import run_attempt
from tests.attempts import data_file, make_run, settings, trained
from tests.core.training.test_live_changes import at_steps, linear, rates
from tests.core.training.test_session import events, losses

__all__ = ["at_steps", "data_file", "make_run", "settings", "trained"]


@pytest.fixture
def parent(trained):
    """Six steps, a checkpoint at each third one, dropout so that random numbers matter."""
    folder, _ = trained(max_steps=6, save_steps=3, lora_dropout=0.1, learning_rate=1e-2, lr_scheduler_type="linear")
    return folder


def env(folder):
    return json.loads(folder.env.read_bytes())


def test_a_branch_without_a_change_makes_the_same_losses_to_the_last_bit(parent):
    new = branch(parent, 3)
    assert losses(new) == dict(list(losses(parent).items())[:3])  # what had come to pass
    assert read_status(new).step == 3
    assert run_attempt(new, 1) == 0
    assert losses(new) == losses(parent)
    assert rates(new) == rates(parent)
    assert read_status(parent).step == 6


def test_a_branch_keeps_a_prompt_that_speaks_of_a_password(trained):
    prompt = 'You are a bot.\npassword: swordfish\nSay "secret: "'
    folder, _ = trained(max_steps=2, save_steps=1, default_system=prompt)
    for new in (branch(folder, 1), replay(folder)):
        assert run_config(new).data.default_system == prompt


def test_a_lower_rate_holds_from_the_branch_on(parent):
    new = branch(parent, 3, {"learning_rate": 1e-3}, name="lower")
    assert run_attempt(new, 1) == 0
    expected = {step: linear(1e-2 if step <= 3 else 1e-3, step, 6) for step in range(1, 7)}
    assert rates(new) == pytest.approx(expected, rel=1e-12)
    same = [step for step in range(1, 7) if losses(new)[step] == losses(parent)[step]]
    assert same == [1, 2, 3, 4]  # the fourth is of the weights before
    assert read_meta(new)["name"] == "lower"
    assert env(new)["parent"] == {"run": parent.id, "step": 3, "changes": {"learning_rate": 1e-3}}
    (told,) = events(new, "branched")
    assert told["step"] == 3
    (steered,) = events(new, "steered")
    assert "0.01 → 1e-3 from step 4 on" in steered["says"]


def test_a_finished_run_goes_on_in_a_branch(parent):
    new = branch(parent, None, {"max_steps": 9})
    assert run_attempt(new, 1) == 0
    status = read_status(new)
    assert (status.state, status.step, status.total) == ("finished", 9, 9)
    expected = {step: linear(1e-2, step, 6 if step <= 6 else 9) for step in range(1, 10)}
    assert rates(new) == pytest.approx(expected, rel=1e-12)


def test_a_branch_that_is_cut_off_before_its_first_checkpoint_begins_again_as_a_branch(parent, monkeypatch):
    from tests.core.training.test_session import next_attempt, stop_at

    whole, part = (branch(parent, 3, {"learning_rate": 1e-3}) for _ in range(2))
    run_attempt(whole, 1)
    with monkeypatch.context() as patch:
        stop_at(patch, part, 5)
        run_attempt(part, 1)
    shutil.rmtree(Checkpoints(part).path(5))
    assert next_attempt(part) == 0
    assert losses(part) == losses(whole)
    assert rates(part) == rates(whole)


def test_what_the_run_was_told_before_holds_in_the_branch(make_run, at_steps):
    folder = make_run(max_steps=6, save_steps=3, learning_rate=1e-2, lr_scheduler_type="linear")
    at_steps(
        folder,
        {
            1: [("set", {"learning_rate": 2e-3})],
            3: [("set", {"learning_rate": 4e-3})],
            5: [("set", {"learning_rate": 6e-3})],
        },
    )
    run_attempt(folder, 1)
    new = branch(folder, 3)
    assert run_attempt(new, 1) == 0
    peaks = {1: 1e-2, 2: 2e-3, 3: 2e-3, 4: 4e-3, 5: 4e-3, 6: 4e-3}
    assert rates(new) == pytest.approx({step: linear(peak, step, 6) for step, peak in peaks.items()}, rel=1e-12)
    assert [change.step for change in read_changes(new)] == [1, 3]


def test_a_branch_is_replayed_from_where_it_began(parent, at_steps):
    new = branch(parent, 3, {"learning_rate": 1e-3})
    at_steps(new, {4: [("set", {"learning_rate": 5e-3})]})
    run_attempt(new, 1)
    again = replay(new)
    assert run_attempt(again, 1) == 0
    assert losses(again) == losses(new)
    assert rates(again) == rates(new)


@pytest.mark.parametrize("origin", [{"run": 3, "step": 2}, {"run": "x"}, {"step": "many", "run": "x"}])
def test_a_branch_that_no_longer_says_where_it_began_is_not_replayed(parent, origin):
    new = branch(parent, 3, {"save_steps": 2})
    env = json.loads(new.env.read_text())
    new.env.write_text(json.dumps(env | {"parent": origin | {"changes": {}}}))
    with pytest.raises(ValueError, match="does not say which run and step it branched from"):
        replay(new, trust=True)


def test_a_branch_whose_origin_is_no_object_is_replayed_like_a_run(parent):
    new = branch(parent, 3, {"save_steps": 2})
    new.env.write_text(json.dumps(json.loads(new.env.read_text()) | {"parent": "x"}))
    assert env(replay(new, trust=True))["parent"] == {"run": new.id, "step": 0}


def test_a_branch_has_its_own_files(parent):
    new = branch(parent, 3, {"save_steps": 2, "watched_prompts": "Say hi."})
    shutil.rmtree(parent.path)
    assert run_attempt(new, 1) == 0
    assert Checkpoints(new).list() == [4, 6]
    config = read_config(new.config)
    assert (config["save_steps"], config["watched_prompts"]) == (2, "Say hi.")
    assert open_run(new.id, new.home).path == new.path
    assert RunReader(new).metrics().steps("loss").tolist() == [1, 2, 3, 4, 5, 6]


def test_a_live_run_is_branched_and_goes_on(make_run, monkeypatch):
    from llf_core.training.metrics_callback import MetricsCallback

    folder = make_run(max_steps=6, save_steps=3)
    made = []
    original = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == 5 and not made:
            made.append(branch(folder, 3, {"learning_rate": 1e-4}))

    monkeypatch.setattr(MetricsCallback, "on_step_end", on_step_end)
    assert run_attempt(folder, 1) == 0
    assert len(losses(folder)) == 6
    assert len(losses(made[0])) == 3
    assert run_attempt(made[0], 1) == 0


@pytest.mark.parametrize(
    ("step", "changes", "says"),
    [
        (2, {}, "has no checkpoint of step 2. Expected one of 3, 6."),
        (None, {}, "max_steps is 6, and the checkpoint is at step 6. Expected max_steps above 6."),
        (3, {"save_steps": 0.1}, "save_steps is 0.1. Expected a number of steps"),
        (3, {"max_steps": 3}, "Expected max_steps above 3."),
        (
            3,
            {"lora_rank": 4},
            "lora_rank cannot be changed in a branch, since it continues from a checkpoint. Expected learning_rate",
        ),
        (3, {"learning_rate": "fast"}, "learning_rate is fast. Expected a number"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(parent, step, changes, says):
    with pytest.raises(ValueError, match=says.replace(".", r"\.")):
        branch(parent, step, changes)


def test_a_run_without_a_checkpoint_cannot_be_branched(make_run):
    with pytest.raises(ValueError, match="has no checkpoint to branch from"):
        branch(make_run())


def test_a_branch_of_a_branch_has_its_own_change(parent):
    first = branch(parent, None, {"max_steps": 9, "learning_rate": 5e-3})
    second = branch(first, 6, {"max_steps": 12})  # of the same checkpoint, before the first has made a step
    assert read_status(second).total == 12
    third = branch(second, 6, {"learning_rate": 1e-3, "max_steps": 8})
    assert run_attempt(second, 1) == 0
    assert read_status(second).step == 12
    assert rates(second)[7] == pytest.approx(linear(5e-3, 7, 12), rel=1e-12)
    assert run_attempt(third, 1) == 0
    assert read_status(third).step == 8
    assert rates(third)[8] == pytest.approx(linear(1e-3, 8, 8), rel=1e-12)


def test_what_was_changed_at_the_very_checkpoint_gives_way_to_the_branch(make_run, at_steps):
    folder = make_run(max_steps=6, save_steps=3, learning_rate=1e-2, lr_scheduler_type="constant")
    at_steps(folder, {3: [("set", {"learning_rate": 4e-3})]})
    run_attempt(folder, 1)
    new = branch(folder, 3, {"learning_rate": 1e-5})
    run_attempt(new, 1)
    assert rates(new) == pytest.approx({1: 1e-2, 2: 1e-2, 3: 1e-2, 4: 1e-5, 5: 1e-5, 6: 1e-5})


def test_the_best_checkpoint_of_a_branch_is_its_own(trained):
    """At so high a rate the model is never better than after its first evaluation."""
    best = {
        "load_best_model_at_end": True,
        "finetuning_type": "full",
        "max_grad_norm": 0.0,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
    }
    folder, _ = trained(max_steps=6, val_size=4, learning_rate=1.0, lr_scheduler_type="constant", **best)
    state = json.loads((Checkpoints(folder).path(6) / "trainer_state.json").read_text())
    assert state["best_global_step"] == 2
    new = branch(folder, 6, {"max_steps": 8})
    shutil.rmtree(folder.path)
    assert run_attempt(new, 1) == 0
    assert same_weights(Checkpoints(new).path(2) / "model.safetensors", new.output / "model.safetensors")
    assert not same_weights(Checkpoints(new).path(8) / "model.safetensors", new.output / "model.safetensors")


def same_weights(one, other):
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(bool((first[name] == second[name]).all()) for name in first)


def test_a_checkpoint_that_goes_away_leaves_no_run(parent, monkeypatch):
    def too_late(source, target):
        Checkpoints(parent).remove(3) if Checkpoints(parent).complete(3) else None
        raise FileNotFoundError(source)

    before = sorted(parent.path.parent.iterdir())
    monkeypatch.setattr("llf_core.launch.branch._link", too_late)
    with pytest.raises(ValueError, match="was removed while it was copied"):
        branch(parent, 3)
    assert sorted(parent.path.parent.iterdir()) == before


def test_what_went_before_comes_along_whole_and_just_before_the_branch(parent):
    RunWriter(parent, 2).metric(3, {"eval_loss": 1.5})  # an attempt that only evaluated
    RunWriter(parent, 2).sample(step=0, kind="answer", prompt="x", text="y", of="base")
    RunWriter(parent, 1).sample(step=0, kind="answer", prompt="Say hi.", text="hi", of="base")
    new = branch(parent, 3)
    columns = RunReader(new).metrics()
    assert columns.steps("loss").tolist() == [1, 2, 3]
    assert columns.steps("eval_loss").tolist() == [3]
    assert {one["prompt"] for one in RunReader(new).samples()} == {"x", "Say hi."}
    assert columns.times()[1].max() < read_status(new).created
    assert read_status(new).created - columns.times()[1].max() < 1


def test_a_name_may_be_a_number(parent):
    new = branch(parent, 3, {"run_name": 5})
    assert (read_meta(new)["name"], RunConfig.load(new.config).get("run_name")) == ("5", "5")


def test_texts_of_the_config_stay_texts_and_paths_are_those_of_the_caller(parent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = branch(parent, 3, {"run_name": "1e5", "watched_prompts": "08", "output_dir": "out"})
    config = RunConfig.load(new.config)
    assert (config.get("run_name"), config.get("watched_prompts")) == ("1e5", "08")
    assert config.get("output_dir") == str(tmp_path / "out")
    assert read_meta(new)["name"] == "1e5"
