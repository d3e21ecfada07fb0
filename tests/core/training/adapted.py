"""What a trained adapter computes: fixtures and helpers of the tests of methods."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from llf_core.acceleration.patching.install import restore
from llf_core.models import device
from llf_core.models.quantize import keep_differentiable
from llf_core.training import save_run_result
from tests.attempts import QUESTIONS

ADAPTERS = {
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
    "lora, DoRA": {"use_dora": True},
    "lora, embeddings too": {"additional_target": "embed_tokens"},
    "peft": {"finetuning_type": "peft", "peft_type": "LOHA", "peft_options": {"r": 4}},
}
"""Settings by a name of the case; those of LoRA's variants begin with `lora,`."""
RATES = {"prompt": 0.3, "prefix": 0.3, "vera": 0.3, "ia3": 0.3}
"""Learning rates of methods that need a high one to learn anything in four steps."""


@pytest.fixture
def in_float32(monkeypatch):
    """A machine that is not faster in bfloat16, so that a run without `bf16` computes in float32."""
    monkeypatch.setattr(device, "bf16_speedup", lambda threads: 1.0)


@pytest.fixture
def logits_at_the_end(monkeypatch):
    """Logits of the trained model in memory, taken before its result is written."""
    kept = []
    original = save_run_result.save_output

    def save_output(model, tokenizer, *rest):
        forward = vars(model).pop("forward", None)  # accelerate's, which computes in the precision of the run
        restore(model)
        getattr(model, "get_base_model", lambda: model)().set_attn_implementation("sdpa")
        kept.append(logits(model, tokenizer))
        vars(model).update({} if forward is None else {"forward": forward})
        return original(model, tokenizer, *rest)

    monkeypatch.setattr(save_run_result, "save_output", save_output)
    return kept


@torch.no_grad()
def logits(model, tokenizer):
    """Logits `[4, tokens, V]` of four padded questions."""
    rows = [f"What is {number} plus 2?" for number in range(4)]
    batch = [tokenizer.apply_chat_template([{"role": "user", "content": row}], tokenize=False) for row in rows]
    training = model.training
    model.eval()
    found = model(**tokenizer(batch, return_tensors="pt", padding=True)).logits.clone()
    model.train(training)
    return found


@torch.no_grad()
def answer_loss(model, tokenizer):
    """Mean loss over the tokens of some of the conversations that were trained on."""
    turns = [
        [{"role": "user", "content": QUESTIONS[n]}, {"role": "assistant", "content": f"It is number {n}."}]
        for n in range(4)
    ]
    losses = []
    for one in turns:
        ids = torch.tensor([tokenizer.apply_chat_template(one)["input_ids"]])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :].float()
        losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]))
    return torch.stack(losses).mean()


def plain_base(folder, precision):
    """A model as plain transformers loads it, in `fp32`, `bf16`, `nf4`, `int8` or `torchao`, or as HQQ quantizes it."""
    if precision in {"fp32", "bf16"}:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype={"fp32": torch.float32}.get(precision, torch.bfloat16)
        )
    if precision == "hqq":
        return _with_hqq(folder)
    if precision == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        bits = TorchAoConfig(Int8WeightOnlyConfig(version=2))
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=bits)
    bits = BitsAndBytesConfig(
        load_in_4bit=precision == "nf4", load_in_8bit=precision == "int8", bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=bits)
    keep_differentiable(model)  # else bitsandbytes evaluates with another kernel than it trains with
    return model


def _with_hqq(folder):
    """The model in 4 bits, quantized by HQQ's own function for models of transformers."""
    from hqq.core.quantize import BaseQuantizeConfig
    from hqq.models.hf.base import AutoHQQHFModel

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    settings = BaseQuantizeConfig(nbits=4, group_size=64, axis=0)
    AutoHQQHFModel.quantize_model(model, settings, compute_dtype=torch.float32, device="cpu")
    return model
