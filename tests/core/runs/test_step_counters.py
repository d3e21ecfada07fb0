"""Counters of checkpoints, also of checkpoints that somebody else has written."""

import json
import math
import re

import pytest

from llf_core.runs.step_counters import COUNTERS, CountersError, read_counters

SOUND = {
    "seen": [120, 80], "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "eval_parts": 1,
    "threads": 2, "held": {"learning_rate": 1e-4, "max_steps": 20, "watch": ["Hello?", "And you?"]},
    "stage": {}, "tensors": {"w": ["F32", 1.0, "00"]},
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """`write(values) -> Path`: a checkpoint with these counters."""

    def make(values):
        folder = tmp_path / "checkpoint-3"
        folder.mkdir(exist_ok=True)
        (folder / COUNTERS).write_text(values if isinstance(values, str) else json.dumps(values))
        return folder

    return make


def test_counters_are_read_and_missing_ones_are_not_invented(write):
    assert read_counters(write(SOUND)) == SOUND
    assert read_counters(write({"later": 1})) == {"later": 1}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seen", "120"), ("seen", [120]), ("seen", ["120", "80"]), ("seen", [-1, 0]), ("seen", [math.nan, 0]),
        ("seen", [10**17, 0]), ("seen", None), ("threads", 0), ("threads", "2"), ("threads", 10**9), ("threads", True),
        ("gradient_accumulation_steps", 0), ("gradient_accumulation_steps", 2.5), ("eval_parts", -1),
        ("per_device_train_batch_size", math.inf), ("held", []), ("held", {"learning_rate": "fast"}),
        ("held", {"learning_rate": math.nan}), ("held", {"max_steps": -3}), ("held", {"watch": "Hello?"}),
        ("held", {"watch": [3]}), ("held", {"seed": 1}), ("stage", 3), ("tensors", ["w"]),
    ],
)  # fmt: skip
def test_a_counter_that_is_none_is_named(write, key, value):
    with pytest.raises(CountersError) as error:
        read_counters(write(SOUND | {key: value}))
    assert error.value.message.startswith(f"`{key}` in checkpoint-3/{COUNTERS} is {value!r}. Expected ")
    assert error.value.what_to_do == "Branch from another checkpoint, or start a new run."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "is [1]. Expected a JSON object."),
        ("{", "cannot be read: Expecting property name enclosed in double quotes (line 1)."),
        ("", "cannot be read: Expecting value (line 1)."),
    ],
)
def test_a_file_without_counters_is_named(write, text, said):
    with pytest.raises(CountersError, match=rf"^checkpoint-3/{re.escape(f'{COUNTERS} {said}')}"):
        read_counters(write(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CountersError, match=rf"^checkpoint-3/{COUNTERS} is missing\."):
        read_counters(tmp_path / "checkpoint-3")
