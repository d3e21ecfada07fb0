"""Whatever a file in `control/` holds is a request or none, and a value is taken or refused with a sentence."""

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llf_core.runs.control import CHECKS, REQUEST_TYPES, check_changes, parse_change, read_request
from llf_core.runs.jsonl import encode, parse

DIGITS = 10**400
ODD = [
    DIGITS, -DIGITS, math.nan, math.inf, -math.inf, True, False, None, 0, -1, 1.5, 5e-324, 1e308, "", "3",
    "1e-4", "\ud800", [], [1], {}, {"a": {"b": None}},
]  # fmt: skip
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(ODD)
nested = st.recursive(
    plain, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3)
)
names = st.sampled_from([*CHECKS, "grace", "", "\ud800", "max_steps "])
bodies = st.fixed_dictionaries(
    {},
    optional={
        "v": st.just(1) | plain,
        "id": st.text(max_size=80) | nested,
        "type": st.sampled_from(REQUEST_TYPES) | nested,
        "args": st.dictionaries(names, plain, max_size=3) | nested,
        "by": nested,
        "time": nested,
        "more": nested,
    },
)


def taken(changes):
    """What is taken of some changes; None where a short sentence refuses them."""
    try:
        return check_changes(changes)
    except ValueError as error:
        said = str(error)
    assert len(said) < 250
    assert said.endswith(".")
    return None


def deep(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@settings(max_examples=400, deadline=None)
@given(body=bodies)
@example(body={"v": 1, "type": "set", "args": {"max_steps": DIGITS}})
@example(body={"v": 1, "type": "set", "args": {"learning_rate": DIGITS, "watch": ["x"]}})
@example(body={"v": 1, "type": "stop", "args": {"grace": DIGITS}})
@example(body={"v": 1, "type": "set", "args": deep(400), "id": deep(400)})
@example(body={"v": 1, "type": deep(400), "by": deep(400), "time": DIGITS})
def test_a_body_is_a_request_or_none(tmp_path_factory, body):
    path = tmp_path_factory.mktemp("control") / "1-a.json"
    path.write_bytes(json.dumps(body).encode("utf-8", "surrogatepass"))
    request = read_request(path)
    assert request.type in {*REQUEST_TYPES, "unreadable"}
    line = encode({"id": request.id, "request": request.type, "args": request.args, "by": request.by})
    assert parse(line)["request"] == request.type
    changes = taken(request.args)
    if changes is not None:
        assert parse_change({"step": 1, "changes": changes, "id": request.id}).changes == changes


@settings(max_examples=300, deadline=None)
@given(name=names, value=nested)
def test_a_value_is_taken_or_refused_with_a_sentence(name, value):
    changes = taken({name: value})
    assert changes is None or parse(encode(changes)) == changes


def test_values_without_a_bound_are_refused_in_a_short_sentence():
    for value in (10**5000, deep(2000), [deep(2000)], object()):
        assert [taken({name: value}) for name in CHECKS] == [None] * len(CHECKS)


@pytest.mark.parametrize("step", [True, -1, 2**53, 1.0, "1", None])
def test_a_change_at_no_step_is_none(step):
    assert parse_change({"step": step, "changes": {"evaluate": True}, "id": "a"}) is None


def test_numbers_of_numpy_are_numbers():
    import numpy as np

    found = check_changes({"max_steps": np.int64(530), "learning_rate": np.float32(0.5)})
    assert found == {"max_steps": 530, "learning_rate": 0.5}
    assert [type(one) for one in found.values()] == [int, float]
    with pytest.raises(ValueError, match="max_steps is a "):
        check_changes({"max_steps": np.bool_(1)})
