"""Runs side by side: numbers by hand, and two real runs."""

import base64
import json
import re
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from llf_core.runs import update_env
from llf_core.runs.evaluations import (
    EvaluatedData,
    EvaluatedTarget,
    EvaluationWriter,
    JudgedPair,
    MetricValue,
    add_verdict,
)
from llf_widgets.compare import Compare
from llf_widgets.compare.comparison_table import NONE, comparison_sections
from llf_widgets.compare.labels import named_groups
from llf_widgets.compare.plotly_figure import figure_json, outline, x_values
from llf_widgets.monitor.mime_bundle import mime_bundle
from llf_widgets.monitor.ranking import ranked_metric
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.plotting.plotly_layout import encode_arrays
from llf_widgets.view_files import VIEW_MIME_TYPE
from tests.attempts import data_file, make_run, settings, trained
from tests.widgets.drawn_charts import traces_of, x_axis, y_axis
from tests.widgets.monitor.conftest import trainer
from tests.widgets.monitor.test_monitor import until

__all__ = ["data_file", "make_run", "settings", "trained", "trainer"]
EVIL = "<img src=x onerror=alert(1)>"


def test_a_metric_that_is_no_name_ranks_nothing_by_it(make_run):
    tracker = RunTracker(make_run())
    tracker.config = {"metric_for_best_model": ["loss"]}  # of a config that somebody else wrote
    assert ranked_metric([tracker]).metric.name == "loss"


def tracked(folder, window=10):
    tracker = RunTracker(folder, window)
    tracker.refresh()
    return tracker


def looked(*folders, window=10):
    """Groups of one run each."""
    return named_groups([("", [tracked(folder, window)]) for folder in folders])


def table(groups):
    return {part.title: part for part in comparison_sections(groups)}


def lines(part):
    return {line.label: line for line in part.rows}


@pytest.fixture
def two(trainer):
    """Two runs written by hand."""
    first, second = trainer(name="first"), trainer(name="second")
    first.steps(1, 10, eval_loss=1.5, tokens_per_second=100.0, memory=2e9)
    second.steps(1, 10, eval_loss=1.4, tokens_per_second=300.0, memory=3e9)
    second.folder.config.write_text(second.folder.config.read_text().replace("lora_rank: 4", "lora_rank: 8"))
    second.writer.event("steered", step=5, changes={"learning_rate": 1e-4}, id="a", says="x")
    for one, examples in ((first, 900), (second, 900)):
        one.writer.event("data", examples=examples, tokens=1, trained_tokens=1, eval_examples=50, leaked=0)
        one.writer.event("model", parameters=100, trainable=10, dtype="float32", device="cpu")
        update_env(one.folder, llf="0.1.0", packages={"torch": "2.13", "transformers": "5.24"})
    return first.folder, second.folder


def test_results_and_costs_stand_side_by_side_with_the_best_marked(two):
    found = table(looked(*two))
    result = lines(found["Result"])
    assert result["Evaluation loss, best"].cells == ("1.500 at 1", "1.400 at 1")
    assert result["Evaluation loss, best"].best == (1,)
    cost = lines(found["Cost"])
    assert (cost["Tokens per second, median"].cells, cost["Tokens per second, median"].best) == (("100", "300"), (1,))
    assert (cost["Peak memory"].cells, cost["Peak memory"].best) == (("2.00 GB", "3.00 GB"), (0,))
    assert cost["Trained parameters"].best == ()  # the same
    assert cost["Output"].cells == ("–", "–")  # noqa: RUF001


def store(folder, data, step, values, **settings):
    target = EvaluatedTarget("x", "", folder.id, step, "base", "weights")
    with EvaluationWriter(folder, target, EvaluatedData((f"/data/{data}",), data, 9), settings) as writer:
        metrics = [MetricValue(*one[:3], unit=one[3], higher_is_better=one[4]) for one in values]
        return writer.finish(metrics, 1.0, 1)


