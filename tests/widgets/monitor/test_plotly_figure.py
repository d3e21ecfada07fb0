from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from llf_widgets.monitor.chart_data import MAX_POINTS, chart_data
from llf_widgets.monitor.plotly_figure import figure_json
from llf_widgets.plotting.plotly_layout import encode_arrays
from tests.widgets.drawn_charts import trace, traces_of, x_axis, y_axis

COLORS_CSS = Path(__file__).parents[3] / "labextension" / "widgets" / "shared" / "plotly_colors.css"


def some_data(count=100, **changes):
    steps = np.arange(1, count + 1)
    series = {
        "loss": (steps, 2 - steps / count),
        "learning_rate": (steps, np.full(count, 3.1e-5)),
        "memory": (steps, np.full(count, 1.61e9)),
        **changes,
    }
    return chart_data(series, {"loss": series["loss"][1]}, kept=(50, 75), best=75, events=())


def drawn(data, total=141):
    return figure_json(data, total)


def test_plotly_accepts_every_name_and_value():
    figure = figure_json(some_data(), 141)
    assert len(go.Figure(figure).data) == len(figure["data"]) == 3 + 2 + 6 + 4  # lines, their ends, marks, small charts


def test_the_legend_names_the_lines_and_marks_that_are_drawn():
    def legend(data):
        texts = [one["text"] for one in figure_json(data, 141)["layout"]["annotations"]]
        return next(text for text in texts if "every logged step" in text)

    series = {"loss": (np.array([1, 2]), np.array([2.0, 1.0]))}
    evaluated = series | {"eval_loss": (np.array([2]), np.array([1.5]))}
    assert legend(chart_data(series, {}, events=())) == "solid: every logged step"
    assert legend(chart_data(series, {}, kept=(1, 2), events=())) == "solid: every logged step, ▲ checkpoint"
    assert legend(chart_data(evaluated, {}, kept=(1, 2), best=2, events=())) == (
        "solid: every logged step, dashed: evaluation, ▲ checkpoint, ★ best"
    )
    assert legend(chart_data(evaluated, {}, kept=(2,), best=2, events=())).endswith("dashed: evaluation, ★ best")


def test_at_most_2000_points_a_trace_and_no_extreme_is_lost():
    values = np.sin(np.arange(50_000) / 50)
    values[31_234], values[777], values[20_000] = 9.5, -7.25, math.nan
    shown = some_data(50_000, loss=(np.arange(1, 50_001), values))
    for one in drawn(shown)["data"]:
        assert len(one["x"]) == len(one["y"]) <= MAX_POINTS
    x, y = shown.lines["loss"]
    assert y[x == 31_235] == [9.5]
    assert y[x == 778] == [-7.25]
    assert math.isnan(y[x == 20_001][0])
    assert (shown.broken.tolist(), shown.broken_count) == ([20_001], 1)


def test_a_loss_that_is_always_nan_is_told_and_bounded():
    shown = some_data(9000, loss=(np.arange(9000), np.full(9000, math.nan)))
    assert shown.broken_count == 9000
    assert shown.broken.size <= MAX_POINTS
    assert trace(drawn(shown), "not finite label")["text"] == ["not a finite number: 9,000 of the logged losses"]


@pytest.mark.parametrize(("at", "side"), [(2, "middle right"), (90, "middle left")])
def test_what_is_not_finite_is_told_on_the_side_with_more_room(at, side):
    values = np.ones(100)
    values[at] = math.nan
    assert trace(drawn(some_data(loss=(np.arange(100), values))), "not finite label")["textposition"] == side


def test_labels_stand_at_the_ends_and_give_way_to_each_other():
    near = some_data(eval_loss=(np.array([50, 100]), np.array([1.5, 1.04])))
    training, evaluation = (trace(drawn(near), f"{name} label") for name in ("loss", "eval_loss"))
    assert (training["text"], evaluation["text"]) == ([" training 1.000"], [" evaluation 1.040"])
    assert (training["textposition"], evaluation["textposition"]) == ("bottom right", "top right")
    assert (training["x"].tolist(), evaluation["x"].tolist()) == ([100], [100])
    far = some_data(eval_loss=(np.array([50, 100]), np.array([1.5, 1.9])))
    assert trace(drawn(far), "eval_loss label")["textposition"] == "middle right"


