from __future__ import annotations

import errno
import json
import math
import sys
import time

import pytest

from llf_core.launch.queue import QueuePosition, enqueue
from llf_core.runs import RunFolder, RunReader, RunWriter, create_run, status
from llf_widgets.home import display_path, run_folder
from llf_widgets.monitor.mime_bundle import mime_bundle
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.monitor.run_view import RunView
from llf_widgets.monitor.snapshot import describe_run
from llf_widgets.monitor.status_text import header_json


def test_a_run_is_named_by_id_folder_path_or_handle(trainer, llf_home):
    folder = trainer().folder
    handle = type("Handle", (), {"folder": folder})()
    for given in (folder, folder.id, folder.path, str(folder.path), handle):
        assert run_folder(given).path == folder.path
    assert run_folder(folder.id, llf_home).path == folder.path


@pytest.mark.parametrize("given", ["20200101-000000-none", "/nowhere/at/all", "~nobody-has-this-name/run"])
def test_a_run_that_is_not_there_is_said(given, llf_home):
    with pytest.raises(FileNotFoundError, match="No run"):
        run_folder(given)


def test_an_id_that_is_nearly_one_is_told_of(trainer):
    folder = trainer().folder
    with pytest.raises(FileNotFoundError, match=f"No run .* Did you mean {folder.id}\\?"):
        run_folder(folder.id[:-1])


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="is not a run"):
        run_folder(7)


def test_looks_tell_what_is_new(trainer):
    run = trainer()
    tracker = RunTracker(run.folder)
    assert {"status", "events"} <= tracker.refresh()
    run.steps(1, 3)
    assert "metrics" in tracker.refresh()
    assert tracker.series["loss"][1].tolist() == pytest.approx([1.9, 1.8, 1.7])
    run.writer.event("warning", message="hot")
    assert "events" in tracker.refresh()
    run.folder.log.write_text("a\nb\n")
    assert "log" in tracker.refresh()
    assert tracker.log(5) == ["a", "b"]
    assert "metrics" not in tracker.refresh()


def test_facts_of_a_running_run(trainer):
    run = trainer(total=100)
    run.writer.event("data", examples=949, tokens=1, trained_tokens=1, truncated=0, dropped=0)
    run.steps(1, 4, epoch=0.04)
    run.checkpoint(4)
    run.writer.status(step_seconds=2.5)
    run.writer.flush()
    tracker = RunTracker(run.folder)
    tracker.refresh()
    snapshot = tracker.snapshot
    assert (snapshot.name, snapshot.state, snapshot.step, snapshot.total) == ("tiny", "running", 4, 100)
    assert snapshot.description == "org/tiny, LoRA rank 4, demo (949 examples)"
    assert (snapshot.epoch, snapshot.epochs, snapshot.checkpoints) == (0.04, 2.0, (4,))
    assert snapshot.remaining is not None
    assert snapshot.numbers[0].value == "1.600"  # the last logged one
    assert snapshot.numbers[0].note == "1.750 smoothed over 10 steps; first 1.900"


def test_the_step_is_that_of_the_numbers_beside_it(trainer):
    run = trainer(total=100)
    run.steps(1, 4)
    run.writer.flush()
    run.writer.metric(5, {"loss": 1.25})  # the status follows up to two seconds later
    tracker = RunTracker(run.folder)
    tracker.refresh()
    assert (tracker.snapshot.step, tracker.snapshot.numbers[0].value) == (5, "1.250")


def test_nan_is_news(trainer):
    run = trainer()
    run.steps(1, 3)
    run.steps(4, 4, loss=math.nan)
    tracker = RunTracker(run.folder)
    tracker.refresh()
    assert (tracker.snapshot.numbers[0].value, tracker.snapshot.numbers[0].note) == ("NaN", "not a finite number")
    assert tracker.chart_data().broken.tolist() == [4]


