"""RoPE scaling: rotary position embeddings of a model stretched to texts longer than it was made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, stage_of
from llf_core.config.rule import Fix, Problem
from llf_core.config.rules.conditions import packs_examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.run_config import RunConfig

KEY = "rope_scaling"
KINDS = ("linear", "dynamic", "yarn", "llama3")
"""Values of `rope_scaling`."""
ORIGINAL = "original_max_position_embeddings"
LONGEST = "max_position_embeddings"
UNSCALED = ("default", "mrope")
"""Values of `rope_type` without scaling; Qwen2-VL's `mrope` is `default` with axes of pictures."""
KINDS_WITH_ORIGINAL = ("yarn", "llama3")
"""Kinds whose parameters name the original length; `dynamic` reads `max_position_embeddings` itself."""
MOST = 2**53
"""Maximum length or factor; larger ones in a `config.json` count as absent."""
LOW_FREQUENCY, HIGH_FREQUENCY = 1.0, 4.0
"""Llama 3's factors: wavelengths above the original length by the first are scaled, below it by the second are not."""
NOT_SCALED = ("sliding_attention",)
"""Layers with rotary parameters of their own whose window is shorter than any text."""
SCALED = ("full_attention",)


class RopeScalingError(ValueError):
    """A model whose rotary embeddings cannot be scaled as asked; the message says why and what to do."""


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary embeddings of a model are scaled.

    Attributes:
        factor: the length after scaling by the length before, including a scaling that the model had.
        original: tokens that the model could read before any scaling.
        longest: tokens that it can read with the scaling.
    """

    kind: str
    factor: float
    original: int
    longest: int

    @property
    def position_embeddings(self) -> int:
        """The model's `max_position_embeddings` in tokens: the scaled length; of `dynamic` the original."""
        return self.original if self.kind == "dynamic" else self.longest

    def parameters(self, before: Mapping[str, object]) -> dict[str, object]:
        """The model's `rope_parameters` with the scaling, from those without it."""
        kept = {key: value for key, value in before.items() if key not in {"type", "attention_factor"}}
        scaled: dict[str, object] = {"rope_type": self.kind, "factor": self.factor}
        if self.kind in KINDS_WITH_ORIGINAL:
            scaled[ORIGINAL] = self.original
        if self.kind == "llama3":
            scaled |= {"low_freq_factor": LOW_FREQUENCY, "high_freq_factor": HIGH_FREQUENCY}
        return kept | scaled


def tables_to_scale(parameters: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """The tables of rotary parameters that a scaling changes, by the kind of layer; by "" if all layers share one.

    Args:
        parameters: `rope_parameters` or `rope_scaling` of a model's config.

    Raises:
        RopeScalingError: kinds of layers have parameters of their own, and full attention is none of them, or others
            than full and sliding attention are.
    """
    nested = {key: value for key, value in parameters.items() if isinstance(value, dict)}
    if not nested:
        return {"": parameters}
    other = sorted(set(nested) - {*SCALED, *NOT_SCALED})
    if other or not set(nested) & set(SCALED):
        raise RopeScalingError(
            f"Its layers have rotary embeddings of their own for {', '.join(sorted(nested))}. `{KEY}` scales those of "
            f"full_attention. Remove {KEY}."
        )
    return {key: nested[key] for key in SCALED if key in nested}


def plan_scaling(kind: str, table: Mapping[str, object], longest: int, tokens: int) -> RopeScaling | None:
    """Choose the smallest integer factor for texts of `tokens`; None if the model reads them without scaling.

    linear: arXiv 2306.15595, section 2.3; YaRN: arXiv 2309.00071, section 3; dynamic and llama3: `modeling_rope_utils`
    of transformers. The choice of the factor is LLaMA-Factory's.

    Args:
        kind: one of `KINDS`.
        table: rotary parameters of the model, one of `tables_to_scale`.
        longest: the model's `max_position_embeddings` in tokens, at least 1.

    Raises:
        RopeScalingError: the model does not read such texts, and is scaled in another way already.
    """
    before = str(table.get("rope_type") or table.get("type") or "default")
    had, original = _number(table.get("factor"), 1.0), int(_number(table.get(ORIGINAL), longest))
    supported = longest
    if before in {"yarn", "dynamic"}:  # of these a config may name the length before scaling
        original = longest if before == "dynamic" else original
        supported = max(longest, int(original * had))
    if tokens <= supported:
        return None
    if before not in {*UNSCALED, kind}:
        raise RopeScalingError(
            f"Its rotary embeddings are scaled by {before} already, up to {supported:,} tokens, and {KEY} is {kind}. "
            + (f"Expected {KEY}: {before}." if before in KINDS else f"Remove {KEY}, or choose another model.")
        )
    if before in UNSCALED:
        had, original = 1.0, longest
    growth = -(-tokens // supported)
    if before == "linear":
        original = max(1, int(longest / had))
    return RopeScaling(kind, had * growth, original, supported * growth)


def longest_text(config: RunConfig) -> int:
    """Tokens of the longest text that a run reads: `cutoff_len`, and a completion where the stage samples them."""
    return config.data.cutoff_len + stage_of(config).completion_tokens(config, 0)


def scaling_note(name: str, scaling: RopeScaling | None, config: RunConfig) -> str:
    """Say what a `rope_scaling` means for the result of a run; empty if there is nothing to know."""
    if scaling is None:
        return (
            f"{name} reads {longest_text(config):,} tokens without scaling, so {KEY}: {config.model.rope_scaling} has "
            "no effect."
        )
    notes = []
    if scaling.kind == "dynamic" and (config.training.per_device_train_batch_size > 1 or packs_examples(config)):
        notes.append(
            f"The scaling of a micro-batch follows its longest example, above {scaling.original:,} tokens. With "
            "per_device_train_batch_size: 1 and without packing it follows each example."
        )
    if method_of(config).frozen_base:
        notes.append(
            f"The adapter belongs to a base with scaled rotary embeddings ({scaling.kind}, factor {scaling.factor:g}, "
            f"up to {scaling.longest:,} tokens). The README.md of the result loads it so; without the scaling the "
            "adapter computes something else."
        )
    return " ".join(notes)


def check_rope_scaling(settings: Mapping[str, object], config: RunConfig) -> tuple[Problem, ...]:
    """Compare `rope_scaling` with a model's `config.json`, as far as that has the length.

    Returns:
        An error if the model cannot be scaled so; a note if it needs no scaling, if its adapter will need it, or if the
        scaling follows the longest example of a micro-batch.
    """
    text = settings.get("text_config")
    settings = text if isinstance(text, dict) and text else settings
    kind, longest = config.model.rope_scaling, settings.get(LONGEST)
    if kind is None or not isinstance(longest, int) or isinstance(longest, bool) or not 1 <= longest <= MOST:
        return ()
    given = settings.get("rope_parameters") or settings.get("rope_scaling")
    remove, name = Fix("Do not scale", {KEY: None}), config.model.model_name_or_path
    try:
        tables = tables_to_scale(given if isinstance(given, dict) else {})
        plan = plan_scaling(kind, next(iter(tables.values())), longest, longest_text(config))
    except RopeScalingError as error:
        return (Problem("violation", KEY, kind, f"{name} cannot be scaled. {error}", (remove,), "error", keys=(KEY,)),)
    note = scaling_note(name, plan, config)
    fixes = (remove,) if plan is None else ()
    return (Problem("violation", KEY, kind, note, fixes, "note", keys=(KEY, "cutoff_len")),) if note else ()


def _number(value: object, default: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= MOST:
        return default
    return float(value)
