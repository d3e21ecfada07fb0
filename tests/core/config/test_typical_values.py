"""Values far outside what is used are warned of, and the usual ones are not."""

import pytest

from llf_core.config import validate
from llf_core.config.field_specs import field
from llf_core.config.rules.optimization import SHARE, table

TABLE = table()
IDS = [f"{one.key}-{number}" for number, one in enumerate(TABLE)]


def config(one, value):
    """A config that an entry is for."""
    chosen = {key: values[0] for key, values in one.when.items() if key != SHARE}
    drawn = {"reward_functions": "format", "reward_model_type": "function"} if chosen.get("stage") == "ppo" else {}
    return {"dataset": "llf_demo", "finetuning_type": "full"} | chosen | drawn | {one.key: value}


def warnings(values, key):
    said = [problem for problem in validate(values).violations if problem.key == key]
    return [problem for problem in said if "the usual range" in problem.message]


@pytest.mark.parametrize("one", TABLE, ids=IDS)
def test_beyond_each_limit_there_is_a_warning_with_the_usual_range(one):
    spec = field(one.key)
    whole = spec.type == "int"
    for limit, sign in ((one.least, -1), (one.most, 1)):
        if limit is None:
            continue
        beyond = limit + sign if whole else limit * 1.2**sign
        (problem,) = warnings(config(one, beyond), one.key)
        assert (problem.severity, validate(config(one, beyond)).invalid) == ("warning", [])
        assert one.typical in problem.message
        assert problem.message.startswith(f"{spec.label} (`{one.key}`) is ")
        assert warnings(config(one, limit), one.key) == []


@pytest.mark.parametrize("one", [one for one in TABLE if one.set is not None])
def test_what_the_fix_sets_is_usual(one):
    assert warnings(config(one, one.set), one.key) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"learning_rate": 50},
            "Learning rate (`learning_rate`) is 50, far above the usual range. Usual for LoRA: 1e-5",
        ),
        (
            {"cutoff_len": 4},
            "Cutoff length (`cutoff_len`) is 4, far below the usual range. Usual: 256 to 32,768 tokens.",
        ),
        ({"stage": "dpo", "learning_rate": 1}, "Usual for preferences and rewards with LoRA: 5e-7 to 5e-5."),
    ],
)
def test_the_values_of_the_campaign(asked, words):
    (problem,) = [one for one in validate({"dataset": "llf_demo"} | asked).problems if one.severity == "warning"]
    assert problem.message.startswith(words) or problem.message.endswith(words)


def test_a_learning_rate_of_sgd_may_be_large():
    assert warnings({"dataset": "llf_demo", "optim": "sgd", "learning_rate": 0.5}, "learning_rate") == []


def test_every_default_is_usual():
    for one in TABLE:
        default = field(one.key).default
        if default is not None:
            assert warnings(config(one, default), one.key) == []
