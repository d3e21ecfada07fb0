"""Whole runs, step by step, against LLaMA-Factory's and TRL's on rows of LLaMA-Factory's demo sets."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.runs import RunReader
from tests.core.stages.llama_factory.runs import RUNS, goldens, settings
from tests.core.stages.llama_factory.same_model import HERE, save_model
from tests.tiny import CHATML

NONE = dict.fromkeys(("max_steps", "save_steps"))
# Sums over up to 2,000 tokens in float32: they differ in the seventh digit, and rewards by β times as much.
NEAR = {
    "loss": {"rtol": 1e-4},
    "grad_norm": {"rtol": 1e-4},
    "logps": {"rtol": 1e-5},
    "rewards": {"rtol": 1e-4, "atol": 2e-4},
    "kl": {"rtol": 1e-4, "atol": 2e-3},
}
# LLaMA-Factory weights the tokens of the policy alone, so that what it logs is not 0 where both models are one.
OTHERWISE = {"sigmoid, less for length": ("rewards/", "logps/")}


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Computes in float32, whatever is faster here."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


@pytest.fixture
def run_of(trained, tmp_path):
    """`run_of(name, **changes) -> RunFolder`: a run of `RUNS`, made here."""

    def make(name, **changes):
        save_model(tmp_path / "model")
        folder, code = trained(**NONE | settings(name, tmp_path / "model", tmp_path / "adapter") | changes)
        assert code == 0
        return folder

    return make


def logged(folder):
    """By name, the values by their steps."""
    metrics = RunReader(folder).metrics()
    return {name: dict(zip(metrics.steps(name).tolist(), metrics.values(name), strict=True)) for name in metrics}


def near(key):
    kind = key.removeprefix("eval_").split("/")[0]
    return NEAR["loss" if kind.endswith("loss") else kind]


def wanted_of(name, found):
    """By name, the values that LLaMA-Factory's become where it takes another mean, by their steps."""
    steps = {int(step): values for step, values in goldens()[name].items()}
    wanted = {
        key: {step: values[key] for step, values in steps.items() if key in values}
        for key in sorted(set().union(*steps.values()))
        if not key.startswith(OTHERWISE.get(name, "-"))
    }
    if "kl" in wanted:  # a sum over micro-batches there
        count = RUNS[name].get("gradient_accumulation_steps", 2)
        wanted["kl"] = {step: value / count for step, value in wanted["kl"].items()}
    if name.startswith("pt"):  # divided by all tokens there, though nothing predicts the first of a text
        read, learned = (np.diff(list(found[key].values()), prepend=0) for key in ("tokens", "trained_tokens"))
        more = dict(zip(steps, read / learned, strict=True))
        wanted = {key: {step: value * more[step] for step, value in one.items()} for key, one in wanted.items()}
    for step, values in steps.items():
        if abs(values.get("rewards/margins", 1.0)) < 1e-4 and "rewards/accuracies" in wanted:
            del wanted["rewards/accuracies"][step]  # a tie: rounding decides
    return wanted


@pytest.mark.parametrize("name", RUNS)
def test_each_step_is_llama_factorys(run_of, tmp_path, name):
    # The reference of an adapter that goes on is the base model there.
    changes = {"ref_model": str(tmp_path / "model")} if name == "sigmoid, trained adapter" else {}
    found = logged(run_of(name, **changes))
    wanted = wanted_of(name, found)
    assert list(wanted["loss"]) == list(found["loss"])
    for key, values in wanted.items():
        own = [found[key][step] for step in values]
        if key.endswith("accuracies"):
            assert own == list(values.values())
        else:
            np.testing.assert_allclose(own, list(values.values()), err_msg=key, **near(key))


def test_an_adapter_that_goes_on_is_compared_with_itself_unless_the_base_is_named(run_of):
    found = logged(run_of("sigmoid, trained adapter", max_steps=1, save_steps=1))
    assert found["loss"][1] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_each_step_is_trls(run_of, tmp_path, loss):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    found = logged(run_of("sigmoid", pref_loss=loss, max_steps=4, eval_strategy="no", eval_dataset=None))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = CHATML
    roles = {"system": "system", "human": "user", "gpt": "assistant"}
    rows = [
        {
            "prompt": [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]],
            "chosen": [{"role": "assistant", "content": row["chosen"]["value"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]["value"]}],
        }
        for row in json.loads((HERE / "rows" / "dpo_en_demo.json").read_text())
    ]
    arguments = DPOConfig(
        output_dir=str(tmp_path / "trl"), loss_type=loss, beta=0.1, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, max_steps=4, learning_rate=2e-3, lr_scheduler_type="cosine",
        logging_steps=1, save_strategy="no", use_cpu=True, bf16=False, seed=5, max_length=None,
        gradient_checkpointing=False, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    trainer = DPOTrainer(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    for key in ("loss", "grad_norm", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/margins"):
        np.testing.assert_allclose(list(found[key].values()), [step[key] for step in steps], err_msg=key, **near(key))
