"""Configs of strangers: what they hold reaches a person as text, in seconds, and before a run begins."""

import json
import sys
from dataclasses import fields
from inspect import signature

import pytest

from llf_core.cli import main
from llf_core.config import RunConfig, validate
from llf_core.config.read_config import read
from llf_core.config.rules.conditions import ACCELERATE, SCHEDULES
from llf_core.config.rules.optimization import GREEDY_FLOOR, POLYNOMIAL_END
from llf_core.config.sections import SCHEDULERS
from llf_core.untrusted import visible
from llf_core.user_error import BAD_CONFIG

BASE = {"dataset": "llf_demo", "model_name_or_path": "smollm2-135m-instruct"}


def said(**values: object) -> str:
    return " ".join(problem.message for problem in validate({**BASE, **values}).problems if problem.severity == "error")


@pytest.mark.parametrize("key", ["st\x1b[8mage", "\u202eegats", "\ud83d", "sta\u200bge", "\x00"])
def test_a_key_that_a_terminal_obeys_is_shown_and_not_obeyed(tmp_path, monkeypatch, capsys, key):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**BASE, key: 1}))
    for arguments in (["validate"], ["validate", "--json"], ["train"], ["inspect"]):
        monkeypatch.setattr(sys, "argv", ["llf", *arguments, str(path)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        assert end.value.code == BAD_CONFIG
        assert visible(told.out + told.err) == told.out + told.err


def test_thousands_of_unknown_keys_are_told_in_one_sentence():
    values = {f"k{number}": number for number in range(5000)}
    report = validate(json.dumps({**BASE, **values}, indent=1))
    assert len(report.unknown) == 51
    assert report.unknown[-1].message.startswith("4,950 more keys are unknown: k50, ")
    assert report.unknown[-1].fixes[0].changes == dict.fromkeys(f"k{number}" for number in range(50, 5000))
    assert [problem.line for problem in report.unknown[:2]] == [4, 5]


def test_a_key_that_stands_a_thousand_times_is_one_problem():
    report = validate("dataset: llf_demo\n" * 1000)
    assert [problem.message for problem in report.invalid] == [
        "`dataset` is set in line 1 and again in line 2. Expected it once."
    ]


def test_the_lines_of_a_long_json_are_found_in_one_pass():
    text = json.dumps({f"k{number}": number for number in range(30_000)}, indent=1)
    assert read(text).lines["k29999"] == 30_001  # a pass for each key took a minute


@pytest.mark.parametrize("key", ["accelerator_config", "lr_scheduler_kwargs", "dataset_columns"])
def test_a_mapping_in_a_text_is_no_deeper_than_any_other(key):
    assert "nested more than 64 levels deep" in said(**{key: '{"a":' * 50_000})


@pytest.mark.parametrize("key", ["save_steps", "eval_steps", "logging_steps", "warmup_steps", "val_size"])
def test_a_number_of_steps_that_no_file_keeps_is_refused_at_once(key):
    assert "of at most 9,007,199,254,740,992, or a share below 1." in said(**{key: 1e30})
    config = RunConfig.load({**BASE, key: 2**53})
    assert RunConfig.load(config.yaml(defaults=True)) == config


@pytest.mark.parametrize("key", ["learning_rate", "weight_decay", "max_grad_norm", "temperature", "pref_beta"])
def test_a_number_that_is_infinite_for_a_model_is_refused(key):
    assert "Expected a number of at most 3.4e+38." in said(**{key: 1e300})


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("linear", {"min_lr": 1}, "The schedule linear has no option `min_lr`. It has no options."),
        ("cosine", {"power": 1}, "The schedule cosine has no option `power`. Expected `num_cycles`."),
        ("polynomial", {"power": "x"}, "`power` in `lr_scheduler_kwargs` is 'x'. Expected a number."),
        ("polynomial", {"power": True}, "`power` in `lr_scheduler_kwargs` is true. Expected a number."),
        ("polynomial", {"power": 1e300}, "`power` in `lr_scheduler_kwargs` is 1e300. Expected a number."),
        ("warmup_stable_decay", {"decay_type": "x"}, "is 'x'. Expected one of linear, cosine, 1-sqrt."),
        ("cosine_with_min_lr", {"min_lr": 0, "min_lr_rate": 0}, "has both `min_lr` and `min_lr_rate`."),
        ("reduce_lr_on_plateau", {"factor": 2}, "is 2. Expected a number below 1."),
    ],
)
def test_options_that_a_schedule_does_not_take_are_told_before_a_start(kind, options, reason):
    told = said(lr_scheduler_type=kind, lr_scheduler_kwargs=options, val_size=0.1, eval_strategy="epoch")
    assert reason in told


