"""Freeze fine-tuning: some layers are trained, the others stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration
from llf_core.config.option import Names, Section, option
from llf_core.config.weight_shapes import LAYER, count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues


class FreezeOptions(Section):
    """Options of freeze fine-tuning."""

    freeze_trainable_layers: int = option(
        2,
        label="Trained layers",
        help="Number of last layers to train. A negative number counts from the first layer.",
        unit="layers",
        level="basic",
        source="LLaMA-Factory",
    )
    freeze_trainable_modules: Names = option(
        ("all",),
        label="Modules inside them",
        help="Names of the modules to train inside those layers, or `all`.",
        source="LLaMA-Factory",
    )
    freeze_extra_modules: Names | None = option(
        None,
        unset="none",
        label="Modules outside the layers",
        help="Names of modules outside the layers to train too, such as `embed_tokens`.",
        source="LLaMA-Factory",
    )


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the parameters of the trained layers, for the forecast of gradients and optimizer states.

    Modules outside the layers (`freeze_extra_modules`) are not counted.

    Args:
        config: `freeze_trainable_layers`: the last n layers, or the first |n| if it is negative.
        shapes: shape of each weight of the model, by its name.

    Returns:
        Number of trained parameters.
    """
    number = config.options(FreezeOptions).freeze_trainable_layers
    layers = {name: int(found.group(1)) for name in shapes if (found := LAYER.search(name))}
    depth = max(layers.values(), default=-1) + 1
    chosen = range(depth - number, depth) if number > 0 else range(-number)
    return count({name: shapes[name] for name, layer in layers.items() if layer in chosen})


FREEZE = MethodDeclaration(
    name="freeze",
    label="freeze (a few layers)",
    summary="Trains a few whole layers and freezes the others. Needs less memory than full fine-tuning.",
    implementation="llf_core.methods.freeze:Freeze",
    options=FreezeOptions,
    trained_parameters=trained_parameters,
)
