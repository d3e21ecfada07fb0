"""Token accuracy and the values of each data set in the evaluations of a run: as a plain loop in float64 has them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from scipy.stats import t as student
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.config import validate
from llf_core.config.declarations.stages.sft import SFTOptions
from llf_core.data import prepare
from llf_core.evaluation.evaluate import evaluate
from llf_core.runs import RunReader
from llf_core.runs.config_file import run_config
from llf_core.stages.sft import SFT, token_weights
from llf_core.stages.token_accuracy import TokenAccuracy

EVALUATED = {
    "max_steps": 4, "learning_rate": 2e-2, "eval_strategy": "steps", "eval_steps": 4, "save_steps": 4,
    "per_device_eval_batch_size": 3, "infer_dtype": "float32", "bf16": False, "compute_accuracy": True,
    "eval_on_each_dataset": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _exact(in_float32):
    """Trains in the precision of the comparison."""


@pytest.fixture
def held_out(tmp_path):
    """Two sets for evaluation, of 5 and 2 examples with answers of different lengths."""
    rows = [
        {"instruction": f"What is {i}?", "input": "", "output": f"It is {'very ' * i}number {i}."} for i in range(7)
    ]
    paths = []
    for name, part in (("short_sums", rows[:5]), ("odd", rows[5:])):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(part))
        paths.append(str(path))
    return ",".join(paths)


def logged(folder):
    """The last value of each metric of the evaluations."""
    metrics = RunReader(folder).metrics()
    return {name: float(metrics.values(name)[-1]) for name in metrics.names if name.startswith("eval_")}


def in_float64(folder, base):
    """Of each evaluation example its loss, its correct tokens and its tokens in the loss, one after the other."""
    config = run_config(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder.output)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder.output).double().eval()
    found = []
    for example in prepare(config, tokenizer).eval:
        with torch.no_grad():
            logits = model(torch.tensor([example["input_ids"]])).logits[0, :-1].numpy()
        labels = np.array(example["labels"][1:])
        rows, wanted = logits[labels != -100], labels[labels != -100]
        largest = rows.max(1)
        losses = largest + np.log(np.exp(rows - largest[:, None]).sum(1)) - rows[np.arange(len(wanted)), wanted]
        found.append((losses.sum(), (rows.argmax(1) == wanted).sum(), len(wanted)))
    return np.array(found, float)


def test_they_are_those_of_a_plain_loop_and_of_llf_eval(trained, held_out, tiny_model_dir, warm_python):
    folder, code = trained(**EVALUATED, eval_dataset=held_out)
    assert code == 0
    found, plain = logged(folder), in_float64(folder, tiny_model_dir)
    for name, rows in (("", plain), ("short_sums_", plain[:5]), ("odd_", plain[5:])):
        loss, correct, tokens = rows.sum(0)
        assert found[f"eval_{name}loss"] == pytest.approx(loss / tokens, rel=1e-5)
        assert found[f"eval_{name}accuracy"] == pytest.approx(correct / tokens, rel=1e-12)
        for metric, column, limits in (("loss", 0, (-np.inf, np.inf)), ("accuracy", 1, (0, 1))):
            value = rows[:, column].sum() / tokens
            residuals = rows[:, column] - value * rows[:, 2]
            error = np.sqrt((residuals**2).sum() * len(rows) / (len(rows) - 1)) / tokens
            half = student.ppf(0.975, len(rows) - 1) * error
            bounds = [found[f"eval_{name}{metric}/{end}"] for end in ("low", "high")]
            assert bounds == pytest.approx(np.clip([value - half, value + half], *limits).tolist(), rel=1e-4)
    assert 0 < found["eval_accuracy"] < 1
    (result,) = evaluate([folder.id])
    (measured,) = [one for one in result.metrics if one.name == "token_accuracy"]
    assert found["eval_accuracy"] == pytest.approx(measured.value, rel=1e-9)
    assert measured.low < found["eval_accuracy"] < measured.high


def test_training_and_the_whole_loss_stay_and_the_best_may_be_of_one_set(trained, held_out):
    changes = EVALUATED | {"eval_steps": 2, "save_steps": 2, "load_best_model_at_end": True}
    plain, _ = trained(**changes | {"compute_accuracy": False, "eval_on_each_dataset": False}, eval_dataset=held_out)
    folder, code = trained(**changes, eval_dataset=held_out, metric_for_best_model="eval_odd_accuracy")
    assert code == 0
    before, after = RunReader(plain).metrics(), RunReader(folder).metrics()
    assert before.values("loss").tolist() == after.values("loss").tolist()
    np.testing.assert_allclose(after.values("eval_loss"), before.values("eval_loss"), rtol=1e-6)
    odd = dict(zip(after.steps("eval_odd_accuracy").tolist(), after.values("eval_odd_accuracy").tolist(), strict=True))
    best = RunReader(folder).status().best
    assert best == {"step": max(odd, key=odd.get), "value": max(odd.values()), "metric": "eval_odd_accuracy"}


def test_pairs_have_the_metrics_of_each_set(trained, pairs, tmp_path):
    rows = json.loads(Path(pairs).read_text())
    names = []
    for name, part in (("few", rows[:3]), ("more", rows[3:8])):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(part))
        names.append(str(path))
    changes = EVALUATED | {"compute_accuracy": None}
    folder, code = trained(stage="dpo", dataset=pairs, eval_dataset=",".join(names), **changes)
    assert code == 0
    found = logged(folder)
    for name in ("loss", "rewards/accuracies", "rewards/margins"):
        whole = (3 * found[f"eval_few_{name}"] + 5 * found[f"eval_more_{name}"]) / 8
        assert found[f"eval_{name}"] == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "dft"])
def test_a_batch_that_is_computed_again_counts_once(tiny_model_dir, weighted):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :4] = labels[1, :] = -100
    batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    stage = SFT()
    stage.weights = token_weights(SFTOptions(use_dft_loss=True)) if weighted else None
    with torch.no_grad():
        plain = stage.loss_sum(model, batch)
        stage.accuracy = TokenAccuracy()
        stage.loss_sum(model, {name: value[:1] for name, value in batch.items()})
        stage.rollback()
        assert stage.loss_sum(model, batch) == plain
        stage.commit()
        best = model(ids).logits.argmax(-1)[:, :-1]
    hits = ((best == labels[:, 1:]) & (labels[:, 1:] != -100)).sum(1)
    assert stage.accuracy.take() == [[float(hits[0]), 5.0], [0.0, 0.0], [float(hits[2]), 8.0]]
    assert stage.accuracy.take() == []


def test_rules_know_their_names(settings):
    asked = settings | EVALUATED | {"eval_dataset": "data/a.json,owner/b", "load_best_model_at_end": True}
    asked |= {"save_steps": 4}

    def problems(**changes):
        report = validate(asked | changes)
        return [one for one in report.problems if one.key in {"metric_for_best_model", "greater_is_better"}]

    assert problems(metric_for_best_model="a_accuracy", greater_is_better=True) == []
    assert problems(metric_for_best_model="eval_b_loss", greater_is_better=False) == []
    (problem,) = problems(metric_for_best_model="acuracy")
    assert problem.message == (
        "`metric_for_best_model` is acuracy, which the evaluations of this run do not compute. Expected loss, "
        "accuracy, a_loss, a_accuracy, b_loss, b_accuracy."
    )
    assert problem.fixes[0].changes == {"metric_for_best_model": "accuracy"}
    (problem,) = problems(metric_for_best_model="accuracy", greater_is_better=False)
    assert "a higher accuracy is better" in problem.message
    for changes, told in (
        ({"stage": "rm"}, "`compute_accuracy`"),
        ({"eval_dataset": None, "eval_strategy": "no", "load_best_model_at_end": False}, "no evaluation data"),
    ):
        report = validate({name: value for name, value in (asked | changes).items() if value is not None})
        assert any(told in one.message for one in report.problems if one.key == "compute_accuracy")
