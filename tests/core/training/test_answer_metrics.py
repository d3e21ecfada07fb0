"""Metrics of generated answers while a run trains: values as in an evaluation, equal losses, the best checkpoint."""

import json

import pytest

from llf_core.config import validate
from llf_core.evaluation.evaluate import evaluate
from llf_core.metrics import metric_sources
from llf_core.runs import RunReader
from llf_core.runs.charts import declared_directions
from llf_core.training.callbacks import first_of_each
from llf_core.training.resolved_config import read_resolved
from llf_core.training.session import run_attempt
from llf_core.user_functions.function_source import write_code
from tests.attempts import data_file, make_run, settings, trained

pytest.importorskip("rouge_score.rouge_scorer")  # imports scikit-learn, which sets variables of the environment
__all__ = ["data_file", "make_run", "settings", "trained"]

EACH_TWO_STEPS = {
    "max_steps": 6, "learning_rate": 2e-2, "val_size": 6, "eval_strategy": "steps", "eval_steps": 2,
    "infer_dtype": "float32", "bf16": False, "metrics_examples": 4, "metrics_tokens": 12,
}  # fmt: skip
LONGER = EACH_TWO_STEPS | {"max_steps": 12, "eval_steps": 6, "save_steps": 6}
SCORES = '''
SEEN = []
def step_score(answer, reference):
    """Lowest at the second evaluation, whatever the answers are."""
    SEEN.append(answer)
    return (5.0, 1.0, 3.0, 4.0)[(len(SEEN) - 1) // 4]
step_score.higher_is_better = False

def broken(answer):
    raise ValueError("no score today")
'''


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Trains in the precision in which the results are evaluated."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


def logged(folder, name):
    metrics = RunReader(folder).metrics()
    return dict(zip(metrics.steps(name).tolist(), metrics.values(name).tolist(), strict=True))


def test_values_are_those_of_an_evaluation_and_losses_those_of_a_run_without_metrics(trained, warm_python):
    plain, _ = trained(**LONGER)
    folder, code = trained(**LONGER, metrics="rouge,chrf")
    assert code == 0
    assert logged(folder, "loss") == logged(plain, "loss")
    assert logged(folder, "eval_loss") == logged(plain, "eval_loss")
    (result,) = evaluate([folder.id], metrics=["rouge", "chrf"], limit=4, max_new_tokens=12)
    by_name = {one.name: one for one in result.metrics}
    assert by_name["chrf"].value > 0
    for name in ("rouge1", "rouge2", "rougeL", "chrf"):
        assert list(logged(folder, f"eval_{name}")) == [6, 12]
        for ending, value in (("", "value"), ("/low", "low"), ("/high", "high")):
            assert logged(folder, f"eval_{name}{ending}")[12] == pytest.approx(getattr(by_name[name], value), abs=1e-9)


@pytest.fixture
def scored(make_run, tmp_path):
    """`scored(*names, **changes) -> RunFolder`: a run that is trained with functions of `SCORES` as metrics."""
    file = tmp_path / "scores.py"
    file.write_text(SCORES)

    def train(*names, **changes):
        paths = [f"{file}:{name}" for name in names]
        folder = make_run(**EACH_TWO_STEPS | {"metrics": ",".join(paths), "load_best_model_at_end": True} | changes)
        write_code(folder.code, metric_sources(paths))
        assert run_attempt(folder, 1) == 0
        return folder

    return train


def test_the_best_checkpoint_is_that_of_the_best_metric_and_a_failing_one_is_a_warning(scored):
    """The value of the function is lowest at step 4; the loss is lowest at another one."""
    best = {"metric_for_best_model": "step_score", "early_stopping_steps": 2}
    folder = scored("step_score", "broken", max_steps=12, **best)
    assert logged(folder, "eval_step_score") == {2: 5.0, 4: 1.0, 6: 3.0, 8: 4.0}  # and then early stopping
    status = RunReader(folder).status()
    assert status.best == {"step": 4, "value": 1.0, "metric": "eval_step_score"}
    assert declared_directions(read_resolved(folder)) == {"loss": False, "step_score": False, "broken": True}
    assert min(logged(folder, "eval_loss"), key=logged(folder, "eval_loss").get) != 4
    weights = (folder.output / "adapter_model.safetensors").read_bytes()
    assert weights == (folder.checkpoints / "checkpoint-4" / "adapter_model.safetensors").read_bytes()
    warnings = [one for one in map(json.loads, folder.events.read_text().splitlines()) if one.get("key") == "metrics"]
    assert len(warnings) == 1
    assert "no score today" in warnings[0]["message"]
    assert "eval_broken" not in RunReader(folder).metrics().names


def test_a_best_metric_that_always_fails_ends_no_run(scored):
    folder = scored("broken", metric_for_best_model="broken", early_stopping_steps=1)
    assert RunReader(folder).status().step == 6


def test_examples_are_taken_from_every_data_set():
    places = [(1, 0), (0, 3), (0, 3), (0, 4), (1, 7), (0, 5)]
    assert first_of_each(places, 4) == [(1, 0), (0, 3), (0, 4), (1, 7)]
    assert first_of_each(places, 1) == [(1, 0), (0, 3)]


def test_rules_name_the_metrics_that_choose_the_best_checkpoint(settings):
    asked = settings | EACH_TWO_STEPS | {"load_best_model_at_end": True}
    assert validate(asked | {"metrics": "rouge", "metric_for_best_model": "eval_rougeL"}).ok
    assert validate(asked | {"metrics": "rouge", "metric_for_best_model": "rouge1", "greater_is_better": True}).ok
    report = validate(asked | {"metrics": "rouge", "metric_for_best_model": "bleu"})
    (problem,) = [one for one in report.problems if one.severity == "error"]
    assert "do not compute. Expected loss, rouge1, rouge2, rougeL." in problem.message
    report = validate(settings | {"metrics": "rouge"})
    assert [one.message for one in report.problems if one.key == "metrics"] == [
        "`metrics` has no effect: there is no evaluation data (`val_size` or `eval_dataset`)."
    ]
    assert validate(asked | {"predict_with_generate": True}).config.evaluation.metrics == ("rouge", "bleu")
