"""Numbers of a config: one way to write them, which is read as the very same number by every reader."""

import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llf_core.config import RunConfig, validate
from llf_core.config.number_format import exact, for_yaml, with_unit
from llf_core.config.read_config import dump_yaml, yaml_value


@pytest.mark.parametrize(
    ("value", "plain", "in_yaml"),
    [
        (5e-5, "5e-5", "5.0e-5"),
        (0.00012, "1.2e-4", "1.2e-4"),
        (0.001, "1e-3", "1.0e-3"),
        (0.01, "0.01", "0.01"),
        (0.1, "0.1", "0.1"),
        (3.0, "3", "3"),
        (-2.5e-7, "-2.5e-7", "-2.5e-7"),
        (1e20, "1e20", "1.0e+20"),
        (123456.789, "123456.789", "123456.789"),
        (0.0, "0", "0"),
        (8, "8", "8"),
    ],
)
def test_cases(value, plain, in_yaml):
    assert (exact(value), for_yaml(value)) == (plain, in_yaml)


@pytest.mark.parametrize(("value", "plain"), [(np.float64(0.1), "0.1"), (np.float64(5e-5), "5e-5"), (np.int64(8), "8")])
def test_numbers_of_numpy_are_written_as_pythons(value, plain):
    assert exact(value) == plain


@given(st.floats(allow_nan=False))
def test_every_reader_reads_the_same_number(value):
    if math.isfinite(value):
        assert float(exact(value)) == value
        assert "e-0" not in exact(value)
    for text in (for_yaml(value), dump_yaml({"a": value}).removeprefix("a: ")):
        assert yaml.safe_load(text) == value == yaml_value(text)


def test_form_file_and_code_write_a_rate_alike():
    config = RunConfig.load(
        {"dataset": "llf_demo", "learning_rate": 0.00005, "adam_epsilon": 1e-9, "max_grad_norm": 2.0}
    )
    assert "adam_epsilon: 1.0e-9\n" in config.yaml(defaults=True)
    assert "learning_rate: 5.0e-5\n" in config.yaml(defaults=True)
    assert '"adam_epsilon": 1e-9,' in config.python()
    assert '"max_grad_norm": 2,' in config.python()


def test_lines_of_a_text_stand_one_below_the_other():
    assert dump_yaml({"watched_prompts": "Who are you?\nWhere?"}) == "watched_prompts: |-\n  Who are you?\n  Where?\n"


def test_one_of_a_unit_is_singular():
    assert [with_unit(number, "token") for number in (0, 1, 1200)] == ["0 tokens", "1 token", "1,200 tokens"]
    assert with_unit("1", "step") == "1 step"


def test_an_integer_of_numpy_keeps_all_of_its_digits():
    assert exact(np.int64(2**60 + 1)) == "1152921504606846977"
    assert for_yaml(np.int64(2**60 + 1)) == "1152921504606846977"
    assert for_yaml(10**400) == exact(10**400) == f"1{'0' * 400}"


def test_numbers_that_are_not_finite_are_code_that_python_can_run():
    given = {"dataset": "a", "accelerator_config": {"a": math.nan, "b": math.inf, "c": -math.inf}}
    code = validate(given).config.python().replace("\n", " ")
    words = code[code.index("{", code.index("accelerator_config")) : code.index("}") + 1]
    found = eval(words, {"__builtins__": {"float": float}})
    assert repr(found) == "{'a': nan, 'b': inf, 'c': -inf}"