def test_after_a_resume_the_estimate_comes_from_the_new_attempt(trainer):
    run = trainer(total=100)
    old = time.time() - 10_000
    lines = [{"step": s, "time": old + s, "attempt": 1, "values": {"loss": 1.0}} for s in range(1, 51)]
    run.folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.writer.status(step=50, step_seconds=3.0)
    run.writer.close("stopped")
    status.begin_attempt(run.folder, 2)
    second = RunWriter(run.folder, 2)
    second.event("resumed", from_step=40, checkpoint="checkpoints/checkpoint-40")
    second.start_heartbeat(0.05)
    second.status(state="running", step=40, step_seconds=3.0, total=100)
    tracker = RunTracker(run.folder)
    tracker.refresh()
    assert (tracker.snapshot.attempt, tracker.snapshot.resumed_from, tracker.snapshot.per_step) == (2, 40, 3.0)
    assert tracker.snapshot.remaining == 60 * 3.0
    now = time.time()
    more = [{"step": 40 + s, "time": now + 0.5 * s, "attempt": 2, "values": {"loss": 1.0}} for s in range(1, 4)]
    with run.folder.metrics.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in more))
    tracker.refresh()
    assert tracker.snapshot.per_step == pytest.approx(0.5)
    second.close("finished")


def test_a_run_whose_process_is_gone_is_lost(trainer):
    run = trainer()
    run.steps(1, 2)
    run.writer.status(pid=2**22 - 3, started=1.0, ticks=1)
    run.writer.flush()
    tracker = RunTracker(run.folder)
    tracker.refresh()
    assert tracker.snapshot.state == "lost"


def test_broken_folders_are_shown_as_such(llf_home):
    path = llf_home / "runs" / "20200101-000000-x"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("[unclosed")
    (path / "metrics.jsonl").write_text('garbage\n{"step": 1, "time": 1, "attempt": 1, "values": {"loss": 1.5}}\n{"st')
    (path / "events.jsonl").write_text('{"v": 1, "type": "warn')
    tracker = RunTracker(RunFolder(path))
    tracker.refresh()
    assert tracker.snapshot.state == "broken"
    assert "status.json" in tracker.snapshot.reason
    (path / "status.json").write_text("{")
    tracker.refresh()
    assert "cannot be read" in tracker.snapshot.reason


def test_about_leaves_out_what_is_not_known():
    assert describe_run({}, None) == ""
    quantized = {"model_name_or_path": "/a/b/c/d", "finetuning_type": "lora", "lora_rank": 8, "quantization_bit": 4}
    assert describe_run(quantized, None) == "c/d, QLoRA rank 8, 4 bits"
    assert (
        describe_run({"dataset": ["x", "y"], "finetuning_type": "full"}, {"examples": 1234})
        == "full, x, y (1,234 examples)"
    )


def test_waiting_in_the_queue_is_no_time_of_the_run():
    folder = create_run("stage: sft\n", "waited")
    start = time.time() - 610
    kinds = (("created", 0), ("queued", 1), ("state", 600), ("state", 610))
    lines = [{"v": 1, "type": kind, "time": start + after, "attempt": 1} for kind, after in kinds]
    folder.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status.update(folder, state="failed", reason="It was.", ended=start + 610)
    tracker = RunTracker(folder)
    tracker.refresh()
    assert tracker.snapshot.elapsed == pytest.approx(10)


def test_the_time_that_a_run_stood_before_it_was_resumed_is_no_time_of_the_run():
    folder = create_run("stage: sft\n", "stood")
    start = time.time() - 700
    events = (("state", 0, 1), ("checkpoint", 20, 1), ("resumed", 640, 2), ("state", 645, 2), ("state", 700, 2))
    lines = [{"v": 1, "type": kind, "time": start + after, "attempt": number} for kind, after, number in events]
    folder.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Killed 40 s after its start, as only its last metric says; resumed 10 min later, when no step is logged yet.
    logged = [{"step": step, "time": start + 10 * step, "attempt": 1, "values": {"loss": 1.0}} for step in (1, 2, 3, 4)]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in logged))
    status.update(folder, attempt=2, state="failed", reason="It was.", ended=start + 700)
    tracker = RunTracker(folder)
    tracker.refresh()
    assert tracker.snapshot.elapsed == pytest.approx(40 + 60)
    logged.append(logged[0] | {"step": 5, "time": start + 690, "attempt": 2})
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in logged))
    tracker.refresh()
    assert tracker.snapshot.elapsed == pytest.approx(40 + 60)


