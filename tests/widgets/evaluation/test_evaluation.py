"""`llf.Evaluate` with a real run of a tiny model, and what its page shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from llf_core.evaluation.comparison import LOSS_MEASURES
from llf_core.evaluation.report import amount_text, compare_with_first
from llf_core.runs.evaluations import (
    VOTES,
    EvaluatedData,
    EvaluatedTarget,
    EvaluationWriter,
    ExampleResult,
    JudgedPair,
    add_verdict,
    examples_of,
    pair_key,
    results_of,
)
from llf_widgets.evaluation import Evaluate
from llf_widgets.evaluation.tables import ResultTables
from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]
pytestmark = [pytest.mark.launches, pytest.mark.usefixtures("warm_python")]


@pytest.fixture
def run(trained):
    folder, code = trained(max_steps=12, val_size=6, learning_rate=2e-2)
    assert code == 0
    return folder


def page(view, **content):
    view._handle_custom_msg(content, [])


HOSTILE = "<script>alert(1)</script>"


def judge_all(base, tuned):
    """Stores a verdict that changes with the order for each pair."""
    for one, other in zip(examples_of(base), examples_of(tuned), strict=True):
        said = ("win", "lose"), (HOSTILE, "no")
        add_verdict(tuned, JudgedPair(*one.key, pair_key(one, other), "key", HOSTILE, *said))


def check_judged(view):
    judged = view._rows[-1]
    assert (judged["judge"], judged["values"][1]["text"]) == (True, "50 %")
    assert "6 of 6 verdicts changed with the order (100 %)" in judged["differences"][0]["sentence"]
    base, tuned = view._examples["rows"][0]["models"]
    said = {"text": f"{HOSTILE}: tie: changed with the order", "replies": f"{HOSTILE}\n\nno"}
    assert (base["verdicts"], tuned["verdicts"]) == ([], [said])
    assert "<script>" not in view._repr_mimebundle_()[0]["text/html"]


def test_a_run_stands_beside_its_base_with_a_verdict_examples_losses_and_votes(run):
    view = Evaluate(run.id, metrics=["exact_match"], max_new_tokens=8)
    try:
        view.wait(240)
        base, tuned = view.results
        assert (base.target.step, tuned.target.run) == (None, run.id)
        rows = {row["name"]: row for row in view._rows}
        assert rows["perplexity"]["values"][1]["text"] == amount_text(tuned.metric("perplexity").value, "")
        (said,) = rows["loss"]["differences"]
        assert said["verdict"] == "too few examples"  # six are held out
        assert said["sentence"] == view.difference("loss").sentence
        with pytest.raises(ValueError, match=r"Expected two models, and one of: .*exact_match"):
            view.difference("rouge")
        (group,) = view._groups
        assert group["text"].startswith("6 examples of ")

        page(view, type="examples", metric="loss", order="worst")
        losses = [one.loss for one in examples_of(tuned)]
        shown = [row["models"][1]["score"] for row in view._examples["rows"]]
        unit = tuned.metric("loss").unit
        assert shown == [amount_text(one, unit) for one in sorted(losses, reverse=True)]

        row = view._examples["rows"][0]
        page(view, type="tokens", source=row["source"], index=row["index"])
        (example,) = [one for one in examples_of(tuned) if one.index == row["index"]]
        found = view._tokens["models"][1]
        assert sum(found["losses"]) == pytest.approx(example.nll, abs=1e-3)
        assert len(found["tokens"]) == example.tokens

        where = {"source": row["source"], "index": row["index"]}
        page(view, type="vote", **where, vote="win")
        assert view._examples["rows"][0]["vote"] == "win"
        assert view._votes == ["100 % of 1 vote (1 win), 95 % interval 21 % to 100 %"]
        page(view, type="vote", **where, vote="best")
        assert "Expected win, tie or lose" in view._note
        page(view, type="vote", **where, vote=None)
        assert view._votes == [""]

        data, _ = view._repr_mimebundle_()
        assert "Perplexity" in data["text/html"]
        assert "loss" in data["text/plain"].lower()
    finally:
        view.close()
    judge_all(base, tuned)
    again = Evaluate(run, metrics=["exact_match"], max_new_tokens=8).wait(240)  # measured once: read from the files
    assert [one.id for one in again.results] == [base.id, tuned.id]
    assert (tuned.folder / VOTES).is_file()
    check_judged(again)
    again.close()


def test_tasks_stand_below_the_data_and_have_examples_of_their_own(run):
    view = Evaluate(run.id, on="validation", tasks="llf_completion", limit=4)
    try:
        view.wait(240)
        assert [one.settings.get("task") for one in view.results] == [None, None, "llf_completion", "llf_completion"]
        assert view._groups[1]["text"].startswith("4 examples of llf_completion")
        assert {row["group"] for row in view._rows} == {one["name"] for one in view._groups}
        page(view, type="examples", group=1, metric="loss", order="data")
        assert view._examples["total"] == 4
        assert view._examples["metric"] == view.results[2].metrics[-1].name
        name = view.results[2].metrics[0].name
        assert view.difference(name).count == 4
    finally:
        view.close()


def test_what_cannot_be_measured_is_a_sentence_and_stopping_keeps_what_is_there(run, monkeypatch, tmp_path):
    view = Evaluate(run, on=str(tmp_path / "none.jsonl"))
    with pytest.raises(RuntimeError, match=r"none\.jsonl"):
        view.wait(240)
    assert (view._state, view._repeatable) == ("failed", True)  # once the file is there
    view.close()
    view = Evaluate(run)
    page(view, type="stop")
    with pytest.raises(RuntimeError, match="Stopped"):
        view.wait(240)
    assert view._repeatable
    assert len(results_of(run)) < 2
    page(view, type="again")
    view.wait(240)
    assert view._state == "done"
    view.close()
    with pytest.raises(ValueError, match="at least one run or model"):
        Evaluate([])


def test_a_metric_that_does_not_exist_is_not_measured_again():
    view = Evaluate("smollm2-135m-instruct", on="llf_demo", metrics=["rogue"])
    with pytest.raises(RuntimeError, match="Did you mean 'rouge'"):
        view.wait(240)
    assert not view._repeatable
    view.close()


def test_a_hostile_answer_stays_text_in_the_saved_notebook():
    from llf_widgets.evaluation.tables import summary_html

    row = {"group": "", "label": "<b>loss</b>", "values": [{"text": "1", "interval": ""}], "differences": []}
    html = summary_html("", ["<script>alert(1)</script>"], [row])
    assert "<script>" not in html
    assert "&lt;b&gt;loss" in html


def test_closing_the_view_ends_the_wait(run, recwarn):
    view = Evaluate(run.id, max_new_tokens=8)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(view.wait)
        view.close()
        with pytest.raises(RuntimeError, match="Stopped"):
            waits.result(timeout=240)
    assert results_of(run) == []


def test_the_outputs_have_the_result_before_the_wait_ends(monkeypatch):
    """Whoever executes a notebook may end the kernel with the cell that waits."""

    def fails(*_, **__):
        raise RuntimeError("No memory.")

    seen = []
    monkeypatch.setattr("llf_widgets.evaluation.widget.evaluate", fails)
    monkeypatch.setattr(Evaluate, "_update_outputs", lambda view: seen.append((view._state, view._done.is_set())))
    view = Evaluate(["a", "b"])
    with pytest.raises(RuntimeError, match="No memory"):
        view.wait(60)
    assert seen == [("failed", False)]
    view.close()


def stored(place, name, fingerprint, losses):
    """A result with these losses of one token each."""
    target = EvaluatedTarget(name, "model", weights=name)
    examples = [ExampleResult(n, "set", tokens=1, nll=loss, bytes=1, correct=0) for n, loss in enumerate(losses)]
    with EvaluationWriter(place, target, EvaluatedData(("set",), fingerprint, len(losses)), {}) as writer:
        for one in examples:
            writer.example(one)
        return writer.finish([LOSS_MEASURES[0].value(examples)], 1.0, 1)


def test_models_on_other_examples_are_not_compared_as_the_command_does(tmp_path):
    """A model whose template drops a record is measured on others."""
    results = [stored(tmp_path, "a", "f", [1.0, 2.0]), stored(tmp_path, "b", "other", [3.0])]
    tables = ResultTables(results)
    assert not compare_with_first(results)[0].differences
    assert tables.metrics()[0]["differences"] == [{"verdict": "", "sentence": "other examples"}]
    with pytest.raises(ValueError, match="on other examples"):
        tables.difference("loss")
    assert [row["index"] for row in tables.examples("loss", "changed", 0)["rows"]] == [0]


def test_two_rubrics_of_a_judge_are_two_rows(tmp_path):
    results = [stored(tmp_path, name, "f", [loss]) for name, loss in (("a", 1.0), ("b", 2.0))]
    (one,), (other,) = map(examples_of, results)
    for key, outcome in (("strict", "win"), ("kind", "lose")):
        verdict = JudgedPair(*other.key, pair_key(one, other), key, "judge", (outcome, outcome), ("", ""))
        add_verdict(results[1], verdict)
    assert [row["values"][1]["text"] for row in ResultTables(results).judged()] == ["100 %", "0 %"]


def test_the_results_of_a_judge_that_fails_stand_in_the_order_of_the_models(tmp_path, monkeypatch):
    """What was measured before is heard of first."""
    first, second = (stored(tmp_path, name, "f", [loss]) for name, loss in (("a", 1.0), ("b", 2.0)))

    def fails(*_, on_result, **__):
        on_result(1, second)
        on_result(0, first)
        raise RuntimeError("The judge does not answer.")

    monkeypatch.setattr("llf_widgets.evaluation.widget.evaluate", fails)
    view = Evaluate(["a", "b"])
    with pytest.raises(RuntimeError, match="does not answer"):
        view.wait(240)
    assert [one["name"] for one in view._columns] == ["a", "b"]
    view.close()
    monkeypatch.setattr(ResultTables, "metrics", lambda _: 1 / 0)
    view = Evaluate(["a", "b"])
    with pytest.raises(RuntimeError, match="does not answer"):
        view.wait(240)
    view.close()
