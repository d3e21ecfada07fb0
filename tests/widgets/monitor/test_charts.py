"""Charts, numbers and summaries of runs that log more than a loss."""

from __future__ import annotations

import base64
import json
import re
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest

from llf_core.runs import RunWriter, charts
from llf_core.runs.charts import Chart
from llf_core.runs.status import begin_attempt
from llf_widgets.monitor import Monitor, summary_bundle
from llf_widgets.monitor.chart_data import chart_data
from llf_widgets.monitor.mime_bundle import saved_image
from llf_widgets.monitor.plotly_figure import chart_grid, figure_json
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.plotting.plotly_layout import encode_arrays
from tests.widgets.drawn_charts import axes_of, texts, trace, traces_of, y_axis

EVIL = "<b>x</b>"


def line(count=20, start=0.0, slope=0.1):
    steps = np.arange(1, count + 1)
    return steps, start + slope * steps


def some(**more):
    series = {name: line(start=place) for place, name in enumerate(("loss", "rewards/chosen", "rewards/rejected"))}
    series |= {"rewards/accuracies": line(slope=0.05)} | more
    return chart_data(series, {name: values for name, (_, values) in series.items() if not name.startswith("eval_")})


def titles(charts):
    return [one.chart.title for one in charts]


def chart_titles(figure):
    return [chart["title"] for chart in figure["layout"]["meta"]["charts"]]


def test_each_chart_has_its_lines_in_order():
    shown = some()
    assert titles((shown.top, *shown.middle)) == ["Loss", "Rewards", "Accuracy"]
    drawn = figure_json(shown, 20)
    assert [one["name"] for one in traces_of(drawn, "Rewards")] == [
        "rewards/chosen", "rewards/chosen, smoothed", "rewards/rejected", "rewards/rejected, smoothed",
    ]  # fmt: skip
    assert [one["name"] for one in traces_of(drawn, "Accuracy")] == [
        "rewards/accuracies", "rewards/accuracies, smoothed",
    ]  # fmt: skip
    assert len(go.Figure(drawn).data) == 15 + 6


def test_what_is_held_out_is_dashed_and_named_where_it_stands_beside_one_line():
    held = line(4, 0.5)
    shown = some(**{"eval_rewards/accuracies": held, "eval_rewards/chosen": held})
    drawn = figure_json(shown, 20)
    dashed = {one["name"] for one in drawn["data"] if one.get("line", {}).get("dash") == "6px,3px"}
    assert dashed >= {"eval_rewards/accuracies", "eval_rewards/chosen"}
    said = texts(drawn)
    assert "held out 90 %" in said
    assert not any(text.startswith("held out") and "%" not in text for text in said)
    assert any("Dashed: evaluation set." in text.replace("<br>", " ") for text in said)


@pytest.mark.parametrize("name", ["loss", "rewards/accuracies", "sums_loss"])
def test_the_interval_of_an_evaluation_is_a_band_and_no_line_of_its_own(name):
    bounds = {f"eval_{name}/low": line(4, 0.4), f"eval_{name}/high": line(4, 0.6)}
    drawn = figure_json(some(**{f"eval_{name}": line(4, 0.5), **bounds}), 20)
    low, high = trace(drawn, f"eval_{name}/low"), trace(drawn, f"eval_{name}/high")
    assert (low["line"]["width"], high["line"]["width"], high["fill"]) == (0, 0, "tonexty")
    names = [one["name"] for one in drawn["data"]]
    assert names[names.index(low["name"]) + 1] == high["name"]  # the area is filled down to the trace before
    assert not any(label in text for text in texts(drawn) for label in charts.BOUND_LABELS.values())
    assert any("95 % interval" in text.replace("<br>", " ") for text in texts(drawn))


def test_shares_are_written_in_per_cent_up_to_a_hundred_with_the_height_of_a_guess():
    drawn = figure_json(some(), 20)
    assert y_axis(drawn, "Accuracy")["tickformat"] == ".0%"
    assert y_axis(drawn, "Accuracy")["range"] == [0, 1.03]
    assert {level["y0"]: level["yref"] for level in drawn["layout"]["shapes"]} == {
        0.0: axes_of(drawn, "Rewards")["y"], 0.5: axes_of(drawn, "Accuracy")["y"],
    }  # fmt: skip
    assert {"chance", "training 100 %"} <= set(texts(drawn))


