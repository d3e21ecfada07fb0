"""Sampled answers with their rewards, step by step."""

from __future__ import annotations

import json
import math

from llf_widgets.monitor import Monitor, summary_bundle
from llf_widgets.monitor.completions import ANSWER_CHARACTERS, MAX_ROWS, MAX_STEPS, Completions

EVIL = "<img src=x onerror=alert(1)>"


def one(step, text, reward, **more):
    return {"kind": "completion", "step": step, "attempt": 1, "prompt": "Hi?", "text": text, "reward": reward, **more}


def test_answers_of_a_step_stand_from_the_best_to_the_worst():
    found = Completions()
    found.add([one(4, "b", 0.5, rewards={"format": 1.0}), one(4, "a", 0.9, rewards={"correct": 0.5}), one(2, "c", 0.1)])
    assert found.view() == {
        "functions": ["format", "correct"],
        "steps": [
            {"step": 2, "count": 1, "mean": 0.1, "rows": [[0.1, [None, None], "Hi?", "c"]]},
            {"step": 4, "count": 2, "mean": 0.7,
             "rows": [[0.9, [None, 0.5], "Hi?", "a"], [0.5, [1.0, None], "Hi?", "b"]]},
        ],
    }  # fmt: skip
    step, rows = found.last()
    assert (step, [row.text for row in rows]) == (4, ["a", "b"])


def test_a_reward_that_is_no_number_stands_last_and_counts_for_no_mean():
    found = Completions()
    found.add([one(1, "x", "NaN"), one(1, "y", None), one(1, "z", -2.0), one(1, "w", "many")])
    (step,) = found.view()["steps"]
    assert (step["count"], step["mean"], step["rows"][0][3]) == (4, -2.0, "z")
    json.dumps(found.view(), allow_nan=False)


def test_a_mean_that_is_not_finite_is_none():
    found = Completions()
    found.add([one(1, "x", 1.7e308), one(1, "y", 1.7e308)])
    assert found.view()["steps"][0]["mean"] is None


def test_what_is_no_completion_is_passed_over():
    found = Completions()
    found.add([{}, {"kind": "answer", "step": 1, "text": "a"}, one("1", "a", 1.0), one(1, None, 1.0)])
    assert (found.view()["steps"], found.last()) == ([], (0, []))


def test_a_step_that_was_made_again_has_the_answers_of_the_last_attempt():
    found = Completions()
    found.add([one(3, "old", 0.0), one(3, "new", 1.0, attempt=2), one(3, "late", 5.0)])
    assert [row[3] for row in found.view()["steps"][0]["rows"]] == ["new"]


def test_a_conversation_is_asked_with_its_last_message():
    found = Completions()
    found.add(
        [one(1, "a", 1.0) | {"prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Ho?"}]}]
    )
    assert found.view()["steps"][0]["rows"][0][2] == "Ho?"


def test_a_long_run_is_thinned_out_and_a_view_is_given_little():
    found = Completions()
    for step in range(1, 1001):
        found.add(one(step, "x" * 5000, float(number)) for number in range(40))
    view = found.view()
    assert len(view["steps"]) == MAX_STEPS
    assert (view["steps"][0]["step"], view["steps"][-1]["step"]) == (1, 1000)
    for step in view["steps"]:
        assert (step["count"], step["mean"], len(step["rows"])) == (40, 19.5, MAX_ROWS)
        assert (step["rows"][0][0], step["rows"][-1][0]) == (39.0, 0.0)
        assert {len(row[3]) for row in step["rows"]} == {ANSWER_CHARACTERS}
    assert len(json.dumps(view)) < 250_000


def test_the_view_shows_them_live_and_the_notebook_keeps_the_best_and_the_worst(trainer):
    from tests.widgets.monitor.test_monitor import until

    run = trainer()
    run.steps(1, 2, reward=0.5)
    view = Monitor(run.folder)
    assert view._view.completions == {"functions": [], "steps": []}
    for reward in (0.25, 0.75, 0.5):
        run.writer.sample(
            step=2, kind="completion", prompt=EVIL, text=f"{EVIL} {reward}", reward=reward, rewards={EVIL: reward}
        )
    until(lambda: [len(step["rows"]) for step in view._view.completions["steps"]] == [3])
    (step,) = view._view.completions["steps"]
    assert [row[0] for row in step["rows"]] == [0.75, 0.5, 0.25]
    run.writer.close("finished")
    assert view.wait(120) == "finished"
    view.close()
    bundle = summary_bundle(run.folder)
    assert EVIL not in bundle["text/html"]
    assert "Sampled at step 2" in bundle["text/html"]
    assert f"    reward 0.7500 at step 2: {EVIL} 0.75" in bundle["text/plain"]
    assert f"{EVIL} 0.5" not in bundle["text/plain"].replace(f"{EVIL} 0.75", "").replace(f"{EVIL} 0.25", "")


def test_rewards_that_are_not_finite_reach_a_folder_and_come_back(trainer):
    run = trainer()
    run.writer.sample(step=1, kind="completion", prompt="a", text="b", reward=math.nan, rewards={"f": math.inf})
    run.writer.flush()
    from llf_widgets.monitor.run_tracker import RunTracker

    tracker = RunTracker(run.folder)
    tracker.refresh()
    assert tracker.completions.view()["steps"][0]["rows"] == [[None, [None], "a", "b"]]
