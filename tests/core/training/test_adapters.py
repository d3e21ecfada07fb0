"""Each adapter of PEFT through whole attempts of a tiny real Llama: trained, stopped and resumed, reloaded, merged."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from llf_core.models.quantize import keep_differentiable
from llf_core.runs import read_status
from llf_core.training import session
from tests.core.training.adapted import answer_loss, logits
from tests.core.training.test_session import losses, next_attempt, stop_at

pytestmark = pytest.mark.usefixtures("in_float32")
METHODS = {
    "oft": {"finetuning_type": "oft", "oft_block_size": 16},
    "boft": {"finetuning_type": "boft"},
    "ia3": {"finetuning_type": "ia3"},
    "vera": {"finetuning_type": "vera", "vera_rank": 32},
    "adalora": {"finetuning_type": "adalora"},
    "prompt": {"finetuning_type": "prompt", "prompt_tokens": 4},
    "prefix": {"finetuning_type": "prefix", "prefix_tokens": 4},
    "lora": {"loraplus_lr_ratio": 4.0},
    "lora, gaussian": {"lora_init": "gaussian"},
    "lora, orthogonal": {"lora_init": "orthogonal"},
    "lora, pissa": {"lora_init": "pissa"},
    "lora, exact pissa": {"pissa_init": True, "pissa_iter": -1, "use_rslora": True},
    "lora, olora": {"lora_init": "olora"},
    "lora, corda": {"lora_init": "corda"},
    "lora, eva": {"lora_init": "eva"},
    "peft": {"finetuning_type": "peft", "peft_type": "LOHA", "peft_options": {"r": 4}},
}
RATE = {"prompt": 0.3, "prefix": 0.3, "vera": 0.3, "ia3": 0.3}
PRECISIONS = {"fp32": {}, "bf16": {"bf16": True}, "nf4": {"quantization_bit": 4}}
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
UNMERGED = {"prompt", "prefix"}
CONVERTED = {"lora, pissa", "lora, exact pissa", "lora, olora", "lora, corda"}
"""Initialisations whose result is converted, so that it equals the trained model within rounding."""
IN_FOUR_BITS = METHODS.keys() - CONVERTED - {"peft", "lora, orthogonal"}
PAIRS = [
    pytest.param(method, precision, marks=[] if precision == "fp32" else pytest.mark.long)
    for method in METHODS
    for precision in PRECISIONS
    if precision != "nf4" or method in IN_FOUR_BITS
]


def plain_base(folder, precision):
    """The base as plain transformers loads it."""
    if precision == "nf4":
        bits = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=bits)
        keep_differentiable(model)  # else bitsandbytes evaluates with another kernel than it trains with
        return model
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, DTYPES[precision]))


@pytest.mark.parametrize(("method", "precision"), PAIRS)
def test_a_run_stops_resumes_to_the_last_bit_reloads_and_merges(
    method, precision, trained, make_run, monkeypatch, logits_at_the_end, tiny_model_dir
):
    keys = (
        {"max_steps": 4, "save_steps": 2, "learning_rate": RATE.get(method, 0.02)}
        | METHODS[method]
        | PRECISIONS[precision]
    )
    whole, code = trained(**keys)
    assert code == 0, read_status(whole).reason

    halves = make_run(**keys)
    with monkeypatch.context() as patch:
        stop_at(patch, halves, 3)
        assert session.run_attempt(halves, 1) == 0
    assert read_status(halves).state == "stopped"
    assert next_attempt(halves) == 0, read_status(halves).reason
    assert losses(halves) == losses(whole)
    first, second = (load_file(run.output / "adapter_model.safetensors") for run in (whole, halves))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)

    tokenizer = AutoTokenizer.from_pretrained(whole.output)
    base = plain_base(tiny_model_dir, precision).eval()
    model = PeftModel.from_pretrained(plain_base(tiny_model_dir, precision), whole.output)
    found = logits(model, tokenizer)
    if method in CONVERTED:
        torch.testing.assert_close(found, logits_at_the_end[0], rtol=0, atol=1e-5 if precision == "fp32" else 0.05)
        settings = json.loads((whole.output / "adapter_config.json").read_text())
        assert (settings["r"], settings["init_lora_weights"]) == (16, True)
    else:
        assert torch.equal(found, logits_at_the_end[0])
    assert answer_loss(model, tokenizer) < answer_loss(base, tokenizer)
    if precision == "fp32" and method not in UNMERGED:
        torch.testing.assert_close(logits(model.merge_and_unload(), tokenizer), found, rtol=0, atol=1e-3)


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


@pytest.mark.parametrize("method", [name for name in METHODS if "lora," not in name])
def test_a_run_continues_an_adapter_of_its_own_kind_only(method, trained, make_run):
    keys = METHODS[method] | {"max_steps": 1, "save_strategy": "no", "save_steps": None}
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
    folder, code = trained(**keys, model_name_or_path=str(base), max_steps=1, learning_rate=RATE.get("prompt"))
    assert code == 0, read_status(folder).reason
    assert (folder.output / "model.safetensors").is_file() is merged
    assert (folder.output / "adapter_model.safetensors").is_file() is not merged
    if not merged:
        settings = json.loads((folder.output / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == str(base)
