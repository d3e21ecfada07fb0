"""Freeze fine-tuning: some layers are trained, the others stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration
from llf_core.config.declarations.modifiers import expanded_blocks
from llf_core.config.option import Names, Section, option
from llf_core.config.rule import Fix, Problem
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


def trained_layers(config: ConfigValues, depth: int) -> range:
    """Indices of the layers that freeze trains: the last or first ones, or those that LLaMA Pro inserted.

    Args:
        depth: number of layers.

    Raises:
        ValueError: there are no such layers. The message names the key, the value and what was expected.
    """
    number = config.options(FreezeOptions).freeze_trainable_layers
    if config.get("use_llama_pro"):
        return expanded_blocks(number, depth)
    if number == 0 or abs(number) > depth:
        raise ValueError(
            f"freeze_trainable_layers is {number}, and the model has {depth} layers. "
            f"Give 1 to {depth} for the last layers, or -1 to -{depth} for the first."
        )
    return range(depth - number, depth) if number > 0 else range(-number)


def layers_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Index of the layer of each weight that belongs to one, by the name of the weight."""
    return {name: int(found.group(1)) for name in shapes if (found := LAYER.search(name))}


def check_layers(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check that the model has the layers that are to be trained, as far as the names of its weights show layers."""
    depth = max(layers_of(shapes).values(), default=-1) + 1
    if not depth:
        return None
    key = "freeze_trainable_layers"
    number = config.options(FreezeOptions).freeze_trainable_layers
    try:
        trained_layers(config, depth)
    except ValueError as error:
        possible = [n for n in range(1, depth + 1) if not config.get("use_llama_pro") or depth % n == 0]
        nearest = min(possible, key=lambda n: abs(n - abs(number)))
        fix = Fix(f"Set to {nearest}", {key: nearest})
        return Problem("violation", key, number, str(error), (fix,), keys=(key, "model_name_or_path"))
    return None


def trained_weights(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that freeze trains, by name; empty if the model does not have these layers."""
    options = config.options(FreezeOptions)
    inside, outside = set(options.freeze_trainable_modules), set(options.freeze_extra_modules or ())
    layers = layers_of(shapes)
    try:
        chosen = trained_layers(config, max(layers.values(), default=-1) + 1)
    except ValueError:
        return {}  # the model will be refused

    def trained(name: str) -> bool:
        if name not in layers:
            return not outside.isdisjoint(name.split("."))
        return layers[name] in chosen and ("all" in inside or not inside.isdisjoint(name.split(".")))

    return {name: shape for name, shape in shapes.items() if trained(name)}


def freeze_trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the parameters of `trained_weights`."""
    return count(trained_weights(config, shapes))


FREEZE = MethodDeclaration(
    name="freeze",
    label="freeze (a few layers)",
    summary="Trains a few whole layers and freezes the others. Needs less memory than full fine-tuning.",
    implementation="llf_core.methods.freeze:Freeze",
    options=FreezeOptions,
    selects_blocks=True,
    check_shapes=check_layers,
    trained_parameters=freeze_trained_parameters,
)


def full_trained_parameters(_config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count all parameters."""
    return count(shapes)


FULL = MethodDeclaration(
    name="full",
    label="full (every parameter)",
    summary="Trains every weight. Learns the most and needs the most memory.",
    implementation="llf_core.methods.freeze:Full",
    trained_parameters=full_trained_parameters,
)
