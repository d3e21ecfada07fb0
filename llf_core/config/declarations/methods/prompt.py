"""Prompt tuning (arXiv 2104.08691): trained vectors in the place of embeddings before each example."""

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


def tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's prompt tuning options ask for."""
    return Tuner("PROMPT_TUNING", {"num_virtual_tokens": config.options(PromptOptions).prompt_tokens})


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
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
    implementation="llf_core.methods.prompt_tuning:PromptTuning",
    options=PromptOptions,
    frozen_base=True,
    adapter=True,
    prompts=lambda _: True,
    tuner=tuner,
    trained_parameters=trained_parameters,
)
