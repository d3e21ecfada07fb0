"""How several data sets take turns."""

import numpy as np
import pytest

from llf_core.data import prepare
from llf_core.data.streaming import interleave_order

SETS = np.array([0, 0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("concat", [0, 1, 2, 3, 4, 5]),
        ("interleave_under", [0, 3, 5]),
        ("interleave_over", [0, 3, 5, 1, 4, 5, 2, 3, 5]),
        ("interleave_once", [0, 3, 5, 1, 4, 2]),
    ],
)
def test_the_order_of_a_strategy(strategy, order):
    assert interleave_order(SETS, strategy, (), 0).tolist() == order


def test_shares_are_met_and_drawn_by_the_seed():
    sets = np.repeat([0, 1], [6000, 4000])
    order = interleave_order(sets, "interleave_under", (0.75, 0.25), 1)
    assert np.mean(sets[order] == 0) == pytest.approx(0.75, abs=0.02)
    assert order.tolist() == interleave_order(sets, "interleave_under", (0.75, 0.25), 1).tolist()
    assert order.tolist() != interleave_order(sets, "interleave_under", (0.75, 0.25), 2).tolist()
    once = interleave_order(sets, "interleave_once", (0.5, 0.5), 1)
    assert sorted(once.tolist()) == list(range(10_000))


def test_a_set_that_gives_nothing_takes_no_turn():
    assert interleave_order(np.array([1, 1]), "interleave_under", (0.5, 0.5), 0).tolist() == [0, 1]
    assert interleave_order(np.array([], dtype=np.int64), "interleave_over", (), 0).tolist() == []


def test_what_is_held_out_is_never_trained_on_however_often_a_set_repeats(make_config, write, tokenizer):
    write([{"instruction": f"a {number}", "output": "x"} for number in range(12)], "a.jsonl")
    write([{"instruction": f"b {number}", "output": "y"} for number in range(3)], "b.jsonl")
    ready = prepare(make_config(dataset="a.jsonl,b.jsonl", mix_strategy="interleave_over", val_size=4), tokenizer)
    train, held = ({tokenizer.decode(ids) for ids in part["input_ids"]} for part in (ready.train, ready.eval))
    assert len(held) == 4
    assert not train & held
    assert len(train) == 11
    assert ready.report.examples == len(ready.train) > 11
    assert ready.report.tokens == sum(map(len, ready.train["input_ids"]))
