"""The number of trained parameters of a config, from file headers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.registry import method_of

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.config.weight_shapes import Shapes


def trained_parameters(config: RunConfig, weights: Shapes) -> int | None:
    """Count the parameters that a config trains: they determine gradients, optimizer state and checkpoints.

    Args:
        config: the run's config.
        weights: shapes of the model's weights by name.

    Returns:
        The number; None for a method that cannot say without the model.

    Raises:
        PluginError: two installed packages declare the same method.
    """
    parameters = method_of(config).trained_parameters
    return None if parameters is None else parameters(config, weights)
