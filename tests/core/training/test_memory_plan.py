"""What a run decides by the forecast of its memory, before its first step."""

import numpy as np
import pytest
import yaml
from datasets import Dataset

from llf_core.data import PackedRows
from llf_core.data.example_store import lengths
from llf_core.data.streaming import Stream
from llf_core.runs import RunReader, read_status, status
from llf_core.training.memory_plan import largest_batch, varies
from llf_core.training.session import run_attempt

LENGTHS = [5, 30, 9, 17]


def examples():
    return Dataset.from_list([{"input_ids": [1] * n, "labels": [1] * n, "index": i} for i, n in enumerate(LENGTHS)])


def test_the_largest_batch_holds_the_longest_examples():
    assert largest_batch(examples(), 2, flattens=True) == (30 + 17, 30)
    assert largest_batch(examples(), 2, flattens=False) == (2 * 32, 30)
    assert largest_batch(examples(), 9, flattens=True) == (61, 30)
    assert largest_batch(examples(), 9, flattens=False) == (4 * 32, 30)


def test_only_selected_examples_count_and_as_often_as_they_are_selected():
    """Held-out examples are left out, and one that is drawn twice may be in a batch with itself."""
    assert lengths(examples().select([2, 0])).tolist() == [9, 5]
    assert largest_batch(examples().select([3, 0, 2]), 2, flattens=True) == (17 + 9, 17)
    assert largest_batch(examples().select([1, 1, 0, 1]), 2, flattens=True) == (60, 30)


@pytest.mark.parametrize(("keys", "tokens"), [({}, 200), ({"twice": True}, 400), ({"flattens": False}, 208)])
def test_every_example_of_a_stream_may_be_as_long_as_allowed(keys, tokens):
    stream = object.__new__(Stream)
    stream.capacity = 100
    assert largest_batch(stream, 2, **{"flattens": True, **keys}) == (tokens, 100)


def test_the_largest_batch_of_packed_rows_is_full():
    rows = PackedRows.of(examples(), np.array(LENGTHS), capacity=40, seed=0)
    assert largest_batch(rows, 3, flattens=True) == (120, 30)


def test_packed_rows_and_examples_of_one_length_have_batches_of_one_shape():
    alike = Dataset.from_list([{"input_ids": [1] * 5, "labels": [1] * 5, "index": i} for i in range(3)])
    assert varies(examples())
    assert not varies(alike)
    assert not varies(PackedRows.of(examples(), np.array(LENGTHS), capacity=40, seed=0))


def decisions(folder):
    return [event for event in RunReader(folder).events() if event["type"] == "memory"]


def losses(folder):
    return [float(value).hex() for value in RunReader(folder).metrics().values("loss")]


@pytest.fixture
def free(monkeypatch):
    """`free(bytes)`: what the machine has."""
    return lambda size: monkeypatch.setattr("llf_core.training.memory_plan.free_memory", lambda device: size)


def test_checkpointing_comes_on_where_memory_is_short_and_changes_no_loss(trained, free):
    free(10**12)
    roomy, _ = trained()
    free(1_000_000)
    short, _ = trained()
    assert [decisions(folder)[0]["gradient_checkpointing"] for folder in (roomy, short)] == [False, True]
    assert losses(short) == losses(roomy)
    (event,) = decisions(short)
    assert event["available"] == 1_000_000
    assert event["forecast"] > event["step"] > 0
    kept = yaml.safe_load(short.resolved.read_text())["gradient_checkpointing"]
    assert kept == {"on": True, "reason": event["reason"]}


@pytest.mark.parametrize(("before", "after", "on"), [(1_000_000, 10**12, True), (10**12, 1_000_000, False)])
def test_a_resumed_run_keeps_what_was_decided(make_run, free, before, after, on):
    folder = make_run(max_steps=2)
    free(before)
    assert run_attempt(folder, 1) == 0
    free(after)
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 0, read_status(folder).reason
    first, second = decisions(folder)
    assert (first["gradient_checkpointing"], second["gradient_checkpointing"]) == (on, on)
    assert "as before the resume" in second["reason"]
