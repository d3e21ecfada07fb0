"""Text to value and back, over every option that there is and over numbers that nobody would list."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.config import FieldSpec, RunConfig, fields, validate
from llf_widgets.forms.values import choice_options, control_kind, format_value, parse_value

SPECS = {spec.key: spec for spec in fields()}
RATE, RANK, TEMPLATE = SPECS["learning_rate"], SPECS["lora_rank"], SPECS["default_system"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 0.0002),
        ("0.1", 0.1),
        (" 3 ", 3),
        ("1e3", 1000.0),
        ("-1", -1),
        (".5", 0.5),
        ("", None),
        ("  ", None),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, value: object) -> None:
    assert parse_value(RATE, text) == value


@pytest.mark.parametrize("text", ["abc", "2e", "1_000", "1,5", "nan", "inf", "1e999", "0x10", "--1"])
def test_what_is_no_number_stays_text(text: str) -> None:
    assert parse_value(RATE, text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-4, "2e-4"),
        (5e-5, "5e-5"),
        (1.25e-7, "1.25e-7"),
        (0.1, "0.1"),
        (3.0, "3"),
        (0.05, "0.05"),
        (1e-3, "1e-3"),
        (0.0, "0"),
    ],
)
def test_numbers_are_shown_short(value: float, text: str) -> None:
    assert format_value(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_number_is_lost(value: float) -> None:
    assert parse_value(RATE, format_value(value)) == value


@given(st.integers())
def test_no_digit_of_a_whole_number_is_lost(value: int) -> None:
    assert parse_value(RANK, format_value(value)) == value


@given(st.text().filter(lambda text: text.strip()))
def test_text_stays_as_it_is(text: str) -> None:
    assert parse_value(TEMPLATE, format_value(text)) == text


@given(st.dictionaries(st.text(min_size=1), st.none() | st.booleans() | st.integers() | st.text(), min_size=1))
def test_mapping_comes_back(value: dict[str, Any]) -> None:
    spec = replace(RATE, type="object")
    assert parse_value(spec, format_value(value)) == value


def edge_values(spec: FieldSpec) -> list[Any]:
    """The default, every choice, and both ends of the range."""
    values = [spec.default, *(spec.choices or ())]
    if spec.type in ("int", "float") and not spec.choices:
        step = 1 if spec.type == "int" else 1e-9
        values += [limit for limit in (spec.minimum, spec.maximum) if limit is not None]
        values += [spec.above + step] if spec.above is not None else []
        values += [spec.below - step] if spec.below is not None else []
    if spec.type == "bool":
        values += [True, False]
    if spec.type == "names":
        values += ["a", "a,b"]
    return [value for value in values if value is not None]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_field_round_trips_its_default_and_edges(spec: FieldSpec) -> None:
    for value in edge_values(spec):
        back = parse_value(spec, format_value(value))
        assert back == value
        assert isinstance(back, bool) == isinstance(value, bool)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_field_has_a_control_that_can_show_its_default(spec: FieldSpec) -> None:
    control = control_kind(spec)
    if control == "choice":
        assert format_value(spec.default) in [value for value, _ in choice_options(spec)]
    if control == "check":
        assert isinstance(spec.default, bool)
    assert spec.label
    assert spec.help


def test_typed_defaults_make_the_default_config() -> None:
    typed = {
        key: parse_value(spec, format_value(spec.default))
        for key, spec in SPECS.items()
        if spec.default is not None and not spec.path
    }
    dataset = {"dataset": "llf_demo"}
    assert RunConfig.load({**typed, **dataset}).flat(defaults=True) == RunConfig.load(dataset).flat(defaults=True)


def test_floats_that_are_not_finite_are_shown_as_they_are() -> None:
    assert format_value(math.inf) == "inf"
    assert parse_value(RATE, "inf") == "inf"


@pytest.mark.parametrize("names", [["a", "b"], [" fish", "b"], ["a,b", "c"], ["[x", "y"], ['["a"]'], ["[1]"], ["'"]])
def test_names_come_back_whatever_is_in_them(names: list[str]) -> None:
    spec = SPECS["add_tokens"]
    config = validate({"dataset": "llf_demo", "add_tokens": names}).config
    typed = parse_value(spec, format_value(config.flat()["add_tokens"]))
    assert validate({"dataset": "llf_demo", "add_tokens": typed}).config.model.add_tokens == tuple(names)
