"""Exports of runs that a trainer made: with new tokens, a named template whose stop the base does not know, a head."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from llf_core.chat.target import TargetError, find_target
from llf_core.evaluation.worker_process import no_progress
from llf_core.export import ExportError, export
from llf_core.export.perform import perform
from llf_core.export.plain_program import run_plain_on
from llf_core.export.request import ExportRequest, WeightedAdapter
from llf_core.export.source import RewardSource
from llf_core.models.reward_model_files import load_reward_model
from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]
pytestmark = pytest.mark.timeout(900)  # a minute where three other jobs run on two cores


@pytest.mark.long
@pytest.mark.usefixtures("warm_python")
def test_new_tokens_and_a_named_template_leave_with_the_model(trained, tmp_path):
    """The adapter has rows of tokens that its base lacks; the whole model has them in its embedding."""
    folder, code = trained(add_special_tokens="<fish>,<ship>", template="alpaca", learning_rate=0.05)
    assert code == 0
    done = {name: export(folder, name, folder=tmp_path / name) for name in ("adapter", "merged")}
    assert all(one.receipt.passed for one in done.values())
    assert done["merged"].receipt.source["run"] == folder.id
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.convert_tokens_to_ids("<ship>") == len(tokenizer) - 1
    assert "### Instruction" in tokenizer.chat_template
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    assert json.loads((tmp_path / "merged" / "receipt.json").read_text())["source"]["step"] == 6


def test_a_run_without_a_result_and_a_reward_model_as_gguf_are_sentences(make_run, tmp_path):
    with pytest.raises(TargetError, match="has neither a result nor a checkpoint yet"):
        export(make_run(), folder=tmp_path / "out")
    run = make_run(stage="rm", dataset=str(pairs(tmp_path)))
    run.output.mkdir()
    with pytest.raises(ExportError, match=r"is a reward model, which the format gguf has no place for"):
        export(run, "gguf", folder=tmp_path / "out")
    with pytest.raises(TargetError, match=r"Its result in .* is a classifier with one label, head included"):
        find_target(run)
    assert find_target(f"{run.id}@base").label == "base model"
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_reward_model_leaves_with_its_head(trained, tmp_path):
    """Plain transformers gives the scores of `llf serve`, and a head that is not the trained one is found."""
    run, code = trained(stage="rm", dataset=str(pairs(tmp_path)), learning_rate=0.02)
    assert code == 0
    target = find_target(run, reward_models=True)
    for name in ("adapter", "merged"):
        place = tmp_path / name
        place.mkdir()
        request = ExportRequest(target, name, place, (WeightedAdapter(str(run.output)),))
        receipt = perform(request, place, no_progress)
        assert {"load", "rendering", "tokenizer", "scores", "rounding"} <= {check.name for check in receipt.checks}
        assert receipt.failed == []
        assert not (place / "Modelfile").exists()
        assert "AutoModelForSequenceClassification" in (place / "README.md").read_text()
    live = load_reward_model(str(run.output))
    ids = live.tokens([{"role": "user", "content": "What is 1?"}, {"role": "assistant", "content": "It is 1."}])
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", dtype="float32")
    with torch.no_grad():
        scored = plain(input_ids=torch.tensor([ids])).logits
    assert scored.shape == (1, 1)
    assert scored.item() == pytest.approx(live.scores_of_ids([ids])[0], abs=0.01)  # which may compute in bfloat16

    source = RewardSource(request, no_progress)
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    head = tensors.pop("score.weight")
    for name, changed in (("other", {"score.weight": -head}), ("none", {})):
        place = shutil.copytree(tmp_path / "merged", tmp_path / name)
        save_file(tensors | changed, place / "model.safetensors", metadata={"format": "pt"})
    found = run_plain_on(source, [tmp_path / "other", tmp_path / "none"])
    failed = [[check.name for check in source.compare(one, "float32") if not check.passed] for one in found]
    assert failed == [["scores", "rounding"], ["load"]]


def pairs(folder):
    """A file with 12 pairs of answers."""
    rows = [
        {"instruction": f"What is {n}?", "input": "", "chosen": f"It is {n}.", "rejected": "I do not know."}
        for n in range(12)
    ]
    path = folder / "pairs.json"
    path.write_text(json.dumps(rows))
    return path
