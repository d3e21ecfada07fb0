"""Any config survives YAML, JSON and overrides."""

import json
import math

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llf_core.config import RunConfig, fields, validate
from llf_core.config.declarations.methods.lora import LoRAOptions
from llf_core.config.option import Section
from llf_core.config.read_config import dump_yaml, read, yaml_value
from llf_core.config.registry import stage_of

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def number_between(spec):
    low = spec.minimum if spec.minimum is not None else spec.above if spec.above is not None else -1e6
    high = spec.maximum if spec.maximum is not None else spec.below if spec.below is not None else max(low, 1) * 1e3
    if spec.type == "int":
        return st.integers(int(low) + (spec.above is not None), int(high) - (spec.below is not None))
    excluded = {"exclude_min": spec.above is not None, "exclude_max": spec.below is not None}
    first, last = int(low) + 1, math.ceil(high) - 1
    whole = st.integers(first, last) if first <= last else st.nothing()
    return st.floats(low, high, **excluded) | whole


def values_of(spec):
    """Values that may be good for a field; the Trainer's rule "a share or a whole number" refuses some floats."""
    if spec.choices is not None:
        choice = st.sampled_from(spec.choices)
        return choice.map(str) if spec.type == "names" else choice
    kinds = {
        "bool": st.booleans(),
        "text": TEXT,
        "names": st.lists(NAMES, min_size=1, max_size=3),
        "object": st.dictionaries(TEXT, PLAIN, max_size=3),
    }
    one = kinds[spec.type] if spec.type in kinds else number_between(spec)
    return one | st.none() if spec.optional else one


CONFIGS = st.fixed_dictionaries(
    {"dataset": st.just("llf_demo")},
    optional={spec.key: values_of(spec) for spec in fields() if spec.key not in {"dataset", "cache_dir"}},
)


@settings(deadline=None, max_examples=60)
@given(CONFIGS)
@example({"dataset": "llf_demo", "eval_strategy": "steps", "logging_steps": 1.5})
def test_a_config_survives_yaml_and_json(values):
    config = validate(values).config
    for defaults in (False, True):
        text = config.yaml(defaults)
        assert validate(text).config == config
        # any other YAML reader sees the same values, and the text is one key a line
        also = {"do_train": True} if config.evaluation.do_predict else {}  # else it would ask for predictions alone
        assert yaml.safe_load(text) == config.flat(defaults) | also
    assert validate(json.dumps(config.flat())).config == config
    assert validate(config.flat()).config == config
    assert validate(config).config == config


@settings(deadline=None, max_examples=60)
@given(CONFIGS)
def test_the_cell_of_a_config_makes_the_same_config(values):
    config = validate(values).config
    handed_over = []

    class Notebook:
        train = staticmethod(handed_over.append)
        Monitor = staticmethod(lambda run: None)

    code = config.python()
    assert code.startswith("import llf_widgets as llf\n")
    exec(code.partition("\n")[2], {"llf": Notebook})  # our own text
    assert validate(handed_over[0]).config == config


@given(
    st.dictionaries(
        NAMES.map(str.strip).filter(lambda key: key and "=" not in key and not key.startswith("-")), PLAIN, max_size=4
    )
)
def test_overrides_are_read_as_they_were_written(values):
    overrides = [f"{key}={dump_yaml({'v': value}).partition(':')[2].strip()}" for key, value in values.items()]
    flat = {key: value for key, value in values.items() if not isinstance(value, dict | list | str)}
    kept = [text for text in overrides if text.partition("=")[0] in flat]
    assert read({}, kept).values == flat


@given(TEXT)
@example("0\x850")
@example("a\u2028b")
@example("2e-4")
@example("no")
@example("")
def test_any_text_is_written_so_that_it_is_read_as_text(text):
    assert read(dump_yaml({"key": text})).values == {"key": text}
    assert yaml.safe_load(dump_yaml({"key": text})) == {"key": text}


@given(st.floats(allow_nan=False))
def test_any_float_is_written_so_that_it_is_read_as_the_same_float(number):
    assert read(dump_yaml({"key": number})).values == {"key": number}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000.0), ("010", 10), ("1:30", "1:30"), ("0x1f", "0x1f"), ("~", None), ("", None), ("1_000", "1_000")],
)
def test_values_are_those_of_yaml_1_2(text, value):
    assert yaml_value(text) == value


@given(st.dictionaries(TEXT, PLAIN, max_size=5))
def test_validation_never_raises_on_content(values):
    report = validate(values)
    json.dumps(report.json())
    assert report.ok == all(problem.severity != "error" for problem in report.problems)


@given(TEXT)
def test_validation_never_raises_on_text(text):
    json.dumps(validate(f"{text}\n").json())


@given(st.data())
def test_validation_never_raises_on_a_wrong_value(data):
    spec = data.draw(st.sampled_from(fields()))
    report = validate({"dataset": "llf_demo", spec.key: data.draw(PLAIN)})
    json.dumps(report.json())


def test_replace_and_reset():
    config = RunConfig.load({"dataset": "llf_demo", "seed": 7})
    assert config.replace(seed=8).training.seed == 8
    assert config.replace(seed=None).training.seed == 42
    assert config.training.seed == 7


def test_flat_shows_what_differs_or_everything_that_is_selected():
    config = RunConfig.load({"dataset": "llf_demo", "finetuning_type": "full", "learning_rate": 1e-5})
    assert config.flat() == {
        "model_name_or_path": "smollm2-135m-instruct",
        "dataset": "llf_demo",
        "finetuning_type": "full",
        "learning_rate": 1e-5,
        "stage": "sft",
    }
    shown = config.flat(defaults=True)
    assert "lora_rank" not in shown
    assert (shown["cutoff_len"], shown["report_to"]) == (2048, "none")


class Unknown(Section):
    """Options that no plug-in has."""


def test_get_and_options():
    config = RunConfig.load({"dataset": "llf_demo", "lora_rank": 4})
    assert config.get("lora_rank") == config.options(LoRAOptions).lora_rank == 4
    assert stage_of(config).name == "sft"
    with pytest.raises(KeyError):
        config.get("nothing")
    with pytest.raises(KeyError):
        config.options(Unknown)
