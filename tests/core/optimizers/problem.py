"""A fixed problem for optimizers: a model of a few small parameters with the names of a Llama, and 20 gradients."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

GOLDENS = Path(__file__).parent / "goldens"
STEPS = 20
KEPT = (1, 20)
"""Steps after which the goldens hold the weights."""
RATE = 0.01
SHAPES = {
    "model.embed_tokens.weight": (12, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.mlp.up_proj.weight": (16, 8),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.1.self_attn.q_proj.weight": (8, 8),
    "model.layers.1.mlp.down_proj.weight": (8, 16),
    "model.layers.1.input_layernorm.weight": (8,),
    "model.layers.2.mlp.up_proj.weight": (16, 8),
    "lm_head.weight": (12, 8),
}
MATRICES = tuple(name for name, shape in SHAPES.items() if "layers" in name and len(shape) == 2)


def numbers() -> dict[str, np.ndarray]:
    """Initial weights by name, and gradients `[steps, ...]` by `grad.` and name."""
    with np.load(GOLDENS / "problem.npz") as stored:
        return dict(stored)


def rate(step: int) -> float:
    """The learning rate of a step, counted from 0: a schedule that falls."""
    return RATE * (1 - step / 40)


def model() -> nn.Module:
    """A model with these parameters, and a config of two heads of four rows."""
    root = nn.Module()
    stored = numbers()
    for name in SHAPES:
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        setattr(module, last, nn.Parameter(torch.from_numpy(stored[name].copy())))
    root.config = SimpleNamespace(hidden_size=8, num_attention_heads=2, num_key_value_heads=2)
    root.get_input_embeddings = lambda: root.model.embed_tokens
    root.get_output_embeddings = lambda: root.lm_head
    return root


def run(root: nn.Module, optimizer: torch.optim.Optimizer, step=None) -> dict[str, np.ndarray]:
    """Make 20 steps with the stored gradients.

    Args:
        root: of `model()`.
        optimizer: its optimizer.
        step: makes one step in place of `optimizer.step()`.

    Returns:
        The weights after the steps of `KEPT`, by `name@step`.
    """
    stored, found = numbers(), {}
    for number in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        for name, parameter in root.named_parameters():
            gradient = torch.from_numpy(stored[f"grad.{name}"][number].copy())
            parameter.grad = gradient.to(parameter.dtype) if parameter.requires_grad else None
        optimizer.step() if step is None else step(number)
        if number + 1 in KEPT:
            weights = {name: one.detach().float().numpy().copy() for name, one in root.named_parameters()}
            found |= {f"{name}@{number + 1}": weight for name, weight in weights.items()}
    return found


def backward(root: nn.Module, number: int) -> None:
    """A backward pass whose gradients are the stored ones, so that hooks are called."""
    stored = numbers()
    products = [
        (parameter * torch.from_numpy(stored[f"grad.{name}"][number].copy())).sum()
        for name, parameter in root.named_parameters()
        if parameter.requires_grad
    ]
    torch.stack(products).sum().backward()
