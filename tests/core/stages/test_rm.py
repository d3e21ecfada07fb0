"""Reward models: the loss, what LLaMA-Factory and TRL make of the same pairs, and what a run leaves."""

import json
import math
import re

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from llf_core.config import validate
from llf_core.models.reward_model_files import load_reward_model
from llf_core.runs import RunReader
from llf_core.stages.rm import pair_losses
from tests.core.stages.curves import curve, stop_and_resume
from tests.core.stages.llama_factory.same_model import HERE, head_weight, save_model, settings
from tests.tiny import CHATML, tiny_llama, tiny_tokenizer


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Computes in float32, whatever is faster here."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


def test_the_loss_and_its_gradient_are_those_of_the_formula():
    chosen = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([0.25, 3.0], dtype=torch.float64)
    losses = pair_losses(chosen, rejected, 0.1)
    expected = [
        math.log(1 + math.exp(-0.75)) + 0.1 * 1.25**2,
        math.log(1 + math.exp(5)) + 0.1 * 1.0**2,
    ]
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)
    assert pair_losses(chosen, rejected).tolist() == pytest.approx([expected[0] - 0.15625, expected[1] - 0.1])
    losses.sum().backward()
    slopes = [-1 / (1 + math.exp(0.75)) + 0.2 * 1.25, -1 / (1 + math.exp(-5)) + 0.2 * 1.0]
    assert chosen.grad.tolist() == pytest.approx(slopes, rel=1e-12)


def test_rewards_far_apart_give_no_infinite_loss():
    assert pair_losses(torch.tensor([-300.0]), torch.tensor([300.0])).item() == 600.0
    assert pair_losses(torch.tensor([300.0]), torch.tensor([-300.0])).item() == 0.0


@pytest.mark.parametrize("finetuning_type", ["lora", "full", "freeze"])
def test_it_learns_which_answer_is_better(trained, pairs, finetuning_type):
    folder, code = trained(
        stage="rm", dataset=pairs, finetuning_type=finetuning_type, max_steps=12, learning_rate=3e-3, val_size=4
    )
    assert code == 0
    losses = curve(folder)
    assert losses[-1] < 0.3 < losses[0]
    metrics = RunReader(folder).metrics()
    assert metrics.values("rewards/accuracies")[-1] == 1.0
    margins = metrics.values("rewards/chosen") - metrics.values("rewards/rejected")
    np.testing.assert_allclose(metrics.values("rewards/margins"), margins, atol=1e-6)
    (held,) = [event for event in RunReader(folder).events() if event["type"] == "evaluation"]
    assert held["values"]["eval_rewards/accuracies"] == 1.0
    assert held["values"]["eval_loss"] < 0.3


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_the_plain_path_makes_the_same_losses(trained, pairs, finetuning_type):
    made = [
        trained(stage="rm", dataset=pairs, finetuning_type=finetuning_type, learning_rate=3e-3, **changes)
        for changes in (
            {},
            {"fast_path": False},
            {"fast_path": False, "gradient_checkpointing": True},
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
        )
    ]
    assert [code for _, code in made] == [0] * 4
    fast, *others = (curve(folder) for folder, _ in made)
    for other in others:
        np.testing.assert_allclose(other, fast, rtol=2e-4)


def test_pairs_may_be_streamed(trained, pairs):
    folder, code = trained(stage="rm", dataset=pairs, streaming=True, val_size=4, max_steps=4, learning_rate=3e-3)
    assert code == 0
    assert curve(folder)[-1] < curve(folder)[0]
    assert 0 <= RunReader(folder).metrics().last("eval_rewards/accuracies") <= 1


def test_the_loss_of_each_pair_is_kept(trained, pairs):
    from llf_core.runs.metric_columns import ExampleLosses

    folder, _ = trained(stage="rm", dataset=pairs, max_steps=2)
    kept = ExampleLosses(folder)
    kept.refresh()
    found = kept.at(1)
    assert len(found) == 4
    assert np.mean([one.first for one in found]) == pytest.approx(curve(folder)[0], rel=1e-5)


