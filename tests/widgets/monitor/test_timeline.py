"""Answers on a timeline."""

from llf_widgets.monitor.timeline import CHARACTERS, STEPS, Timeline


def answer(step, text, of="tuned", prompt="Hi?"):
    return {"kind": "answer", "step": step, "prompt": prompt, "text": text, "of": of}


def test_answers_stand_by_prompt_and_step_beside_the_base():
    timeline = Timeline()
    timeline.add([answer(0, "b", "base"), answer(2, "x"), answer(4, "y"), answer(4, "z"), answer(2, "o", prompt="Ho?")])
    assert timeline.view() == [
        {"prompt": "Hi?", "base": "b", "steps": [2, 4], "texts": ["x", "z"]},
        {"prompt": "Ho?", "base": None, "steps": [2], "texts": ["o"]},
    ]
    assert timeline.last() == [("Hi?", "b", "z", 4), ("Ho?", "", "o", 2)]


def test_what_is_no_answer_is_passed_over():
    timeline = Timeline()
    timeline.add(
        [{}, {"kind": "answer"}, answer("2", "x") | {"prompt": 3}, {"kind": "loss", "prompt": "a", "text": "b"}]
    )
    assert timeline.view() == []
    assert timeline.last() == []


def test_many_steps_are_thinned_out_and_long_texts_cut():
    timeline = Timeline()
    timeline.add(answer(step, "x" * 3000) for step in range(1, 1001))
    (row,) = timeline.view()
    assert len(row["steps"]) == len(row["texts"]) == STEPS
    assert (row["steps"][0], row["steps"][-1]) == (1, 1000)
    assert {len(text) for text in row["texts"]} == {CHARACTERS}
