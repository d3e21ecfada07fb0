"""Every method and modifier in every precision, with a tiny Llama: trained, resumed, reloaded and merged."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.config.declaration import MethodDeclaration, ModifierDeclaration
from llf_core.config.quantizers import QUANTIZERS
from llf_core.config.registry import declared
from llf_core.models.mixture_of_depths import restore_routers
from llf_core.runs import read_status
from llf_core.training import session
from tests.core.training.adapted import ADAPTERS, RATES, answer_loss, logits, plain_base
from tests.core.training.test_session import losses, next_attempt, stop_at

pytestmark = pytest.mark.usefixtures("in_float32")
FULL = {"finetuning_type": "full"}
METHODS = ADAPTERS | {
    "full": FULL,
    "full, norms in float32": FULL | {"upcast_layernorm": True},
    "full, random weights": FULL | {"train_from_scratch": True},
    "full, Mixture-of-Depths": FULL | {"mixture_of_depths": "convert", "mod_capacity": 0.5},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "freeze, LLaMA Pro": {
        "finetuning_type": "freeze", "use_llama_pro": True, "llama_pro_insert": True, "freeze_trainable_layers": 2,
    },
    "lora, noise": {"neftune_noise_alpha": 5.0},
    "lora, shifted attention": {"shift_attn": True, "shift_attn_group": 8},
}  # fmt: skip
ELSEWHERE = {"mixture_of_depths", "moe_aux_loss_coef", "fp8", "enable_liger_kernel"}
"""Switches that need another model or a GPU, or whose result LLF alone loads: see `tests/core/modifiers`."""
PRECISIONS = {
    "fp32": {}, "bf16": {"bf16": True}, "nf4": {"quantization_bit": 4}, "int8": {"quantization_bit": 8},
    "hqq": {"quantization_method": "hqq", "quantization_bit": 4},
    "torchao": {"quantization_method": "torchao", "quantization_bit": 8},
}  # fmt: skip
OTHERS = {"hqq", "torchao"}
"""Quantizers beside bitsandbytes: PEFT supports them in fewer adapters."""
UNMERGED = {"prompt", "prefix"}
CONVERTED = {"lora, pissa", "lora, exact pissa", "lora, olora", "lora, corda"}
"""Initialisations whose result is converted, so that it equals the trained model within rounding."""
WHOLE = {name for name in METHODS if name.startswith(("full", "freeze"))}
"""Methods whose result is a model."""
BITSANDBYTES_ONLY = {"adalora", "ia3"}
UNQUANTIZED = WHOLE | CONVERTED | {"peft", "lora, orthogonal"}
NOT_BY_PEFT = {
    # The embeddings are trained in float32, with which a bfloat16 model computes under autocast alone.
    ("lora, embeddings too", "bf16"),
    # Refused, see `test_dora_in_8_bits_is_refused_on_a_cpu`.
    ("lora, DoRA", "int8"),
}


def _marks(method, precision):
    """Long but for the methods in float32 and plain LoRA over each quantizer; skipped where a package is missing."""
    if precision in OTHERS and QUANTIZERS[precision].missing_packages():
        return pytest.mark.skip(reason=f"{precision} is not installed")
    return [] if precision == "fp32" or (method, precision) in {("lora", one) for one in OTHERS} else pytest.mark.long


PAIRS = [
    pytest.param(method, precision, marks=_marks(method, precision))
    for method in METHODS
    for precision in PRECISIONS
    if (method not in UNQUANTIZED or precision in {"fp32", "bf16"})
    and (method, precision) not in NOT_BY_PEFT
    and not (method in BITSANDBYTES_ONLY and precision in OTHERS)
]


def test_every_method_and_modifier_is_in_the_matrix():
    methods = {keys.get("finetuning_type", "lora") for keys in METHODS.values()}
    assert methods == declared(MethodDeclaration).keys()
    switches = {one.switch for one in declared(ModifierDeclaration).values()}
    assert switches - ELSEWHERE <= {key for keys in METHODS.values() for key in keys}


def plain_result(folder, base, precision):
    """The result as plain transformers loads it, over the base as plain transformers and PEFT load it."""
    if (folder / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(plain_base(base, precision), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    restore_routers(model, folder)
    return model


@pytest.mark.parametrize(("method", "precision"), PAIRS)
def test_a_run_stops_resumes_to_the_last_bit_reloads_and_merges(
    method, precision, trained, make_run, monkeypatch, logits_at_the_end, tiny_model_dir
):
    keys = (
        {"max_steps": 4, "save_steps": 2, "learning_rate": RATES.get(method, 0.02)}
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
    file = "model.safetensors" if method in WHOLE else "adapter_model.safetensors"
    first, second = (load_file(run.output / file) for run in (whole, halves))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)

    tokenizer = AutoTokenizer.from_pretrained(whole.output)
    base = plain_base(tiny_model_dir, precision).eval()
    model = plain_result(whole.output, tiny_model_dir, precision)
    found = logits(model, tokenizer)
    if method in CONVERTED:
        torch.testing.assert_close(found, logits_at_the_end[0], rtol=0, atol=1e-5 if precision == "fp32" else 0.05)
        settings = json.loads((whole.output / "adapter_config.json").read_text())
        assert (settings["r"], settings["init_lora_weights"]) == (16, True)
    else:
        assert torch.equal(found, logits_at_the_end[0])
    assert answer_loss(model, tokenizer) < answer_loss(base, tokenizer)
    if precision == "fp32" and method not in UNMERGED | WHOLE:
        torch.testing.assert_close(logits(model.merge_and_unload(), tokenizer), found, rtol=0, atol=1e-3)
