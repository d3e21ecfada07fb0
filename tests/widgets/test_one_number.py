"""One run, one number: every view of a run is read, and numbers of one name are the same in all of them."""

import json
import math
import random
import re

import pytest

from llf_core.launch import Run
from llf_core.launch.run import ProgressLine as Progress
from llf_core.runs import RunReader, RunWriter, create_run, list_runs, status
from llf_core.runs.curves import smooth
from llf_core.runs.formatting import number, share
from llf_core.runs.jsonl import encode
from llf_core.runs.process import ProcessId, boot_id, host
from llf_widgets.compare import Compare
from llf_widgets.monitor import summary_bundle
from llf_widgets.monitor.chart_data import chart_data
from llf_widgets.monitor.plotly_figure import figure_json
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.server.runs import RunDetails

TOTAL, STEPS = 300, 240


def values_of(step, stage):
    """A falling, noisy loss and what a trainer logs beside it."""
    noise = random.Random(step)
    values = {
        "loss": 4.0 * math.exp(-step / 60) + 0.3 * noise.random(),
        "learning_rate": 5e-5 * (1 - step / TOTAL),
        "grad_norm": 1 + noise.random(),
        "epoch": step / 100,
        "tokens": 900 * step,
        "trained_tokens": 300 * step,
        "tokens_per_second": 800 + 400 * noise.random(),
        "step_seconds": 2.0,
        "memory": 1.6e9 + 1e6 * step,
    }
    if stage == "dpo":
        values |= {
            "rewards/accuracies": noise.choice([0.25, 0.5, 0.75, 1.0]), "rewards/margins": step / 100 + noise.random(),
            "rewards/chosen": noise.random(), "rewards/rejected": -noise.random(),
        }  # fmt: skip
    return values


def evaluation_of(step, stage):
    values = {"eval_loss": 2.0 + abs(step - 160) / 100}
    return values | ({"eval_rewards/accuracies": 0.5 + step / 2000} if stage == "dpo" else {})


def written(stage, name, *, state="running", loss=None):
    """A run that was resumed: its first attempt came to step 230 and the second one went on at step 200."""
    folder = create_run(f"stage: {stage}\nmodel_name_or_path: org/tiny\nnum_train_epochs: 3\n", name)
    lines, now = [], 1.7e9
    for attempt, first, last in ((1, 1, 230), (2, 201, STEPS)):
        for step in range(first, last + 1):
            now += 2.0 if step % 3 else 5.0
            values = values_of(step + 1000 * attempt if step > 200 else step, stage)
            values |= {"loss": loss} if loss is not None and step == last else {}
            lines.append({"step": step, "time": now, "attempt": attempt, "values": values})
            if step % 50 == 0 or (step, attempt) == (230, 1):
                lines.append({"step": step, "time": now, "attempt": attempt, "values": evaluation_of(step, stage)})
    folder.metrics.write_bytes(b"".join(map(encode, lines)))
    me = ProcessId.own()
    writer = RunWriter(folder, 2)
    writer.event("resumed", from_step=200, checkpoint="checkpoints/checkpoint-200")
    status.update(
        folder, state="running", attempt=2, step=STEPS, total=TOTAL, step_seconds=9.0, boot_id=boot_id(), host=host(),
        pid=me.pid, started=me.started, ticks=me.ticks,
    )  # fmt: skip
    if state != "running":
        status.update(folder, state=state, step=STEPS)
    return folder


@pytest.fixture(params=["sft", "dpo"])
def stage(request):
    return request.param


@pytest.fixture
def folder(stage):
    return written(stage, stage)


def head(folder):
    tracker = RunTracker(folder)
    tracker.refresh()
    return tracker, {one.label: one for one in tracker.snapshot.numbers}


def drawn_figure(tracker):
    return figure_json(tracker.chart_data(), tracker.snapshot.last_step)


def end_label(tracker):
    (found,) = [trace["text"] for trace in drawn_figure(tracker)["data"] if trace["name"] == "loss label"]
    return found


def texts(tracker):
    return {one["text"] for one in drawn_figure(tracker)["layout"]["annotations"]}


def table(view):
    return {line["label"]: line["cells"][0] for part in view._view.view["sections"] for line in part["rows"]}


def test_the_loss_is_the_last_logged_one_in_every_view(folder, stage, capsys):
    expected = values_of(1000 * 2 + STEPS, stage)["loss"]
    text = number(expected)
    tracker, numbers = head(folder)
    assert RunReader(folder).metrics().last("loss") == expected
    (row,) = list_runs().rows
    assert row.loss == expected  # the panel's list and `llf runs list`
    assert row.json()["loss"] == expected
    details = RunDetails(folder).read()
    assert (details["numbers"]["loss"], details["row"]["loss"]) == (expected, expected)
    assert Run(folder).summary()["metrics"]["loss"] == expected  # `llf runs show`
    assert numbers["Training loss"].value == text
    assert {what: value for what, value, _ in tracker.summary()}["Training loss"] == text
    saved = summary_bundle(folder)
    assert re.search(rf"^  Training loss +{re.escape(text)}  ", saved["text/plain"], re.MULTILINE)
    assert f"<b>{text}</b>" in saved["text/html"]
    assert end_label(tracker) == [f" training {text}"]
    view = Compare([folder])
    assert table(view)["Training loss, last"] == text
    assert f"<b>{text}</b>" in view.html() or f">{text}<" in view.html()
    view.close()
    Progress(RunReader(folder)).show(row_status(folder))
    assert f"loss {text}" in capsys.readouterr().out


def row_status(folder):
    return RunReader(folder).status()


