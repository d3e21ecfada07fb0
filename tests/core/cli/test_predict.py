"""`llf predict`: the responses of a tiny model to a data set, continued, refused, of a run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import yaml
from PIL import Image
from rouge_score import rouge_scorer
from transformers import AutoModelForImageTextToText, AutoProcessor

from llf_core.chat.batch_prediction import TIMES, prediction_metrics, read_predict_prompts
from llf_core.chat.predictions import PARTIAL, PredictionError, PredictionFolder
from llf_core.chat.prompt import prompt_form, prompt_text
from llf_core.chat.request import ChatRequest
from llf_core.cli import evaluate
from llf_core.cli.terminal import UsageError
from llf_core.config import RunConfig
from llf_core.data import prepare
from llf_core.data.chat_template import choose_template
from llf_core.data.errors import DataError
from llf_core.models import load_processor, load_tokenizer, resolve_model
from llf_core.runs import create_run, status
from llf_core.runs.folder import RESULT, RESULTS, STATE
from tests.tiny import picture_file, save_tiny_llava

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


def test_metrics_of_both_keys_are_computed_and_others_are_a_sentence(
    llf: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    asked = evaluate._of_config(str(write(tmp_path, settings | {"metrics": "exact_match"})), None)
    assert asked.metrics == ("rouge", "bleu", "exact_match")
    refused = llf("predict", write(tmp_path, settings | {"metrics": 5}))
    assert str(refused.exception) == "metrics is 5. Expected a name, or several separated by commas."


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


def test_predicted_code_with_a_password_is_kept_as_it_is(tmp_path: Path) -> None:
    """Metrics compare it with the reference, so neither may have *** in it."""
    code = 'connect(password="swordfish")'
    place = PredictionFolder(tmp_path)
    place.begin({}, 1)
    place.add(0, {"prompt": code, "predict": code, "label": code})
    place.finish(1)
    assert json.loads(place.result.read_text()) == {"prompt": code, "predict": code, "label": code}


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
    for text in (None, "{", "[]"):
        lost = PredictionFolder(tmp_path / "lost")
        lost.add(0, {"prompt": "a", "predict": "of another model", "label": ""})
        if text is not None:
            (lost.folder / STATE).write_text(text)
        with pytest.raises(PredictionError, match=f"{STATE}, which names their model and data, is missing"):
            lost.begin({"model": 1}, 2)
        assert "of another model" in (lost.folder / PARTIAL).read_text()
    with place.held(), pytest.raises(PredictionError, match="Another process"), place.held():
        pass
    with pytest.raises(TimeoutError, match="of a file system"), place.held():
        raise TimeoutError("of a file system")


@pytest.fixture
def pictured(tmp_path: Path) -> dict[str, Any]:
    """Settings of a prediction by a tiny LLaVA, of five records with pictures and one without."""
    save_tiny_llava(tmp_path / "llava")
    colors = ("red", "green", "blue")
    for color in colors:
        (tmp_path / f"{color}.png").write_bytes(picture_file(size=(900, 700), color=color))
    (tmp_path / "damaged.png").write_bytes(picture_file(size=(900, 700))[:100])
    asked = "<image>What color is it?"
    found = [{"instruction": asked, "output": f"It is {color}.", "images": [f"{color}.png"]} for color in colors]
    found += [
        {"instruction": "Say one.", "output": "one", "images": []},
        {"instruction": "<image>What is it?", "output": "Nothing.", "images": ["missing.png"]},
        {"instruction": "<image>What is it?", "output": "Damaged.", "images": ["damaged.png"]},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(found))
    return {
        "model_name_or_path": str(tmp_path / "llava"), "stage": "sft", "do_predict": True, "eval_dataset": "rows.json",
        "media_dir": str(tmp_path), "output_dir": str(tmp_path / "result"), "max_new_tokens": 6, "do_sample": False,
        "infer_dtype": "float32", "image_max_pixels": 2000,
    }  # fmt: skip


def test_a_vision_model_predicts_what_it_sees(llf: Any, tmp_path: Path, pictured: dict[str, Any]) -> None:
    done = llf("predict", write(tmp_path, pictured), "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert {key: json.loads(done.stdout)[key] for key in ("records", "unusable", "errors")} == {
        "records": 5, "unusable": 1, "errors": 1,
    }  # fmt: skip
    found = rows(tmp_path / "result")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava", dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "llava")
    for one, color in zip(found[:3], ("red", "green", "blue"), strict=True):
        text = "<|im_start|>user\n<image>What color is it?<|im_end|>\n<|im_start|>assistant\n"
        assert (one["prompt"], one["label"]) == (text, f"It is {color}.")
        shown = Image.open(tmp_path / f"{color}.png").resize((50, 39))  # 2,000 pixels at most
        inputs = processor(text=[text], images=[[shown]], return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert one["predict"] == processor.tokenizer.decode(ids, skip_special_tokens=True)
    assert found[3]["prompt"] == "<|im_start|>user\nSay one.<|im_end|>\n<|im_start|>assistant\n"
    assert "cannot be read" in found[4]["error"]
    assert found[4]["label"] == "Damaged."
    changed = llf("predict", write(tmp_path, pictured), "image_max_pixels=3000")
    assert "were begun with other generation settings" in str(changed.exception)
    (tmp_path / "red.png").write_bytes(picture_file(color="blue"))
    changed = llf("predict", write(tmp_path, pictured))
    assert "were begun with other data" in str(changed.exception)


@pytest.mark.parametrize("stage", ["pt", "grpo"])
def test_a_stage_whose_data_have_no_responses_predicts_nothing(settings: dict[str, Any], stage: str) -> None:
    place = Path(settings["output_dir"]).with_name("more.json")
    turns = [{"role": role, "content": "Say 1."} for role in ("user", "assistant", "user")]
    place.write_text(json.dumps([{"text": "Say 1."} if stage == "pt" else {"messages": turns}]))
    base = {"model_name_or_path": settings["model_name_or_path"], "dataset": str(place), "stage": stage}
    config = RunConfig.load(base | ({"reward_functions": "length"} if stage == "grpo" else {}))
    tokenizer = load_tokenizer(resolve_model(config.model.model_name_or_path, config), config)
    with pytest.raises(DataError, match=f"Stage {stage} reads data without responses"):
        read_predict_prompts(config, tokenizer)


@pytest.mark.parametrize("template", [None, "chatml"])
def test_prompts_with_pictures_are_those_of_training(pictured: dict[str, Any], template: str | None) -> None:
    base = {key: pictured[key] for key in ("model_name_or_path", "stage", "media_dir", "image_max_pixels")}
    place = str(Path(pictured["media_dir"]) / "rows.json")
    base |= {"template": template}
    config = RunConfig.load(base | {"dataset": place})
    source = resolve_model(config.model.model_name_or_path, config)
    tokenizer = load_tokenizer(source, config)
    processor = load_processor(source, config, tokenizer)
    trained = [json.loads(row["seen"]) for row in prepare(config, tokenizer, processor=processor).train if row["seen"]]
    found, unusable = read_predict_prompts(config, tokenizer, processor)
    split, _ = read_predict_prompts(RunConfig.load(base | {"dataset": place, "val_size": 2}), tokenizer, processor)
    if template is not None:
        choose_template(template, tokenizer).apply_to(tokenizer)
    form = prompt_form(tokenizer, processor)
    assert form.in_parts == (template is None)
    texts = [prompt_text(ChatRequest(one.messages), form) for one in found]
    assert unusable == 1
    for (text, media), prompt, shown in zip(trained, texts[:3], found[:3], strict=True):
        assert text.removeprefix(prompt).startswith(shown.label)
        assert [list(one) for one in shown.pictures] == media
    by_label = {one.label: one for one in found}
    assert [prompt_text(ChatRequest(one.messages), form) for one in split] == [
        texts[found.index(by_label[one.label])] for one in split
    ]
    assert [one.pictures for one in split] == [by_label[one.label].pictures for one in split]


def test_what_a_model_does_not_read_is_said_before_it_is_loaded(
    llf: Any, tmp_path: Path, pictured: dict[str, Any], tiny_model_dir: Path
) -> None:
    text = llf("predict", write(tmp_path, pictured), f"model_name_or_path={tiny_model_dir}")
    assert "rows.json has images, and the model reads text only. Choose a vision model." in str(text.exception)
    (tmp_path / "rows.json").write_text(json.dumps([{**ROWS[0], "videos": ["a.mp4"]}]))
    film = llf("predict", write(tmp_path, pictured))
    assert "has video data. `llf predict` takes text and images." in str(film.exception)
