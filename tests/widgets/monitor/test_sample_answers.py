"""Answers on a timeline."""

import json

from llf_widgets.monitor.completions import MAX_CHARACTERS, MAX_SAMPLE_STEPS, NEWEST_STEPS, SampleAnswers


def answer(step, text, of="tuned", prompt="Hi?"):
    return {"kind": "answer", "step": step, "prompt": prompt, "text": text, "of": of}


def test_answers_stand_by_prompt_and_step_beside_the_base():
    timeline = SampleAnswers()
    timeline.add([answer(0, "b", "base"), answer(2, "x"), answer(4, "y"), answer(4, "z"), answer(2, "o", prompt="Ho?")])
    assert timeline.view() == [
        {"prompt": "Hi?", "base": "b", "steps": [2, 4], "texts": ["x", "z"], "older": 0},
        {"prompt": "Ho?", "base": None, "steps": [2], "texts": ["o"], "older": 0},
    ]
    assert timeline.last() == [("Hi?", "b", "z", 4), ("Ho?", "", "o", 2)]


def test_what_is_no_answer_is_passed_over():
    timeline = SampleAnswers()
    timeline.add(
        [{}, {"kind": "answer"}, answer("2", "x") | {"prompt": 3}, {"kind": "loss", "prompt": "a", "text": "b"}]
    )
    assert timeline.view() == []
    assert timeline.last() == []


def test_many_steps_are_thinned_out_and_long_texts_cut():
    timeline = SampleAnswers()
    timeline.add(answer(step, "x" * 3000) for step in range(1, 1001))
    (row,) = timeline.view(older=1)
    assert row["older"] == 0
    assert len(row["steps"]) == len(row["texts"]) == MAX_SAMPLE_STEPS
    assert (row["steps"][0], row["steps"][-1]) == (1, 1000)
    assert {len(text) for text in row["texts"]} == {MAX_CHARACTERS}


def test_older_answers_come_for_the_prompt_that_they_are_asked_for():
    timeline = SampleAnswers()
    for prompt in range(50):
        timeline.add(answer(step, "é" * 3000, prompt=f"{prompt}?") for step in range(1, 101))
    view = timeline.view()
    assert {(len(row["steps"]), row["steps"][-1], row["older"]) for row in view} == {
        (NEWEST_STEPS, 100, 100 - NEWEST_STEPS)
    }
    assert len(json.dumps(view, ensure_ascii=False)) < 2_500_000
    second = timeline.view(older=2)
    assert [len(row["steps"]) for row in second[:3]] == [NEWEST_STEPS, 100, NEWEST_STEPS]