def test_the_reward_takes_the_large_chart():
    shown = chart_data({"loss": line(), "reward": line(), "eval_reward": line(3)}, {"reward": line()[1]})
    assert (shown.primary, titles(shown.middle)) == ("reward", ["Loss"])
    drawn = figure_json(shown, 20)
    assert [len(one["x"]) for one in traces_of(drawn, "Reward")] == [20, 20, 3, 1, 1]
    assert trace(drawn, "reward label")["text"] == [" reward 2.000"]
    assert axes_of(drawn, "Reward") == drawn["layout"]["meta"]["charts"][0]
    assert axes_of(drawn, "Reward")["xaxis"] == "xaxis"
    assert y_axis(drawn, "Reward")["domain"][1] == 1


PPO = (
    "loss", "reward", "kl", "entropy", "response_length", "clip_fraction", "approx_kl", "policy_loss", "kl_coef",
)  # fmt: skip


def test_what_is_looked_at_only_where_something_is_odd_waits_for_a_click():
    series = {name: line() for name in PPO}
    brief, whole = (chart_data(series, {}, details=details) for details in (False, True))
    assert titles(brief.middle) == ["KL divergence", "Entropy", "Completion length, tokens"]
    assert brief.left_out == ("Clip fraction", "Update size", "Loss", "Loss terms", "KL coefficient")
    assert whole.left_out == ()
    assert titles(whole.middle) == [*titles(brief.middle), *brief.left_out]
    few = chart_data({name: line() for name in ("loss", "reward", "kl_coef")}, {}, details=False)
    assert few.left_out == ()


def test_the_button_draws_all_charts_and_hides_them_again(trainer):
    from tests.widgets.monitor.test_monitor import until

    run = trainer()
    run.steps(1, 2, **dict.fromkeys(PPO[1:], 0.5))
    view = Monitor(run.folder)
    front = view._view
    brief = len(front.charts["figure"]["data"])
    assert len(front.charts["left_out"]) == 5
    front.options = {"details": True}
    until(lambda: len(front.charts["figure"]["data"]) == brief + 2 * 5)
    assert front.charts["left_out"] == []
    front.options = {"details": False}
    until(lambda: len(front.charts["figure"]["data"]) == brief)
    assert len(front.charts["left_out"]) == 5
    view.close()


def test_a_line_that_does_not_move_stays_flat():
    steps = np.arange(1, 61)
    from llf_core.runs.curves import smooth

    flat = np.full(60, 3.3)
    shown = chart_data({"odd": (steps, flat)}, {"odd": smooth(steps, flat, 5.0)})
    both = np.concatenate([shown.line("odd")[1], shown.smooth["odd"][1]])
    assert np.ptp(both) == 0


@pytest.mark.filterwarnings("error")
def test_a_value_beyond_float32_is_a_gap():
    shown = chart_data({"odd": (np.arange(1, 4), np.array([1.0, 1e39, -1e39]))}, {})
    np.testing.assert_array_equal(shown.line("odd")[1], np.array([1.0, np.nan, np.nan], dtype=np.float32))
    assert shown.line("odd")[1].dtype == np.float32


def test_names_of_a_run_are_text_in_plotlys_markup():
    shown = chart_data({f"rewards/{EVIL}": line(), "%{y}": line()}, {f"rewards/{EVIL}": line()[1]})
    drawn = json.dumps(encode_arrays(figure_json(shown, 20)))
    assert EVIL not in drawn
    assert "%{y}:" not in drawn
    go.Figure(figure_json(shown, 20))


def test_a_chart_comes_when_its_first_number_does():
    before = figure_json(chart_data({"loss": line()}, {"loss": line()[1]}), 20)
    after = figure_json(some(), 20)
    assert (len(before["data"]), len(after["data"])) == (15, 21)
    assert after["layout"]["height"] == before["layout"]["height"] + 94 + 120
    was = before["layout"]["meta"]["charts"]
    assert after["layout"]["meta"]["charts"][: len(was)] == was  # so a reader's zoom stays with its chart


def test_labels_move_with_the_lines():
    drawn = figure_json(some(**{"rewards/accuracies": (np.arange(1, 31), np.full(30, 0.25))}), 20)
    (label,) = [note for note in drawn["layout"]["annotations"] if note["text"].startswith("training ")]
    assert (label["text"], label["x"], label["y"]) == ("training 25 %", 30, 0.25)


