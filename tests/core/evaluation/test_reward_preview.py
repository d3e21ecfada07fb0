"""Rewards before a run, with the real trainer's model, sampling and functions."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import llf_widgets as llf
from llf_core.config import RunConfig
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.reward_preview import _notes, try_rewards
from llf_core.rewards.reward_statistics import RewardedCompletion, reward_statistics
from llf_core.runs import RunReader, create_run, list_runs
from llf_core.training.reward_samples import sample_rewards
from llf_core.user_functions.function_source import write_code
from llf_widgets.reward_preview import DisplayedRewardPreview


def letters(answer):
    """Share of the letter a; does not apply to an empty answer."""
    return answer.count("a") / len(answer) if answer else None


def one(answer):
    return 1.0


@pytest.fixture
def sampled(settings) -> dict[str, Any]:
    return settings | {
        "stage": "grpo", "finetuning_type": "full", "reward_functions": "share", "num_generations": 4,
        "max_completion_length": 6, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "lr_scheduler_type": "constant", "max_steps": None,
        "num_train_epochs": 1,
    }  # fmt: skip


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def test_functions_of_a_cell_are_tried_and_no_run_is_made(sampled, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    config = without_none(sampled | {"reward_functions": None, "reward_weights": "2.0,1.0"})
    found = llf.try_rewards(config, rewards=[letters, one], prompts=3)
    assert len(found.completions) == 3 * 4
    assert [one.group for one in found.completions] == [0] * 4 + [1] * 4 + [2] * 4
    for completion in found.completions:
        assert completion.prompt.startswith("What is ")
        assert 1 <= completion.tokens <= 6
        assert completion.rewards["letters"] == (letters(completion.text) if completion.text else None)
        expected = 2 * (completion.rewards["letters"] or 0.0) + 1.0
        assert completion.reward == pytest.approx(expected)
    assert [one.name for one in found.statistics] == ["letters", "one", "reward"]
    assert found.planned_completions == 24 * 4  # one pass over 24 prompts
    each = (found.sampling_seconds + found.scoring_seconds) / 12
    assert found.seconds == pytest.approx(96 * each)
    assert any(note.startswith("one is 1 for all completions") for note in found.notes)
    assert list_runs().total == 0
    shown = found._repr_html_()
    assert 'alt="Histograms of rewards: letters from' in shown
    assert "data:image/png;base64," in shown
    assert json.loads(json.dumps(found.json()))["groups"] == 3
    assert re.search(r"^letters +\d", found.text(), re.MULTILINE)
    assert "Sampling completions: 12 of 12" in capsys.readouterr().out


def test_completions_are_those_of_the_policy_before_its_first_step(sampled, tmp_path):
    """The same prompts and seeds give the same completions, whatever the batch; PPO scores by the same functions."""
    source = {"share": "def share(answer):\n    return len(answer) / 100\n"}

    def samples(**changes: Any) -> list[RewardedCompletion]:
        config = RunConfig.load(without_none(sampled | changes))
        folder = create_run(config.yaml(), "x", tmp_path, lambda new: write_code(new.code, source))
        found = [one for batch in sample_rewards(config, folder, 4, 2, lambda *_: None) for one in batch.completions]
        assert not len(RunReader(folder).metrics())
        return found

    first = samples()
    assert first == samples(per_device_train_batch_size=4)
    assert len({one.text for one in first}) > 1
    ppo = samples(
        stage="ppo", reward_model_type="function", num_generations=None, max_completion_length=None, max_new_tokens=6,
        finetuning_type="lora",
    )  # fmt: skip
    assert [one.text for one in ppo] == [one.text for one in first]
    assert [one.reward for one in ppo] == [one.reward for one in first]
    assert all(one.tokens == 6 for one in first if one.truncated)


def test_bad_input_is_a_sentence(sampled, settings):
    config = without_none(sampled | {"reward_functions": "length"})
    with pytest.raises(EvaluationError, match=r"prompts is 0\. Expected an integer from 1 to 1,000"):
        try_rewards(config, prompts=0)
    with pytest.raises(EvaluationError, match=r"group_size is 1\. Expected an integer from 2 to 1,000"):
        try_rewards(config, group_size=1)
    with pytest.raises(EvaluationError, match="Stage sft samples no completions"):
        try_rewards(settings)


def test_a_function_that_raises_is_named_with_its_line(sampled):
    def broken(answer):
        return 1 / (len(answer) - len(answer))

    with pytest.raises(RuntimeError, match=r"the reward function broken .*ZeroDivisionError.*try the rewards again"):
        try_rewards(without_none(sampled | {"reward_functions": None}), rewards=[broken], prompts=1)


def preview(rewards: list[float | None], tokens: list[int], truncated: bool = False) -> list[str]:
    config = RunConfig.load(
        {"stage": "grpo", "reward_functions": "length", "num_generations": 4, "dataset": "llf_demo",
         "model_name_or_path": "x"}
    )  # fmt: skip
    completions = [
        RewardedCompletion(at // 4, "p", "<b>t</b>", length, truncated, reward, {"f": reward})
        for at, (reward, length) in enumerate(zip(rewards, tokens, strict=True))
    ]
    statistics = [reward_statistics(name, rewards, tokens) for name in ("f", "reward")]
    groups = [rewards[at : at + 4] for at in range(0, len(rewards), 4)]
    return _notes(config, statistics, completions, (sum(len(set(one)) == 1 for one in groups), len(groups)), False)  # noqa: FBT003


@pytest.mark.parametrize(
    ("rewards", "tokens", "said"),
    [
        ([0.0] * 8, list(range(8)), "f is 0 for all completions"),
        ([1.0] * 4 + [0.0] * 4, [3, 1, 2, 4] * 2, "2 of 2 prompts have the same reward"),
        ([float(one) for one in range(8)], list(range(8)), "f is higher for longer completions"),
        ([-float(one) for one in range(8)], list(range(8)), "f is higher for shorter completions"),
        ([1.0, None, 0.0, 1.0], [3, 1, 2, 4], "All reward functions returned None for 1 of 4"),
    ],
)
def test_what_a_run_could_not_learn_from_is_said(rewards, tokens, said):
    assert any(note.startswith(said) for note in preview(rewards, tokens)), preview(rewards, tokens)


def test_rewards_that_differ_and_do_not_follow_the_length_need_no_note():
    assert preview([0.0, 1.0, 0.5, 0.2, 0.3, 0.9, 0.1, 0.6], [5, 5, 6, 6, 5, 6, 5, 5]) == []
    (cut,) = preview([0.0, 1.0, 0.5, 0.2, 0.3, 0.9, 0.1, 0.6], [5, 5, 6, 6, 5, 6, 5, 5], truncated=True)
    assert cut.startswith("8 of 8 completions reach max_completion_length")


def test_model_text_is_never_html():
    completions = (RewardedCompletion(0, "<i>p</i>", "<script>x</script>", 2, truncated=False, reward=1.0, rewards={}),)
    statistics = (reward_statistics("reward", [1.0], [2]),)
    shown = DisplayedRewardPreview(statistics, completions, 0, 0, 1.0, 0.1, None, None, ("a < b",))._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert "<i>" not in shown
    assert "a &lt; b" in shown
