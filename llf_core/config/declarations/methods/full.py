from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration
from llf_core.config.weight_shapes import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues


def trained_parameters(_config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count all parameters."""
    return count(shapes)


FULL = MethodDeclaration(
    name="full",
    label="full (every parameter)",
    summary="Trains every weight. Learns the most and needs the most memory.",
    implementation="llf_core.methods.full:Full",
    trained_parameters=trained_parameters,
)
