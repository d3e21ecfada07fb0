"""GRPO and RLOO in a run: rewards rise, answers are written down, a run is stopped and resumed like any other."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from llf_core.config import RunConfig
from llf_core.runs import Checkpoints, RunReader, create_run, send_request, status
from llf_core.runs import writer as writer_module
from llf_core.runs.trust import sign_run
from llf_core.stages.base.stage import make_stage
from llf_core.user_functions.function_source import write_code

SHARE = "def share(answer):\n    return answer.count('a') / max(len(answer), 1)\n"


@pytest.fixture
def online(settings):
    """A config whose steps take a tenth of a second: 2 prompts with 4 answers each, 12 steps a pass."""
    return settings | {
        "stage": "grpo",
        "finetuning_type": "full",
        "reward_functions": "share",
        "num_generations": 4,
        "max_completion_length": 6,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "lr_scheduler_type": "constant",
        "save_steps": 100,
    }


@pytest.fixture
def make_online(online):
    """`make_online(code, **changes) -> RunFolder`: a run with a reward function `share`."""

    def make(code: str = SHARE, **changes: Any):
        asked = {key: value for key, value in (online | changes).items() if value is not None}
        config = RunConfig.load(asked)
        return create_run(config.yaml(defaults=True), "tiny", fill=lambda new: write_code(new.code, {"share": code}))

    return make


def attempt(folder, number=1):
    from llf_core.training.session import run_attempt

    return run_attempt(folder, number)


def resume(folder, at):
    """The second attempt, from the checkpoint of a step; later ones are as if they had never been."""
    for step in Checkpoints(folder).list():
        if step > at:
            shutil.rmtree(Checkpoints(folder).path(step))
    status.begin_attempt(folder, 2, step=at)
    return attempt(folder, 2)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder, kind):
    return [event for event in lines(folder.events) if event["type"] == kind]


def bits(folder):
    """All numbers of each step but those of clocks and memory."""
    columns = RunReader(folder).metrics()
    names = set(columns.names) - {"tokens_per_second", "step_seconds", "memory"}
    return {
        name: dict(zip(columns.steps(name).tolist(), map(float.hex, columns.values(name).tolist()), strict=True))
        for name in names
    }


def test_the_mean_reward_rises(make_online):
    folder = make_online(max_steps=16, learning_rate=1e-2, per_device_train_batch_size=16, num_generations=8)
    assert attempt(folder) == 0
    rewards = RunReader(folder).metrics().values("reward")
    # about one in twenty of random letters, and at the end one in four
    assert rewards[:3].mean() < 0.08
    assert rewards[-3:].mean() > 0.2


def test_what_a_run_writes_of_drawn_answers(make_online):
    folder = make_online(max_steps=3, save_steps=2, kept_completions=3, reward_weights="2.0")
    assert attempt(folder) == 0
    samples = lines(folder.samples)
    assert [one["step"] for one in samples] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for one in samples:
        assert one["kind"] == "completion"
        assert one["prompt"].startswith("What is ")
        share = one["text"].count("a") / max(len(one["text"]), 1)
        assert one["rewards"] == {"share": share}
        assert one["reward"] == 2 * share
    of_first = [one["reward"] for one in samples[:3]]
    assert of_first == sorted(of_first, reverse=True)
    columns = RunReader(folder).metrics()
    assert {"reward", "reward_std", "rewards/share/mean", "entropy", "completions/mean_length", "loss"} <= set(
        columns.names
    )
    assert not {"num_tokens", "step_time"} & set(columns.names)
    read, learned = columns.values("tokens"), columns.values("trained_tokens")
    lengths = columns.values("completions/mean_length") * 8
    assert learned.tolist() == lengths.cumsum().tolist()
    assert (read > learned).all()
    # TRL's own card would lie beside the checkpoints.
    assert {path.name for path in folder.checkpoints.iterdir()} == {"checkpoint-2", "checkpoint-3"}


def test_answers_that_take_their_time_tell_how_many_there_are(make_online, monkeypatch):
    monkeypatch.setattr(writer_module, "INTERVAL_SECONDS", 0.0)
    folder = make_online(max_steps=2)
    assert attempt(folder) == 0
    told = [event for event in events(folder, "progress") if event["what"] == "rollout"]
    for step in (0, 1):
        rows = [event["rows"] for event in told if event["step"] == step]
        assert rows == sorted(rows)
        assert rows[-1] == 8


def test_rloo_trains_an_adapter_that_loads_with_peft(make_online, tiny_model_dir):
    from peft import AutoPeftModelForCausalLM

    folder = make_online(stage="rloo", finetuning_type="lora", max_steps=3, save_steps=2)
    assert attempt(folder) == 0
    kl = RunReader(folder).metrics().values("kl")
    assert kl[0] == 0  # the reference is the model without its new adapter
    assert kl[-1] != 0
    # and no copy of the adapter is kept or saved
    assert not list(folder.path.rglob("ref"))
    model = AutoPeftModelForCausalLM.from_pretrained(folder.output)
    assert list(model.peft_config) == ["default"]


def test_an_adapter_that_was_trained_before_is_compared_with_itself(make_online):
    first = make_online(finetuning_type="lora", max_steps=2, learning_rate=1e-2)
    assert attempt(first) == 0
    folder = make_online(finetuning_type="lora", max_steps=2, beta=0.1, adapter_name_or_path=str(first.output))
    assert attempt(folder) == 0
    # compared with the base model it would be far from it at once
    assert RunReader(folder).metrics().values("kl")[0] == pytest.approx(0, abs=1e-6)
    assert not list(folder.output.rglob("ref"))


@pytest.mark.parametrize(
    ("at", "changes"),
    [
        (14, {}),  # in the second pass over the prompts
        (5, {"num_iterations": 2, "finetuning_type": "lora", "beta": 0.04}),  # between steps of the same answers
    ],
)
def test_a_resumed_run_makes_the_same_steps(make_online, at, changes):
    whole = make_online(max_steps=at + 3, **changes)
    cut = make_online(max_steps=at + 3, save_steps=at, **changes)
    assert attempt(whole) == attempt(cut) == resume(cut, at) == 0
    assert bits(cut) == bits(whole)
    (receipt,) = events(cut, "receipt")
    assert receipt["exact"]


BROKEN = """
calls = []


