"""Charts, numbers and summaries of runs that log more than a loss."""

from __future__ import annotations

import base64
import json
import time
from io import BytesIO
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import pytest

from llf_core.runs import RunWriter
from llf_core.runs.status import begin_attempt
from llf_widgets.figures import packed
from llf_widgets.monitor import Monitor, summary_bundle
from llf_widgets.monitor.curves import curves
from llf_widgets.monitor.figure import annotations, contents, figure_json, moved_apart
from llf_widgets.monitor.layout import Places, axis_number
from llf_widgets.monitor.run_tracker import RunTracker

EVIL = "<b>x</b>"


def line(count=20, start=0.0, slope=0.1):
    steps = np.arange(1, count + 1)
    return steps, start + slope * steps


def some(**more):
    series = {name: line(start=place) for place, name in enumerate(("loss", "rewards/chosen", "rewards/rejected"))}
    series |= {"rewards/accuracies": line(slope=0.05)} | more
    return curves(series, {name: values for name, (_, values) in series.items() if not name.startswith("eval_")})


def texts(shown):
    return [note["text"] for note in annotations(shown)]


def test_each_group_has_a_chart_with_its_lines_in_order():
    shown = some()
    assert [one.group.title for one in (shown.main, *shown.groups)] == ["Loss", "Rewards", "Accuracy"]
    names = [trace["name"] for trace in figure_json(shown, 20)["data"]][13:-1]
    assert names == [
        "rewards/chosen", "rewards/chosen, smoothed", "rewards/rejected", "rewards/rejected, smoothed",
        "rewards/accuracies", "rewards/accuracies, smoothed",
    ]  # fmt: skip
    assert len(go.Figure(figure_json(shown, 20)).data) == 20


def test_what_is_held_out_is_dashed_and_named_where_it_stands_beside_one_line():
    held = line(4, 0.5)
    shown = some(**{"eval_rewards/accuracies": held, "eval_rewards/chosen": held})
    drawn = figure_json(shown, 20)["data"]
    dashed = {trace["name"] for trace in drawn if trace.get("line", {}).get("dash") == "6px,3px"}
    assert dashed >= {"eval_rewards/accuracies", "eval_rewards/chosen"}
    said = texts(shown)
    assert "held out 90 %" in said
    assert not any(text.startswith("held out") and "%" not in text for text in said)
    assert any("Dashed: evaluation set." in text.replace("<br>", " ") for text in said)


def test_shares_are_written_in_per_cent_up_to_a_hundred_with_the_height_of_a_guess():
    drawn = figure_json(some(), 20)["layout"]
    accuracy = axis_number(1)
    assert drawn[f"yaxis{accuracy}"]["tickformat"] == ".0%"
    assert drawn[f"yaxis{accuracy}"]["range"] == [0, 1.03]
    assert {shape["y0"]: shape["yref"] for shape in drawn["shapes"]} == {0.0: f"y{axis_number(0)}", 0.5: f"y{accuracy}"}
    assert {"chance", "training 100 %"} <= {note["text"] for note in drawn["annotations"]}


@pytest.mark.parametrize(
    ("heights", "moved"),
    [
        ([], []),
        ([10], [0]),
        ([0, 40], [0, 0]),
        ([0, 0], [-5, 5]),
        ([20, 0, 4], [0, -3, 3]),
        ([0, 1, 2], [-9, 0, 9]),
    ],
)
def test_labels_that_would_touch_are_moved_apart(heights, moved):
    found = moved_apart([float(one) for one in heights], 10)
    assert found == moved
    after = sorted(one + shift for one, shift in zip(heights, found, strict=True))
    assert all(high - low >= 10 for low, high in pairwise(after))


def test_the_reward_takes_the_large_chart():
    shown = curves({"loss": line(), "reward": line(), "eval_reward": line(3)}, {"reward": line()[1]})
    assert (shown.lead, [one.group.title for one in shown.groups]) == ("reward", ["Loss"])
    training, smoothed, evaluation = contents(shown)[:3]
    assert [trace["x"].size for trace in (training, smoothed, evaluation)] == [20, 20, 3]
    assert contents(shown)[11]["text"] == [" reward 2.000"]


PPO = (
    "loss", "reward", "kl", "entropy", "response_length", "clip_fraction", "approx_kl", "policy_loss", "kl_coef",
)  # fmt: skip


def test_what_is_looked_at_only_where_something_is_odd_waits_for_a_click():
    series = {name: line() for name in PPO}
    brief, whole = (curves(series, {}, details=details) for details in (False, True))
    assert [one.group.title for one in brief.groups] == ["KL divergence", "Entropy", "Completion length, tokens"]
    assert brief.left_out == ("Clip fraction", "Update size", "Loss", "Loss terms", "KL coefficient")
    assert whole.left_out == ()
    assert [one.group.title for one in whole.groups] == [
        *(one.group.title for one in brief.groups), *brief.left_out,
    ]  # fmt: skip
    few = curves({name: line() for name in ("loss", "reward", "kl_coef")}, {}, details=False)
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
    from llf_core.runs.smoothing import smooth

    flat = np.full(60, 3.3)
    shown = curves({"odd": (steps, flat)}, {"odd": smooth(steps, flat, 5.0)})
    both = np.concatenate([shown.line("odd")[1], shown.smooth["odd"][1]])
    assert np.ptp(both) == 0


def test_names_of_a_run_are_text_in_plotlys_markup():
    shown = curves({f"rewards/{EVIL}": line(), "%{y}": line()}, {f"rewards/{EVIL}": line()[1]})
    drawn = json.dumps(packed(figure_json(shown, 20)))
    assert EVIL not in drawn
    assert "%{y}:" not in drawn
    go.Figure(figure_json(shown, 20))


def test_a_chart_comes_when_its_first_number_does():
    before, after = figure_json(curves({"loss": line()}, {"loss": line()[1]}), 20), figure_json(some(), 20)
    assert (len(before["data"]), len(after["data"])) == (14, 20)
    assert after["layout"]["height"] > before["layout"]["height"]
    assert after["layout"]["yaxis8"]["tickformat"] == ".0%"


def test_labels_move_with_the_table():
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
    def test_what_goes_on_before_the_first_step_is_told_with_its_seconds(self, starting, seconds, event, said):
        line = {"v": 1, "time": time.time() - seconds, "attempt": 1, "type": "phase", **event}
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
    assert len(view._view.charts["figure"]["data"]) == 14
    run.steps(3, 4, **{"rewards/accuracies": 0.7})
    until(lambda: len(view._view.charts["figure"]["data"]) == 16)
    view.close()


def test_charts_never_stand_on_each_other_and_in_a_narrow_view_in_fewer_columns():
    for groups in range(8):
        for narrow in (False, True):
            places = Places(groups, narrow=narrow)
            boxes = [places.group(number) for number in range(groups)] + [places.small(number) for number in range(4)]
            boxes.append(([0, places.right], places.main))
            for place, (across, up) in enumerate(boxes):
                assert 0 <= across[0] < across[1] <= 1 + 1e-9
                assert 0 <= up[0] < up[1] <= 1 + 1e-9
                for other_across, other_up in boxes[:place]:
                    apart = across[0] >= other_across[1] or across[1] <= other_across[0]
                    assert apart or up[0] >= other_up[1] or up[1] <= other_up[0]
    assert [Places(0, narrow=True).small(1)[0][1], Places(0).small(3)[0][1]] == pytest.approx([1, 1])
    assert Places(0, narrow=True).small(2)[0][0] == 0