@pytest.fixture
def preference(trainer):
    """A DPO run of ten steps with two evaluations."""
    run = trainer(total=10)
    run.folder.config.write_text("model_name_or_path: org/tiny\nstage: dpo\npref_loss: ipo\nfinetuning_type: full\n")
    for step in range(1, 11):
        numbers = {"rewards/accuracies": 0.5 + step / 25, "rewards/margins": step / 10, "logps/chosen": -90.0 - step}
        run.steps(step, step, **numbers)
    for step, accuracy in ((5, 0.6), (10, 0.75)):
        run.writer.metric(step, {"eval_loss": 0.6, "eval_rewards/accuracies": accuracy})
        run.writer.event("evaluation", step=step, values={"eval_loss": 0.6, "eval_rewards/accuracies": accuracy})
    run.writer.flush()
    return run


def test_the_head_tells_what_counts_first(preference):
    tracker = RunTracker(preference.folder)
    tracker.refresh()
    numbers = [(one.label, one.value) for one in tracker.snapshot.numbers]
    assert [label for label, _ in numbers] == [
        "Held-out accuracy", "Training margin", "Training loss", "Evaluation loss", "Tokens per second", "Memory",
    ]  # fmt: skip
    assert numbers[0][1] == "75 %"
    assert tracker.snapshot.numbers[0].note == "training 90 %"
    assert tracker.snapshot.numbers[1].note == "0.5500 smoothed over 10 steps; first 0.1000"
    assert tracker.snapshot.description == "org/tiny, DPO (ipo), full"


def test_a_saved_notebook_keeps_the_held_out_accuracy(preference):
    preference.writer.close("finished")
    bundle = summary_bundle(preference.folder)
    lines = bundle["text/plain"].split("\n")
    assert "  Held-out accuracy  75 %  first 60 %, at step 10" in lines
    from matplotlib.image import imread

    pixels = imread(BytesIO(base64.b64decode(bundle["image/png"])))
    assert pixels.shape[0] > 2 * 140 * 3.1  # two rows of charts below the loss


def test_what_happened_tells_the_accuracy_of_an_evaluation(preference):
    tracker = RunTracker(preference.folder)
    tracker.refresh()
    assert "evaluation 0.6000, held-out accuracy 75 %" in [row["text"] for row in tracker.rows(10)]


def test_a_run_with_a_reward_leaves_its_loss_out_of_the_head(trainer):
    run = trainer()
    for step in range(1, 6):
        run.steps(step, step, reward=0.6, kl=0.1, response_length=40.0)
    tracker = RunTracker(run.folder)
    tracker.refresh()
    assert [(one.label, one.value) for one in tracker.snapshot.numbers[:4]] == [
        ("Reward", "0.6000"), ("KL divergence", "0.1000"), ("Completion length", "40"), ("Learning rate", "1e-4"),
    ]  # fmt: skip
    assert [what for what, _, _ in tracker.summary()][:3] == ["Reward", "KL divergence", "Completion length"]