def test_evaluations_stand_side_by_side_with_the_direction_of_their_metric(two):
    first, second = two
    assert "Evaluations" not in table(looked(*two))
    store(first, "held.jsonl", None, [("loss", "Loss", 0.1, "nats", False)])  # of the base
    for folder, values in ((first, (1.5, 0.25)), (second, (1.2, 0.2))):
        found = ("loss", "Loss", values[0], "nats", False), ("rougeL", "ROUGE-L", values[1], "%", True)
        store(folder, "held.jsonl", 10, found, max_new_tokens=16)
    store(second, "held.jsonl", 10, [("rougeL", "ROUGE-L", 0.9, "%", True)], max_new_tokens=256)  # longer answers
    store(second, "other", 10, [("acc", "Accuracy", 0.5, "%", True)], task="mmlu", n_shot=5)
    found = lines(table(looked(*two))["Evaluations"])
    none = "–"  # noqa: RUF001
    assert {name: (line.cells, line.best) for name, line in found.items()} == {
        "Loss, held.jsonl": (("1.500", "1.200"), (1,)),
        "ROUGE-L, held.jsonl (16 tokens)": (("25.0 %", "20.0 %"), (0,)),
        "ROUGE-L, held.jsonl (256 tokens)": ((none, "90.0 %"), ()),
        "Accuracy, mmlu": ((none, "50.0 %"), ()),
    }
    assert "Evaluations" in Compare([first, second]).html()


def test_what_a_judge_said_stands_beside_the_metrics(two):
    outcomes = (["win"] * 6 + ["tie"] * 2 + ["lose"] * 4, ["win"] * 9 + ["lose"] * 3)
    for folder, said in zip(two, outcomes, strict=True):
        result = store(folder, "held.jsonl", 10, [("loss", "Loss", 1.0, "nats", False)])
        for place, outcome in enumerate(said):
            verdict = JudgedPair("held", place, "", "key", "a judge", (outcome, outcome), ("", ""), "w", "tiny@base")
            add_verdict(result, verdict)
        add_verdict(result, JudgedPair("held", 0, "", "key", "a judge", (None, None), ("", ""), "other", "b"))
    found = lines(table(looked(*two))["Evaluations"])
    assert list(found) == ["Loss, held.jsonl", "Win rate against tiny@base by a judge, held.jsonl"]
    judged = found["Win rate against tiny@base by a judge, held.jsonl"]
    assert (judged.cells, judged.best) == (("58.3 %", "75.0 %"), (1,))


def test_metrics_of_evaluations_rank_in_the_direction_that_they_declare(trainer):
    """`words` is a function of the runs, which says in `resolved.yaml` that less is better."""
    runs = trainer(name="first"), trainer(name="second")
    for one, share, words in zip(runs, (0.25, 0.5), (3.0, 5.0), strict=True):
        one.steps(1, 10, eval_loss=1.5, eval_rougeL=share, eval_words=words, eval_set_rougeL=share)
        one.folder.resolved.write_text("metrics: {loss: lower, rougeL: higher, words: lower, set_rougeL: higher}\n")
    folders = [one.folder for one in runs]
    assert ranked_metric([tracked(one) for one in folders]).metric.name == "loss"
    for folder in folders:
        folder.config.write_text(folder.config.read_text() + "metric_for_best_model: eval_words\n")
    ranked = ranked_metric([tracked(one) for one in folders])
    assert (ranked.label, ranked.higher_is_better) == ("Held-out words, best", False)
    assert [ranked.value(tracked(one)) for one in folders] == [3.0, 5.0]
    found = lines(table(looked(*folders))["Result"])
    rouge = found["Held-out ROUGE-L, best"]
    assert (rouge.cells, rouge.best) == (("25 % at 1", "50 % at 1"), (1,))
    assert found["Held-out words, best"].best == (0,)
    assert [label for label in found if "ROUGE" in label] == ["Held-out ROUGE-L, best"]  # no training step logs it


def test_what_reads_the_same_is_not_marked_as_better(trainer):
    first, second = trainer(name="first"), trainer(name="second")
    first.steps(1, 10, memory=2.001e9)
    second.steps(1, 10, memory=2.002e9)
    found = lines(table(looked(first.folder, second.folder))["Cost"])["Peak memory"]
    assert (found.cells, found.best) == (("2.00 GB", "2.00 GB"), ())


