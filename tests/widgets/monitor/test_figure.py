from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from llf_widgets.figures import packed
from llf_widgets.monitor.curves import LIMIT, curves
from llf_widgets.monitor.figure import contents, figure_json

CHART_CSS = Path(__file__).parents[3] / "labextension" / "widgets" / "shared" / "chart.css"


def some_curves(count=100, **changes):
    steps = np.arange(1, count + 1)
    series = {
        "loss": (steps, 2 - steps / count),
        "learning_rate": (steps, np.full(count, 3.1e-5)),
        "memory": (steps, np.full(count, 1.61e9)),
        **changes,
    }
    return curves(series, {"loss": series["loss"][1]}, kept=(50, 75), best=75, events=())


def test_plotly_accepts_every_name_and_value():
    figure = figure_json(some_curves(), 141)
    assert len(go.Figure(figure).data) == len(figure["data"]) == 14


def test_at_most_2000_points_a_trace_and_no_extreme_is_lost():
    values = np.sin(np.arange(50_000) / 50)
    values[31_234], values[777], values[20_000] = 9.5, -7.25, math.nan
    shown = some_curves(50_000, loss=(np.arange(1, 50_001), values))
    for trace in contents(shown):
        assert len(trace["x"]) == len(trace["y"]) <= LIMIT
    x, y = shown.lines["loss"]
    assert y[x == 31_235] == [9.5]
    assert y[x == 778] == [-7.25]
    assert math.isnan(y[x == 20_001][0])
    assert (shown.broken.tolist(), shown.broken_count) == ([20_001], 1)


def test_a_loss_that_is_always_nan_is_told_and_bounded():
    shown = some_curves(9000, loss=(np.arange(9000), np.full(9000, math.nan)))
    assert shown.broken_count == 9000
    assert shown.broken.size <= LIMIT
    marks = contents(shown)[10]
    assert marks["text"][-1] == "not a finite number: 9,000 of the logged losses"


def test_labels_stand_at_the_ends_and_give_way_to_each_other():
    near = some_curves(eval_loss=(np.array([50, 100]), np.array([1.5, 1.04])))
    training, evaluation = contents(near)[11:13]
    assert (training["text"], evaluation["text"]) == ([" training 1.000"], [" evaluation 1.040"])
    assert (training["textposition"], evaluation["textposition"]) == ("bottom right", "top right")
    assert (training["x"].tolist(), evaluation["x"].tolist()) == ([100], [100])
    far = some_curves(eval_loss=(np.array([50, 100]), np.array([1.5, 1.9])))
    assert contents(far)[12]["textposition"] == "middle right"


def test_resumes_are_marked():
    events = ({"type": "resumed", "attempt": 2, "from_step": 60}, {"type": "resumed"})
    shown = curves({}, {}, events=events)
    assert contents(shown)[9]["x"] == [60, 60, None]
    assert contents(shown)[9]["text"][1] == " attempt 2, from step 60"


def test_changes_by_hand_are_marked_once_and_do_not_stand_on_each_other():
    rate = {"type": "steered", "step": 55, "changes": {"learning_rate": 1e-4}, "id": "a"}
    both = {"type": "steered", "step": 56, "changes": {"max_steps": 1410, "watch": "Say hi."}, "id": "b"}
    prompt = {"type": "steered", "step": 57, "changes": {"watch": "Say hi."}, "id": "c"}
    shown = curves({}, {}, events=(rate, both, prompt, rate | {"again": True}, {"type": "steered"}))
    assert shown.marks == [(55, "55: learning rate 1e-4"), (56, "56: ends at step 1,410")]
    first, second = contents(shown)[9]["y"][1], contents(shown)[9]["y"][4]
    assert first != second


def test_nothing_logged_yet_is_a_figure_too():
    empty = curves({}, {})
    assert empty.points == 0
    layout = figure_json(empty, 0)["layout"]
    assert layout["xaxis"]["autorange"] is True
    assert "range" not in layout["xaxis"]  # plotly.js keeps a reader's zoom, and fails on a range that is null
    assert layout["yaxis"]["showticklabels"] is False  # -1 to 4 would be Plotly's invention
    assert figure_json(some_curves(), 141)["layout"]["yaxis"]["showticklabels"] is True


def test_the_stylesheet_knows_every_colour_of_the_figure():
    # What it does not know would stay a middle tone in both themes.
    four = {f"odd/{name}": (np.array([1]), np.array([1.0])) for name in "abcd"}
    drawn = json.dumps(packed(figure_json(some_curves(**four), 141)))
    colours = set(re.findall(r"rgb\(\d+, \d+, \d+\)", drawn))
    known = set(re.findall(r"rgb\(\d+, \d+, \d+\)", CHART_CSS.read_text()))
    assert colours == known


def test_the_planned_rate_goes_on_where_the_logged_one_ends():
    rates = {"learning_rate": (np.array([1, 2, 3]), np.array([1.0, 0.9, 0.8]))}
    planned = np.array([2, 3, 4, 10]), np.array([0.9, 0.8, 0.7, 0.1])
    dotted = contents(curves(rates, {}, planned=planned))[-1]
    assert dotted["x"].tolist() == [3, 4, 10]
    assert dotted["y"].tolist() == [0.8, 0.7, 0.1]
    before = contents(curves({}, {}, planned=planned))[-1]
    assert before["x"].tolist() == [2, 3, 4, 10]
    assert contents(curves(rates, {}))[-1]["x"].size == 0


def test_the_first_point_is_a_dot():
    assert contents(some_curves(1))[0]["mode"] == contents(some_curves(1))[3]["mode"] == "markers"
    assert contents(some_curves(2))[0]["mode"] == contents(curves({}, {}))[0]["mode"] == "lines"
