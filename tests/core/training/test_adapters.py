"""Each adapter of PEFT through whole attempts of a tiny real Llama: trained, stopped and resumed, reloaded, merged."""

import json
from copy import deepcopy

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from llf_core.acceleration.patching.install import restore
from llf_core.models import device
from llf_core.models.quantize import keep_differentiable
from llf_core.runs import read_status
from llf_core.training import session
from tests.core.training.test_session import losses, next_attempt, stop_at

METHODS = {
    "oft": {"finetuning_type": "oft", "oft_block_size": 16},
    "boft": {"finetuning_type": "boft"},
}
RATE = 0.02
PRECISIONS = {"fp32": {}, "bf16": {"bf16": True}, "nf4": {"quantization_bit": 4}}
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
IN_FOUR_BITS = {"oft", "boft"}
PAIRS = [
    pytest.param(method, precision, marks=[] if precision == "fp32" else pytest.mark.long)
    for method in METHODS
    for precision in PRECISIONS
    if precision != "nf4" or method in IN_FOUR_BITS
]


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    """A machine that is not faster in bfloat16, so that a run without `bf16` computes in float32."""
    monkeypatch.setattr(device, "bf16_speedup", lambda threads: 1.0)


@pytest.fixture
def logits_at_the_end(monkeypatch):
    """Logits of the trained model in memory, taken before its result is written."""
    kept = []
    original = session.save_output

    def save_output(model, tokenizer, *rest):
        alone = deepcopy(model)
        vars(alone).pop("forward", None)  # accelerate's, which computes in the precision of the run
        restore(alone)
        alone.get_base_model().set_attn_implementation("sdpa")
        kept.append(logits(alone, tokenizer))
        return original(model, tokenizer, *rest)

    monkeypatch.setattr(session, "save_output", save_output)
    return kept


def texts(tokenizer):
    rows = [f"What is {number} plus 2?" for number in range(4)]
    batch = [tokenizer.apply_chat_template([{"role": "user", "content": row}], tokenize=False) for row in rows]
    return tokenizer(batch, return_tensors="pt", padding=True)


@torch.no_grad()
def logits(model, tokenizer):
    training = model.training
    model.eval()
    found = model(**texts(tokenizer)).logits.clone()
    model.train(training)
    return found


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


def step_loss(folder, step):
    return float.fromhex(losses(folder)[step])


@pytest.mark.parametrize(("method", "precision"), PAIRS)
def test_a_run_stops_resumes_to_the_last_bit_reloads_and_merges(
    method, precision, trained, make_run, monkeypatch, logits_at_the_end, tiny_model_dir
):
    keys = {"max_steps": 4, "save_steps": 2, "learning_rate": RATE} | METHODS[method] | PRECISIONS[precision]
    whole, code = trained(**keys)
    assert code == 0, read_status(whole).reason
    assert step_loss(whole, 4) < step_loss(whole, 1)

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
    base = logits(plain_base(tiny_model_dir, precision), tokenizer)
    model = PeftModel.from_pretrained(plain_base(tiny_model_dir, precision), whole.output)
    found = logits(model, tokenizer)
    assert torch.equal(found, logits_at_the_end[0])
    assert (found - base).abs().max() > 1e-2
    if precision == "fp32":
        torch.testing.assert_close(logits(model.merge_and_unload(), tokenizer), found, rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_continues_an_adapter_of_its_own_kind_only(method, trained, make_run):
    keys = METHODS[method] | {"max_steps": 1, "save_strategy": "no", "save_steps": None, "learning_rate": RATE}
    first, code = trained(**keys)
    assert code == 0, read_status(first).reason
    second, code = trained(**keys, adapter_name_or_path=str(first.output))
    assert code == 0, read_status(second).reason
    kind = json.loads((second.output / "adapter_config.json").read_text())["peft_type"]
    assert kind == json.loads((first.output / "adapter_config.json").read_text())["peft_type"]
    third, code = trained(finetuning_type="lora", max_steps=1, adapter_name_or_path=str(first.output))
    assert code == 2
    assert f"Set finetuning_type: {method}" in read_status(third).reason
