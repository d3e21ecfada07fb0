"""Counts trained parameters from file headers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.methods.freeze import trained_weights
from llf_core.config.new_tokens import adds_tokens, requested_tokens
from llf_core.config.registry import method_of
from llf_core.config.weight_shapes import LAYER, MATRIX

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.config.weight_shapes import Shapes


def trained_parameters(config: RunConfig, weights: Shapes) -> int | None:
    """Number of parameters that a config trains; None for a method that cannot say without the model."""
    parameters = method_of(config).trained_parameters
    found = None if parameters is None else parameters(config, weights)
    return None if found is None else found + new_token_parameters(config, weights)


def new_token_parameters(config: RunConfig, weights: Shapes) -> int:
    """Number of parameters that are trained for new tokens, in the embedding and in an untied output head.

    Beside an adapter and in a whole model these are the rows of the tokens. `freeze` trains both matrices whole, of
    which `trained_weights` may have counted the old rows. 0 if the tokens cannot be read.
    """
    try:
        tokens = len(requested_tokens(config)) if adds_tokens(config) else 0
    except (ValueError, OSError):  # refused before a run starts
        return 0
    if not tokens:
        return 0
    outer = {name: shape for name, shape in weights.items() if not LAYER.search(name) and len(shape) == MATRIX}
    largest = max(outer.values(), default=None)
    if largest is None:
        return 0
    rows, hidden = largest
    matrices = [name for name, shape in outer.items() if shape == largest]
    frozen = {*matrices} - trained_weights(config, weights).keys() if method_of(config).selects_blocks else set()
    return hidden * (tokens * len(matrices) + rows * len(frozen))
