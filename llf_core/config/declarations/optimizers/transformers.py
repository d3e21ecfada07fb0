"""The optimizers that transformers builds by their names: torch's, its own, and those of bitsandbytes."""

from __future__ import annotations

from llf_core.config.declaration import OptimizerDeclaration

TWO_MOMENTS, THREE_MOMENTS, ONE_MOMENT, NO_STATE = 8.0, 12.0, 4.0, 0.0
"""Bytes for each trained parameter in float32: Adam keeps two moments, AdEMAMix three, Lion and RMSprop one."""
FACTORED = 0.1
"""Bytes for each trained parameter: Adafactor keeps row and column means of the second moment."""


def _torch(name: str, label: str, state_bytes: float) -> OptimizerDeclaration:
    return OptimizerDeclaration(name=name, label=label, state_bytes=state_bytes)


def _bitsandbytes(name: str, label: str, state_bytes: float) -> OptimizerDeclaration:
    return OptimizerDeclaration(name=name, label=label, state_bytes=state_bytes, packages=("bitsandbytes",))


TRANSFORMERS = (
    _torch("adamw_torch_fused", "AdamW, fused (torch)", TWO_MOMENTS),
    _torch("adamw_torch", "AdamW (torch)", TWO_MOMENTS),
    _bitsandbytes("adamw_8bit", "AdamW, 8-bit state (bitsandbytes)", TWO_MOMENTS / 4),
    _bitsandbytes("adamw_bnb_8bit", "AdamW, 8-bit state (as adamw_8bit)", TWO_MOMENTS / 4),
    _bitsandbytes("paged_adamw_8bit", "AdamW, 8-bit paged state (bitsandbytes)", TWO_MOMENTS / 4),
    _bitsandbytes("paged_adamw_32bit", "AdamW, paged state (bitsandbytes)", TWO_MOMENTS),
    _torch("adafactor", "Adafactor (factored second moment)", FACTORED),
    _torch("sgd", "SGD (no state)", NO_STATE),
    _torch("adagrad", "Adagrad", ONE_MOMENT),
    _torch("rmsprop", "RMSprop", ONE_MOMENT),
    _bitsandbytes("rmsprop_bnb", "RMSprop (bitsandbytes)", ONE_MOMENT),
    _bitsandbytes("rmsprop_bnb_8bit", "RMSprop, 8-bit state (bitsandbytes)", ONE_MOMENT / 4),
    _bitsandbytes("rmsprop_bnb_32bit", "RMSprop, 32-bit state (bitsandbytes)", ONE_MOMENT),
    _bitsandbytes("lion_8bit", "Lion, 8-bit state (bitsandbytes)", ONE_MOMENT / 4),
    _bitsandbytes("lion_32bit", "Lion (bitsandbytes)", ONE_MOMENT),
    _bitsandbytes("paged_lion_8bit", "Lion, 8-bit paged state (bitsandbytes)", ONE_MOMENT / 4),
    _bitsandbytes("paged_lion_32bit", "Lion, paged state (bitsandbytes)", ONE_MOMENT),
    _bitsandbytes("ademamix", "AdEMAMix (bitsandbytes)", THREE_MOMENTS),
    _bitsandbytes("ademamix_8bit", "AdEMAMix, 8-bit state (bitsandbytes)", THREE_MOMENTS / 4),
    _bitsandbytes("paged_ademamix_8bit", "AdEMAMix, 8-bit paged state (bitsandbytes)", THREE_MOMENTS / 4),
    _bitsandbytes("paged_ademamix_32bit", "AdEMAMix, paged state (bitsandbytes)", THREE_MOMENTS),
)
