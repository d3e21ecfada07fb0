"""Every key in every stage: read by what the stage does, or told of. Nothing that is accepted is ignored in silence."""

from __future__ import annotations

import functools
import inspect
import json

import pytest
import yaml

from llf_core.config import RunConfig, fields, validate
from llf_core.config.declaration import StageDeclaration
from llf_core.config.field_specs import field, is_used
from llf_core.config.registry import all_declared, declared
from llf_core.runs import create_run, read_status
from llf_core.user_functions.function_source import write_code
from tests.core.training.reads import recorded

DECLARED = declared(StageDeclaration)
STAGES = tuple(DECLARED)
SAMPLED = tuple(name for name, stage in DECLARED.items() if stage.samples_groups)
SHARE = "def share(answer):\n    return answer.count('a') / max(len(answer), 1)\n"
DRAWN = {"reward_functions": "share", "temperature": 1.0, "top_p": 1.0, "top_k": 0}
GROUPS = DRAWN | {
    "num_generations": 4,
    "max_completion_length": 6,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
}
OWN = {
    "grpo": GROUPS,
    "rloo": GROUPS,
    "ppo": DRAWN | {"reward_model_type": "function", "max_new_tokens": 6},
    "kd": {"teacher_model": "the model"},
}
BUSY = {
    "max_steps": 4,
    "save_steps": 2,
    "val_size": 8,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "per_device_eval_batch_size": 8,
    "early_stopping_steps": 5,
    "save_total_limit": 1,
    "warmup_steps": 1,
    "watched_prompts": "hi",
}
"""A run in which everything happens that can happen in four steps."""

SOMETIMES = {
    "checkpointing": ({"gradient_checkpointing": True}, {"use_reentrant_gc", "gradient_checkpointing_kwargs"}),
    "stream": ({"streaming": True, "early_stopping_steps": None}, {"buffer_size"}),
    "lengths": ({"train_sampling_strategy": "group_by_length"}, {"length_column_name"}),
}
"""What is read in some runs only, and a change that makes a run such a one."""
OF_HUBS = {"model_revision"}
OF_TRACKERS = {"run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"}
OF_MANY_MACHINES = {"log_on_each_node"}
WHEN_MADE = {"tf32", "torch_compile"}
"""Settings of PyTorch: the trainer's arguments set them as they are made."""
BY_SELECTION = {key for one in all_declared().values() for key in (one.selector, getattr(one, "switch", "")) if key}
"""What selects a plug-in is read where plug-ins are chosen."""


def rows(stage):
    """24 records of the kind that a stage learns from."""
    whole = [
        {"instruction": f"What is {i}?", "input": "", "output": f"It is {i}.", "chosen": f"It is {i}.",
         "rejected": "No" + "!" * (i % 4), "kto_tag": bool(i % 2), "text": f"This is {i}, and that is all of it."}
        for i in range(24)
    ]  # fmt: skip
    kind = DECLARED[stage].data_kind
    pair = ("instruction", "input", "chosen", "rejected")
    names = {"pairs": pair, "unpaired_preferences": ("instruction", "input", "output", "kto_tag"), "texts": ("text",)}
    kept = names.get(kind, ("instruction", "input", "output"))
    return [{name: row[name] for name in kept} for row in whole]


@pytest.fixture(scope="module")
def reads(tmp_path_factory, tiny_model_dir):
    """`reads(stage, **changes) -> {key: its readers}` of an attempt made in this process, once for the module."""
    from llf_core.training.session import run_attempt

    @functools.cache
    def attempt(stage, changes=()):
        place = tmp_path_factory.mktemp(f"keys-{stage}")
        (place / "rows.json").write_text(json.dumps(rows(stage)))
        asked = {
            "model_name_or_path": str(tiny_model_dir),
            "stage": stage,
            "dataset": str(place / "rows.json"),
            "cutoff_len": 128,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "logging_steps": 1,
        }
        asked |= BUSY | OWN.get(stage, {}) | dict(changes)
        if "teacher_model" in asked:
            asked["teacher_model"] = str(tiny_model_dir)
        if DECLARED[stage].has_reward_head:
            del asked["watched_prompts"]
        config = RunConfig.load(yaml.safe_dump({key: value for key, value in asked.items() if value is not None}))
        folder = create_run(
            config.yaml(defaults=True), "keys", home=place, fill=lambda new: write_code(new.code, {"share": SHARE})
        )
        with recorded() as seen:
            code = run_attempt(folder, 1)
        assert code == 0, read_status(folder).reason
        return seen

    return lambda stage, **changes: attempt(stage, tuple(changes.items()))


def base(stage):
    return {"dataset": "llf_demo", "stage": stage} | BUSY | OWN.get(stage, {})


def other(spec, now):
    """A value of a field that is good by itself, and not the one that stands there."""
    if spec.choices:
        return next((one for one in spec.choices if one not in {now, spec.default}), None)
    if spec.type == "bool":
        return not spec.default
    if spec.type in {"int", "float"}:
        tried = (3, 2, 0.5, 0.3, 12, 7)
        return next(one for one in tried if one not in {now, spec.default} and not validate({spec.key: one}).invalid)
    return {"int": 1} if spec.type == "object" else "something"