@pytest.fixture
def known_head(tmp_path):
    """The model of the goldens, as a causal model whose folder has a reward model's head too."""
    from safetensors.torch import load_file, save_file

    save_model(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    save_file(load_file(file) | {"score.weight": head_weight()}, file, {"format": "pt"})
    return tmp_path / "model"


NONE = dict.fromkeys(("save_steps", "seed"))


def test_each_step_has_llama_factorys_loss(trained, known_head):
    """Its head is given the same weights, and no dropout; see `make_rm_goldens.py`."""
    goldens = json.loads((HERE / "rm.json").read_text())
    folder, code = trained(**NONE | settings(known_head, stage="rm", finetuning_type="full"))
    assert code == 0
    np.testing.assert_allclose(curve(folder), goldens["losses"], rtol=1e-5)
    np.testing.assert_allclose(curve(folder, "grad_norm"), goldens["grad_norms"], rtol=1e-4)


def test_each_step_has_trls_loss(trained, known_head, tmp_path):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    from llf_core.config import RunConfig
    from llf_core.data import prepare

    keys = settings(known_head, stage="rm", finetuning_type="full", center_rewards_coefficient=0.02)
    folder, code = trained(**NONE | keys)
    assert code == 0
    tokenizer = AutoTokenizer.from_pretrained(known_head)
    prepared = prepare(RunConfig.load(folder.config), tokenizer).train
    rows = [{"chosen_ids": row["input_ids"], "rejected_ids": row["rejected_ids"]} for row in prepared]
    arguments = RewardConfig(
        output_dir=str(tmp_path / "trl"), center_rewards_coefficient=0.02, max_steps=5, learning_rate=1e-3,
        lr_scheduler_type="constant", per_device_train_batch_size=2, gradient_accumulation_steps=2, logging_steps=1,
        save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_dropout=False,
        train_sampling_strategy="sequential", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(known_head, num_labels=1, dtype=torch.float32)
    trainer = RewardTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    np.testing.assert_allclose(curve(folder), [entry["loss"] for entry in logged], rtol=1e-5)
    np.testing.assert_allclose(curve(folder, "rewards/margins"), [entry["margin"] for entry in logged], rtol=1e-4)
    np.testing.assert_allclose(curve(folder, "rewards/accuracies"), [entry["accuracy"] for entry in logged])


def scores_of_plain_transformers(model, tokenizer, rows):
    """Chosen and rejected answers, one at a time."""
    talks = [
        [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row[key]}]
        for row in rows
        for key in ("chosen", "rejected")
    ]
    with torch.no_grad():
        per_document_attention = [
            model(**tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)).logits.item()
            for talk in talks
        ]
        batch = tokenizer.apply_chat_template(talks, return_tensors="pt", return_dict=True, padding=True)
        together = model(**batch).logits[:, 0].tolist()
    assert together == pytest.approx(per_document_attention, abs=1e-5)
    return per_document_attention, talks


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_the_output_scores_alike_in_plain_transformers(trained, pairs, pair_rows, tiny_model_dir, finetuning_type):
    folder, code = trained(
        stage="rm", dataset=pairs, eval_dataset=pairs, finetuning_type=finetuning_type, learning_rate=3e-3
    )
    assert code == 0
    tokenizer = AutoTokenizer.from_pretrained(folder.output)
    if finetuning_type == "lora":
        assert json.loads((folder.output / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=1)
        model = PeftModel.from_pretrained(base, folder.output).eval()
    else:
        written = json.loads((folder.output / "config.json").read_text())
        assert written["architectures"] == ["LlamaForSequenceClassification"]
        assert written["pad_token_id"] == tokenizer.pad_token_id
        model = AutoModelForSequenceClassification.from_pretrained(folder.output)
        assert model.config.num_labels == 1
    scores, talks = scores_of_plain_transformers(model, tokenizer, pair_rows)
    assert load_reward_model(folder.id).scores(talks) == pytest.approx(scores, abs=1e-5)
    (held,) = [event for event in RunReader(folder).events() if event["type"] == "evaluation"]
    better, worse = np.mean(scores[::2]), np.mean(scores[1::2])
    assert held["values"]["eval_rewards/chosen"] == pytest.approx(better, abs=1e-5)
    assert held["values"]["eval_rewards/rejected"] == pytest.approx(worse, abs=1e-5)


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_where_padding_is_the_end_token_a_score_is_read_where_it_was_trained(
    trained, pairs, pair_rows, tmp_path, finetuning_type
):
    tokenizer = tiny_tokenizer(CHATML.replace("'<|im_end|>' + '\n'", "'<|im_end|>'"))
    tokenizer.pad_token, tokenizer.unk_token = tokenizer.eos_token, None
    tiny_llama(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*.json"):  # no other token is there to pad with
        path.write_text(path.read_text().replace("<|endoftext|>", "<|nothing|>"))
    keys = {"dataset": pairs, "eval_dataset": pairs, "finetuning_type": finetuning_type, "learning_rate": 3e-3}
    folder, code = trained(stage="rm", model_name_or_path=str(tmp_path / "model"), **keys)
    assert code == 0
    talks = [
        [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row[key]}]
        for key in ("chosen", "rejected")
        for row in pair_rows
    ]
    scores = load_reward_model(folder.id).scores(talks)
    logged = RunReader(folder).metrics()
    assert np.mean(scores[:16]) == pytest.approx(logged.last("eval_rewards/chosen"), abs=1e-5)
    assert np.mean(scores[16:]) == pytest.approx(logged.last("eval_rewards/rejected"), abs=1e-5)


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_the_cards_lines_score_an_answer(trained, pairs, finetuning_type, monkeypatch, capsys):
    folder, _ = trained(stage="rm", dataset=pairs, finetuning_type=finetuning_type, max_steps=2)
    card = (folder.output / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "eval_loss" not in card
    assert "| rewards/accuracies |" in card
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(folder.output)
    capsys.readouterr()
    exec(lines, {})
    printed = float(capsys.readouterr().out.strip().splitlines()[-1])
    talk = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
    ]
    assert load_reward_model(folder.id).scores([talk]) == pytest.approx([printed], abs=1e-5)


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_a_run_that_goes_on_has_its_head_to_the_last_bit(trained, make_run, pairs, finetuning_type):
    from safetensors.torch import load_file

    keys = {"stage": "rm", "dataset": pairs, "finetuning_type": finetuning_type, "learning_rate": 3e-3}
    whole, _ = trained(**keys)
    half = make_run(**keys)
    stop_and_resume(half, whole)
    (file,) = whole.output.glob("*.safetensors")
    ends = [load_file(folder.output / file.name) for folder in (whole, half)]
    assert any("score" in name for name in ends[0])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_a_reward_model_is_trained_further(trained, pairs, finetuning_type):
    keys = {"stage": "rm", "dataset": pairs, "eval_dataset": pairs, "finetuning_type": finetuning_type}
    first, _ = trained(**keys, learning_rate=3e-3)
    begins = (
        {"adapter_name_or_path": str(first.output)}
        if finetuning_type == "lora"
        else {"model_name_or_path": str(first.output)}
    )
    again, code = trained(**keys | begins, learning_rate=1e-12, max_steps=1)
    assert code == 0
    ends = [RunReader(folder).metrics().values("eval_rewards/margins")[-1] for folder in (first, again)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)


def test_an_adapter_that_speaks_may_become_one_that_scores(trained, pairs):
    spoken, _ = trained(max_steps=2)
    folder, code = trained(stage="rm", dataset=pairs, adapter_name_or_path=str(spoken.output), learning_rate=3e-3)
    assert code == 0
    assert curve(folder)[-1] < curve(folder)[0]
    assert len(load_reward_model(folder.id).scores(["Hello"])) == 1


def test_an_architecture_without_a_classifier_is_refused_before_anything_is_trained(
    trained, pairs, tiny_tokenizer, tmp_path
):
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=len(tiny_tokenizer), hidden_size=16, num_hidden_layers=1)).save_pretrained(
        tmp_path / "mamba"
    )
    tiny_tokenizer.save_pretrained(tmp_path / "mamba")
    folder, code = trained(stage="rm", dataset=pairs, model_name_or_path=str(tmp_path / "mamba"))
    assert code == 2
    reason = RunReader(folder).status().reason
    assert "has no sequence classifier for MambaForCausalLM" in reason
    assert "Expected an architecture that has one, such as llama" in reason


