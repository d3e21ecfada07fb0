"""Shapes of a model's weights as transformers' model has them, from those that its files store."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from llf_core.config.weight_shapes import MATRIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.weight_shapes import Shapes

_EXPERT = re.compile(r"^(?P<path>.+\.experts)\.(?P<number>\d+)\.(?P<name>\w+)\.weight$")
_TOGETHER = re.compile(r"^(?P<path>.+)\.(?P<name>input_linear|output_linear)\.weight$")
_PACKED = re.compile(r"^(?P<path>.+)_(?P<kind>blocks|scales)$")
_PARAMETERS = {
    "gate_up_proj": ("gate_proj", "up_proj", "w1", "w3", "fc1", "fc3", "input_linear"),
    "down_proj": ("down_proj", "w2", "fc2", "output_linear"),
}
"""The two parameters of all experts of a layer, and the names of the matrices that they join."""
_OF = {name: parameter for parameter, names in _PARAMETERS.items() for name in names}
_SCALE = ".weight_scale_inv"
_ROUTER = re.compile(r"\.router\.layer\.weight$")
_DIMENSIONS = {"blocks": 4, "scales": 3}
_VALUES = 2
"""Values of 4 bits in a byte."""


def loaded_shapes(stored: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Compute the shapes that a model has once transformers has loaded its files, from the stored shapes by name.

    transformers 5 joins the experts of a layer to two parameters of three axes, and an adapter has matrices for these:
    gate and up together have one B with a row for each of their outputs, and one A. MXFP4 weights (gpt-oss) and FP8
    weights are unpacked while they are loaded.

    Returns:
        Shapes by name: experts that are stored one by one or as `input_linear` and `output_linear` are
        `PATH.experts.gate_up_proj` `[experts, out, in]` and `PATH.experts.down_proj`; a router `router.layer` is
        `router`; MXFP4's `NAME_blocks` `[experts, out, groups, bytes]` are `NAME` `[experts, in, out]`; scales are left
        out. Source: `transformers.conversion_mapping` (Mixtral, Qwen2-MoE, GraniteMoe),
        `transformers.integrations.mxfp4`.
    """
    found: Shapes = {}
    experts: dict[tuple[str, str], dict[str, list[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(list))
    for name, shape in stored.items():
        one = _EXPERT.match(name)
        if one and one["name"] in _OF and len(shape) == MATRIX:
            experts[one["path"], _OF[one["name"]]][one["name"]].append(shape)
        elif (all_ := _TOGETHER.match(name)) and len(shape) == MATRIX + 1:
            path = all_["path"]
            path = path if path.endswith(".experts") else f"{path}.experts"
            found[f"{path}.{_OF[all_['name']]}"] = shape
        elif (packed := _PACKED.match(name)) and len(shape) == _DIMENSIONS[packed["kind"]]:
            if packed["kind"] == "blocks":
                number, out, groups, size = shape
                found[packed["path"]] = (number, groups * size * _VALUES, out)
        elif not name.endswith(_SCALE):
            found[_ROUTER.sub(".router.weight", name)] = shape
    for (path, parameter), matrices in experts.items():
        first, *others = matrices.values()
        out = sum(shapes[0][0] for shapes in (first, *others))
        found[f"{path}.{parameter}"] = (len(first), out, first[0][1])
    return found
