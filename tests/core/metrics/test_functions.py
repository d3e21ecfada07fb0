"""Metrics that a user writes, from the cell to the process that calls them."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import pytest

from llf_core.config import ConfigError, RunConfig, validate
from llf_core.launch import launch
from llf_core.metrics import (
    METRICS,
    MetricError,
    ScoredExample,
    load_metrics,
    metric,
    metric_sources,
    score_answers,
)
from llf_core.rewards import REWARDS, reward
from llf_core.runs.foreign_code import code_of_run
from llf_core.user_functions.function_source import write_code

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"model_name_or_path": "m", "dataset": "llf_demo"}
EXAMPLES = [
    ScoredExample([{"role": "user", "content": "Which?"}], "one two", {"weight": 3, "reference": "column"}),
    ScoredExample([{"role": "user", "content": "Who?"}], None, {"weight": 5}),
]
LIMIT = 2


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "registered", {})
    monkeypatch.setattr(REWARDS, "registered", {})


@pytest.fixture
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llf_core.launch.launchers.launcher.start_supervisor", lambda *_: None)


def weighted(answer: str, weight: int, prompt: str) -> float | None:
    return None if prompt == "Who?" else len(answer.split()) * weight / LIMIT


def same(answer: str, reference: str) -> bool:
    return answer == reference


def stored(names: list[str], folder: Path, given: Any = None) -> list[Any]:
    write_code(folder / "code", metric_sources(names, given))
    return load_metrics(names, folder / "code")


class Scorer:
    def __call__(self, answer: str) -> float:
        return float(len(answer))

    def method(self, answer: str) -> float:
        return float(len(answer))

    @wraps(same)
    def wrapped(self, answer: str) -> float:
        return float(len(answer))


@pytest.mark.parametrize(
    "given", [Scorer(), Scorer, Scorer().method, Scorer().wrapped, partial(weighted, weight=3, prompt="")]
)
def test_what_is_no_function_is_refused_under_a_name_too(given: Any) -> None:
    for decorator in (metric, reward):
        with pytest.raises(TypeError, match="Expected a function: def f"):
            decorator(name="m")(given)
    with pytest.raises(TypeError, match="Expected a function: def f"):
        metric(name="m", unit="%")(given)
    assert not METRICS.registered
    assert not REWARDS.registered


def test_a_function_of_a_cell_scores_in_another_process(tmp_path: Path) -> None:
    assert metric(unit="words", higher_is_better=False)(weighted) is weighted
    metric(name="equal")(same)
    first, second, third = stored(["weighted", "equal", "f1"], tmp_path)
    assert (first.declaration.unit, first.declaration.higher_is_better) == ("words", False)
    assert (second.declaration.unit, second.declaration.higher_is_better, third.name) == ("", True, "f1")
    found = score_answers(first, ["one two", "x"], EXAMPLES)
    assert (found.scores, found.value, found.count) == ((3.0, None), 3.0, 1)
    # It requires a reference, so that the second example is not asked; a column of that name is in `row`.
    assert score_answers(second, ["one two", "x"], EXAMPLES).scores == (1.0, None)


def test_functions_of_a_file_need_no_decorator(tmp_path: Path) -> None:
    (tmp_path / "factors.py").write_text("FACTOR = 4\n")
    file = tmp_path / "scorer.py"
    file.write_text("from factors import FACTOR\n\ndef times(answer, row):\n    return FACTOR * row['weight']\n")
    config = RunConfig.load(CONFIG | {"metrics": "scorer.py:times,f1"}, base=tmp_path)
    assert config.evaluation.metrics == (f"{file}:times", "f1")
    (one, *_) = stored(list(config.evaluation.metrics), tmp_path)
    assert one.name == "times"
    assert score_answers(one, ["", ""], EXAMPLES).scores == (12.0, 20.0)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (None, "scorer.py:f", "scorer.py cannot be read. Expected a Python file"),
        ("x = 1\n", "scorer.py:f", "has no function f"),
        ("f = 1\n", "scorer.py:f", "The metric is a int. Expected a function"),
        ("def f(text): ...\n", "scorer.py:f", "Expected parameters by name, `answer` among them"),
        ("1 / 0\n", "scorer.py:f", "cannot be run: ZeroDivisionError: division by zero"),
        ("def bleu(answer): ...\n", "scorer.py:bleu", "bleu is a built-in metric. Use another name"),
        (None, "rouge_l", "Unknown metric 'rouge_l'. Expected one of bleu, .*Did you mean 'rougeL'"),
    ],
)
def test_what_is_no_metric_is_a_sentence(tmp_path: Path, text: str | None, name: str, said: str) -> None:
    if text is not None:
        (tmp_path / "scorer.py").write_text(text)
    with pytest.raises(ConfigError, match=said):
        metric_sources([name.replace("scorer.py", str(tmp_path / "scorer.py"))])


def test_two_functions_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scorer.py").write_text("def same(answer):\n    return 1\n")
    with pytest.raises(ConfigError, match="Two metrics are named same"):
        metric_sources(["same", f"{tmp_path / 'scorer.py'}:same"], {"same": same})
    with pytest.raises(ValueError, match=r"f1 is a built-in metric\. Use another name: @llf\.metric\(name='my_f1'\)"):
        metric(name="f1")(same)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            "def f(answer):\n    return 1 / 0\n",
            'the answer "one two" the metric f raised ZeroDivisionError: division by zero in line 2 of code/f.py.',
        ),
        ("def f(answer):\n    return answer\n", "the metric f returned 'one two'. Expected a number, or None."),
        ("def f(answer):\n    return float('nan')\n", "the metric f returned nan. Expected a finite number"),
        (
            "def f(answer, level):\n    return 1\n",
            "The metric f has the parameter level, and the data has no such column. Expected one of prompt, answer, ",
        ),
    ],
)
def test_a_function_that_fails_ends_with_a_sentence(tmp_path: Path, function: str, said: str) -> None:
    write_code(tmp_path / "code", {"f": function})
    (one,) = load_metrics(["f"], tmp_path / "code")
    with pytest.raises(MetricError) as raised:
        score_answers(one, ["one two", "x"], EXAMPLES)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "Unknown metric 'f'"),
        ("import nowhere_at_all\n", "cannot be run: ModuleNotFoundError"),
        ("g = 1\n", "defines no function f"),
        ("def f(text): ...\n", "Expected parameters by name, `answer` among them"),
    ],
)
def test_a_stored_file_that_is_gone_or_broken_is_told(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        write_code(tmp_path / "code", {"f": text})
    with pytest.raises(MetricError, match=said):
        load_metrics(["f"], tmp_path / "code")


@pytest.mark.usefixtures("no_start")
def test_a_run_carries_its_metrics_and_the_cell_defines_them(tmp_path: Path) -> None:
    metric(unit="%")(same)
    run = launch(CONFIG | {"metrics": "same,bleu"})
    assert [path.name for path in run.folder.code.iterdir()] == ["same.py"]
    (code,) = code_of_run(run.folder)
    assert [name for name, _ in code.files] == ["code/same.py"]
    cell = run.code().partition("run = llf.train(")[0]
    assert 'llf.metric(name="same")(same)' in cell
    (tmp_path / "cell.py").write_text(cell)
    METRICS.registered.clear()
    exec(compile(cell, str(tmp_path / "cell.py"), "exec"), {"__name__": "__main__"})
    again = launch(RunConfig.load(run.folder.config))
    assert (again.folder.code / "same.py").read_text() == (run.folder.code / "same.py").read_text()
    assert load_metrics(["same"], again.folder.code)[0].declaration.unit == "%"


@pytest.mark.usefixtures("no_start")
def test_a_reward_and_a_metric_of_one_name_are_one_function(llf_home: Path) -> None:
    def same(answer: str) -> float:
        return 0.0

    metric(globals()["same"])
    online = CONFIG | {"stage": "grpo", "per_device_train_batch_size": 8, "top_p": 1, "top_k": 0, "metrics": "same"}
    with pytest.raises(ConfigError, match="A reward function and a metric are named same, and differ"):
        launch(online, rewards=[same])
    METRICS.registered["same"] = same
    run = launch(online, rewards=[same])
    assert 'llf.reward(name="same")(llf.metric(name="same")(same))' in run.code()


def test_bad_names_are_told_before_anything_starts() -> None:
    found = validate(CONFIG | {"metrics": "bleu,a b"}).problems
    (wrong,) = [one for one in found if one.key == "metrics" and one.severity == "error"]
    assert "`metrics` has 'a b'. Expected names of metrics (bleu, " in wrong.message
    found = validate(CONFIG | {"metrics": "belu,my_own,scorer.py:f"}).problems
    (near,) = [one for one in found if "no built-in metric" in one.message]
    assert near.message == "`metrics` has belu, which is no built-in metric. Did you mean bleu?"
    assert near.fixes[0].changes["metrics"].startswith("bleu,my_own,")


def test_a_name_that_is_given_twice_is_one_metric_and_a_text_is_none(tmp_path: Path) -> None:
    file = tmp_path / "scorer.py"
    file.write_text("NAME = 'bleu'\ndef words(answer):\n    return len(answer)\n")
    assert list(metric_sources([f"{file}:words"] * 2)) == ["words"]
    with pytest.raises(ConfigError, match="has no function NAME"):
        metric_sources([f"{file}:NAME"])