def test_resumes_are_marked():
    events = ({"type": "resumed", "attempt": 2, "from_step": 60}, {"type": "resumed"})
    figure = drawn(chart_data({}, {}, events=events))
    assert trace(figure, "changes")["x"] == [60, 60, None]
    assert trace(figure, "change labels")["text"] == [" attempt 2, from step 60"]


def test_changes_by_hand_are_marked_once_and_do_not_stand_on_each_other():
    rate = {"type": "steered", "step": 55, "changes": {"learning_rate": 1e-4}, "id": "a"}
    both = {"type": "steered", "step": 56, "changes": {"max_steps": 1410, "watch": "Say hi."}, "id": "b"}
    prompt = {"type": "steered", "step": 57, "changes": {"watch": "Say hi."}, "id": "c"}
    shown = chart_data({}, {}, events=(rate, both, prompt, rate | {"again": True}, {"type": "steered"}))
    assert shown.marks == [(55, "55: learning rate 1e-4"), (56, "56: ends at step 1,410")]
    first, second = trace(drawn(shown), "change labels")["y"]
    assert first != second


def test_no_text_is_empty():
    """When it draws again, plotly.js loses texts of a trace that stand beside empty ones."""
    events = [{"type": "resumed", "attempt": number, "from_step": 10 * number} for number in (2, 3)]
    values = np.where(np.arange(100) < 5, math.nan, 1.0)
    series = {"loss": (np.arange(100), values), "eval_loss": (np.array([50]), np.array([1.0]))}
    found = [one for one in drawn(chart_data(series, {}, events=tuple(events)))["data"] if "text" in one["mode"]]
    assert {one["name"]: len(one["text"]) for one in found} == {
        "loss label": 1, "eval_loss label": 1, "change labels": 2, "not finite label": 1,
    }  # fmt: skip
    assert all(text.strip() for one in found for text in one["text"])
    assert all(len(one["x"]) == len(one["y"]) == len(one["text"]) for one in found)


def test_nothing_logged_yet_is_a_figure_too():
    empty = chart_data({}, {})
    assert empty.points == 0
    figure = figure_json(empty, 0)
    assert x_axis(figure, "Loss")["autorange"] is True
    assert "range" not in x_axis(figure, "Loss")  # plotly.js keeps a reader's zoom, and fails on a range that is null
    assert y_axis(figure, "Loss")["showticklabels"] is False  # -1 to 4 would be Plotly's invention
    assert y_axis(drawn(some_data()), "Loss")["showticklabels"] is True


def test_the_stylesheet_knows_every_colour_of_the_figure():
    # What it does not know would stay a middle tone in both themes.
    four = {f"odd/{name}": (np.array([1]), np.array([1.0])) for name in "abcd"}
    drawn = json.dumps(encode_arrays(figure_json(some_data(**four), 141)))
    colours = set(re.findall(r"rgb\(\d+, \d+, \d+\)", drawn))
    known = set(re.findall(r"rgb\(\d+, \d+, \d+\)", COLORS_CSS.read_text()))
    assert colours == known


def test_the_planned_rate_goes_on_where_the_logged_one_ends():
    rates = {"learning_rate": (np.array([1, 2, 3]), np.array([1.0, 0.9, 0.8]))}
    planned = {"learning_rate": (np.array([2, 3, 4, 10]), np.array([0.9, 0.8, 0.7, 0.1]))}
    logged, dotted = traces_of(drawn(chart_data(rates, {}, planned=planned)), "Learning rate")
    assert logged["x"].tolist() == [1, 2, 3]
    assert dotted["x"].tolist() == [3, 4, 10]
    assert dotted["y"].tolist() == pytest.approx([0.8, 0.7, 0.1])
    before = trace(drawn(chart_data({}, {}, planned=planned)), "planned learning rate")
    assert before["x"].tolist() == [2, 3, 4, 10]
    assert len(traces_of(drawn(chart_data(rates, {})), "Learning rate")) == 1


def test_the_first_point_is_a_dot():
    for name in ("loss", "Learning rate", "plug/a"):
        for count, mode in ((1, "markers"), (2, "lines")):
            steps = np.arange(count)
            assert trace(drawn(some_data(count, **{"plug/a": (steps, 1.0 * steps)})), name)["mode"] == mode
    assert trace(drawn(chart_data({}, {})), "loss")["mode"] == "lines"