def share(answer):
    calls.append(answer)
    if len(calls) > 24:
        {fails}
    return answer.count('a') / max(len(answer), 1)
"""


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("return 1 / 0", "raised ZeroDivisionError: division by zero in line 8 of code/share.py."),
        ("return float('nan')", "returned nan. Expected a finite number, or None."),
        ("return 'good'", "returned 'good'. Expected a number, or None."),
    ],
)
def test_a_function_that_fails_leaves_a_checkpoint_and_a_sentence(make_online, fails, said):
    folder = make_online(BROKEN.format(fails=fails), max_steps=5)
    assert attempt(folder) == 1
    now = RunReader(folder).status()
    assert now.state == "failed"
    assert now.reason.startswith('In step 4, on the prompt "What is ')
    assert f"the reward function share {said} The training up to step 3 is saved." in now.reason
    assert now.reason.endswith("Fix the function, then resume with run.resume(rewards=[share]).")
    assert Checkpoints(folder).list() == [3]
    # the numbers of step 4 are no numbers of the run
    assert RunReader(folder).metrics().steps("reward").tolist() == [1, 2, 3]
    if "nan" in fails:
        return
    write_code(folder.code, {"share": SHARE})
    whole = make_online(max_steps=5)
    assert resume(folder, 3) == attempt(whole) == 0
    assert bits(folder) == bits(whole)


def test_base_and_result_are_compared_by_functions_of_a_cell(make_online):
    from llf_core.evaluation.run_losses import losses

    folder = make_online(max_steps=2, val_size=4)
    sign_run(folder)
    assert attempt(folder) == 0
    assert losses(folder).examples == 4


def test_a_function_that_fails_in_the_last_evaluation_says_what_to_do(make_online):
    held_back = "seen = []\n\n\ndef share(answer):\n    seen.append(answer)\n    return 1.0 / (len(seen) <= 24)\n"
    folder = make_online(held_back, max_steps=3, val_size=4, eval_strategy="no", save_strategy="no")
    assert attempt(folder) == 1
    reason = RunReader(folder).status().reason
    assert "raised ZeroDivisionError" in reason
    assert reason.endswith("is saved. Fix the function, then resume with run.resume(rewards=[share]).")
    assert Checkpoints(folder).list() == [3]
    write_code(folder.code, {"share": SHARE})
    assert resume(folder, 3) == 0
    assert RunReader(folder).status().state == "finished"


def test_a_function_that_fails_at_once_leaves_nothing_to_keep(make_online):
    folder = make_online("def share(answer):\n    return nowhere\n")
    assert attempt(folder) == 1
    reason = RunReader(folder).status().reason
    assert "raised NameError: name 'nowhere' is not defined in line 2 of code/share.py. Fix the function" in reason
    assert not Checkpoints(folder).list()


@pytest.mark.parametrize(
    ("code", "changes", "said"),
    [
        ("def other(answer): return 1", {}, "defines no function share"),
        (
            "def share(answer, level): return 1",
            {},
            "The reward function share takes level, which is not a column of the",
        ),
        (SHARE, {"per_device_train_batch_size": 100}, "There are 24 prompts, and a step samples completions of 25"),
        (SHARE, {"dataset": "prompts", "reward_functions": "share,correct"}, "and the data set has none (columns: q"),
        (
            SHARE,
            {"dataset": "prompts", "cutoff_len": 64, "stop_on_dropped": True},
            "1 prompt has more than cutoff_len 64 tokens and is dropped. `stop_on_dropped` is true. Raise cutoff_len",
        ),
    ],
)
def test_what_cannot_make_a_step_is_told_before_the_first(make_online, tmp_path, code, changes, said):
    if "dataset" in changes:
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps([{"question": "Why?"}] * 4 + [{"question": "Why " * 90}]))
        changes = changes | {"dataset": str(path)}
    folder = make_online(code, **changes)
    assert attempt(folder) in {1, 2}
    assert said in RunReader(folder).status().reason


def test_memory_that_runs_out_has_its_own_remedy(make_online):
    from llf_core.training.failures import explain_failure

    failure = explain_failure(MemoryError(), RunConfig.load(make_online().config))
    assert failure.what_to_do.startswith("Restart with a lower per_device_train_batch_size")


def test_none_is_a_skip_that_is_counted(make_online):
    code = "def share(answer, instruction):\n    return None if instruction.startswith('What is 1') else 1.0\n"
    folder = make_online(code, max_steps=6)
    assert attempt(folder) == 0
    columns = RunReader(folder).metrics()
    skipped = columns.values("rewards/share/skipped")
    assert set(skipped.tolist()) <= {0.0, 0.5, 1.0}
    assert skipped.max() > 0
    (warning,) = [event for event in events(folder, "warning") if event["key"] == "reward_functions"]
    assert "reward functions returned None for " in warning["message"]


def test_a_run_takes_requests(make_online):
    folder = make_online(max_steps=40, val_size=0.2, eval_strategy="no", watched_prompts="Why?", watched_tokens=3)
    ids = {
        "set": send_request(folder, "set", {"learning_rate": 5e-3, "max_steps": 7}),
        "evaluate": send_request(folder, "evaluate"),
        "checkpoint": send_request(folder, "checkpoint"),
    }
    assert attempt(folder) == 0
    answers = {event["id"]: event for event in events(folder, "answer")}
    assert all(answers[name]["ok"] for name in ids.values())
    assert answers[ids["evaluate"]]["message"].startswith("The mean reward on the evaluation set is 0.")
    columns = RunReader(folder).metrics()
    assert columns.values("learning_rate").tolist() == [1e-3, *[5e-3] * 6]
    assert columns.steps("eval_reward").tolist() == [1, 7]
    assert 1 in [event["step"] for event in events(folder, "checkpoint")]
    watched = [(one["step"], one["of"]) for one in lines(folder.samples) if one["kind"] == "answer"]
    assert watched == [(0, "base"), (1, "tuned"), (7, "tuned")]


def test_a_run_stops_with_a_checkpoint(make_online):
    folder = make_online(max_steps=40)
    send_request(folder, "stop")
    assert attempt(folder) == 0
    assert RunReader(folder).status().reason == "Stopped at step 1 of 40 with checkpoint-1."
    assert Checkpoints(folder).list() == [1]


def test_checkpointed_activations_change_nothing(make_online):
    plain = make_online(max_steps=2, finetuning_type="lora", fast_path=False)
    thrifty = make_online(max_steps=2, finetuning_type="lora", fast_path=False, gradient_checkpointing=True)
    assert attempt(plain) == attempt(thrifty) == 0
    assert bits(plain)["loss"] == bits(thrifty)["loss"]
    assert bits(plain)["grad_norm"] == bits(thrifty)["grad_norm"]


def trainer_of(folder):
    """The trainer of a run, not started."""
    from llf_core.models import plan_device
    from llf_core.runs import RunWriter
    from llf_core.training.load_context import load_context
    from llf_core.training.make_trainer import make_trainer
    from llf_core.training.metrics_callback import MetricsCallback

    writer = RunWriter(folder)
    config = RunConfig.load(folder.config)
    context = load_context(folder, config, writer, plan_device(config))
    return make_trainer(context, make_stage(config, context), MetricsCallback(folder, writer))


def test_keys_arrive_at_trl(make_online):
    asked = {
        "num_generations": 2,
        "max_completion_length": 5,
        "epsilon": 0.1,
        "epsilon_high": 0.3,
        "num_iterations": 2,
        "mask_truncated_completions": True,
        "beta": 0.01,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 7,
        "repetition_penalty": 1.1,
        "seed": 3,
        "learning_rate": 2e-3,
        "max_grad_norm": 0.5,
    }
    own = {"loss_type": "dr_grpo", "scale_rewards": "none", "importance_sampling_level": "sequence"}
    args = trainer_of(make_online(reward_weights="0.25", **asked, **own)).args
    assert {key: getattr(args, key) for key in asked} == asked
    assert args.reward_weights == [0.25]
    assert (args.loss_type, args.scale_rewards, args.importance_sampling_level) == ("dr_grpo", "none", "sequence")
    assert not args.use_vllm
    assert args.report_to == []
    args = trainer_of(make_online(stage="rloo", normalize_advantages=True, **asked)).args
    assert {key: getattr(args, key) for key in asked} == asked
    assert args.normalize_advantages


def test_defaults_are_trl_s(make_online):
    from trl import GRPOConfig, RLOOConfig

    given = {"num_generations", "max_completion_length", "reward_weights"}
    unset = dict.fromkeys(("temperature", "top_p", "top_k"), None)
    for stage, kind in (("grpo", GRPOConfig), ("rloo", RLOOConfig)):
        args = trainer_of(make_online(stage=stage, **unset)).args
        for key in ("beta", "epsilon", "epsilon_high", "num_iterations", "mask_truncated_completions"):
            assert getattr(args, key) == kind.__dataclass_fields__[key].default, key
        for key in kind.__dataclass_fields__.keys() & {"loss_type", "scale_rewards", "normalize_advantages"} - given:
            assert getattr(args, key) == kind.__dataclass_fields__[key].default, key


@pytest.mark.parametrize("name", ["OnlineGRPO", "OnlineRLOO"])
def test_names_of_trl_that_are_overridden_or_used(name):
    from trl.trainer.utils import RepeatSampler

    import llf_core.stages.online.trl_trainers as trainers
    from llf_core.stages.base.loop import TrainingLoop

    kind = getattr(trainers, name)
    library = [one for one in kind.__mro__ if one.__module__.startswith(("trl.", "transformers."))]
    known = {attribute for one in library for attribute in vars(one)}
    own = {"seen", "resume_rollout", "sample_completions", "save_step_state", "unused_completions"}
    own |= {"_save_last_step", "_checkpoint_on_reward_error"}
    assert set(vars(trainers.OnlineTrainer)) - {"__module__", "__doc__", "__annotations__", "__init__", *own} <= known
    assert {"_save_checkpoint", "_generate_single_turn"} <= known
    assert kind.__mro__.index(TrainingLoop) < kind.__mro__.index(library[0])
    sampler = RepeatSampler([0, 1, 2], 2, seed=5)
    assert (sampler.seed, sampler.num_samples, sampler.generator.initial_seed()) == (5, 3, 5)


def test_passes_have_the_orders_of_an_unbroken_run():
    from trl.trainer.utils import RepeatSampler

    from llf_core.stages.online.trl_trainers import ResumableSampler

    whole = RepeatSampler(list(range(9)), 2, batch_size=3, seed=5)
    orders = [list(whole) for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]
    for number in (2, 0, 1):
        passes = ResumableSampler(RepeatSampler(list(range(9)), 2, batch_size=3, seed=5))
        passes.set_epoch(number)
        assert list(passes) == orders[number]
        assert len(passes) == 18
