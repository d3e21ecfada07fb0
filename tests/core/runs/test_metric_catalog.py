"""Which chart each number of a run stands in, how it is written, and which of them count."""

import pytest

from llf_core.runs.charts import (
    CHARTS,
    COUNTERS,
    bottom_charts,
    declared_directions,
    higher_is_better,
    key_metrics,
    key_values,
    logged_charts,
    lowercase_label,
    metric_named,
    primary_metric,
    ranking_metric,
)

DPO = ("loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/margins",
       "rewards/accuracies", "logps/chosen", "logps/rejected", "epoch", "tokens", "memory")  # fmt: skip
PPO = ("loss", "policy_loss", "value_loss", "clip_fraction", "value_clip_fraction", "approx_kl", "reward",
       "response_length", "response_ended", "reward_std", "kl", "kl_coef", "entropy")  # fmt: skip
# As TRL 1.16 logs them.
GRPO = ("loss", "num_tokens", "completions/mean_length", "completions/min_length", "completions/max_length",
        "completions/clipped_ratio", "completions/mean_terminated_length", "completions/min_terminated_length",
        "completions/max_terminated_length", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/low_min",
        "clip_ratio/high_max", "rewards/format/mean", "rewards/format/std", "reward", "reward_std",
        "frac_reward_zero_std", "kl", "entropy", "clip_ratio/region_mean", "step_time",
        "sampling/importance_sampling_ratio/mean")  # fmt: skip


SMALL = {name for one in bottom_charts() for name in one.lines}


def titles(names):
    return [one.chart.title for one in logged_charts(names)]


def test_a_run_shows_the_charts_of_what_it_has_logged():
    assert titles(DPO) == ["Rewards", "Accuracy", "Log-probabilities", "Loss"]
    assert titles(PPO) == [
        "Reward", "KL divergence", "Entropy", "Completion length, tokens", "Completion endings",
        "Reward standard deviation", "Clip fraction", "Update size", "Loss", "Loss terms", "KL coefficient",
    ]  # fmt: skip
    assert titles(GRPO) == [
        "Reward", "Reward by function", "KL divergence", "Entropy", "Completion length, tokens",
        "Length of terminated completions, tokens", "Completion endings", "Reward standard deviation",
        "Prompts with zero reward variance",
        "Clip fraction", "Loss", "sampling/importance_sampling_ratio",
    ]  # fmt: skip
    assert titles(["loss", "eval_loss", "epoch", "grad_norm"]) == ["Loss"]


@pytest.mark.parametrize("names", [DPO, PPO, GRPO])
def test_every_name_is_in_one_chart(names):
    found = [name for one in logged_charts(names) for name in one.lines]
    assert sorted(found) == sorted(set(names) - COUNTERS - SMALL)


def test_what_is_held_out_belongs_to_the_name_without_it():
    (one,) = logged_charts(["eval_rewards/accuracies"])
    assert one.lines == {"rewards/accuracies": "training"}
    assert logged_charts(["rewards/accuracies", "eval_rewards/accuracies"]) == [one]


def test_reward_functions_stand_side_by_side_under_their_names():
    (one,) = logged_charts(["rewards/format/mean", "rewards/correct/mean"])
    assert (one.chart.title, one.lines) == (
        "Reward by function", {"rewards/format/mean": "format", "rewards/correct/mean": "correct"},
    )  # fmt: skip
    (one,) = logged_charts(["unjudged", "rewards/format/skipped"])
    assert one.chart.title == "Unscored completions"
    assert one.lines == {"unjudged": "no reward", "rewards/format/skipped": "format"}
    assert titles(["rewards/chosen"]) == ["Rewards"]  # a whole name goes before a pattern


def test_a_name_that_no_chart_names_has_one_with_its_family():
    found = logged_charts(["mine/a", "odd", "mine/b", "mine/deep/c"])
    assert [(one.chart.title, list(one.lines.values())) for one in found] == [
        ("mine", ["a", "b"]), ("odd", ["odd"]), ("mine/deep", ["c"]),
    ]  # fmt: skip
    assert all(one.chart.help for one in found)


