from __future__ import annotations

from dataclasses import replace

import pytest

from llf_core.runs.folder import FinishedPredictions
from llf_widgets.monitor.event_log import log_lines, log_rows
from llf_widgets.monitor.snapshot import RunSnapshot
from llf_widgets.monitor.status_text import available_actions, header_json, messages, status_text

SCORED = ", their metrics in predict_results.json beside it."
SHARED = {"id": "r", "step": 93, "total": 141, "checkpoints": (75, 90), "step_seconds": 4.1}


@pytest.mark.parametrize(
    ("state", "more", "says", "can"),
    [
        ("created", {}, "Waiting for the trainer to start.", []),
        ("queued", {"queue": "Next in the queue."}, "Next in the queue.", ["stop"]),
        ("starting", {}, "Starting the trainer.", ["stop", "kill"]),
        ("running", {}, "", ["stop", "checkpoint", "set", "kill", "examples"]),
        ("running", {"step": 141}, "All steps are done. Evaluating or saving the result.",
         ["stop", "checkpoint", "set", "kill", "examples"]),
        ("running", {"attempt": 2, "resumed_from": 90, "step": 141},
         "Attempt 2, resumed from step 90. All steps are done. Evaluating or saving the result.",
         ["stop", "checkpoint", "set", "kill", "examples"]),
        ("running", {"step": 141, "phase": {"name": "evaluation"}, "phase_seconds": 12.4},
         "Training is done. Evaluating the model, 12 s.", ["stop", "checkpoint", "set", "kill", "examples"]),
        ("running", {"step": 120, "phase": {"name": "saving"}}, "Training is done. Saving the result.",
         ["stop", "checkpoint", "set", "kill", "examples"]),
        ("running", {"attempt": 2, "resumed_from": 90},
         "Attempt 2, resumed from step 90.", ["stop", "checkpoint", "set", "kill", "examples"]),
        ("stopping", {}, "Finishing the current step (up to 4 s), then saving a checkpoint.", ["kill", "examples"]),
        ("stopped", {}, "Stopped at step 93 of 141. checkpoint-90 is complete.", ["resume", "examples"]),
        ("finished", {"elapsed": 643, "output": "/o"},
         "93 steps in 10:43. The result is in /o.", ["download", "generate", "examples"]),
        ("finished", {"elapsed": 643, "output": "/o", "generates": False},
         "93 steps in 10:43. The result is in /o.", ["download", "examples"]),
        ("failed", {"reason": "The memory limit ended the trainer."},
         "The memory limit ended the trainer. checkpoint-90 is complete.", ["resume", "examples"]),
        ("lost", {}, "No heartbeat from the trainer. Its process no longer exists. checkpoint-90 is complete.",
         ["resume", "examples"]),
        ("lost", {"reason": "Its processes are gone. checkpoint-90 is complete: resume continues from it."},
         "No heartbeat from the trainer. Its processes are gone. checkpoint-90 is complete: resume continues from it.",
         ["resume", "examples"]),
        ("broken", {"reason": "r has no status.json."}, "This run cannot be read. r has no status.json.", []),
    ],
)  # fmt: skip
def test_each_state_says_what_is_and_offers_what_can_be_done(state, more, says, can):
    snapshot = RunSnapshot(state=state, **SHARED | more)
    assert status_text(snapshot) == says
    assert available_actions(snapshot) == can


@pytest.mark.parametrize(
    ("receipt", "said"),
    [
        ({"steps": 3, "exact": True, "largest": 0.0}, " The first 3 repeated steps match the log exactly."),
        ({"steps": 1, "exact": False, "largest": 1e-4}, " The repeated step differs from the log by up to 0.01 %."),
        ({"steps": 3, "exact": False}, " The first 3 repeated steps differ from the log."),
        ({"steps": "3"}, ""),
        (None, ""),
    ],
)
def test_a_resumed_run_tells_its_receipt(receipt, said):
    snapshot = RunSnapshot(state="running", **SHARED | {"attempt": 2, "resumed_from": 90, "receipt": receipt})
    assert status_text(snapshot) == f"Attempt 2, resumed from step 90.{said}"


def test_what_a_running_run_is_asked_for_depends_on_what_it_has():
    snapshot = RunSnapshot(state="running", **SHARED | {"held_out": True, "watched": True})
    assert available_actions(snapshot) == ["stop", "checkpoint", "evaluate", "sample", "set", "kill", "examples"]