def test_without_an_evaluation_there_is_no_chart_of_one(trainer):
    first, second = trainer(name="first"), trainer(name="second")
    for one in (first, second):
        one.steps(1, 10)
    figure = figure_json(looked(first.folder, second.folder))
    titles = [note["text"] for note in figure["layout"]["annotations"] if note["xref"] == "paper"]
    assert [title.split("</b>")[0] for title in titles] == ["<b>Training loss"]
    assert y_axis(figure, "Training loss")["domain"] == (0, 1)
    second.steps(11, 11, eval_loss=1.5)
    figure = figure_json(looked(first.folder, second.folder))
    (below, above), (start, end) = (y_axis(figure, title)["domain"] for title in ("Training loss", "Evaluation loss"))
    assert 0 == below < above < start < end == 1


def test_only_what_differs_of_the_configs_is_shown(two):
    config = table(looked(*two))["Config"]
    assert lines(config)["lora_rank"].cells == ("4", "8")
    assert lines(config)["changed while running"].cells == ("–", "1e-4 from 6")  # noqa: RUF001
    assert set(lines(config)) == {"lora_rank", "changed while running"}
    assert config.note == "1 of 5 keys differ"
    same = table(looked(two[0], two[0]))["Config"]
    assert (same.rows, same.note) == ((), "the same: 5 keys")


def test_data_and_environment_are_one_line_where_they_are_the_same(two):
    found = table(looked(*two))
    assert found["Data"].rows == ()
    assert found["Data"].note.startswith("the same: 900 examples, 50 held out")
    assert found["Environment"].note.startswith("the same: torch 2.13, transformers 5.24")
    update_env(two[1], packages={"torch": "2.14", "transformers": "5.24"})
    differing = lines(table(looked(*two))["Environment"])
    assert differing["torch"].cells == ("2.13", "2.14")
    assert "transformers" not in differing
    update_env(two[1], packages=["torch"], device="a GPU")  # of a run from elsewhere
    assert lines(table(looked(*two))["Environment"])["torch"].cells == ("2.13", NONE)


def test_curves_are_drawn_over_steps_tokens_or_time(trainer):
    run = trainer()
    for step in range(1, 5):
        run.writer.metric(step, {"loss": 1.0, "tokens": 100.0 * step})
    lines_ = [json.loads(line) for line in run.folder.metrics.read_text().splitlines()]
    for line, moment in zip(lines_, (0, 60, 120, 12_000), strict=True):  # the last after a pause
        line["time"] = 1000.0 + moment
    run.folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines_))
    tracker = tracked(run.folder)
    steps = np.array([1, 2, 3, 4])
    assert x_values(tracker, steps, "step").tolist() == [1, 2, 3, 4]
    assert x_values(tracker, steps, "tokens").tolist() == [100, 200, 300, 400]
    assert x_values(tracker, steps, "time").tolist() == [0, 1, 2, 22]  # a pause counts as 20 steps at most
    assert np.isnan(x_values(RunTracker(run.folder), steps, "tokens")).all()


def test_the_figure_follows_what_is_chosen(two):
    groups = looked(*two)
    plain, chosen = figure_json(groups), figure_json(groups, x_axis="tokens", log_scale=True, show_raw=True)
    for title in ("Training loss", "Evaluation loss"):
        assert (y_axis(plain, title)["type"], y_axis(chosen, title)["type"]) == ("linear", "log")
    assert len(chosen["data"]) == len(plain["data"]) + 2
    dashes = {trace["line"]["dash"] for trace in plain["data"] if "dash" in trace.get("line", {})}
    assert len(dashes) == 2  # colour is never alone
    smoothed = next(trace for trace in plain["data"] if trace["mode"] == "lines")["y"]
    raw = next(trace for trace in chosen["data"] if "every step" in trace["name"])["y"]
    assert smoothed[-1] > raw[-1]  # a mean x_axis what came before of a loss that falls


