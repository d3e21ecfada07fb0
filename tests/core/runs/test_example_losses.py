"""Which examples stand out, from numbers worked out by hand."""

import json

import numpy as np
import pytest

from llf_core.runs import RunWriter, create_run
from llf_core.runs.metric_columns import OUTLIER_KINDS, ExampleLosses


@pytest.fixture
def folder():
    return create_run("stage: sft\n", "losses")


def read(folder):
    losses = ExampleLosses(folder)
    losses.refresh()
    return losses


def test_losses_are_means_over_the_tokens_of_an_example(folder):
    RunWriter(folder).examples(3, [7, 2], [6.0, 1.0], [3, 4])
    assert json.loads(folder.examples.read_text()) == {
        "step": 3, "attempt": 1, "number": [7, 2], "loss": [2.0, 0.25], "tokens": [3, 4]
    }  # fmt: skip
    first, second = read(folder).at(3)
    assert (first.number, first.last, first.tokens, first.seen) == (7, 2.0, 3, 1)
    assert second.number == 2


def test_an_example_without_tokens_costs_nothing(folder):
    RunWriter(folder).examples(1, [0], [0.0], [0])
    assert read(folder).at(1)[0].last == 0.0


def test_of_a_step_that_was_made_twice_the_last_attempt_counts(folder):
    RunWriter(folder, 1).examples(1, [0], [1.0], [1])
    RunWriter(folder, 2).examples(1, [0], [3.0], [1])
    RunWriter(folder, 1).examples(1, [0], [9.0], [1])  # a trainer that was given up
    assert read(folder).at(1)[0].last == 3.0


def test_what_is_cut_or_of_a_later_version_is_passed_over(folder):
    RunWriter(folder).examples(1, [0], [1.0], [1])
    with folder.examples.open("ab") as file:
        file.write(b'[1]\n{"step":2}\n{"step":2,"attempt":1,"number":[1],"loss":[],"tokens":[1]}\n{"step":3,"att')
    losses = read(folder)
    assert len(losses) == 1
    assert losses.at(2) == []


def test_nothing_stands_out_of_nothing(folder):
    for kind in OUTLIER_KINDS:
        assert read(folder).outliers(kind) == []
    with pytest.raises(ValueError, match="hardest"):
        read(folder).outliers("worst")


def run(folder, epochs=2, examples=400, batch=8):
    """Losses that fall from 3 to about 1 with noise; a few examples are another matter."""
    chance, writer, step = np.random.default_rng(0), RunWriter(folder), 0
    for _ in range(epochs):
        for numbers in chance.permutation(examples).reshape(-1, batch):
            step += 1
            usual = 1 + 2 * np.exp(-step / 30)
            losses = usual + chance.normal(0, 0.15, batch)
            for place, number in enumerate(numbers):
                if number in (11, 222, 333):  # garbage
                    losses[place] += 2.5
                if number == 44:  # known by heart
                    losses[place] = 0.05
                if number == 55:  # it was seen early and is as dear later
                    losses[place] = 3.2
            writer.examples(step, numbers.tolist(), losses.tolist(), [1] * batch)


def test_examples_that_stand_out_are_told_from_those_that_were_seen_early(folder):
    run(folder)
    losses = read(folder)
    assert {one.number for one in losses.outliers("hardest")[:3]} == {11, 222, 333}
    assert {one.number for one in losses.outliers("odd")} == {11, 222, 333, 55}
    assert [one.number for one in losses.outliers("easy")] == [44]
    assert 55 in [one.number for one in losses.outliers("unlearned")[:4]]
    assert len(losses.outliers("hardest")) == 400
    assert {one.seen for one in losses.all()} == {2}


def test_the_excess_is_what_an_example_costs_beyond_those_around_it(folder):
    writer = RunWriter(folder)
    for step in range(1, 6):
        writer.examples(step, [2 * step, 2 * step + 1], [1.0, 2.0], [1, 1])
    everything = read(folder).all()
    assert [one.excess for one in everything] == pytest.approx([-0.5, 0.5] * 5)  # the median of all is 1.5


def test_a_loss_that_is_no_number_comes_first_and_is_told(folder):
    writer = RunWriter(folder)
    writer.examples(1, [0, 1, 2], [1.0, float("nan"), 2.0], [1, 1, 1])
    first, *_ = read(folder).at(1)
    assert (first.number, first.json()["last"], first.json()["excess"]) == (1, None, None)
    assert [one.number for one in read(folder).outliers("hardest")] == [2, 0]


def test_a_look_costs_what_is_new(folder):
    writer = RunWriter(folder)
    writer.examples(1, [0], [1.0], [1])
    losses = ExampleLosses(folder)
    assert losses.refresh()
    assert not losses.refresh()
    writer.examples(2, [1], [1.0], [1])
    assert losses.refresh()
    assert len(losses) == 2


def test_a_step_has_one_loss_and_one_count_for_each_example(folder):
    writer = RunWriter(folder)
    for numbers, losses, tokens in (([0], [1.0, 2.0], [1, 1]), ([0, 1], [1.0], [1, 1]), ([0, 1], [1.0, 2.0], [1])):
        with pytest.raises(ValueError, match="argument"):
            writer.examples(1, numbers, losses, tokens)
    assert not folder.examples.exists()