def test_a_finding_offers_its_change_while_the_run_is_running():
    finding = {"type": "finding", "attempt": 1, "message": "The loss rises.", "fix": "Lower it."}
    rate = finding | {"change": {"learning_rate": 2e-5}}
    late = finding | {"message": "It learns by heart.", "change": {"max_steps": 3}}
    odd = finding | {"message": "Odd.", "change": {"weather": "fair"}}
    snapshot = RunSnapshot(**SHARED | {"state": "running", "step": 93, "events": (rate, late, odd)})
    first, second, third = messages(snapshot)
    assert first["text"] == "The loss rises. Lower it."
    assert first["actions"] == [{"label": "Set the learning rate to 2e-5", "change": {"learning_rate": 2e-5}}]
    assert second["actions"] == [{"label": "Set the last step to 94", "change": {"max_steps": 94}}]
    assert third["actions"] == []
    assert messages(RunSnapshot(**SHARED | {"state": "stopped", "events": (rate,)}))[0]["actions"] == []


@pytest.mark.parametrize("state", ["finished", "stopped", "failed", "lost"])
def test_of_a_run_that_has_ended_a_finding_asks_for_nothing(state):
    events = (
        {"type": "finding", "attempt": 1, "rule": "evaluation_rises", "message": "It has risen.", "fix": "End the run.",
         "change": {"max_steps": 9}, "config": {"early_stopping_steps": 3, "learning_rate": 2e-5}},
        {"type": "finding", "attempt": 1, "rule": "slower", "message": "It is slower.", "fix": "Look for other work."},
        {"type": "finding", "attempt": 1, "rule": "stalled", "message": "Step 94 has not ended.", "fix": "Stop it.",
         "until": 94},
    )  # fmt: skip
    said = messages(RunSnapshot(**SHARED | {"state": state, "events": events}))
    assert [one["text"] for one in said] == [
        "It has risen. For the next run, set early_stopping_steps: 3, learning_rate: 2e-5.",
        "It is slower.",
    ]
    assert [one["actions"] for one in said] == [[], []]


def test_what_is_said_of_a_step_is_over_when_the_step_is():
    event = {"type": "finding", "attempt": 1, "message": "Step 94 has not ended.", "fix": "Look.", "until": 94}
    snapshot = SHARED | {"state": "running", "events": (event,)}
    assert [one["text"] for one in messages(RunSnapshot(**snapshot | {"step": 93}))] == ["Step 94 has not ended. Look."]
    assert messages(RunSnapshot(**snapshot | {"step": 94})) == []


def test_a_state_from_the_future_is_named_and_offers_nothing():
    snapshot = RunSnapshot(id="r", state="paused")
    assert status_text(snapshot) == "This version of LLF does not know the state 'paused'."
    assert available_actions(snapshot) == []


@pytest.mark.parametrize("odd", [5, True, ["Look."], {"a": 1}, None])
def test_failed_adds_nothing_that_is_no_text(odd):
    events = ({"type": "error", "attempt": 1, "message": "m", "what_to_do": odd},)
    snapshot = RunSnapshot(id="r", state="failed", reason="Out of memory.", events=events)
    assert status_text(snapshot) == "Out of memory."
    assert status_text(replace(snapshot, step=2)) == "Out of memory. No checkpoint was saved."


def test_failed_adds_what_to_do_once():
    events = ({"type": "error", "attempt": 1, "message": "m", "what_to_do": "Lower the batch."},)
    snapshot = RunSnapshot(id="r", state="failed", reason="Out of memory.", events=events)
    assert status_text(snapshot) == "Out of memory. Lower the batch."
    again = RunSnapshot(id="r", state="failed", reason="Out of memory. Lower the batch.", events=events)
    assert status_text(again).count("Lower the batch.") == 1
    safe = RunSnapshot(
        id="r", state="failed", reason="Killed by the user. There is no checkpoint yet: resume starts anew."
    )
    assert status_text(safe) == safe.reason