def test_a_single_run_in_place_of_a_list_is_a_sentence(two):
    for single in (SimpleNamespace(folder=two[0]), None, 5, iter(two)):
        with pytest.raises(TypeError, match="Compare expects a list of 1 to 8 runs"):
            Compare(single)
    for empty in ([], {}, str(two[0].path)):
        with pytest.raises(ValueError, match="Compare expects a list of 1 to 8 runs"):
            Compare(empty)


def test_a_name_of_a_group_with_a_lone_surrogate_can_be_shown_and_written(two, tmp_path):
    view = Compare({"a\ud800": [two[0]], "b": two[1]})
    assert [run["label"] for run in view._view.view["runs"]] == ["a\ufffd", "b"]
    assert view.html(tmp_path / "page.html") == (tmp_path / "page.html").read_text()
    view.close()


def test_other_runs_take_the_place_of_those_that_are_shown(two, trainer):
    view = Compare(two)
    third = trainer(name="third")
    third.steps(1, 5)
    view.show([two[1], third.folder])
    assert [run["label"] for run in view._view.view["runs"]] == ["second", "third"]
    assert {trace["name"] for trace in view._view.figure["data"]} == {"second", "third"}
    third.steps(6, 9)
    view.refresh()
    assert figure_json(view._groups)["data"][-1]["x"].max() == 9
    assert view._view.figure == encode_arrays(figure_json(view._groups))
    view.show([third.folder])
    assert len(view._view.figure["data"]) == 1
    view.close()


def test_runs_are_added_and_removed_in_the_view(two, trainer):
    view = Compare(two)
    third = trainer(name="a third run with a name that is far too long to stand in a list")
    third.steps(1, 5)
    view.refresh()
    (offered,) = view._view.view["available_runs"]
    assert (offered["id"], len(offered["name"]) < 60) == (third.folder.id, True)
    view._on_message(None, {"type": "add", "run": third.folder.id}, [])
    assert [run["id"] for run in view._view.view["runs"]] == [two[0].id, two[1].id, third.folder.id]
    assert view._view.view["available_runs"] == []
    view._on_message(None, {"type": "remove", "run": two[0].id}, [])
    assert [run["id"] for run in view._view.view["runs"]] == [two[1].id, third.folder.id]
    assert [one["id"] for one in view._view.view["available_runs"]] == [two[0].id]
    view._on_message(None, {"type": "add", "run": "20200101-000000-none"}, [])
    assert "No run" in view._view.error
    for odd in ({"type": "add", "run": 7}, {"type": "remove", "run": "x"}, {}, None, {"type": "add"}):
        view._on_message(None, odd, [])
    assert len(view._view.view["runs"]) == 2
    view.close()


def test_a_run_that_cannot_be_read_leaves_the_view_as_it_was(two, trainer):
    view = Compare(two)
    third = trainer(name="third")
    third.steps(1, 5)
    third.folder.replay.mkdir()
    view._on_message(None, {"type": "add", "run": third.folder.id}, [])
    assert "replay.json" in view._view.error
    with pytest.raises(OSError, match=r"replay\.json"):
        view.show([third.folder])
    view.refresh()
    assert [run["id"] for run in view._view.view["runs"]] == [two[0].id, two[1].id]
    view._on_message(None, {"type": "remove", "run": two[0].id}, [])
    assert (view._view.error, [run["id"] for run in view._view.view["runs"]]) == ("", [two[1].id])
    view.close()


def test_a_saved_page_can_be_read_by_others(two, tmp_path):
    view = Compare(two)
    view.html(tmp_path / "page.html")
    (tmp_path / "any").touch()
    assert (tmp_path / "page.html").stat().st_mode == (tmp_path / "any").stat().st_mode
    view.close()


def test_the_page_is_sent_to_be_saved(two, monkeypatch):
    view = Compare(two)
    sent = []
    monkeypatch.setattr(view._view, "send", sent.append)
    view._on_message(None, {"type": "html"}, [])
    assert sent == [{"html": view.html()}]
    assert "data:image/png;base64," in sent[0]["html"]
    view.close()