class TestProgress:
    @pytest.fixture
    def starting(self, trainer):
        run = trainer()
        run.writer.status(state="starting")
        return run

    def says(self, run):
        tracker = RunTracker(run.folder)
        tracker.refresh()
        from llf_widgets.monitor.status_text import status_text

        return status_text(tracker.snapshot)

    @pytest.mark.parametrize(
        ("event", "said"),
        [
            (
                {"what": "reference", "rows": 1200, "of": 5000},
                "Computing reference log-probabilities: 1,200 of 5,000 examples.",
            ),
            ({"what": "data", "rows": 300, "dataset": "alpaca"}, "Preparing the data: 300 rows of alpaca."),
            ({"what": "rollout", "rows": 8, "of": 64}, "Generating completions: 8 of 64 completions."),
            (
                {"what": "rollout", "rows": 0, "of": 64, "tokens": 1200},
                "Generating completions: 0 of 64 completions, 1,200 tokens so far.",
            ),
            ({"what": "charm", "rows": 2}, "Charm: 2 rows."),
            ({"what": "data"}, "Starting the trainer."),
        ],
    )
    def test_the_state_line_tells_what_is_under_way(self, starting, event, said):
        starting.writer.event("progress", **event)
        assert self.says(starting) == said

    def test_what_is_done_is_not_told(self, starting):
        starting.writer.event("progress", what="data", rows=300, dataset="alpaca")
        starting.writer.event("data", examples=300, tokens=1, trained_tokens=1)
        assert self.says(starting) == "Starting the trainer."
        starting.writer.event("progress", what="reference", rows=10, of=300)
        starting.writer.event("request", id="a", request="checkpoint", args={}, by="x")
        assert self.says(starting) == "Computing reference log-probabilities: 10 of 300 examples."

    @pytest.mark.parametrize(
        ("seconds", "event", "said"),
        [
            (0.9, {"name": "environment"}, "Importing the libraries."),
            (4.6, {"name": "environment"}, "Importing the libraries, 4 s."),
            (90, {"name": "model", "what": "find"}, "Finding the model, 90 s."),
            (130, {"name": "data"}, "Preparing the data, 2:10 min."),
            (5, {"name": "model", "what": "load"}, "Loading the model, 5 s."),
            (0, {"name": "model"}, "Loading the model."),
            (0, {"name": "tea"}, "Tea."),
            (0, {}, "Starting the trainer."),
        ],
    )
    def test_what_goes_on_before_the_first_step_is_told_with_its_seconds(
        self, starting, monkeypatch, seconds, event, said
    ):
        now = time.time()
        monkeypatch.setattr("llf_widgets.monitor.run_tracker.time", SimpleNamespace(time=lambda: now))  # it stands
        line = {"v": 1, "time": now - seconds, "attempt": 1, "type": "phase", **event}
        with starting.folder.events.open("a") as events:
            events.write(json.dumps(line) + "\n")
        assert self.says(starting) == said

    def test_the_first_step_is_told_until_it_is_made(self, starting):
        starting.writer.event("phase", name="first step")
        starting.writer.status(state="running")
        starting.writer.event("state", state="running")
        assert self.says(starting) == "Running the first step."
        starting.writer.metric(1, {"loss": 2.0})  # the status tells of the step with the next heartbeat
        assert self.says(starting) == ""

    def test_a_resumed_run_tells_its_first_step_too(self, starting):
        starting.steps(1, 9)
        starting.writer.close("stopped")
        begin_attempt(starting.folder, 2, 6)
        writer = RunWriter(starting.folder, 2)
        writer.event("resumed", from_step=6, checkpoint="checkpoint-6")
        writer.event("phase", name="first step")
        writer.status(state="running")
        assert self.says(starting) == "Attempt 2, resumed from step 6. Running the first step."
        writer.metric(7, {"loss": 1.0})
        assert self.says(starting) == "Attempt 2, resumed from step 6."

    def test_a_run_that_makes_steps_tells_of_them(self, starting):
        starting.writer.status(state="running")
        starting.writer.event("state", state="running")
        starting.writer.event("progress", what="rollout", rows=8, of=64)
        assert self.says(starting).startswith("Generating completions")
        starting.steps(1, 1)
        assert self.says(starting) == ""
        starting.writer.event("progress", what="rollout", rows=8, of=64, step=1)
        assert self.says(starting) == "Generating completions: 8 of 64 completions."
        starting.writer.event("progress", what="rollout", rows=64, of=64, step=1)
        assert self.says(starting) == ""


def test_the_view_follows_a_run_that_begins_to_log_more(trainer):
    from tests.widgets.monitor.test_monitor import until

    run = trainer()
    run.steps(1, 2)
    view = Monitor(run.folder)
    assert len(view._view.charts["figure"]["data"]) == 15
    run.steps(3, 4, **{"rewards/accuracies": 0.7})
    until(lambda: len(view._view.charts["figure"]["data"]) == 17)
    view.close()


def test_charts_never_stand_on_each_other_and_in_a_narrow_view_in_fewer_columns():
    for count in range(8):
        shown = chart_data({f"family{number}/a": line() for number in range(count)}, {})
        for narrow in (False, True):
            grid = chart_grid(shown, narrow=narrow)
            assert len(grid.charts) == 1 + count + 4
            assert len({one.axes for one in grid.charts} | {grid.marks}) == len(grid.charts) + 1
            for number, one in enumerate(grid.charts):
                assert -1e-9 <= one.across[0] < one.across[1] <= 1 + 1e-9
                assert -1e-9 <= one.up[0] < one.up[1] <= 1 + 1e-9
                for other in grid.charts[:number]:
                    apart = one.across[0] >= other.across[1] or one.across[1] <= other.across[0]
                    assert apart or one.up[0] >= other.up[1] or one.up[1] <= other.up[0]
    wide, narrow = (chart_grid(chart_data({}, {}), narrow=narrow).charts[1:] for narrow in (False, True))
    assert [narrow[1].across[1], wide[3].across[1]] == pytest.approx([1, 1])
    assert narrow[2].across[0] == 0