def test_a_smoothed_loss_is_labelled_so_and_the_same_in_every_view(folder):
    tracker, numbers = head(folder)
    columns = RunReader(folder).metrics()
    for window in (10, 50):
        tracker.smooth(window)
        mean = smooth(columns.steps("loss"), columns.values("loss"), window)[-1]
        assert mean == pytest.approx(columns.values("loss")[-window:].mean())
        text = f"{number(mean)} smoothed over {window} steps"
        assert text in {one.label: one for one in tracker.snapshot.numbers}["Training loss"].note
        assert text in {what: note for what, _, note in tracker.summary()}["Training loss"]
        assert any(f"smoothed over {window} steps" in one for one in texts(tracker))
        view = Compare([folder])
        view._view.smoothing = window
        assert table(view)[f"Training loss, smoothed over {window} steps"] == number(mean)
        notes = view._view.figure["layout"]["annotations"]
        (training,) = view._view.figure["layout"]["meta"]["charts"][-1:]
        assert next(one["text"] for one in notes if one["xref"] == training["x"]).endswith(number(mean))
        assert any(f"<b>Training loss</b>, smoothed over {window} steps" == one["text"] for one in notes)
        view.close()
    assert "smoothed" in numbers["Training loss"].note


def test_held_out_numbers_and_those_of_the_training_are_told_apart(folder, stage):
    tracker, numbers = head(folder)
    evaluation = evaluation_of(200, stage)  # that of step 230 was of steps that were made again
    (row,) = list_runs().rows
    details = RunDetails(folder).read()
    view = Compare([folder])
    shown = table(view)
    view.close()
    assert row.eval_loss == details["numbers"]["eval_loss"] == evaluation["eval_loss"] == 2.4
    summary = {what: value for what, value, _ in tracker.summary()}
    assert summary["Evaluation loss"] == numbers["Evaluation loss"].value == "2.400"
    assert numbers["Evaluation loss"].note == "best 2.100 at step 150"
    assert shown["Evaluation loss, best"] == "2.100 at 150"
    if stage == "sft":
        assert row.counted == ()
        return
    training = values_of(2000 + STEPS, stage)["rewards/accuracies"]
    told = {one["label"]: one["value"] for one in row.counted}
    assert list(row.counted) == details["counted"] == Run(folder).summary()["counted"]
    assert (told["Held-out accuracy"], told["Training accuracy"]) == (0.6, training)
    assert (numbers["Held-out accuracy"].value, numbers["Held-out accuracy"].note) == (
        "60 %",
        f"training {share(training)}",
    )
    assert (summary["Held-out accuracy"], summary["Training accuracy"]) == ("60 %", share(training))
    assert (shown["Held-out accuracy, best"], shown["Training accuracy, last"]) == ("60 % at 200", share(training))
    assert {f"training {share(training)}", "held out 60 %"} <= texts(tracker)
    assert told["Training margin"] == values_of(2000 + STEPS, stage)["rewards/margins"]
    assert shown["Training margin, last"] == summary["Training margin"] == number(told["Training margin"])


def test_speed_memory_and_the_time_that_remains(folder, stage):
    tracker, numbers = head(folder)
    now = values_of(2000 + STEPS, stage)
    (row,) = list_runs().rows
    details = RunDetails(folder).read()
    assert details["numbers"]["tokens_per_second"] == now["tokens_per_second"]
    assert details["numbers"]["memory"] == now["memory"]
    assert numbers["Tokens per second"].value == f"{now['tokens_per_second']:,.0f}"
    assert (numbers["Memory"].value, numbers["Memory"].unit) == (f"{now['memory'] / 1e9:.2f}", "GB")
    assert {f"{now['tokens_per_second']:,.0f}", f"{now['memory'] / 1e9:.2f} GB"} <= texts(tracker)
    summary = {what: value for what, value, _ in tracker.summary()}
    view = Compare([folder])
    for name in ("Tokens per second, median", "Peak memory"):
        assert summary[name] == table(view)[name]
    view.close()
    assert row.remaining == details["row"]["remaining"] == pytest.approx(tracker.snapshot.remaining)
    assert row.remaining == pytest.approx(60 * 3.0)  # two steps of 2 s and one of 5 s, not the trainer's word of 9 s


def test_a_loss_that_is_not_a_number_is_told_everywhere(stage):
    folder = written(stage, stage, loss=math.nan)
    tracker, numbers = head(folder)
    (row,) = list_runs().rows
    assert math.isnan(row.loss)
    assert row.json()["loss"] == RunDetails(folder).read()["numbers"]["loss"] == "NaN"
    json.dumps([row.json(), RunDetails(folder).read(), Run(folder).summary()], allow_nan=False)
    assert (numbers["Training loss"].value, numbers["Training loss"].note) == ("NaN", "not a finite number")
    assert end_label(tracker) == [" training NaN"]
    view = Compare([folder, written(stage, "other")])
    assert table(view)["Training loss, last"] == "NaN"
    view.close()


def test_a_line_of_the_log_writes_its_numbers_as_the_views_do(stage):
    from types import SimpleNamespace

    from llf_core.training.metrics_callback import _line

    values = values_of(120, stage)
    line = _line(SimpleNamespace(global_step=120, max_steps=TOTAL), values)
    assert f"loss {number(values['loss'])}" in line
    assert re.search(r"lr 3e-5", line)
    assert ("training accuracy" in line) == (stage == "dpo")


def test_many_points_make_no_difference(stage):
    """What a chart draws is thinned out; what it says is not."""
    folder = written(stage, stage)
    tracker, _ = head(folder)
    drawn = chart_data(tracker.series, tracker.smoothed, window=tracker.window)
    assert drawn.last["loss"] == list_runs().rows[0].loss
