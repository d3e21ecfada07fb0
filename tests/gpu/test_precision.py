"""What each number format makes of a training, beside float64 and beside the CPU."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import AutoModelForCausalLM

from llf_core.config import RunConfig
from llf_core.models import load_model, plan_device, resolve_model
from llf_core.runs import read_status
from llf_core.training import make_trainer, session
from llf_core.training.trainer import RunTrainer
from tests.gpu.conftest import events, losses, resolved

# How far a loss may be from float64, as a share of it. The weights are rounded to the format (2^-24, 2^-11, 2^-8), and
# so is what passes each of the two layers; a mean over some hundred tokens levels most of it out.
LOSS = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 5e-3}
# The same of gradients, as relative distance of norms; single numbers in them level nothing out.
GRADIENT = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 6e-2}
ASKED = {"float32": {}, "float16": {"fp16": True}, "bfloat16": {"bf16": True}}


@pytest.fixture(params=list(ASKED))
def dtype(request, device, precise):
    """A format that the device computes in, chosen as a config chooses it."""
    name = request.param
    if name == "float32":
        precise("float32")
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip(f"{torch.cuda.get_device_name()} does not compute in bfloat16.")
    return name


def refused_on_a_cpu(trained, device, dtype):
    """float16 is for cards: on a CPU the same config is refused with a sentence."""
    if dtype != "float16" or device.type == "cuda":
        return False
    folder, code = trained(fp16=True, use_cpu=None)
    if torch.cuda.is_available():  # the rehearsal on a machine with a card
        return code == 0
    assert code == 2
    assert "fp16: true needs a GPU" in read_status(folder).reason
    return True


@pytest.mark.parametrize("method", ["lora", "full"])
def test_six_steps_are_those_of_the_cpu_in_float32(trained, device, dtype, method, precise):
    if refused_on_a_cpu(trained, device, dtype):
        return
    # An update of Adam is a sign at first, so that rounding soon grows: small steps, and few of them.
    same = {"finetuning_type": method, "learning_rate": 1e-4, "max_steps": 6}
    folder, code = trained(**same, **ASKED[dtype])
    assert code == 0, read_status(folder).reason
    assert resolved(folder)["autocast"] == (None if dtype == "float32" else dtype)
    precise("float32")
    on_cpu, code = trained(**same, use_cpu=True)
    assert code == 0, read_status(on_cpu).reason
    assert losses(folder) == pytest.approx(losses(on_cpu), rel=4 * LOSS[dtype])
    assert [event for event in events(folder, "warning") if "loss is" in event["message"]] == []


@pytest.mark.parametrize("method", ["lora", "full"])
def test_loss_and_gradients_of_a_step_are_those_of_float64(make_run, device, dtype, method, trained, monkeypatch):
    """The trainer's own first step, beside a plain forward of the same weights in float64 on the CPU."""
    if refused_on_a_cpu(trained, device, dtype):
        return
    seen = {}

    class WatchedPrompts(RunTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            if "batch" not in seen:
                perturb(model)
                seen["model"] = copy.deepcopy(model).cpu().double()
                seen["batch"] = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
            return super().training_step(model, inputs, num_items_in_batch)

        def look(self):
            scale = self.accelerator.scaler.get_scale() if self.accelerator.scaler is not None else 1.0
            seen["gradients"] = {
                name: one.grad.detach().cpu().double() / scale
                for name, one in self.model.named_parameters()
                if one.grad is not None
            }

    monkeypatch.setattr(make_trainer, "RunTrainer", WatchedPrompts)
    made = session.make_trainer

    def make(*args):
        trainer = made(*args)
        plain = trainer.accelerator.backward

        def backward(loss, **kwargs):
            plain(loss, **kwargs)
            if "gradients" not in seen:
                trainer.look()

        trainer.accelerator.backward = backward
        return trainer

    monkeypatch.setattr(session, "make_trainer", make)
    folder = make_run(
        finetuning_type=method, max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=1,
        **ASKED[dtype],
    )  # fmt: skip
    assert session.run_attempt(folder, 1) == 0, read_status(folder).reason
    model, batch = seen["model"], seen["batch"]
    expected = plain_loss(model, batch)
    expected.backward()
    assert losses(folder)[0] == pytest.approx(expected.item(), rel=LOSS[dtype])
    own = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    assert seen["gradients"].keys() == own.keys()
    whole = torch.cat([one.flatten() for one in own.values()])
    found = torch.cat([seen["gradients"][name].flatten() for name in own])
    assert float((found - whole).norm() / whole.norm()) < GRADIENT[dtype]


def perturb(model):
    """Numbers for the adapters' second matrices, which begin as zeros, so that the first ones have gradients too."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)


def plain_loss(model, batch):
    """The mean loss of a flattened batch, document by document, by the modules' own forwards."""
    for module in model.modules():
        vars(module).pop("forward", None)
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    causal.set_attn_implementation("eager")
    total, count = 0.0, 0
    ends = batch["cu_seq_lens_q"].tolist()
    for start, end in pairwise(ends):
        ids, labels = batch["input_ids"][:, start:end], batch["labels"][0, start + 1 : end]
        logits = causal(input_ids=ids, use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        count += int((labels != -100).sum())
    return total / count


def test_trained_weights_do_not_become_float16_on_the_way(settings, tiny_model_dir, tmp_path):
    """What bfloat16 holds below 6e-5, float16 rounds: a base that is trained is loaded as it is stored."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(1e-9)
    model.save_pretrained(tmp_path / "stored")
    config = RunConfig.load(settings | {"model_name_or_path": str(tmp_path / "stored"), "finetuning_type": "full"})
    plan = plan_device(config)
    half = type(plan)(plan.device, "float16", "float16", plan.threads, "")
    loaded = load_model(resolve_model(str(tmp_path / "stored"), config), config, half)
    weight = loaded.model.layers[0].mlp.up_proj.weight
    assert weight.device.type == plan.device
    assert float(weight.mean()) == pytest.approx(1e-9, rel=1e-2)