def test_a_run_that_tells_of_its_progress_for_hours_keeps_the_newest(trainer):
    run = trainer()
    lines = [{"type": "progress", "attempt": 1, "time": 1e9 + n, "what": "score", "rows": n} for n in range(20_000)]
    with run.folder.events.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    tracker = RunTracker(run.folder)
    tracker.refresh()
    assert tracker.snapshot.progress["rows"] == 19_999
    assert not any(event["type"] == "progress" for event in tracker.index.events)


def rate_note(folder):
    tracker = RunTracker(folder)
    tracker.refresh()
    (note,) = (one.note for one in tracker.snapshot.numbers if one.label == "Learning rate")
    return note, header_json(tracker.snapshot, 0.0)["peak_learning_rate"]


def test_the_peak_of_the_learning_rate_is_that_of_the_schedule_also_during_warm_up(trainer):
    run = trainer()
    run.steps(1, 2, learning_rate=5e-4)
    assert rate_note(run.folder) == ("highest so far 5e-4", "")
    run.folder.config.write_text(f"{run.folder.config.read_text()}learning_rate: 1e-3\n", encoding="utf-8")
    tracker = RunTracker(run.folder)
    tracker.refresh()
    assert rate_note(run.folder) == ("peak 1e-3", "1e-3")
    run.writer.event("steered", step=2, id="a", changes={"learning_rate": 2e-4}, says="learning rate 2e-4")
    tracker.refresh()  # no step has been logged since
    assert [one.note for one in tracker.snapshot.numbers if one.label == "Learning rate"] == ["peak 2e-4"]
    assert rate_note(run.folder) == ("peak 2e-4", "2e-4")


ATTEMPTS = 10


def odd_life(count):
    """Events of all kinds, as a run of many days, attempts and changes would write them."""
    kinds = [
        {"type": "progress", "what": "score"},
        {"type": "steered", "changes": {"learning_rate": 1e-4}, "says": "learning rate 1e-4"},
        {"type": "steered", "changes": {"max_steps": 9}, "says": "ends at step 9", "cancels": ["3"]},
        {"type": "warning", "message": "Look."},
        {"type": "finding", "rule": "r", "message": "It rose.", "until": 1},
        {"type": "answer", "ok": False, "message": "No."},
        {"type": "error", "message": "It broke."},
        {"type": "evaluation", "values": {"eval_loss": 1.0}},
        {"type": "checkpoint", "path": "checkpoints/x"},
        {"type": "resumed", "from_step": 0},
        {"type": "data", "examples": 3},
        {"type": "model"},
        {"type": "phase", "name": "model"},
        {"type": "of a later version"},
    ]
    for n in range(count):
        yield {
            "v": 1,
            "time": 1e9 + n,
            "attempt": 1 + n * ATTEMPTS // count,
            "step": n,
            "id": str(n),
            "rows": n,
            **kinds[n % len(kinds)],
        }


def work(function):
    """How many functions a call takes, those of C too."""
    calls = 0

    def count(_frame, event, _arg):
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def test_a_look_without_news_costs_the_same_however_many_events_there_are(llf_home):
    costs = []
    for count in (560, 5_600):
        folder = create_run("stage: sft\n", "live", llf_home)
        with folder.events.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in odd_life(count))
        status.update(folder, attempt=ATTEMPTS, step=count)
        view = RunView(folder)
        known = view.updates({})["revisions"]
        assert view.tracker.snapshot.live
        quiet = work(lambda view=view, known=known: view.updates(known))
        status.update(folder, step=count + 1)
        costs.append((quiet, work(lambda view=view, known=known: view.updates(known))))
    (quiet_few, beat_few), (quiet_many, beat_many) = costs
    assert quiet_many == quiet_few
    assert beat_many < 2 * beat_few


