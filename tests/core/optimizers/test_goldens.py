"""Twenty steps on fixed gradients follow the original libraries, whose weights `goldens/make.py` has written."""

import numpy as np
import pytest
import torch

from llf_core.config import RunConfig
from llf_core.config.registry import optimizer_of
from llf_core.optimizers.low_rank import ApolloOptimizer
from llf_core.optimizers.optimizer import Optimizer
from tests.core.optimizers.goldens.make import DECAY, EPSILON, SHARED, SIDES, square
from tests.core.optimizers.problem import GOLDENS, MATRICES, RATE, STEPS, backward, model, numbers, rate, run

CLOSE = 1e-5
GALORE = {"use_galore": True, "galore_rank": 3, "galore_update_interval": 5, "galore_scale": 0.5}
APOLLO = {"use_apollo": True, "apollo_rank": 8, "apollo_update_interval": 5, "apollo_scale": 1.0}
BADAM = {"use_badam": True, "badam_switch_interval": 4}
BETAS = {"adam_beta2": 0.95}
CASES = {
    **{f"galore_{side}": GALORE | {"galore_proj_type": side, "adam_epsilon": EPSILON[side]} for side in SIDES},
    "galore_adafactor": GALORE | {"optim": "adafactor", "weight_decay": 0.0},
    "apollo_channel": APOLLO | {"weight_decay": 0.0},
    "apollo_tensor": APOLLO | {"apollo_scale_type": "tensor", "weight_decay": 0.0},
    "badam_ascending": BADAM,
    "badam_descending": BADAM | {"badam_switch_mode": "descending"},
    "badam_fixed": BADAM | {"badam_switch_mode": "fixed", "badam_start_block": 1},
    "adam_mini": {"use_adam_mini": True},
    "muon": {"use_muon": True},
    "lomo": {"optim": "lomo", "weight_decay": 0.0},
    "adalomo": {"optim": "adalomo"},
    "schedule_free_adamw": BETAS | {"optim": "schedule_free_adamw"},
    "schedule_free_radam": BETAS | {"optim": "schedule_free_radam"},
    "schedule_free_sgd": {"optim": "schedule_free_sgd"},
    "stable_adamw": {"optim": "stable_adamw", "adam_beta2": 0.99},
    "grokadamw": {"optim": "grokadamw"},
}
"""Settings by golden."""
LAYERWISE = {
    **{f"galore_{side}": CASES[f"galore_{side}"] | {"galore_layerwise": True} for side in SIDES},
    "apollo_channel": APOLLO | {"apollo_layerwise": True, "weight_decay": 0.0},
    "lomo": CASES["lomo"],
    "adalomo": CASES["adalomo"],
}
NO_NORM_GROUP = {
    "adalomo", "schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd", "stable_adamw", "grokadamw",
}  # fmt: skip
"""Goldens of libraries that were given one group, in which norms are decayed too."""
BLOCKS = {"badam_ascending", "badam_descending", "badam_fixed"}


@pytest.fixture(autouse=True)
def cache_of_the_compiler(monkeypatch, tmp_path):
    """torch sets it when it is first asked for."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


def build(root, name, settings):
    """The optimizer of a config for the fixed model, as a run builds it."""
    config = RunConfig.load(
        {"dataset": "x", "finetuning_type": "full", "learning_rate": RATE, "weight_decay": DECAY} | settings
    )
    parameters = list(root.parameters())
    whole = name in NO_NORM_GROUP | BLOCKS
    decay = config.optimizer.weight_decay
    groups = [
        {"params": [one for one in parameters if whole or one.dim() > 1], "weight_decay": decay},
        {"params": [one for one in parameters if not whole and one.dim() == 1], "weight_decay": 0.0},
    ]
    return optimizer_of(config).load(Optimizer)(config).build(root, groups)


def golden(name):
    with np.load(GOLDENS / f"{name}.npz") as stored:
        return dict(stored)


def largest_difference(found, expected):
    assert found.keys() == expected.keys()
    return max(float(np.abs(found[name] - expected[name]).max()) for name in expected)


@pytest.fixture
def same_projections(monkeypatch):
    """APOLLO's projections as `make.py` has them."""

    def projection(self, parameter, gradient, state, group, side):
        return square(gradient.shape[1 if side == "right" else 0])

    monkeypatch.setattr(ApolloOptimizer, "projection", projection)