def test_what_comes_from_a_run_is_never_markup(trainer):
    run = trainer(name=EVIL)
    run.steps(1, 3)
    run.folder.config.write_text(run.folder.config.read_text() + f"note: '{EVIL}'\n")
    run.writer.sample(step=0, kind="answer", prompt=EVIL, text=EVIL, of="base")
    run.writer.sample(step=3, kind="answer", prompt=EVIL, text=EVIL, of="tuned")
    other = trainer(name="plain")
    view = Compare([run.folder, other.folder])
    assert "<img src=x" not in view.html()
    assert EVIL not in json.dumps(figure_json(view._groups), default=str)
    view.close()


def test_two_real_runs(trained, tmp_path):
    pytest.importorskip("pandas")
    more = {"watched_prompts": "Say hi.", "watched_tokens": 4, "val_size": 0.25}
    first, _ = trained(**more)
    second, _ = trained(**more, lora_rank=4, max_steps=4)
    view = Compare([first, second])
    assert [row["prompt"] for row in view.answers()] == ["Say hi."]
    assert len(view.answers()[0]["texts"]) == 2
    assert {line["label"] for part in view._view.view["sections"] for line in part["rows"] if line["code"]} == {
        "lora_rank", "max_steps",
    }  # fmt: skip
    frame = view.frame()
    assert sorted(frame.loc[second.id].index) == [0, 1, 2, 3, 4] or sorted(frame.loc[second.id].index) == [1, 2, 3, 4]
    view._view.x_axis = "time"
    assert x_axis(view._view.figure, "Training loss")["title"]["text"] == "minutes"
    page = view.html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page
    assert "data:image/png;base64," in page
    bundle, _ = view._repr_mimebundle_()
    assert bundle[VIEW_MIME_TYPE] == {"view": "compare"}
    assert "data:image/png;base64," in bundle["text/html"]
    json.dumps(view._view.figure, allow_nan=False)
    view.close()


@pytest.mark.parametrize("runs", [[], "20261124-142530-demo", ["a"] * 9])
def test_what_is_no_list_of_runs_is_refused(runs):
    with pytest.raises(ValueError, match="Compare expects a list of 1 to 8 runs"):
        Compare(runs)


@pytest.fixture
def preferences(trainer):
    """Two DPO runs, of which the one with the higher loss has the better accuracy."""
    made = [trainer(name=name) for name in ("first", "second")]
    for one, accuracy, loss in zip(made, (0.6, 0.7), (0.4, 0.5), strict=True):
        one.steps(1, 9, **{"loss": loss, "rewards/accuracies": accuracy, "rewards/margins": 1.0, "kl": 0.1})
        one.writer.metric(9, {"eval_loss": loss, "eval_rewards/accuracies": accuracy - 0.1})
        one.writer.flush()
    return [one.folder for one in made]


def test_what_counts_is_compared_too_with_more_or_less_as_the_better(preferences):
    result = lines(table(looked(*preferences))["Result"])
    assert list(result) == [
        "Held-out accuracy, best",
        "Training accuracy, last", "Training accuracy, smoothed over 10 steps",
        "Training margin, last", "Training margin, smoothed over 10 steps",
        "KL divergence, last", "KL divergence, smoothed over 10 steps",
        "Evaluation loss, best", "Training loss, last", "Training loss, smoothed over 10 steps",
    ]  # fmt: skip
    assert (result["Held-out accuracy, best"].cells, result["Held-out accuracy, best"].best) == (
        ("50 % at 9", "60 % at 9"), (1,),
    )  # fmt: skip
    assert result["Evaluation loss, best"].best == (0,)
    assert result["KL divergence, last"].best == ()


