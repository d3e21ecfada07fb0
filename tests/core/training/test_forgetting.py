"""What a model forgets: its loss on the probe set and the KL divergence from the base, worked out again."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.config import validate
from llf_core.doctor import Doctor
from llf_core.runs import RunReader
from llf_core.training.forgetting_probe import KL, LOSS, ForgettingProbe, probe_set
from llf_core.training.session import run_attempt
from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]


def logged(folder, name):
    metrics = RunReader(folder).metrics()
    return dict(zip(metrics.steps(name).tolist(), metrics.values(name).tolist(), strict=True))


def by_hand(model, base, tokenizer):
    """Loss and KL(base‖model) per answer token, in float64, token by token."""
    loss = kl = count = 0.0
    for one in probe_set():
        messages = [{"role": "user", "content": one["prompt"]}]
        head = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(head + one["answer"], add_special_tokens=False, return_tensors="pt")["input_ids"]
        start = len(tokenizer(head, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            log_q, log_p = (which.double()(ids).logits[0, -ids.shape[1] :].log_softmax(-1) for which in (model, base))
        for at in range(start, ids.shape[1]):
            loss -= log_q[at - 1, ids[0, at]].item()
            kl += (log_p[at - 1].exp() * (log_p[at - 1] - log_q[at - 1])).sum().item()
            count += 1
    return loss / count, kl / count


def test_loss_and_divergence_are_those_of_plain_transformers_and_change_no_loss(trained, tiny_model_dir):
    plain, _ = trained(learning_rate=1e-2, max_steps=4, bf16=False)
    folder, code = trained(learning_rate=1e-2, max_steps=4, bf16=False, measure_forgetting=True)
    assert code == 0
    assert logged(folder, "loss") == logged(plain, "loss")  # no random number was drawn
    loss, kl = logged(folder, LOSS), logged(folder, KL)
    assert list(loss) == list(kl) == [0, 2, 4]
    tokenizer = AutoTokenizer.from_pretrained(folder.output)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tuned = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(tuned, str(folder.output)).eval()
    expected_loss, expected_kl = by_hand(tuned, base, tokenizer)
    assert loss[4] == pytest.approx(expected_loss, rel=1e-5)
    assert kl[4] == pytest.approx(expected_kl, rel=1e-3)
    assert kl[0] == pytest.approx(0.0, abs=1e-6)
    assert loss[0] == pytest.approx(by_hand(base, base, tokenizer)[0], rel=1e-5)


def test_a_method_without_adapter_measures_the_loss_at_every_evaluation(trained):
    folder, code = trained(
        finetuning_type="full", max_steps=4, measure_forgetting=True, val_size=0.25, eval_strategy="steps",
        eval_steps=1, save_strategy="no",
    )  # fmt: skip
    assert code == 0
    assert list(logged(folder, LOSS)) == [0, 1, 2, 3, 4]
    assert logged(folder, KL) == {0: 0.0}


def test_a_prompt_of_peft_is_no_part_of_the_question(trained, tiny_model_dir):
    """Before the first step a prompt is random: the base is the model without it, whose loss is that of plain code."""
    folder, code = trained(finetuning_type="prompt", prompt_tokens=3, max_steps=2, bf16=False, measure_forgetting=True)
    assert code == 0
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32), str(folder.output)
    ).eval()
    loss, kl = by_hand(tuned, base, AutoTokenizer.from_pretrained(folder.output))
    assert logged(folder, LOSS)[2] == pytest.approx(loss, rel=1e-4)
    assert logged(folder, KL)[2] == pytest.approx(kl, abs=2e-6)


def test_a_probe_that_fails_is_a_warning_and_the_run_goes_on(make_run, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(ForgettingProbe, "_log_probs", broken)
    folder = make_run(max_steps=2, measure_forgetting=True)
    assert run_attempt(folder, 1) == 0
    (first, *_) = [one for one in RunReader(folder).events() if one.get("key") == "measure_forgetting"]
    assert first["message"].endswith("at step 0: RuntimeError: no kernel image")


def test_the_doctor_finds_a_model_that_forgets_and_only_that(trained, tmp_path):
    """A tiny model that has learned the probe set, then is trained on something else, much or little."""
    rows = [{"instruction": one["prompt"], "input": "", "output": one["answer"]} for one in probe_set()]
    same = {"finetuning_type": "full", "save_strategy": "no", "logging_steps": 5}
    known = tmp_path / "known.json"
    known.write_text(json.dumps(rows))
    learned, _ = trained(dataset=str(known), **same, learning_rate=3e-3, max_steps=60)
    start = {**same, "model_name_or_path": str(learned.output), "measure_forgetting": True, "val_size": 0.25}
    often = {"eval_strategy": "steps", "eval_steps": 5}
    ill, _ = trained(**start, **often, learning_rate=3e-3, max_steps=30)
    well, _ = trained(**start, **often, learning_rate=1e-6, max_steps=15)
    (finding,) = [one for one in Doctor(ill).look() if one.rule == "forgets"]
    assert "nats per token" in finding.message
    assert finding.config == {"learning_rate": 3e-4}
    assert "forgets" not in [one.rule for one in Doctor(well).look()]


def test_a_reward_model_has_nothing_to_measure(data_file):
    report = validate({"stage": "rm", "dataset": str(data_file), "measure_forgetting": True})
    assert "measure_forgetting" in [problem.key for problem in report.violations]
