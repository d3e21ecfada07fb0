"""Rules of the stages that use a reference model, and of those that train on pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix
from llf_core.config.registry import stage_of
from llf_core.config.rule import Rule
from llf_core.config.rules.data import has_data_kind

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


def _adapters(c: ConfigValues) -> int:
    own = c.model.adapter_name_or_path if c.get("ref_model") is None else None
    named = c.get("ref_model_adapters")
    return len((own if named is None else named) or ())


def _second(c: ConfigValues) -> str | None:
    return stage_of(c).second_model(c)


PREFERENCE: tuple[Rule, ...] = (
    Rule(
        ("trust_remote_code", "ref_model", "teacher_model", "reward_model"),
        lambda c: bool(c.model.trust_remote_code) and _second(c) is not None,
        lambda c: (
            f"`trust_remote_code` applies to {_second(c)} too: Python code that comes with {c.get(_second(c) or '')} "
            "runs with your permissions. Continue if you trust both."
        ),
        (Fix("Do not run code of models", {"trust_remote_code": False}),),
        severity="warning",
    ),
    Rule(
        ("neftune_noise_alpha", "stage"),
        lambda c: stage_of(c).uses_reference(c) and bool(c.get("neftune_noise_alpha")),
        lambda c: (
            f"Stage {c.stage.stage} compares the policy with a reference model, and NEFTune adds noise to the policy "
            "only, which would count as a difference. Expected no noise."
        ),
        (Fix("Remove the noise", {"neftune_noise_alpha": None}),),
    ),
    Rule(
        ("ref_model_quantization_bit", "ref_model_adapters", "adapter_name_or_path"),
        lambda c: stage_of(c).has_reference and bool(c.get("ref_model_quantization_bit")) and _adapters(c) > 1,
        lambda c: (
            f"The {_adapters(c)} adapters cannot be merged into a quantized reference model without loss. Expected one "
            "adapter, or a reference model that is not quantized."
        ),
        (Fix("Do not quantize it", {"ref_model_quantization_bit": None}),),
    ),
    Rule(
        ("precompute_ref_log_probs", "streaming"),
        lambda c: stage_of(c).compares and bool(c.get("precompute_ref_log_probs")) and bool(c.data.streaming),
        "The log-probabilities of the reference model cannot be precomputed for a streamed data set.",
        (
            Fix("Compute them in each step", {"precompute_ref_log_probs": None}),
            Fix("Switch off streaming", {"streaming": False}),
        ),
    ),
    Rule(
        ("cutoff_strategy", "stage"),
        lambda c: c.data.cutoff_strategy == "split" and has_data_kind(c, "pairs", "unpaired_preferences"),
        lambda c: (
            f"Stage {c.stage.stage} compares whole responses, which cannot be split. Expected cut or drop for those "
            "longer than cutoff_len."
        ),
        (Fix("Cut long responses", {"cutoff_strategy": None}), Fix("Drop long responses", {"cutoff_strategy": "drop"})),
    ),
)