def test_any_curve_that_the_runs_have_can_be_chosen(preferences):
    view = Compare(preferences)
    assert [(one["title"], one["log"]) for one in view._view.curves] == [
        ("Rewards", False), ("Accuracy", False), ("KL divergence", True), ("Loss", True),
    ]  # fmt: skip
    assert view._view.curve == "loss"
    view._view.curve = "rewards/accuracies"
    shape = view._view.figure["layout"]
    assert [one["text"] for one in shape["annotations"] if one["xref"] == "paper"] == [
        "<b>Held out: accuracy</b>", "<b>Accuracy</b>, smoothed over 10 steps",
    ]  # fmt: skip
    assert y_axis(view._view.figure, "Held out: accuracy")["tickformat"] == ".0%"
    view._view.log_scale = True
    assert y_axis(view._view.figure, "Accuracy")["type"] == "linear"
    view._view.curve = "rewards/margins"  # nothing of it was held out: one panel has all the room
    assert y_axis(view._view.figure, "Rewards: margin")["domain"] == [0, 1]
    assert traces_of(view._view.figure, "Rewards: margin") == view._view.figure["data"]
    assert "data:image/png" in view.html()
    view.refresh()
    assert view._view.curve == "rewards/margins"
    view.close()


@pytest.mark.parametrize("loss", [0.0, -1.0, float("nan"), 1e-12])
def test_a_logarithmic_axis_has_something_to_show_or_is_none(trainer, loss, recwarn):
    run = trainer()
    run.steps(1, 5, loss=loss)
    view = Compare([run.folder])
    view._view.log_scale = view._view.show_raw = True
    assert y_axis(view._view.figure, "Training loss")["type"] == ("log" if loss > 0 else "linear")
    view.html()
    assert not [str(one.message) for one in recwarn if issubclass(one.category, UserWarning)]
    view.close()


def test_runs_with_a_reward_are_compared_by_it(trainer):
    view = Compare([trainer().folder, trainer().folder])
    assert view._view.curve == "loss"
    runs = [trainer(), trainer()]
    for number, one in enumerate(runs):
        one.steps(1, 3, reward=float(number), loss=0.0)
    view.show([one.folder for one in runs])
    assert view._view.curve == "reward"
    result = {line["label"]: line for part in view._view.view["sections"] for line in part["rows"]}
    assert result["Reward, last"]["best"] == [1]
    assert "Training loss, last" not in result
    view.close()


@pytest.fixture
def seeds(trainer):
    """Three runs of one method, the third with a step more than the others, and a single run."""
    made = [trainer(name=f"lora seed={seed}") for seed in (1, 2, 3)]
    for seed, one in enumerate(made, 1):
        for step in (2, 4, 6) if seed < 3 else (2, 4, 6, 8):
            one.writer.metric(step, {"loss": float(seed * step), "eval_loss": seed / step, "memory": 1e9 * seed})
        one.writer.flush()
        one.folder.config.write_text(one.folder.config.read_text() + f"seed: {seed}\n")
    alone = trainer(name="full")
    alone.steps(1, 6, loss=1.0, memory=9e9)
    return [one.folder for one in made], alone.folder


def test_a_group_of_runs_is_their_mean_with_a_band(seeds):
    several, alone = seeds
    members = [("LoRA", [tracked(folder, 0) for folder in several]), ("", [tracked(alone, 0)])]
    figure = figure_json(named_groups(members))
    band, mean = (next(one for one in figure["data"] if one["name"] == name) for name in ("LoRA, range", "LoRA"))
    assert mean["x"].tolist() == [2, 4, 6]  # the steps that all three have
    assert mean["y"] == pytest.approx([2 / 2, 2 / 4, 2 / 6])
    assert band["x"].tolist() == [2, 4, 6, 6, 4, 2]
    assert band["y"] == pytest.approx([3 / 2, 3 / 4, 3 / 6, 1 / 6, 1 / 4, 1 / 2])
    assert (band["fill"], band["fillcolor"]) == ("toself", "rgba(16, 127, 198, 0.18)")
    assert mean["customdata"][0] == ["1.000", "0.5000 to 1.500"]
    assert "3 runs: %{customdata[1]}" in mean["hovertemplate"]
    assert figure["data"].index(band) < figure["data"].index(mean)  # lines are drawn over all bands
    training = traces_of(figure, "Training loss")
    assert [one["name"] for one in training] == ["LoRA, range", "LoRA", "full"]
    assert training[1]["y"].tolist() == [4, 8, 12]


