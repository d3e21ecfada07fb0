"""Rules of the stages that compare answers with a reference, and of those that learn from pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.rules.data import has_data_kind
from llf_core.config.stage import COMPARED, REFERENCE_FREE, REFERRING

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig


def _adapters(c: RunConfig) -> int:
    """Adapters that would be merged into the reference."""
    own = c.model.adapter_name_or_path if c.get("ref_model") is None else None
    named = c.get("ref_model_adapters")
    return len((own if named is None else named) or ())


def _compares(c: RunConfig) -> bool:
    """Whether answers are compared with what a reference makes of them."""
    free = c.stage.stage == "dpo" and c.get("pref_loss") in REFERENCE_FREE
    return c.stage.stage in COMPARED and not free


def _second(c: RunConfig) -> str | None:
    """The key of a second model that is loaded beside the one in training."""
    keys = {"dpo": "ref_model", "kto": "ref_model", "kd": "teacher_model", "ppo": "reward_model"}
    key = keys.get(c.stage.stage)
    addressed = key == "reward_model" and c.get("reward_model_type") not in {"lora", "full"}
    return key if key and c.get(key) and not addressed else None


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
        lambda c: _compares(c) and bool(c.training.neftune_noise_alpha),
        lambda c: (
            f"Stage {c.stage.stage} compares the model with a reference, and noise on the embeddings of one of them "
            "would be taken for what was learned."
        ),
        (Fix("No noise", {"neftune_noise_alpha": None}),),
    ),
    Rule(
        ("ref_model_quantization_bit", "ref_model_adapters", "adapter_name_or_path"),
        lambda c: c.stage.stage in REFERRING and bool(c.get("ref_model_quantization_bit")) and _adapters(c) > 1,
        lambda c: (
            f"The {_adapters(c)} adapters cannot be merged into a quantized reference without loss. Expected one, or a "
            "reference that is not quantized."
        ),
        (Fix("Do not quantize it", {"ref_model_quantization_bit": None}),),
    ),
    Rule(
        ("precompute_ref_log_probs", "streaming"),
        lambda c: c.stage.stage in COMPARED and bool(c.get("precompute_ref_log_probs")) and bool(c.data.streaming),
        "The reference cannot be asked about all examples beforehand where they come from a stream.",
        (
            Fix("Ask it in every step", {"precompute_ref_log_probs": None}),
            Fix("Prepare all of it first", {"streaming": False}),
        ),
    ),
    Rule(
        ("cutoff_strategy", "stage"),
        lambda c: c.data.cutoff_strategy == "split" and has_data_kind(c, "pairs", "judged"),
        lambda c: (
            f"An answer of stage {c.stage.stage} is compared as a whole and cannot be split. Longer ones than "
            "cutoff_len are cut or dropped."
        ),
        (Fix("Cut them", {"cutoff_strategy": None}), Fix("Drop them", {"cutoff_strategy": "drop"})),
    ),
)