def test_pairs_that_prefer_nothing_are_counted_and_named(trained, pair_rows, tmp_path):
    pair_rows[3]["rejected"] = pair_rows[3]["chosen"]
    pair_rows[5]["rejected"] = " "
    path = tmp_path / "some.json"
    path.write_text(json.dumps(pair_rows))
    folder, code = trained(stage="rm", dataset=str(path), max_steps=1)
    assert code == 0
    (data,) = [event for event in RunReader(folder).events() if event["type"] == "data"]
    assert (data["examples"], data["dropped"]) == (14, 2)

    for row in pair_rows:
        row["rejected"] = row["chosen"]
    path.write_text(json.dumps(pair_rows))
    folder, code = trained(stage="rm", dataset=str(path), max_steps=1)
    assert code == 2
    assert "the chosen and the rejected response are identical" in RunReader(folder).status().reason


def test_what_means_nothing_to_a_reward_model_is_refused(pairs):
    report = validate({"stage": "rm", "dataset": pairs, "label_smoothing_factor": 0.1, "watched_prompts": "Hello"})
    assert [problem.key for problem in report.violations] == ["label_smoothing_factor", "watched_prompts"]
    assert validate({"stage": "rm", "dataset": pairs, "center_rewards_coefficient": 0.01}).ok


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_base_and_result_are_compared_on_held_out_pairs(trained, pairs, finetuning_type):
    from llf_core.evaluation.answers import answer
    from llf_core.evaluation.run_losses import losses

    folder, _ = trained(
        stage="rm", dataset=pairs, eval_dataset=pairs, finetuning_type=finetuning_type, learning_rate=3e-3
    )
    found = losses(folder)
    assert found.tuned == pytest.approx(RunReader(folder).metrics().last("eval_loss"), rel=1e-5)
    assert found.tuned < found.base
    with pytest.raises(ValueError, match="trained a reward model"):
        answer(folder, ["Hello"])


@pytest.mark.parametrize("base", ["quantized", "not portable"])
def test_where_an_adapter_would_have_no_base_the_whole_classifier_is_written(
    trained, pairs, pair_rows, tiny_model_dir, llf_home, base
):
    import shutil

    shutil.copytree(tiny_model_dir, llf_home / "base")
    bits = 4 if base == "quantized" else None
    folder, code = trained(
        stage="rm", dataset=pairs, model_name_or_path=str(llf_home / "base"), quantization_bit=bits, learning_rate=3e-3
    )
    assert code == 0
    model = AutoModelForSequenceClassification.from_pretrained(folder.output)
    assert type(model).__name__ == "LlamaForSequenceClassification"
    scores, talks = scores_of_plain_transformers(model, AutoTokenizer.from_pretrained(folder.output), pair_rows)
    assert load_reward_model(folder.id).scores(talks) == pytest.approx(scores, abs=1e-5)
    assert sum(better > worse for better, worse in zip(scores[::2], scores[1::2], strict=True)) >= 14