def told(stage, spec):
    """Whether something is said of a value of a key that is not said without it."""
    values = base(stage)
    before = {one.message for one in validate(values).problems}
    report = validate(values | {spec.key: other(spec, values.get(spec.key, spec.default))})
    said = [one for one in report.problems if one.message not in before and "the usual range" not in one.message]
    return any(spec.key in {one.key, *one.keys} for one in said)


def is_declared(stage, spec):
    """Whether the declarations say that a stage reads a key."""
    if not is_used(spec, validate(base(stage)).config):
        return False
    if spec.section == "generation" and not spec.key.startswith("watched_"):
        return spec.key in DECLARED[stage].generation_keys
    return True


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_declared_is_read_and_all_else_is_told(stage, reads):
    seen = reads(stage)
    sometimes = {key for _, keys in SOMETIMES.values() for key in keys}
    elsewhere = OF_HUBS | OF_TRACKERS | OF_MANY_MACHINES | WHEN_MADE | BY_SELECTION | sometimes
    silent = []
    for spec in fields():
        if is_declared(stage, spec):
            if spec.key not in seen and spec.key not in elsewhere and not told(stage, spec):
                silent.append(spec.key)
        elif spec.key not in BY_SELECTION and not told(stage, spec):
            silent.append(spec.key)
    assert silent == []


@pytest.mark.parametrize("name", SOMETIMES)
def test_what_is_read_sometimes_is_read_then(name, reads):
    changes, keys = SOMETIMES[name]
    assert keys - set(reads("sft", **changes)) == set()


def test_the_trackers_read_what_is_theirs():
    from transformers.integrations import integration_utils

    source = inspect.getsource(integration_utils)
    assert [key for key in OF_TRACKERS if f"args.{key}" not in source] == []


@pytest.mark.parametrize("stage", SAMPLED)
def test_the_keys_of_drawing_reach_the_library_and_the_sampler(stage, tmp_path, tiny_model_dir, monkeypatch):
    from llf_core.stages.online import trl_trainers
    from llf_core.training import session

    asked = {
        "temperature": 0.8, "top_p": 0.9, "top_k": 11, "repetition_penalty": 1.1, "max_completion_length": 5,
        "num_generations": 4, "epsilon": 0.15, "epsilon_high": 0.25, "num_iterations": 2, "beta": 0.02,
        "mask_truncated_completions": True,
    }  # fmt: skip
    asked |= {key: other(field(key), None) for key in DECLARED[stage].options.model_fields}
    drawn, made = [], []

    def continuations(*args, sampling, max_new_tokens, **kwargs):
        drawn.append((sampling, max_new_tokens))
        return plain(*args, sampling=sampling, max_new_tokens=max_new_tokens, **kwargs)

    def make_trainer(*args, **kwargs):
        made.append(plain_trainer(*args, **kwargs))
        return made[-1]

    plain, plain_trainer = trl_trainers.continuations, session.make_trainer
    monkeypatch.setattr(trl_trainers, "continuations", continuations)
    monkeypatch.setattr(session, "make_trainer", make_trainer)
    (tmp_path / "rows.json").write_text(json.dumps(rows(stage)))
    place = {"model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "max_steps": 1}
    config = RunConfig.load(GROUPS | place | {"stage": stage} | asked)
    folder = create_run(config.yaml(), "drawn", fill=lambda new: write_code(new.code, {"share": SHARE}))
    assert session.run_attempt(folder, 1) == 0, read_status(folder).reason
    arguments = made[0].args
    assert {key: getattr(arguments, key) for key in asked} == {key: config.get(key) for key in asked}
    sampling, longest = drawn[0]
    assert longest == 5
    assert (sampling.do_sample, sampling.temperature, sampling.top_k, sampling.top_p) == (True, 0.8, 11, 0.9)
    assert sampling.repetition_penalty == 1.1


def test_the_key_of_the_campaign():
    grpo = {"dataset": "llf_demo", "stage": "grpo", "reward_functions": "format", "per_device_train_batch_size": 8}
    report = validate(grpo | {"top_p": 1, "top_k": 0, "max_new_tokens": 12})
    (problem,) = report.problems
    assert (problem.severity, problem.key) == ("error", "max_new_tokens")
    assert problem.message == "`max_new_tokens` has no effect in stage grpo, which calls this `max_completion_length`."
    assert dict(problem.fixes[0].changes) == {"max_new_tokens": None, "max_completion_length": 12}


@pytest.mark.parametrize(
    ("key", "stage"), [(key, name) for name, stage in DECLARED.items() for key in stage.other_names]
)
def test_a_key_of_another_stage_is_refused_with_the_one_that_is_meant(key, stage):
    spec, right = field(key), field(DECLARED[stage].other_names[key])
    assert not is_declared(stage, spec)
    assert is_declared(stage, right)
    value = other(spec, spec.default)
    (problem,) = [one for one in validate(base(stage) | {key: value}).problems if one.key == key]
    assert problem.severity == "error"
    for fix in problem.fixes:
        mended = {k: v for k, v in (base(stage) | {key: value} | fix.changes).items() if v is not None}
        assert [one.message for one in validate(mended).problems if one.key == key] == []


def test_a_word_for_what_is_not_drawn():
    (problem,) = validate({"dataset": "llf_demo", "temperature": 0.5}).problems
    assert problem.message == "`temperature` has no effect in stage sft, which does not sample completions."
    (problem,) = validate({"dataset": "llf_demo", "pref_beta": 0.5}).problems
    assert problem.message == "`pref_beta` has no effect in stage sft. Stages that use it: dpo, kto."