def test_messages_are_those_of_this_attempt_each_once_the_newest_last():
    events = (
        {"type": "warning", "attempt": 1, "message": "old"},
        {"type": "warning", "attempt": 2, "message": "a"},
        {"type": "finding", "attempt": 2, "message": "b", "fix": "Do c."},
        {"type": "warning", "attempt": 2, "message": "a"},
        {"type": "answer", "attempt": 2, "request": "stop", "ok": False, "message": "it had ended"},
        {"type": "answer", "attempt": 2, "request": "stop", "ok": True, "message": "fine"},
    )
    texts = [message["text"] for message in messages(RunSnapshot(id="r", state="running", attempt=2, events=events))]
    assert texts == ["b Do c.", "a", "Stop was refused: it had ended"]


def test_remaining_time_counts_steps_of_now():
    snapshot = RunSnapshot(id="r", state="running", step=93, total=141, per_step=4.0)
    assert header_json(snapshot, 1000.0)["remaining"] == 48 * 4.0
    assert header_json(RunSnapshot(id="r", state="stopped", step=93, total=141, per_step=4.0), 0)["remaining"] is None


class TestJournal:
    def test_newest_first_and_one_row_a_step(self):
        events = [
            {"type": "evaluation", "time": 1, "step": 90, "values": {"eval_loss": 1.351}},
            {"type": "checkpoint", "time": 2, "step": 90, "path": "p", "bytes": 29_400_000},
            {"type": "checkpoint_removed", "time": 3, "step": 60},
            {"type": "state", "time": 4, "state": "stopped", "reason": "By hand."},
        ]
        assert [(row["step"], row["text"]) for row in log_rows(events)] == [
            (None, "stopped: By hand."),
            (90, "evaluation 1.351, checkpoint-90 (29.4 MB), checkpoint-60 removed"),
        ]

    def test_an_error_is_not_told_twice(self):
        said = {"type": "state", "state": "failed", "reason": "No data. Add some."}
        failed = [{"type": "error", "message": "No data."}, said]
        assert [row["text"] for row in log_rows(failed)] == ["failed", "error: No data."]
        assert log_rows(failed[1:])[0]["text"] == "failed: No data. Add some."

    def test_unknown_types_and_odd_fields_are_left_out(self):
        assert (
            log_rows([{"type": "from-the-future"}, {"type": "checkpoint"}, {"type": "data", "examples": "x"}, {}]) == []
        )

    def test_packed_rows_are_counted_beside_their_examples(self):
        data = {"type": "data", "examples": 1950, "rows": 61, "tokens": 90000, "trained_tokens": 40000}
        assert log_rows([data])[0]["text"] == "data: 1,950 examples in 61 rows, 90,000 tokens, 40,000 trained"

    def test_not_finite_evaluation(self):
        assert (
            log_rows([{"type": "evaluation", "step": 1, "values": {"eval_loss": float("nan")}}])[0]["text"]
            == "evaluation NaN"
        )

    def test_log_lines_lose_colours_and_redrawn_bars(self):
        lines = ["\x1b[32mgreen\x1b[0m", " 10%|#\r 90%|####\r\n", "x" * 600]
        clean = log_lines(lines)
        assert clean[:2] == ["green", " 90%|####"]
        assert len(clean[2]) == 500


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, ""),
        (FinishedPredictions(1, 1), f"The predictions of 1 record are in /p{SCORED}"),
        (FinishedPredictions(1200, 1198), f"The predictions of 1,198 of 1,200 records are in /p{SCORED}"),
        (FinishedPredictions(5, None), "The predictions of 5 records are in /p."),
    ],
)
def test_predictions_are_named_with_their_number(found, said):
    snapshot = RunSnapshot(state="finished", **SHARED | {"predictions": "/p", "finished_predictions": found})
    assert header_json(snapshot, 0.0)["predictions_text"] == said


def test_a_resumed_run_that_predicts_names_the_phase():
    phase = {"type": "phase", "name": "predictions", "time": 1.0}
    more = {"attempt": 2, "resumed_from": 90, "receipt": {"steps": 3, "exact": True}, "phase": phase}
    said = status_text(RunSnapshot(state="running", **SHARED | more))
    assert said == "The result is saved. Loading it to answer the evaluation data."
    progress = {"type": "progress", "what": "predictions", "rows": 3, "of": 7}
    said = status_text(RunSnapshot(state="running", **SHARED | more | {"progress": progress}))
    assert said == "Answering the evaluation data: 3 of 7 records."
