"""Layers that carry a state, in flattened batches: each document has the numbers that it has alone."""

import copy

import pytest
import torch

from llf_core.acceleration.patching.install import accelerate
from llf_core.data import Collator
from llf_core.stages.sft import SFT
from tests.core.acceleration.architectures import tiny
from tests.core.acceleration.test_models import (
    NoTokenizer,
    batch,
    distance,
    features,
    gradients,
    log_probs_of,
    plain_loss,
    with_lora,
)

# Modules that are called for one document after the other, of two or three layers.
LOOPED = {
    "lfm2": 1,
    "lfm2-moe": 1,
    "qwen3-next": 1,
    "qwen3.5": 1,
    "qwen3.5-moe": 1,
    "olmo-hybrid": 1,
    "minimax": 1,
    "bamba": 1,
    "falcon-h1": 2,
    "granite-hybrid": 1,
    "nemotron-h": 1,
    "zamba2": 3,
    "jamba": 1,
    "recurrent-gemma": 2,
    "llama4": 2,
}
STATES = ("lfm2", "qwen3-next", "bamba")
OFTEN = (*STATES, "llama4")
MATRIX = [pytest.param(name, marks=() if name in OFTEN else pytest.mark.long) for name in LOOPED]


def mild(name):
    """Weights that do not blow up what rounding makes: transformers computes a delta rule in float32 at most."""
    model = tiny(name).train()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in key:
                parameter.mul_(0.5)
    return model


def in_float64(model):
    """The model itself, so that it stays accelerated."""
    inner = model.double().get_base_model() if hasattr(model, "get_base_model") else model.double()
    if hasattr(inner, "set_experts_implementation"):
        inner.set_experts_implementation("eager")


@pytest.mark.parametrize("name", MATRIX)
def test_a_document_of_a_packed_row_is_as_if_alone(name):
    """Forward in float32 to 1e-5; loss and gradients in float64, where rounding hides nothing."""
    fast = mild(name)
    plain = copy.deepcopy(fast)
    done = accelerate(fast)
    assert done.flattens, done.why
    assert any(note.startswith(f"{LOOPED[name]} module") for note in done.notes), done.notes
    with torch.no_grad():
        alone = [plain(input_ids=torch.tensor([one["input_ids"]])).logits[0] for one in features()]
        beside = log_probs_of(fast, batch())
        filled = log_probs_of(fast, Collator(NoTokenizer(), flatten=True, fill=64)([{"examples": features()}]))
    alone = torch.cat(alone).log_softmax(-1)
    torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-5 * float(alone.abs().max()))
    torch.testing.assert_close(filled[: len(alone)], alone, rtol=1e-5, atol=1e-5 * float(alone.abs().max()))
    for model in (fast, plain):
        in_float64(model)
    losses = [SFT().loss_sum(fast, batch()), plain_loss(plain)]
    for loss in losses:
        loss.backward()
    assert abs(losses[0] - losses[1]) < 1e-5 * losses[1]
    got, wanted = gradients(fast), gradients(plain)
    assert got.keys() == wanted.keys()
    assert distance(got, wanted) < 1e-5


@pytest.mark.parametrize("name", MATRIX)
def test_with_lora_and_checkpoints_in_between(name):
    torch.manual_seed(0)
    targets = ["q_proj", "v_proj"] if name == "llama4" else "all-linear"  # its router is no plain linear layer
    fast = with_lora(mild(name), target_modules=targets, exclude_modules=["out_proj"]).train()
    plain = copy.deepcopy(fast)
    assert accelerate(fast).flattens
    fast.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    for model in (fast, plain):
        in_float64(model)
    first = [features(seed=seed) for seed in (3, 4)]
    # The second forward comes before the first backward: what is computed again must not take the other's documents.
    losses = [sum(SFT().loss_sum(fast, batch(of)) for of in first), sum(plain_loss(plain, of) for of in first)]
    for loss in losses:
        loss.backward()
    assert abs(losses[0] - losses[1]) < 1e-5 * losses[1]
    assert distance(gradients(fast), gradients(plain)) < 1e-5


@pytest.mark.parametrize("name", MATRIX)
def test_branches_of_a_document_do_not_see_each_other(name):
    model = tiny(name).eval()
    assert accelerate(model).forks


@pytest.mark.parametrize("name", STATES)
def test_small_states_are_found_in_half_precision(name):
    """What runs on is far below the rounding of bfloat16."""
    model = tiny(name).train()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("out_proj.weight"):
                parameter.mul_(1e-3)
    done = accelerate(model.bfloat16())
    assert done.flattens
    assert any(note.startswith(f"{LOOPED[name]} module") for note in done.notes), done.notes