@pytest.mark.parametrize("name", [name for name in CASES if name not in LAYERWISE or "lomo" not in name])
def test_the_weights_are_those_of_the_original(same_projections, name):
    root = model()
    optimizer = build(root, name, CASES[name])
    found = run(root, optimizer)
    if name.startswith("schedule_free"):
        optimizer.eval()
        found |= {f"{key}@average": one.detach().numpy().copy() for key, one in root.named_parameters()}
    moved = max(float(np.abs(weight - numbers()[key.partition("@")[0]]).max()) for key, weight in found.items())
    assert moved > 100 * CLOSE
    assert largest_difference(found, golden(name)) < CLOSE


@pytest.mark.parametrize("name", LAYERWISE)
def test_updates_in_the_backward_pass_are_the_same(same_projections, name):
    root = model()
    optimizer = build(root, name, LAYERWISE[name])

    def step(number):
        root.zero_grad()
        backward(root, number)
        assert all(one.grad is None for one in root.parameters())
        optimizer.step()
        gradients = [numbers()[f"grad.{key}"][number].astype(np.float64) for key, _ in root.named_parameters()]
        norm = np.sqrt(sum(np.square(one).sum() for one in gradients))
        assert optimizer.gradient_norm.item() == pytest.approx(norm, rel=1e-5)

    assert largest_difference(run(root, optimizer, step), golden(name)) < CLOSE


@pytest.mark.parametrize("mask", ["adjacent", "scatter"])
def test_shares_are_those_of_badam(mask):
    from llf_core.optimizers.badam import ShareOptimizer

    root = model()
    shared = [root.get_parameter(name) for name in SHARED]
    defaults = {"lr": RATE, "betas": (0.9, 0.999), "eps": 1e-8}
    optimizer = ShareOptimizer(
        [{"params": shared, "weight_decay": 0.0}], defaults, share=0.3, scatter=mask == "scatter", seed=0
    )
    assert largest_difference(run(root, optimizer), golden(f"badam_{mask}")) < CLOSE
    changed = [(one.detach().numpy() != numbers()[name]).mean() for name, one in zip(SHARED, shared, strict=True)]
    assert changed == pytest.approx([int(one.numel() * 0.3) / one.numel() for one in shared])


def test_galore_in_8_bits_follows_galore():
    """On matrices of which the moments are large enough to be kept in 8 bits; within the rounding of 8 bits."""
    from llf_core.optimizers.low_rank import DIRECTIONS, ProjectedOptimizer

    drawn = np.random.default_rng(1)
    gradients = drawn.standard_normal((STEPS, 600, 16)).astype(np.float32)
    found = {}
    for base in ("adamw_torch", "adamw_8bit"):
        weight = torch.nn.Parameter(torch.zeros(600, 16))
        settings = {"rank": 8, "interval": 5, "scale": 1.0, "side": "std", "weight_decay": 0.0}
        optimizer = ProjectedOptimizer(
            [{"params": [weight], **settings}],
            {"lr": RATE, "betas": (0.9, 0.999), "eps": 1e-8},
            direction=DIRECTIONS[base],
        )
        for number in range(STEPS):
            optimizer.param_groups[0]["lr"] = rate(number)
            weight.grad = torch.from_numpy(gradients[number].copy())
            optimizer.step()
        found[base] = weight.detach()
        if base == "adamw_8bit":
            assert optimizer.state[weight]["exp_avg"].dtype == torch.uint8
    away = (found["adamw_8bit"] - found["adamw_torch"]).norm() / found["adamw_torch"].norm()
    assert 0 < away < 0.05


def test_muon_has_as_many_matrices_as_the_golden():
    root = model()
    optimizer = build(root, "muon", {"use_muon": True})
    names = {one: name for name, one in root.named_parameters()}
    hidden = {names[one] for group in optimizer.param_groups if "momentum" in group for one in group["params"]}
    assert hidden == set(MATRICES)