def test_the_best_of_groups_is_marked_only_where_no_other_reaches_into_its_range(trainer):
    def group(*losses):
        made = []
        for loss in losses:
            made.append(trainer())
            made[-1].steps(1, 3, loss=loss)
        return [tracked(one.folder, 0) for one in made]

    def best(*groups):
        members = [(str(place), one) for place, one in enumerate(groups)]
        return lines(table(named_groups(members))["Result"])["Training loss, last"].best

    low, wide, high = group(0.136, 0.150), group(0.085, 0.225), group(0.3, 0.4)
    assert best(low, wide) == ()  # 0.143 against 0.155
    assert best(low, high) == (0,)
    assert best(wide, group(0.1)) == ()
    assert best(group(0.1), group(0.2)) == (0,)


def test_settings_that_a_method_lacks_and_seeds_of_each_group_are_no_differences(trainer):
    def group(method, *more):
        made = []
        for seed in (1, 2):
            made.append(trainer())
            text = "\n".join(("model_name_or_path: m", f"finetuning_type: {method}", f"seed: {seed}", *more))
            made[-1].folder.config.write_text(text)
        return method, [tracked(one.folder) for one in made]

    found = table(named_groups([group("lora", "lora_rank: 8", "lora_alpha: null"), group("freeze")]))["Config"]
    assert {row.label: row.cells for row in found.rows} == {"finetuning_type": ("lora", "freeze")}
    assert found.note == "1 of 5 keys differ"
    alone = table(named_groups([group("lora")]))["Config"]
    assert {row.label: row.cells for row in alone.rows} == {"seed": ("1, 2",)}


def test_the_outline_of_a_band_has_gaps_where_its_runs_have(seeds):
    nan, x = np.nan, np.arange(6.0)
    low, high = np.array([1, 2, nan, 4, 0, 6]), np.array([2, 3, 9, 5, 6, 7.0])
    xs, ys = outline(x, low, high)
    assert xs == pytest.approx([0, 1, 1, 0, nan, 3, 4, 5, 5, 4, 3], nan_ok=True)
    assert ys == pytest.approx([2, 3, 2, 1, nan, 5, 6, 7, 6, 0, 4], nan_ok=True)
    assert outline(x, low, high, positive=True)[0] == pytest.approx(
        [0, 1, 1, 0, nan, 3, 3, nan, 5, 5], nan_ok=True
    )  # 0 is nowhere on a logarithmic axis
    assert [one.size for one in outline(x, np.full(6, nan), high)] == [0, 0]


def test_the_table_has_mean_lowest_and_highest_of_a_group(seeds, trainer):
    several, alone = seeds
    view = Compare({"LoRA": several, "full": alone})
    cost = {row.label: row for section in view.sections() for row in section.rows}
    assert cost["Peak memory"].cells == ("2.00 GB\n1.00 GB to 3.00 GB", "9.00 GB")
    assert cost["Peak memory"].best == (0,)
    assert cost["Evaluation loss, best"].cells == ("0.2917\n0.1667 to 0.3750", "–")  # noqa: RUF001
    assert cost["seed"].cells == ("1, 2, 3", "–")  # noqa: RUF001
    heads = view._view.view["runs"]
    assert [(one["label"], one["name"]) for one in heads] == [("LoRA", "3 runs"), ("full", "full")]
    assert "band" in view._view.view["note"]
    waiting = trainer(name="lora seed=4").folder
    view.show({"LoRA": [*several, waiting]})
    cost = {row.label: row for section in view.sections() for row in section.rows}
    assert cost["Peak memory"].cells == ("2.00 GB\n1.00 GB to 3.00 GB\n3 of 4 runs",)
    assert view._view.figure["data"][0]["name"] == "LoRA, range"  # a run that has not begun takes nothing away
    view.close()


