from __future__ import annotations

from typing import Any

SAVED_PROMPTS = {"embedding.weight", "trainable_embedding"}
"""Trained weights of a prompt that PEFT saves as they are."""


def encoded_prompt(model: Any) -> Any:
    """The encoder of a prompt that is computed from other trained weights, as in P-tuning; None without one.

    PEFT saves the vectors that it computes and not the encoder: the result can be used, but not trained further.
    """
    encoder = getattr(model, "prompt_encoder", None)
    if encoder is None or model.active_adapter not in encoder:
        return None
    trained = {name for name, one in encoder[model.active_adapter].named_parameters() if one.requires_grad}
    return encoder[model.active_adapter] if trained - SAVED_PROMPTS else None
