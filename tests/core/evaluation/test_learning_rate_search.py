"""The search for a learning rate with real models: what it proposes trains, and nothing is left behind."""

from __future__ import annotations

import json
import math
import re

import pytest

import llf_widgets as llf
from llf_core.config import ConfigError, RunConfig
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.learning_rate_search import find_learning_rate
from llf_core.runs import RunReader
from llf_core.runs.formatting import rate as rate_text
from llf_core.training.learning_rate_branches import train_branches
from llf_core.training.learning_rate_rule import has_diverged
from llf_widgets.learning_rate import DisplayedLearningRateSearch
from tests.preference_pairs import pair_rows, pairs

__all__ = ["pair_rows", "pairs"]

STEPS = 12


def test_the_proposed_rate_trains_and_a_hundred_times_as_much_diverges(
    settings, trained, llf_home, warm_python, capsys
):
    settings |= {"finetuning_type": "full"}
    del settings["dataset"]
    rows = [{"instruction": f"What is {a} plus 1?", "input": "", "output": f"It is {a + 1}."} for a in range(24)]
    found = llf.find_learning_rate(settings | {"dataset": rows}, rates=[1e-5, 1e-3, 1e-2, 0.1, 1.0], steps=STEPS)
    assert [one.rate for one in found.branches] == [1e-5, 1e-3, 1e-2, 0.1, 1.0]
    chosen = next(one for one in found.branches if one.rate == found.learning_rate)
    assert chosen.change < -0.5
    assert all(one.diverged or one.loss >= chosen.loss - 0.5 for one in found.branches)
    assert not (llf_home / "runs").exists(), "it makes no run"
    said = capsys.readouterr().out
    assert "5 learning rates and the untrained model, 12 steps each." in said
    assert f"of {STEPS * 6}" in said
    assert re.search(r"Learning rate 1e-3, at most \d+:\d\d left", said)

    losses = {}
    for rate in (found.learning_rate, 100 * found.learning_rate):
        (llf_home / "rows.json").write_text(json.dumps(rows))
        folder, code = trained(
            dataset=str(llf_home / "rows.json"), learning_rate=rate, max_steps=STEPS, save_steps=STEPS,
            lr_scheduler_type="constant",
        )  # fmt: skip
        assert code == 0
        losses[rate] = RunReader(folder).metrics().values("loss").tolist()
    real, hundredfold = losses.values()
    assert sum(real[-3:]) < 0.9 * sum(real[:3])
    assert has_diverged(hundredfold, [real[0]] * STEPS)

    shown = found._repr_html_()
    assert f"<b>Learning rate {rate_text(found.learning_rate)}</b>" in shown
    assert "data:image/png;base64," in shown
    assert json.loads(json.dumps(found.json()))["branches"][-1]["diverged"] is found.branches[-1].diverged


@pytest.mark.parametrize(
    "changes",
    [
        {"finetuning_type": "full", "lr_scheduler_type": "cosine", "warmup_steps": 0.5},
        {"finetuning_type": "adalora"},
        {"stage": "dpo", "lora_dropout": 0.3, "loraplus_lr_ratio": 8.0},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_each_branch_starts_from_the_same_weights(changes, settings, pairs, tmp_path):
    """Two branches with one rate have the same losses to the last bit, whatever was trained between them."""
    if changes.get("stage") == "dpo":
        settings |= {"dataset": pairs}
    config = RunConfig.load(settings | changes)
    told = []
    one, other, again = train_branches(
        config, tmp_path / "home", (1e-3, 1e-2, 1e-3), 10, lambda rate, step: told.append((rate, step))
    )
    assert one.losses == again.losses
    assert len(one.losses) == len(one.untrained) == 10
    assert other.losses != one.losses
    assert one.losses[0] == one.untrained[0], "the first loss is of the untrained model"
    assert one.losses != one.untrained
    assert told[:10] == [(0.0, step) for step in range(1, 11)]


def test_bad_input_is_a_sentence_before_anything_starts(settings):
    for steps in (5, 1001, 10.5, None, "30", True, math.nan):
        with pytest.raises(EvaluationError, match=rf"steps is {steps!r}\. Expected an integer from 10 to 1,000"):
            find_learning_rate(settings, steps=steps)
    for rates, said in (
        ([1e-4], "There are 1 different learning rates"),
        ([0.0, 1e-4], "is 0. Expected numbers"),
        ("1e-4", "rates are 1e-4. Expected"),
    ):
        with pytest.raises(EvaluationError, match=said):
            find_learning_rate(settings, rates=rates)
    with pytest.raises(EvaluationError, match=r"The loss of stage grpo does not fall"):
        find_learning_rate(settings | {"stage": "grpo", "reward_functions": ["length"], "num_generations": 4})
    with pytest.raises(ConfigError, match="nowhere"):
        find_learning_rate(settings | {"dataset": "nowhere.json"})


def test_a_loss_that_is_not_finite_from_the_start_is_an_error(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("llf_core.stages.sft.SFT.loss_sum", lambda _self, _model, batch, *_: _nan(_model))
    with pytest.raises(Exception, match="is not finite before its first step"):
        list(train_branches(RunConfig.load(settings), tmp_path / "home", (1e-4, 1e-3), 10, lambda *_: None))


def _nan(model):
    return math.nan * sum(one.sum() for one in model.parameters() if one.requires_grad)


def test_a_search_without_a_proposal_is_shown():
    found = DisplayedLearningRateSearch(None, "The loss <diverges>.", (), (), 10, None, 1.0)
    assert "<b>No proposal</b><br>The loss &lt;diverges&gt;." in found._repr_html_()
    assert repr(found).startswith("Learning rate: no proposal")
