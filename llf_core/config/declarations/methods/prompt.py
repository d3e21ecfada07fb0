"""Prompt tuning (arXiv 2104.08691): trained vectors in the place of embeddings before each example.

Prefix tuning (arXiv 2101.00190): trained keys and values before each example, in every layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.option import Section, option
from llf_core.config.weight_shapes import LAYER, MATRIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues


class PromptOptions(Section):
    """Options of prompt tuning."""

    prompt_tokens: int = option(
        20,
        label="Prompt length",
        help="Number of trained vectors that are put before each example.",
        unit="tokens",
        minimum=1,
        maximum=4096,
        level="basic",
    )
    prompt_init_text: str | None = option(
        None,
        unset="random",
        label="Initial text",
        help="Text whose embeddings the vectors begin as, repeated or cut to their number. Default: random vectors.",
        lines=True,
    )


def prompt_tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's prompt tuning options ask for."""
    return Tuner("PROMPT_TUNING", {"num_virtual_tokens": config.options(PromptOptions).prompt_tokens})


def prompt_trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Count the values of the trained vectors: the hidden size for each (prompt tuning, arXiv 2104.08691).

    The embedding is taken to be the matrix outside the layers with the most rows; None if there is none.
    """
    outer = [shape for name, shape in shapes.items() if len(shape) == MATRIX and not LAYER.search(name)]
    return config.options(PromptOptions).prompt_tokens * max(outer)[1] if outer else None


PROMPT = MethodDeclaration(
    name="prompt",
    label="prompt (prompt tuning)",
    summary="Trained vectors before each example; the model stays as it is. For large models and one narrow task.",
    paper="arXiv 2104.08691",
    implementation="llf_core.methods.peft_tuner:PromptTuning",
    options=PromptOptions,
    frozen_base=True,
    adapter=True,
    prompts=lambda _: True,
    tuner=prompt_tuner,
    trained_parameters=prompt_trained_parameters,
)


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


def prefix_tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's prefix tuning options ask for."""
    return Tuner("PREFIX_TUNING", {"num_virtual_tokens": config.options(PrefixOptions).prefix_tokens})


def prefix_trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
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
    tuner=prefix_tuner,
    trained_parameters=prefix_trained_parameters,
)