def test_the_reward_is_looked_at_first_where_there_is_one():
    assert (primary_metric(DPO), primary_metric(PPO), primary_metric(())) == ("loss", "reward", "loss")
    (loss,) = [one for one in logged_charts(PPO) if one.chart.title == "Loss"]
    assert "watch the reward" in loss.chart.help
    (loss,) = [one for one in logged_charts(DPO) if one.chart.title == "Loss"]
    assert "reward" not in loss.chart.help


def test_what_counts_is_told_held_out_before_the_training():
    assert key_metrics(["loss", "eval_loss"]) == []
    assert [one.label for one in key_metrics(DPO)] == ["Training accuracy", "Training margin"]
    assert [one.label for one in key_metrics(PPO)] == ["Reward", "KL divergence", "Completion length"]
    last = {"loss": 0.6, "rewards/accuracies": 0.75, "eval_rewards/accuracies": 0.7, "rewards/margins": 0.3}
    assert [(one["label"], one["value"]) for one in key_values(last)] == [
        ("Held-out accuracy", 0.7), ("Training accuracy", 0.75), ("Training margin", 0.3),
    ]  # fmt: skip


def test_runs_are_told_apart_by_accuracy_reward_or_loss():
    assert [ranking_metric(names).name for names in (DPO, PPO, ["loss"], [])] == [
        "rewards/accuracies", "reward", "loss", "loss",
    ]  # fmt: skip


def test_labels_begin_small_within_a_sentence():
    assert (lowercase_label("Accuracy"), lowercase_label("KL divergence"), lowercase_label("")) == (
        "accuracy",
        "KL divergence",
        "",
    )


def test_every_chart_explains_itself_in_a_sentence_that_fits_above_it():
    for chart in CHARTS:
        if chart.place != "bottom":
            assert chart.help.endswith(".")
        assert len(chart.help) <= 112, chart.title
        assert len(set(chart.lines)) == len(chart.lines)
    assert len({chart.title for chart in CHARTS}) == len(CHARTS)


def test_charts_at_the_top_and_at_the_bottom_have_one_metric():
    for chart in CHARTS:
        if chart.place != "middle":
            (name,) = chart.lines
            assert "*" not in name


def test_the_small_charts_are_no_others():
    assert [one.chart.title for one in bottom_charts()] == [
        "Learning rate", "Gradient norm", "Tokens per second", "Memory, GB",
    ]  # fmt: skip
    assert titles(["loss", *SMALL]) == ["Loss"]


def test_each_data_set_is_a_line_beside_the_others():
    found = logged_charts([
        "loss", "eval_loss", "eval_loss/low", "eval_sums_loss", "eval_sums_loss/high", "eval_my_set_loss",
        "eval_accuracy", "eval_accuracy/low", "eval_sums_accuracy", "eval_sums_accuracy/low",
    ])  # fmt: skip
    assert [(one.chart.title, one.chart.place, dict(one.lines)) for one in found] == [
        ("Loss", "top", {"loss": "training"}),
        ("Loss by data set", "middle", {"sums_loss": "sums", "my_set_loss": "my_set"}),
        ("Token accuracy", "middle", {"accuracy": "value"}),
        ("Token accuracy by data set", "middle", {"sums_accuracy": "sums"}),
    ]
    (own,) = logged_charts(["my_loss", "eval_my_loss"])  # a metric that training logs too is of no data set
    assert own.chart.title == "my_loss"


def test_the_direction_is_that_of_the_declaration():
    names = ("loss", "eval_loss", "rewards/accuracies", "eval_reward", "rougeL", "exact_match", "kl", "words")
    assert [higher_is_better(name) for name in names] == [False, False, True, True, True, True, None, None]
    written = declared_directions({"metrics": {"words": "lower", "accuracy": "higher", "odd": 3, "x": ["higher"]}})
    assert written == {"words": False, "accuracy": True}
    assert [higher_is_better(name, written) for name in ("eval_words", "accuracy", "odd")] == [False, True, None]
    assert [declared_directions(odd) for odd in ({}, {"metrics": "higher"}, {"metrics": None})] == [{}, {}, {}]
    named = [metric_named(name) for name in ("loss", "reward", "rougeL", "sums_accuracy", "words")]
    assert [(one.label, one.form) for one in named] == [
        ("Loss", "number"), ("Reward", "number"), ("ROUGE-L", "share"), ("Token accuracy, sums", "share"),
        ("words", "number"),
    ]  # fmt: skip