def test_groups_are_added_removed_saved_and_exported_by_name(seeds):
    several, alone = seeds
    view = Compare({"LoRA": several})
    assert "<br><small>1.00 GB to 3.00 GB</small>" in view.html()
    view._on_message(None, {"type": "add", "run": alone.id}, [])
    assert [one["label"] for one in view._view.view["runs"]] == ["LoRA", "full"]
    assert view.frame().index.names[:2] == ["group", "run"]
    assert sorted(view.frame().loc["LoRA"].index.get_level_values("run").unique()) == sorted(one.id for one in several)
    ids = [one.id for one in several]
    assert view._repr_mimebundle_()[0]["text/plain"] == f"llf.Compare({ {'LoRA': ids, 'full': [alone.id]}!r})"
    view._on_message(None, {"type": "remove", "run": several[0].id}, [])
    assert [one["label"] for one in view._view.view["runs"]] == ["full"]
    assert view._view.view["note"] == ""
    view.close()


def test_a_group_shows_each_different_answer_with_its_number_of_runs(trainer):
    texts = ["Yes.", "No.", "Yes."]
    made = [trainer(name=f"seed={seed}") for seed in (1, 2, 3)]
    for one, text in zip(made, texts, strict=True):
        one.steps(1, 2)
        for of, said in (("base", "Hm."), ("tuned", text)):
            one.writer.sample(step=2, kind="answer", prompt="2 + 2?", text=said, of=of)
            one.writer.sample(step=2, kind="answer", prompt="1 + 1?", text="2.", of=of)
    view = Compare({"lora": [one.folder for one in made]})
    assert view.answers() == [
        {"prompt": "2 + 2?", "base": "Hm.", "texts": ["2 of 3: Yes.\n1 of 3: No."]},
        {"prompt": "1 + 1?", "base": "2.", "texts": ["2."]},
    ]
    view.close()


@pytest.mark.parametrize("groups", [{"lora": []}, {" ": ["a"]}, {"lora": ["a"] * 21}])
def test_what_is_no_group_of_runs_is_refused(groups):
    with pytest.raises(ValueError, match="groups with a name and 1 to 20 runs"):
        Compare(groups)


def test_runs_that_have_not_ended_are_followed_and_no_longer_than_that(trainer):
    one, other = trainer(name="one"), trainer(name="other")
    view = Compare([one.folder, other.folder])
    assert [head["status_text"] for head in view._view.view["runs"]] == ["running", "running"]
    one.steps(1, 3, loss=0.25)
    until(lambda: "0.2500" in json.dumps(view._view.view["sections"]))
    assert view._poller.is_alive
    one.writer.close("finished")
    other.writer.close("failed", "The disk is full.")
    until(lambda: not view._poller.is_alive)
    assert [head["status_text"] for head in view._view.view["runs"]] == ["finished", "failed"]
    assert "finished" in view._repr_mimebundle_()[0]["text/html"]
    late = trainer(name="late")
    view.show([one.folder, late.folder])
    assert view._poller.is_alive
    view.close()
    until(lambda: not view._poller.is_alive)


@pytest.mark.parametrize("values", [(-0.1, -0.1069, -0.1138), (-123456.5, 4e5, -7e-7), (1e-7, 2e-7, 3e-7)])
def test_no_label_of_a_saved_chart_is_cut_off(trainer, values):
    run = trainer()
    for step, value in enumerate(values, 1):
        logged = {"reward": value, "rewards/brief": value, "loss": value, "eval_loss": value, "entropy": value}
        run.writer.metric(step, logged | {"kl": value})
    run.writer.flush()
    view = Compare([run.folder])
    tracker = tracked(run.folder)
    compared = re.search('base64,([^"]+)', view.html())[1]
    for image in (compared, mime_bundle(tracker)["image/png"]):
        opacity = np.asarray(Image.open(BytesIO(base64.b64decode(image))).convert("RGBA"))[..., 3]
        assert opacity.any()
        assert not any(edge.any() for edge in (opacity[:, :2], opacity[:, -2:], opacity[:2], opacity[-2:]))
    view.close()