def write_predictions(folder, records, predicted, *, finished=True):
    place = folder.predictions
    place.mkdir(exist_ok=True)
    (place / "generated_predictions.jsonl").write_text("{}\n" * records)
    state = {"settings": {}, "total": records, "finished": finished}
    (place / "generated_predictions.json").write_text(json.dumps(state))
    (place / "predict_results.json").write_text(json.dumps({"predict_samples": predicted}))


def test_a_run_that_predicts_names_the_phase_until_the_predictions_are_there(trainer):
    run = trainer(total=2)
    run.steps(1, 2)
    tracker = RunTracker(run.folder)

    def shown():
        tracker.refresh()
        head = header_json(tracker.snapshot, tracker.now)
        return head["status_text"], head["predictions_text"]

    run.writer.event("phase", name="predictions")
    assert shown() == ("The result is saved. Loading it to answer the evaluation data.", "")
    run.writer.event("progress", what="predictions", rows=3, of=7, step=2)
    assert shown() == ("Answering the evaluation data: 3 of 7 records.", "")
    run.writer.event("progress", what="predictions", rows=7, of=7, step=2)
    assert shown() == ("Answering the evaluation data: 7 of 7 records.", "")  # their metrics are computed
    write_predictions(run.folder, 7, 6)
    run.writer.close("finished")
    file = display_path(run.folder.predictions / "generated_predictions.jsonl")
    said = f"The predictions of 6 of 7 records are in {file}, their metrics in predict_results.json beside it."
    assert shown()[1] == said
    assert said in mime_bundle(tracker)["text/plain"]


def test_predictions_that_are_made_later_are_shown(trainer):
    run = trainer(total=2)
    run.steps(1, 2)
    run.writer.close("finished")
    view = RunView(run.folder)
    known = view.updates({})["revisions"]
    write_predictions(run.folder, 1, 1)
    head = view.updates(known)["sections"]["head"]
    assert head["predictions_text"].startswith("The predictions of 1 record are in ")


def test_a_disk_that_fails_is_a_warning_until_it_answers_again(trainer, monkeypatch):
    def fails(_):
        raise OSError(errno.EIO, "Input/output error", "/somewhere/metrics.jsonl")

    run = trainer()
    run.steps(1, 3)
    tracker = RunTracker(run.folder)
    with monkeypatch.context() as patch:
        patch.setattr(RunReader, "metrics", fails)
        tracker.refresh()
        tracker.refresh()
    (warning,) = [row for row in tracker.rows(10) if "cannot be read" in json.dumps(row)]
    assert "metrics.jsonl cannot be read: Input/output error." in json.dumps(warning)
    assert (tracker.snapshot.state, tracker.series) == ("running", {})
    tracker.refresh()
    assert tracker.series["loss"][1].tolist() == pytest.approx([1.9, 1.8, 1.7])
    assert not any("cannot be read" in json.dumps(row) for row in tracker.rows(10))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "The queue cannot be read: Permission denied."),
        (status.BrokenRunError("status.json is no JSON."), ""),
    ],
)
def test_a_queue_that_cannot_be_read_leaves_the_view_of_the_run(monkeypatch, error, said):
    def fails(_):
        raise error

    folder = create_run("stage: sft\n", "waits")
    enqueue(folder)
    monkeypatch.setattr(QueuePosition, "ahead", fails)
    tracker = RunTracker(folder)
    tracker.refresh()
    assert (tracker.snapshot.state, tracker.snapshot.queue) == ("queued", said)