@pytest.mark.parametrize(
    ("row", "after"),
    [
        (Chart("Gradient rank", "Rank of the update.", {"galore/*": "*"}, form="count", level=4.0), "Loss terms"),
        (Chart("Projection error", "", {"galore/error": "error"}, form="share", place="bottom"), "Memory, GB"),
        (Chart("Return", "Return of the episodes.", {"galore/return": "return"}, form="rate", place="top"), ""),
    ],
    ids=["middle", "bottom", "top"],
)
def test_a_row_of_the_table_is_a_chart(monkeypatch, row, after):
    """A plug-in logs `galore/…`: its row decides where its chart stands, and how its numbers are written."""
    logged = {"loss": line(), "sft_loss": line(), "galore/error": line(slope=0.01), "galore/return": line()}
    without = figure_json(chart_data(logged, {}), 20)
    assert "galore" in chart_titles(without)
    monkeypatch.setattr(charts, "CHARTS", (row, *charts.CHARTS) if row.place == "top" else (*charts.CHARTS, row))
    drawn = figure_json(chart_data(logged, {}), 20)
    found = axes_of(drawn, row.title)
    name = "galore/error" if row.place != "top" else "galore/return"
    lines = [one for one in drawn["data"] if (one["xaxis"], one["yaxis"]) == (found["x"], found["y"])]
    assert any(np.array_equal(one["y"], np.float32(logged[name][1])) for one in lines)
    assert y_axis(drawn, row.title)["tickformat"] == {"count": ",d", "share": ".0%", "rate": "~e"}[row.form]
    assert y_axis(drawn, row.title)["anchor"] == found["x"]
    assert f"<b>{row.title}</b>" in texts(drawn)
    if row.place == "top":
        assert drawn["layout"]["meta"]["charts"][0] == found
        assert y_axis(drawn, row.title)["domain"][1] == 1
        assert y_axis(drawn, "Loss")["domain"][1] < y_axis(drawn, row.title)["domain"][0]
        assert " return 2e+0" not in texts(drawn)
        assert trace(drawn, "galore/return label")["text"] == [" return 2"]
    if row.place == "middle":
        assert y_axis(drawn, row.title)["domain"] == y_axis(drawn, after)["domain"]  # beside it, in the second column
        assert axes_of(drawn, row.title)["y"] in {level["yref"] for level in drawn["layout"]["shapes"]}
        assert {"error 0", "return 2"} <= set(texts(drawn))
    if row.place == "bottom":
        low, high = y_axis(drawn, row.title)["domain"]
        assert low == pytest.approx(0)
        assert high < y_axis(drawn, after)["domain"][0]  # a fifth small chart begins a row
        assert "20 %" in texts(drawn)
    numbers = [one["xaxis"] for one in drawn["layout"]["meta"]["charts"]]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) == {key for key in drawn["layout"] if key.startswith("xaxis")}
    go.Figure(drawn)


def test_a_row_of_the_table_is_a_chart_of_compare_and_of_the_saved_image(monkeypatch, trainer):
    from llf_widgets.compare.labels import named_groups
    from llf_widgets.compare.plotly_figure import available_curves
    from llf_widgets.compare.plotly_figure import figure_json as compared

    run = trainer()
    run.steps(1, 5, **{"galore/rank": 7.0})
    row = Chart("Gradient rank", "Rank of the update.", {"galore/*": "mean *"}, form="count", maximum=10.0)
    monkeypatch.setattr(charts, "CHARTS", (*charts.CHARTS, row))
    tracker = RunTracker(run.folder)
    tracker.refresh()
    last = available_curves([tracker])[-1]
    assert (last.name, last.label, last.chart) == ("galore/rank", "mean rank", row)
    drawn = compared(named_groups([("", [tracker])]), curve="galore/rank")
    assert y_axis(drawn, "Gradient rank")["range"] == [0, 10.3]
    assert y_axis(drawn, "Gradient rank")["tickformat"] == ",d"
    assert any(text.endswith(" 7") for text in texts(drawn))
    with_row = saved_image(tracker.chart_data(), 10)
    monkeypatch.undo()
    assert with_row != saved_image(tracker.chart_data(), 10)


def test_nothing_but_the_table_numbers_axes():
    """Axes have numbers in `Axes` alone: every other file finds a chart by the figure's `meta.charts`."""
    numbered = re.compile(r"""[xy]axis\d|["'`][xy][2-9]\d*["'`]|["'`][xy](axis)?\$?\{|layout\.[xy]axis""")
    root = Path(__file__).parents[3]
    sources = [*root.glob("llf_widgets/**/*.py"), *root.glob("llf_core/**/*.py")]
    sources += [*root.glob("labextension/widgets/*/*.js"), *root.glob("labextension/src/*.ts*")]
    found = {path.name for path in sources for text in path.read_text().splitlines() if numbered.search(text)}
    assert found == {"plotly_layout.py"}
