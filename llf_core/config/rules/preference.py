"""Rules of the stages that compare answers with a reference, and of those that learn from pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix
from llf_core.config.registry import stage_of
from llf_core.config.rule import Rule
from llf_core.config.rules.data import has_data_kind

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


def _adapters(c: ConfigValues) -> int:
    """Adapters that would be merged into the reference."""
    own = c.model.adapter_name_or_path if c.get("ref_model") is None else None
    named = c.get("ref_model_adapters")
    return len((own if named is None else named) or ())


def _second(c: ConfigValues) -> str | None:
    """The key of a second model that is loaded beside the one in training."""
    return stage_of(c).second_model(c)


PREFERENCE: tuple[Rule, ...] = (
    Rule(
        ("trust_remote_code", "ref_model", "teacher_model", "reward_model"),
        lambda c: bool(c.model.trust_remote_code) and _second(c) is not None,
        lambda c: (
            f"Trust in remote code (trust_remote_code) holds for {_second(c)} too: code that lies beside "
            f"{c.get(_second(c) or '')} runs on this machine. Go on if you trust both."
        ),
        (Fix("Run no code of models", {"trust_remote_code": False}),),
        severity="warning",
    ),
    Rule(
        ("neftune_noise_alpha", "stage"),
        lambda c: stage_of(c).uses_reference(c) and bool(c.get("neftune_noise_alpha")),
        lambda c: (
            f"Stage {c.stage.stage} compares the model with a reference, and noise on the embeddings of one of them "
            "would be taken for what was learned."
        ),
        (Fix("No noise", {"neftune_noise_alpha": None}),),
    ),
    Rule(
        ("ref_model_quantization_bit", "ref_model_adapters", "adapter_name_or_path"),
        lambda c: stage_of(c).has_reference and bool(c.get("ref_model_quantization_bit")) and _adapters(c) > 1,
        lambda c: (
            f"The {_adapters(c)} adapters cannot be merged into a quantized reference without loss. Expected one, or a "
            "reference that is not quantized."
        ),
        (Fix("Do not quantize it", {"ref_model_quantization_bit": None}),),
    ),
    Rule(
        ("precompute_ref_log_probs", "streaming"),
        lambda c: stage_of(c).compares and bool(c.get("precompute_ref_log_probs")) and bool(c.data.streaming),
        "The reference cannot be asked about all examples beforehand where they come from a stream.",
        (
            Fix("Ask it in every step", {"precompute_ref_log_probs": None}),
            Fix("Prepare all of it first", {"streaming": False}),
        ),
    ),
    Rule(
        ("cutoff_strategy", "stage"),
        lambda c: c.data.cutoff_strategy == "split" and has_data_kind(c, "pairs", "unpaired_preferences"),
        lambda c: (
            f"An answer of stage {c.stage.stage} is compared as a whole and cannot be split. Longer ones than "
            "cutoff_len are cut or dropped."
        ),
        (Fix("Cut them", {"cutoff_strategy": None}), Fix("Drop them", {"cutoff_strategy": "drop"})),
    ),
)
