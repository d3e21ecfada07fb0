"""KTO as a whole run: which answer stands after which question, where it starts, and what it refuses."""

import json
import math

import numpy as np
import pytest

from llf_core.runs import RunReader
from llf_core.stages.kto import mismatched

QUESTIONS = [f"What is {a} plus {b}?" for a in range(4) for b in range(4)]


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Computes in float32, whatever is faster here."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


@pytest.fixture
def judged(tmp_path):
    def write(good=lambda i: i % 2 == 0):
        path = tmp_path / "judged.json"
        rows = [
            {"instruction": q, "output": f"It is {i}." if good(i) else "No idea" + "!" * i, "kto_tag": good(i)}
            for i, q in enumerate(QUESTIONS)
        ]
        path.write_text(json.dumps(rows))
        return str(path)

    return write


def test_the_answer_of_another_example_follows_the_question():
    example = {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]}
    other = {"input_ids": [7, 8, 9], "labels": [-100, 8, 9]}
    assert mismatched(example, other, 10) == ([1, 2, 8, 9], [-100, -100, 8, 9])
    assert mismatched(other, example, 3) == ([7, 3, 4], [-100, 3, 4])
    assert mismatched(example, other, 3) == ([1, 2, 8], [-100, -100, 8])


@pytest.mark.parametrize("fast_path", [True, False])
def test_it_starts_at_half_the_weights_and_learns_which_answers_are_good(trained, judged, fast_path):
    folder, code = trained(
        stage="kto", dataset=judged(), max_steps=20, learning_rate=5e-3, kto_chosen_weight=1.5, fast_path=fast_path,
        per_device_train_batch_size=4, gradient_accumulation_steps=4, num_train_epochs=None,
    )  # fmt: skip
    assert code == 0
    metrics = RunReader(folder).metrics()
    losses = metrics.values("loss")
    # An epoch a step: 8 good answers that count 1.5, 8 bad ones; where nothing was learned yet each costs half of it.
    assert losses[0] == pytest.approx((8 * 1.5 + 8) / 16 / 2, abs=1e-6)
    assert losses[-1] < 0.46
    assert metrics.values("kl")[0] == pytest.approx(0, abs=1e-5)
    assert metrics.values("kl").min() >= 0
    np.testing.assert_allclose(
        metrics.values("rewards/margins"), metrics.values("rewards/chosen") - metrics.values("rewards/rejected")
    )
    assert metrics.values("rewards/margins")[-1] > 0.5


def test_with_padding_or_without_asked_once_or_always_the_losses_are_the_same(trained, judged):
    path = judged()
    runs = [
        trained(stage="kto", dataset=path, learning_rate=3e-3, pref_ftx=0.2, **changes)[0]
        for changes in ({}, {"precompute_ref_log_probs": False}, {"fast_path": False})
    ]
    once, always, plain = (RunReader(folder).metrics().values("loss") for folder in runs)
    np.testing.assert_allclose(always, once, rtol=5e-5)
    np.testing.assert_allclose(plain, once, rtol=5e-4)


def test_what_good_answers_cost_besides_does_not_depend_on_the_micro_batches(trained, judged):
    # A step of all 16 examples, half of them good; before it the model is its own reference, so that kl is 0.
    path = judged()
    first = []
    for size in (1, 4, 16):
        folder, code = trained(
            stage="kto", dataset=path, pref_ftx=0.5, per_device_train_batch_size=size,
            gradient_accumulation_steps=16 // size, max_steps=1, save_steps=1,
        )  # fmt: skip
        assert code == 0
        metrics = RunReader(folder).metrics()
        first.append(metrics.values("loss")[0])
    np.testing.assert_allclose(first, first[0], rtol=1e-5)
    without, _ = trained(
        stage="kto", dataset=path, per_device_train_batch_size=16, gradient_accumulation_steps=1, max_steps=1,
        save_steps=1,
    )  # fmt: skip
    assert first[0] - RunReader(without).metrics().values("loss")[0] == pytest.approx(
        0.5 * 0.5 * math.log(352), rel=0.1
    )


@pytest.mark.parametrize(("mark", "word"), [(True, "good"), (False, "bad")])
def test_examples_of_one_kind_alone_are_refused(trained, judged, mark, word):
    folder, code = trained(stage="kto", dataset=judged(lambda i: mark))
    assert code == 2
    assert f"All 16 examples are marked {word}." in RunReader(folder).status().reason
