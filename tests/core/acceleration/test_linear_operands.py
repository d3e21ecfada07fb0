"""Modules as operands of the fast product: each against its own forward, and those that must not be taken."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrizations
from transformers.pytorch_utils import Conv1D

from llf_core.acceleration.patching.fast_forwards import install, linear_forward, operand, operands
from llf_core.acceleration.patching.install import accelerate
from llf_core.models.lazy_imports import import_bitsandbytes
from llf_core.models.quantize import keep_differentiable
from llf_core.stages.sft import SFT
from tests.core.acceleration.architectures import tiny
from tests.core.acceleration.test_models import batch, distance, gradients, with_lora


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def adapted(layer, **options):
    """A layer with LoRA whose B is not zero."""
    model = get_peft_model(Net(layer), LoraConfig(r=3, lora_alpha=6, target_modules=["layer"], **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    return model.base_model.model.layer


def frozen(layer):
    return layer.requires_grad_(requires_grad=False)


def four_bits(**options):
    import_bitsandbytes()
    import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(64, 48, compute_dtype=torch.float32, quant_type="nf4", **options)
    layer = layer.to("cpu")  # which quantizes
    keep_differentiable(layer)
    return frozen(layer)


KNOWN = {
    "linear": lambda: frozen(nn.Linear(64, 48)),
    "linear without bias": lambda: frozen(nn.Linear(64, 48, bias=False)),
    "conv1d": lambda: frozen(Conv1D(48, 64)),
    "4 bits": four_bits,
    "4 bits, once quantized": lambda: four_bits(compress_statistics=False),
    "lora": lambda: adapted(nn.Linear(64, 48)),
    "rslora": lambda: adapted(nn.Linear(64, 48), use_rslora=True),
    "lora of conv1d": lambda: adapted(Conv1D(48, 64), fan_in_fan_out=True),
    "lora of 4 bits": lambda: adapted(four_bits()),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_product_is_the_modules_own(name):
    torch.manual_seed(0)
    module = KNOWN[name]().train()
    twin = copy.deepcopy(module)
    assert operand(module) is not None
    install(module, linear_forward)
    generator = torch.Generator().manual_seed(1)
    x, weights = (torch.randn(2, 5, size, generator=generator) for size in (64, 48))
    results = []
    for each in (module, twin):
        one = x.clone().requires_grad_()
        output = each(one)
        (output * weights).sum().backward()
        results.append([output, one.grad, *gradients(each).values()])
    assert len(results[0]) == (4 if "lora" in name else 2)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def hooked():
    layer = frozen(nn.Linear(4, 4))
    layer.register_forward_hook(lambda *_: None)
    return layer


def eight_bits():
    import_bitsandbytes()
    import bitsandbytes

    return frozen(bitsandbytes.nn.Linear8bitLt(16, 16, has_fp16_weights=False))


def adalora():
    config = AdaLoraConfig(r=3, target_modules=["layer"], total_step=10)
    return get_peft_model(Net(nn.Linear(8, 8)), config).base_model.model.layer


def hooked_adapter():
    layer = adapted(nn.Linear(4, 4))
    layer.lora_A["default"].register_forward_hook(lambda *_: None)
    return layer


def trained_bias():
    layer = frozen(nn.Linear(4, 4))
    layer.bias.requires_grad_(requires_grad=True)
    return layer


UNKNOWN = {
    "trained": lambda: nn.Linear(4, 4),
    "trained bias": trained_bias,
    "hooked": hooked,
    "parametrized": lambda: frozen(parametrizations.weight_norm(nn.Linear(4, 4))),
    "a subclass": lambda: frozen(type("Clipped", (nn.Linear,), {})(4, 4)),
    "embedding": lambda: frozen(nn.Embedding(4, 4)),
    "8 bits": eight_bits,
    "dora": lambda: adapted(nn.Linear(4, 4), use_dora=True),
    "dropout": lambda: adapted(nn.Linear(4, 4), lora_dropout=0.1),
    "bias of lora": lambda: adapted(nn.Linear(4, 4), lora_bias=True),
    "lora of a trained layer": lambda: adapted(nn.Linear(4, 4)).requires_grad_(requires_grad=True),
    "hooked adapter": hooked_adapter,
    "adalora": adalora,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_modules_are_left_to_themselves(name):
    module = UNKNOWN[name]().train()
    assert operand(module) is None
    assert operands([frozen(nn.Linear(4, 4)), module]) is None


def test_dropout_counts_only_in_training():
    module = adapted(nn.Linear(4, 4), lora_dropout=0.1)
    assert operand(module.eval()) is not None


def test_a_weight_that_was_repacked_for_inference_is_left_alone():
    layer = four_bits()
    layer.weight.quant_state.packing_format_for_cpu = True
    assert operand(layer) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantized_model_trains_as_pefts_own_layers_do(dtype, tmp_path):
    import_bitsandbytes()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tiny("qwen2", dtype).save_pretrained(tmp_path)
    bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    models = []
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(
            tmp_path, quantization_config=bits, device_map={"": "cpu"}, dtype=dtype
        )
        keep_differentiable(model)
        models.append(with_lora(model).train())
    fast, plain = models
    done = accelerate(fast)
    assert done.flattens
    assert "2 attentions" in done.notes[0]
    assert accelerate(plain).flattens
    for module in plain.modules():  # the attention by documents stays
        if type(module).__name__ == "Linear4bit" or hasattr(module, "down_proj") or hasattr(module, "q_proj"):
            vars(module).pop("forward", None)
    for training in (True, False, True):  # an evaluation between the steps must not repack the weights
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            losses = [SFT().loss_sum(model.train(training), batch()) for model in (fast, plain)]
        tolerance = 1e-6 if dtype == torch.float32 else 2**-7
        assert abs(losses[0] - losses[1]) / losses[1] < tolerance
        for model, loss in zip(models, losses, strict=True):
            model.zero_grad()
            loss.backward()
        assert distance(gradients(fast), gradients(plain)) < (4e-6 if dtype == torch.float32 else 0.06)
