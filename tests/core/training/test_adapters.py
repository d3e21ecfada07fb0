"""Adapters of PEFT in whole attempts of a tiny real Llama: how they begin, continue and are saved."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.config import validate
from llf_core.runs import read_status
from llf_core.training import session
from tests.core.models.tiny_configs import tiny_config
from tests.core.training.adapted import ADAPTERS, RATES, logits, plain_base

pytestmark = pytest.mark.usefixtures("in_float32")


def test_loftq_begins_nearer_to_the_unquantized_model(
    trained, make_run, monkeypatch, logits_at_the_end, tiny_model_dir
):
    keys = {"lora_init": "loftq", "quantization_bit": 4, "max_steps": 1, "learning_rate": 1e-9, "lora_rank": 16}
    folder, code = trained(**keys)
    assert code == 0, read_status(folder).reason
    tokenizer = AutoTokenizer.from_pretrained(folder.output)
    exact = logits(plain_base(tiny_model_dir, "fp32"), tokenizer)
    rounded = logits(plain_base(tiny_model_dir, "nf4"), tokenizer)
    begun = logits(PeftModel.from_pretrained(plain_base(tiny_model_dir, "nf4"), folder.output), tokenizer)
    assert (begun - exact).norm() < 0.8 * (rounded - exact).norm()


def test_dora_in_8_bits_is_refused_on_a_cpu(trained):
    keys = {"use_dora": True, "quantization_bit": 8}
    folder, code = trained(**keys, max_steps=1)
    assert code == 2
    assert "DoRA cannot be trained beside weights in 8 bits on a CPU" in read_status(folder).reason
    asked = {"dataset": "llf_demo", "use_cpu": True} | keys
    (problem,) = [one for one in validate(asked).violations if one.severity == "error"]
    assert problem.message in read_status(folder).reason
    for fix in problem.fixes:
        assert problem.message not in {one.message for one in validate(asked | dict(fix.changes)).violations}


def test_attention_computes_in_the_precision_of_the_run_where_adapters_give_float32(trained):
    """PEFT's AdaLoRA does beside weights in 8 bits."""
    folder, code = trained(finetuning_type="adalora", quantization_bit=8, bf16=True, max_steps=2)
    assert code == 0, read_status(folder).reason


@pytest.mark.parametrize("init", ["pissa", pytest.param("corda", marks=pytest.mark.long), "loftq"])
def test_experts_do_not_stop_an_initialization_from_the_weights(init, trained, tiny_tokenizer, tmp_path):
    """PEFT has it for linear layers alone."""
    with torch.random.fork_rng():
        AutoModelForCausalLM.from_config(tiny_config("mixtral")).save_pretrained(tmp_path / "moe")
    tiny_tokenizer.save_pretrained(tmp_path / "moe")
    keys = {"lora_init": init, "max_steps": 1} | ({"quantization_bit": 4} if init == "loftq" else {})
    folder, code = trained(model_name_or_path=str(tmp_path / "moe"), **keys)
    assert code == 0, read_status(folder).reason
    PeftModel.from_pretrained(plain_base(tmp_path / "moe", "fp32"), folder.output)


def test_principal_components_of_short_examples_and_of_too_few(trained, make_run, tiny_model_dir):
    """PEFT skips an example with fewer tokens than the rank, and would go on without end."""
    keys = {"lora_init": "eva", "lora_rank": 40, "lora_target": "q_proj", "max_steps": 1}
    folder, code = trained(**keys)
    assert code == 0, read_status(folder).reason
    PeftModel.from_pretrained(plain_base(tiny_model_dir, "fp32"), folder.output)
    folder, code = trained(**keys, max_samples=1)
    assert code == 2
    assert "begins with 40 components of each layer's inputs (lora_rank), and the training data has fewer tokens" in (
        read_status(folder).reason
    )


def test_components_that_never_settle_end_in_a_sentence(trained, monkeypatch):
    from peft.tuners.lora.eva import SVDHook

    original = SVDHook.__call__

    def never(self, *arguments):
        original(self, *arguments)
        self.converged[:] = False

    monkeypatch.setattr(SVDHook, "__call__", never)
    folder, code = trained(lora_init="eva", lora_target="q_proj", max_steps=1)
    assert code == 2
    assert "found no 8 stable components of each layer's inputs (lora_rank) in 5 passes" in read_status(folder).reason


@pytest.mark.parametrize("method", [name for name in ADAPTERS if "lora," not in name])
def test_a_run_continues_an_adapter_of_its_own_kind_only(method, trained, make_run):
    keys = ADAPTERS[method] | {"max_steps": 1, "save_strategy": "no", "save_steps": None}
    first, code = trained(**keys)
    assert code == 0, read_status(first).reason
    second, code = trained(**keys, adapter_name_or_path=str(first.output))
    assert code == 0, read_status(second).reason
    kind = json.loads((second.output / "adapter_config.json").read_text())["peft_type"]
    assert kind == json.loads((first.output / "adapter_config.json").read_text())["peft_type"]
    other = "boft" if method == "oft" else "oft"
    third = make_run(finetuning_type=other, max_steps=1, adapter_name_or_path=str(first.output))
    assert session.run_attempt(third, 1) == 2, read_status(third).reason
    assert f"Set finetuning_type: {method}" in read_status(third).reason


@pytest.mark.parametrize(
    ("keys", "merged"),
    [
        ({"finetuning_type": "prompt", "prompt_tokens": 4}, False),
        ({"finetuning_type": "peft", "peft_type": "LILY", "peft_options": {"r": 4}}, False),
        ({"finetuning_type": "oft", "oft_block_size": 16}, True),
    ],
)
def test_a_base_under_llf_home_gets_the_adapter_merged_where_that_is_possible(
    keys, merged, trained, tiny_model_dir, llf_home
):
    base = llf_home / "models" / "mine"
    shutil.copytree(tiny_model_dir, base)
    folder, code = trained(**keys, model_name_or_path=str(base), max_steps=1, learning_rate=RATES.get("prompt"))
    assert code == 0, read_status(folder).reason
    assert (folder.output / "model.safetensors").is_file() is merged
    assert (folder.output / "adapter_model.safetensors").is_file() is not merged
    if not merged:
        settings = json.loads((folder.output / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == str(base)
