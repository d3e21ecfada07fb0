"""Prefix tuning (arXiv 2101.00190): trained keys and values before each example, in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.option import Section, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues


class PrefixOptions(Section):
    """Options of prefix tuning."""

    prefix_tokens: int = option(
        20,
        label="Prefix length",
        help="Number of trained keys and values that each layer attends to before each example.",
        unit="tokens",
        minimum=1,
        maximum=4096,
        level="basic",
    )


def tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's prefix tuning options ask for."""
    return Tuner("PREFIX_TUNING", {"num_virtual_tokens": config.options(PrefixOptions).prefix_tokens})


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Count the keys and values of the prefix: their width in each layer, for each of its tokens.

    Prefix tuning (arXiv 2101.00190) without its reparametrization. None if the layers' keys are not found.
    """
    widths = [shape[0] for name, shape in shapes.items() if name.endswith((".k_proj.weight", ".v_proj.weight"))]
    return config.options(PrefixOptions).prefix_tokens * sum(widths) or None


PREFIX = MethodDeclaration(
    name="prefix",
    label="prefix (prefix tuning)",
    summary="Trained keys and values before each example, in every layer. Stronger than prompt tuning on small models.",
    paper="arXiv 2101.00190",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=PrefixOptions,
    frozen_base=True,
    adapter=True,
    prompts=lambda _: True,
    trains_cache=lambda _: True,
    tuner=tuner,
    trained_parameters=trained_parameters,
)
