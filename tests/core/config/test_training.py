"""Our table of the Trainer's keys against `transformers.TrainingArguments` itself."""

import dataclasses
import enum

import pytest
from transformers import Seq2SeqTrainingArguments, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from llf_core.config import RunConfig
from llf_core.config.classify_key import known
from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.field_specs import field, fields
from llf_core.config.registry import declared
from llf_core.config.sections import SCHEDULERS

THEIRS = {one.name: one for one in dataclasses.fields(Seq2SeqTrainingArguments)}

# Keys of the sections optimizer and training that are none of TrainingArguments.
OURS_ALONE = {"early_stopping_steps", "fast_path", "measure_forgetting", "pure_bf16"}

# Defaults that are not Hugging Face's, each with the reason.
OTHER_DEFAULTS = {
    "logging_steps": "a curve needs points from the first minute on; a logged step costs under a millisecond",
}


def default_of(one: dataclasses.Field) -> object:
    value = one.default if one.default is not dataclasses.MISSING else one.default_factory()
    return value.value if isinstance(value, enum.Enum) else value


def test_every_key_of_the_trainer_is_known():
    assert set(THEIRS) - {spec.key for spec in fields()} - known().keys == set()


def test_every_key_of_ours_is_one_of_the_trainer():
    ours = {spec.key for spec in fields() if spec.section in {"training", "optimizer"} and spec.plugin is None}
    assert ours - set(THEIRS) == OURS_ALONE


def test_defaults_are_the_trainers():
    differing = {spec.key for spec in fields() if spec.key in THEIRS and spec.default != default_of(THEIRS[spec.key])}
    assert differing == set(OTHER_DEFAULTS)


def test_defaults_that_do_nothing_are_the_trainers():
    differing = {
        key for key, values in known().defaults.items() if key in THEIRS and default_of(THEIRS[key]) not in values
    }
    assert differing == {"do_train"}  # here a run trains unless it is told not to


@pytest.mark.parametrize(
    ("key", "theirs", "ours"),
    [
        ("lr_scheduler_type", SchedulerType, SCHEDULERS),
        ("optim", OptimizerNames, tuple(declared(OptimizerDeclaration))),
        ("eval_strategy", IntervalStrategy, ("no", "steps", "epoch")),
        ("logging_strategy", IntervalStrategy, ("no", "steps", "epoch")),
        ("save_strategy", SaveStrategy, ("no", "steps", "epoch", "best")),
    ],
)
def test_every_choice_of_the_trainer_is_ours_or_named_as_not_built(key, theirs, ours):
    assert sorted(field(key).choices) == sorted(ours)
    read = set(known().optimizers) if key == "optim" else set()
    assert {one.value for one in theirs} <= set(ours) | set(known().values.get(key, {})) | read
    assert read | set(known().values.get(key, {})) <= {one.value for one in theirs}


def test_literals_and_choices_are_the_same_list():
    for spec in fields():
        literal = list(spec.annotation.__args__) if hasattr(spec.annotation, "__args__") else []
        names = tuple(one for one in literal if isinstance(one, str))
        if names:
            assert spec.choices == names, spec.key


def test_trackers_are_those_of_transformers():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(field("report_to").choices) - {"none", "all"} <= set(INTEGRATION_TO_CALLBACK)


def test_the_trainer_takes_what_a_config_holds(tmp_path):
    config = RunConfig.load({"dataset": "x"})
    values = {spec.key: config.get(spec.key) for spec in fields() if spec.key in THEIRS}
    values |= {"output_dir": str(tmp_path), "report_to": list(values["report_to"]), "use_cpu": True}
    args = TrainingArguments(**values)
    assert (args.learning_rate, args.num_train_epochs, args.report_to) == (5e-5, 3.0, [])
