"""`llf predict`: the responses of a tiny model to a data set, continued, refused, of a run."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
import sacrebleu
import yaml
from rouge_score import rouge_scorer

from llf_core.chat.prediction_metrics import RESULTS, TIMES, prediction_metrics
from llf_core.chat.predictions import PARTIAL, RESULT, STATE, PredictionError, PredictionFolder
from llf_core.cli.errors import UsageError
from llf_core.runs import create_run, status

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"instruction": f"Say {'very ' * (7 * at % 5)}{at}.", "input": "", "output": f"It is {at}."} for at in range(9)]


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    """LLaMA-Factory's settings of a prediction."""
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return {
        "model_name_or_path": str(tiny_model_dir), "stage": "sft", "do_predict": True, "finetuning_type": "lora",
        "eval_dataset": "rows.json", "template": "default", "cutoff_len": 512, "max_samples": 7,
        "output_dir": str(tmp_path / "result"), "per_device_eval_batch_size": 1, "predict_with_generate": True,
        "max_new_tokens": 8, "do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0,
    }  # fmt: skip


def write(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "predict.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def rows(folder: Path, name: str = RESULT) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.usefixtures("warm_python")
def test_predictions_are_continued_and_equal_those_made_at_once(
    llf: Any, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, settings)
    assert llf("validate", config).exit_code == 0
    done = llf("predict", config, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout)["records"] == 7
    assert llf("validate", config).exit_code == 0  # also with the result in output_dir
    whole = rows(tmp_path / "result")
    assert [set(one) for one in whole] == [{"prompt", "predict", "label"}] * 7
    assert [one["label"] for one in whole] == [row["output"] for row in ROWS[:7]]
    assert all(ROWS[at]["instruction"] in one["prompt"] for at, one in enumerate(whole))
    assert len({one["predict"] for one in whole}) > 3  # a seed for each record

    check_values(llf, tmp_path, config, whole)

    add, left = PredictionFolder.add, 3

    def stopping(self: PredictionFolder, index: int, record: dict[str, Any]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        add(self, index, record)

    with monkeypatch.context() as patch:
        patch.setattr(PredictionFolder, "add", stopping)
        stopped = llf("predict", config, "--output", tmp_path / "other")
    assert "the same command continues" in str(stopped.exception)
    assert len(rows(tmp_path / "other", PARTIAL)) == 3
    assert not (tmp_path / "other" / RESULT).exists()
    with (tmp_path / "other" / PARTIAL).open("a") as file:
        file.write('{"index": 5, "pro')  # killed while it wrote
    changed = llf("predict", config, "max_new_tokens=4", "--output", tmp_path / "other")
    assert "were begun with other generation settings" in str(changed.exception)
    (tmp_path / "rows.json").write_text(json.dumps([{**ROWS[0], "output": "Other."}, *ROWS[1:]]))
    changed = llf("predict", config, "--output", tmp_path / "other")
    assert "were begun with other data" in str(changed.exception)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))

    again = llf("predict", config, "--output", tmp_path / "other")
    assert again.exit_code == 0, again.exception
    assert "3 of 7 records have a prediction already" in again.stderr
    assert rows(tmp_path / "other") == whole
    values = json.loads((tmp_path / "other" / RESULTS).read_text())
    assert not set(TIMES) & set(values)  # a prediction of two starts has no time of its own
    assert values["predict_samples"] == 7
    assert not (tmp_path / "other" / PARTIAL).exists()


def check_values(llf: Any, folder: Path, config: Path, found: list[dict[str, Any]]) -> None:
    """The values beside a finished prediction; other metrics are added without the model."""
    file = folder / "result" / RESULTS
    values = json.loads(file.read_text())
    answers, labels = [one["predict"] for one in found], [one["label"] for one in found]
    assert values["predict_bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers, [labels]).score)
    scorer = rouge_scorer.RougeScorer(["rouge1"])
    rouge = [scorer.score(label, answer)["rouge1"].fmeasure for answer, label in zip(answers, labels, strict=True)]
    assert values["predict_rouge1"] == pytest.approx(sum(rouge) / 7 * 100, abs=1e-6)
    assert {"predict_rouge2", "predict_rougeL", *TIMES} < set(values)
    (folder / "mine.py").write_text("def longer(answer, reference):\n    return len(answer) - len(reference)\n")
    done = llf("predict", config, "metrics=exact_match,mine.py:longer", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    added = json.loads(file.read_text())
    assert json.loads(done.stdout)["values"] == added
    longer = [len(one["predict"]) - len(one["label"]) for one in found]
    assert added["predict_longer"] == pytest.approx(sum(longer) / 7)
    assert min(longer) <= added["predict_longer/low"] < added["predict_longer"] < added["predict_longer/high"]
    assert [added[name] for name in TIMES] == [values[name] for name in TIMES]
    assert values["predict_runtime"] * values["predict_samples_per_second"] == pytest.approx(7)
    unknown = llf("predict", config, "metrics=rouge9")
    assert "rouge9" in str(unknown.exception)
    assert json.loads(file.read_text()) == added


def test_a_metric_whose_package_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    said: list[str] = []
    with prediction_metrics(["rouge1", "exact_match"], said.append) as metrics:
        assert [one.name for one in metrics] == ["exact_match"]
    assert "pip install rouge-score" in said[0]


@pytest.mark.long
def test_a_run_predicts_its_validation_data(
    llf: Any, tmp_path: Path, settings: dict[str, Any], tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    kept = {key: settings[key] for key in ("model_name_or_path", "stage", "template", "max_new_tokens")}
    kept |= {"finetuning_type": "full", "dataset": str(tmp_path / "rows.json"), "val_size": 2}
    run = create_run(yaml.safe_dump(kept), "tuned", tmp_path / "home")
    status.update(run, state="finished", step=4, total=4)
    shutil.copytree(tiny_model_dir, run.output)
    done = llf("predict", run.id)
    assert done.exit_code == 0, (done.output, done.exception)
    found = rows(run.path / "predictions")
    assert len(found) == 2
    assert {one["label"] for one in found} < {row["output"] for row in ROWS}


def test_what_cannot_be_predicted_is_said(llf: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    config = write(tmp_path, settings)
    assert "llf predict" in str(llf("train", config).exception)
    assert isinstance(llf("predict", write(tmp_path, {**settings, "output_dir": None})).exception, UsageError)
    assert llf("predict", "nothing-of-this-name").exit_code != 0
    (tmp_path / "broken.yaml").write_text("a: [")
    assert llf("predict", tmp_path / "broken.yaml").exit_code != 0
    assert "beam search" in str(llf("predict", write(tmp_path, settings), "num_beams=2").exception)
    place = PredictionFolder(tmp_path / "mine")
    place.result.write_text("mine\n")
    with pytest.raises(PredictionError, match="LLF did not write it"):
        place.begin({"model": 1}, 2)
    assert not (place.folder / STATE).exists()
    with place.held(), pytest.raises(PredictionError, match="Another process"), place.held():
        pass
