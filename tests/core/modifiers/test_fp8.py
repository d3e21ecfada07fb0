"""FP8 training: layers computed in 8-bit floats, on this CPU by the operations that a card has in hardware."""

import pytest
import torch

from llf_core.acceleration.patching.causal_head import forward
from llf_core.acceleration.patching.install import accelerate
from llf_core.config import quantizers, validate
from llf_core.methods.method import apply_method
from llf_core.models import ModelError
from llf_core.modifiers import precision
from llf_core.runs import RunReader, read_status
from tests.core.acceleration.architectures import tiny
from tests.core.modifiers.test_mixture_of_depths import flattened, rows

pytest.importorskip("torchao")


@pytest.fixture
def with_card(monkeypatch):
    """A machine that passes for one with a card, whose products of 8-bit floats this CPU computes."""
    monkeypatch.setattr(quantizers, "has_cuda", lambda: True)
    monkeypatch.setattr(precision, "check_card", lambda device: None)


def rounded(tensor, axis):
    """A tensor scaled along an axis to 8-bit floats (E4M3, largest value 448) and back, in float64: arXiv 2209.05433.

    Scales are powers of 2.
    """
    scale = torch.exp2(torch.floor(torch.log2(448 / tensor.abs().amax(axis, keepdim=True).double())))
    return (tensor.double() * scale).to(torch.float8_e4m3fn).double() / scale


def test_a_layer_computes_products_of_8_bit_floats():
    model = tiny("llama", torch.float32)
    layer = model.model.layers[0].mlp.up_proj
    weight, head = layer.weight, model.lm_head
    assert precision.convert(model) == 14  # 4 of attention and 3 of the MLP, in two blocks
    assert model.lm_head is head
    layer = model.model.layers[0].mlp.up_proj
    assert layer.weight is weight
    x = torch.randn(32, layer.in_features, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    out.float().sum().backward()
    expected = rounded(x.detach(), 1) @ rounded(weight.detach(), 1).T
    exact = x.detach().double() @ weight.detach().double().T

    def distance(a, b):
        return float((a.double() - b).norm() / b.norm())

    assert distance(out.detach(), expected) < 4e-3  # bfloat16's own rounding
    assert distance(out.detach(), exact) > 2e-2  # that of 8-bit floats
    ones = torch.ones_like(out, dtype=torch.float64)
    assert distance(layer.weight.grad, ones.T @ rounded(x.detach(), 0)) < 1e-2


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_fast_path_does_not_bypass_it(method, monkeypatch):
    from torchao.float8.float8_linear import Float8Linear

    from llf_core.config import RunConfig

    config = RunConfig.load({"dataset": "llf_demo", "finetuning_type": method, "lora_rank": 16, "pure_bf16": True})
    model = apply_method(tiny("llama", torch.bfloat16), config)
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert precision.convert(model) == 14
    assert [name for name, one in model.named_parameters() if one.requires_grad] == trained
    assert accelerate(model).flattens
    calls, own = [], Float8Linear.forward
    monkeypatch.setattr(Float8Linear, "forward", lambda self, *args: calls.append(self) or own(self, *args))
    loss = forward(model.train(), flattened(rows(16, 16)), lambda hidden, head: hidden.float().pow(2).sum())
    assert len(set(calls)) == 14
    loss.backward()


@pytest.mark.parametrize(
    "changes", [{"finetuning_type": "full"}, pytest.param({"lora_rank": 16}, marks=pytest.mark.long)]
)
def test_a_run_learns_in_8_bit_floats_and_its_result_is_plain(trained, with_card, changes):
    from transformers import AutoModelForCausalLM

    keys = {"max_steps": 3, "save_steps": 3, "learning_rate": 3e-3, "bf16": True} | changes
    plain, code = trained(**keys)
    assert code == 0
    folder, code = trained(fp8=True, **keys)
    assert code == 0, read_status(folder).reason
    one, two = (RunReader(each).metrics().values("loss").tolist() for each in (folder, plain))
    assert one[0] != two[0]
    assert one == pytest.approx(two, rel=0.05)
    assert one[-1] < one[0]
    if "lora_rank" not in changes:
        loaded = AutoModelForCausalLM.from_pretrained(folder.output)
        assert {type(one) for one in loaded.modules() if isinstance(one, torch.nn.Linear)} == {torch.nn.Linear}


def test_without_a_card_it_is_refused(trained, monkeypatch):
    keys = {"dataset": "llf_demo", "fp8": True}
    (problem,) = [one for one in validate(keys | {"use_cpu": True}).problems if one.severity == "error"]
    assert (problem.key, "needs an NVIDIA GPU" in problem.message) == ("fp8", True)
    monkeypatch.setattr(quantizers, "has_cuda", lambda: True)
    assert [one.severity for one in validate(keys).problems if one.key == "fp8"] == ["note"]
    errors = [one.key for one in validate(keys | {"quantization_bit": 4}).problems if one.severity == "error"]
    assert errors == ["fp8"]
    folder, code = trained(fp8=True)
    assert code == 2
    assert "fp8 is true, and the model is on cpu" in read_status(folder).reason


def test_an_older_card_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA RTX A6000")
    with pytest.raises(ModelError, match=r"NVIDIA RTX A6000 has compute capability 8\.6\. Expected 8\.9"):
        precision.check_card(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    precision.check_card(torch.device("cuda"))


def test_a_model_without_layers_for_it_is_refused():
    with pytest.raises(ModelError, match="has no linear layers that can compute in 8-bit floats"):
        precision.convert(tiny("gpt2", torch.float32))
