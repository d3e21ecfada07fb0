"""A run whose events hold what they should not: the monitor shows the rest."""

from __future__ import annotations

import json
import math

import pytest

from llf_core.runs.jsonl import spell_non_finite
from llf_widgets.monitor.mime_bundle import text_bundle
from llf_widgets.monitor.run_view import SECTIONS, RunView

ODD = [None, True, -1, 10**400, 1e18, "x", "<b>", [], [None], {}, {"x": 1}, {"max_steps": "z"}, "NaN", math.inf]
EVENTS = [
    {"type": "steered", "step": 3, "changes": {"learning_rate": 1e-4}, "id": "a", "says": "x", "cancels": []},
    {"type": "schedule", "steps": [7], "rates": [1e-4]},
    {"type": "schedule", "steps": ["x"], "rates": [None]},
    {"type": "resumed", "from_step": 3, "attempt": 1},
    {"type": "request", "request": "set", "args": {"max_steps": 9}},
    {"type": "evaluation", "step": 5, "values": {"eval_loss": 10**400}},
    {"type": "checkpoint", "step": 5, "bytes": 1000},
    {"type": "finding", "rule": "r", "message": "m", "fix": "f", "change": {"learning_rate": 1e-4}, "until": 9},
    {"type": "receipt", "from_step": 3, "steps": 4, "exact": False, "largest": 0.1},
    {"type": "model", "parameters": 100, "trainable": 10, "dtype": "x", "device": "cpu"},
    {"type": "branched", "run": "a", "step": 3, "changes": {"a": 1}},
    {"type": "progress", "rows": 3, "of": 10, "step": 7},
    {"type": "phase", "name": "model", "what": "w"},
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_no_field_of_an_event_ends_the_view(event, trainer):
    run = trainer()
    run.steps(1, 6)
    whole = {"time": 1.7e9, "attempt": 1, **event}
    for name in whole:
        for odd in ODD:
            run.folder.events.write_text(json.dumps(spell_non_finite(whole | {name: odd})) + "\n")
            view = RunView(run.folder)
            news = view.updates({})
            assert set(news["sections"]) == set(SECTIONS), (name, odd)
            assert text_bundle(view.tracker)["text/plain"]
