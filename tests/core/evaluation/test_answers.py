"""Answers of base and tuned model, made in a process of their own."""

import pytest

from llf_core.evaluation.answers import answer_in_child
from llf_core.evaluation.demo import side_by_side
from llf_core.runs import RunReader


def test_base_and_tuned_answer_in_a_process_that_reads_no_module_beside_the_notebook(trained, tmp_path, monkeypatch):
    folder, _ = trained(max_steps=2)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "peft.py").write_text("raise SystemExit('the wrong peft')")
    monkeypatch.chdir(tmp_path / "beside")
    prompts = ["What is 1 plus 2?", "A line\u2028and -- another\x85"]
    answers = answer_in_child(folder.id, prompts, max_new_tokens=4)
    assert [one.prompt for one in answers] == prompts
    kept = [(row["prompt"], row["of"], row["text"]) for row in RunReader(folder).samples()]
    assert kept == [(one.prompt, of, getattr(one, of)) for one in answers for of in ("base", "tuned")]
    assert all(one.base in side_by_side(answers) for one in answers if one.base.isalnum())


def test_a_run_without_output_says_so(make_run):
    with pytest.raises(RuntimeError, match="has no output yet"):
        answer_in_child(make_run().id, ["x"])