def test_the_options_are_those_of_transformers():
    from torch.optim.lr_scheduler import ReduceLROnPlateau
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR
    from transformers.trainer_pt_utils import AcceleratorConfig

    ours = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    for kind in SCHEDULERS:
        function = {"reduce_lr_on_plateau": ReduceLROnPlateau, "greedy": GreedyLR}.get(kind)
        function = function or TYPE_TO_SCHEDULER_FUNCTION[kind]
        if kind in SCHEDULES or set(signature(function).parameters) - ours:
            assert set(SCHEDULES[kind]) == set(signature(function).parameters) - ours, kind
    assert signature(TYPE_TO_SCHEDULER_FUNCTION["polynomial"]).parameters["lr_end"].default == POLYNOMIAL_END
    assert signature(GreedyLR).parameters["min_lr"].default == GREEDY_FLOOR
    assert set(ACCELERATE) == {one.name for one in fields(AcceleratorConfig)}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"accelerator_config": {"x": 1}}, "Accelerate has no option `x`. Expected `split_batches`"),
        ({"accelerator_config": {"even_batches": "x"}}, "`even_batches` in `accelerator_config` is 'x'."),
        ({"accelerator_config": {"gradient_accumulation_kwargs": 1}}, "is 1. Expected a mapping."),
        ({"accelerator_config": {"gradient_accumulation_kwargs": {"x": 1}}}, "Gradient accumulation has no option `x`"),
        (
            {
                "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 2}},
                "gradient_accumulation_steps": 2,
            },
            "are both given. Expected one.",
        ),
        ({"gradient_checkpointing_kwargs": {"x": 1}}, "Gradient checkpointing has no option `x`."),
        ({"gradient_checkpointing_kwargs": {"determinism_check": "y"}}, "is 'y'. Expected one of default, none."),
        ({"gradient_checkpointing_kwargs": {"debug": True, "use_reentrant": True}}, "does not work with"),
        ({"optim": "sgd", "optim_args": "momentum=x"}, "`momentum` in `optim_args` is 'x'. Expected a number."),
        ({"optim": "sgd", "optim_args": "momentum=-1"}, "is -1. Expected a number of at least 0."),
        ({"optim": "sgd", "optim_args": "nesterov=true"}, "Nesterov momentum (`optim_args`) needs a `momentum`"),
        ({"optim": "rmsprop", "optim_args": "foo=1"}, "The optimizer rmsprop has no option `foo`."),
        ({"torch_compile": True, "torch_compile_backend": "evil"}, "Expected one of inductor, "),
        ({"torch_compile": True, "torch_compile_mode": "evil"}, "Expected one of default, "),
    ],
)
def test_options_of_a_library_are_told_before_a_start(values, reason):
    assert reason in said(**values)


@pytest.mark.parametrize("text", ["momentum", "=1", "a=b=c", "momentum=", "a=1,,b=2", "a b"])
def test_optimizer_options_are_assignments(text):
    assert "Expected `name=value`, separated by commas" in said(optim_args=text)


def test_how_loading_processes_start_needs_one():
    assert "`dataloader_num_workers` is 0" in said(dataloader_multiprocessing_context="spawn")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("dataloader_num_workers", 10_000, "of at least 0 and at most 256"),
        ("threads", 1_000_000, "of at least 1 and at most 1,024"),
        ("temperature", 1e-300, "a number of at least 0.001"),
        ("repetition_penalty", 1e-300, "a number of at least 0.001"),
        ("ppo_epochs", 2**40, "of at least 1 and at most 1,000"),
        ("num_iterations", 2**40, "of at least 1 and at most 1,000"),
        ("lora_rank", 2**62, "of at least 1 and at most 65,536"),
        ("watched_prompts", "x" * 5000, "A watched prompt has 5,000 characters. Expected at most 4,000"),
    ],
)
def test_numbers_that_no_machine_has_room_for_are_refused(key, value, expected):
    assert expected in said(**{key: value})


@pytest.mark.parametrize("share", ["0,1", "1e-300,1"])
def test_a_share_by_which_a_set_is_never_used_up_is_refused(share):
    told = said(dataset="llf_demo,llf_demo", mix_strategy="interleave_over", interleave_probs=share)
    assert "which takes too long. Expected at least 1e-3, or without the data set." in told


@pytest.mark.parametrize(
    "values",
    [
        {"api_key": "opensesame"},
        {"hf_token": "opensesame"},
        {"WANDB_API_KEY": "opensesame"},
        {"password": "opensesame"},
        {"headers": {"Authorization": "Bearer opensesame-3f9a8b7c6d5e"}},
        {"env": {"DB_PASSWORD": "opensesame"}},
        {"stag": "hf_" + "opensesame1" * 3},
    ],
)
def test_the_value_of_an_unknown_key_that_looks_like_a_secret_is_not_repeated(tmp_path, monkeypatch, capsys, values):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**BASE, **values}))
    for arguments in (["validate"], ["validate", "--json"]):
        monkeypatch.setattr(sys, "argv", ["llf", *arguments, str(path)])
        with pytest.raises(SystemExit):
            main()
        told = capsys.readouterr()
        assert "opensesame" not in told.out + told.err
        assert next(iter(values)) in told.out + told.err


@pytest.mark.parametrize("values", [{"skip_special_token": True}, {"num_keys": 3}, {"pad_token": "<pad>"}])
def test_what_is_only_called_like_a_secret_is_told_as_unknown(values):
    assert said(**values).startswith(f"Unknown key `{next(iter(values))}`.")
