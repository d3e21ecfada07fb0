"""Direct preference optimization (arXiv 2305.18290) and its family."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from llf_core.config.declaration import StageDeclaration
from llf_core.config.declarations.stages.preference_losses import PREFERENCE_LOSSES, REFERENCE_FREE, SMOOTHED
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.reference_model import named_reference, names_reference
from llf_core.config.rule import Rule, no_effect

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

PAPER_TAU = 0.05
LEVEL_TAU = (1 - math.log(2)) / 3
"""At this `discopop_tau` the loss is level where the policy equals its reference: the root of its slope there."""


class DPOOptions(Section):
    """Options of the preference losses."""

    pref_loss: str = option(
        "sigmoid",
        label="Preference loss",
        help="Loss formula. `sigmoid` is DPO's own; `orpo` and `simpo` need no reference model.",
        choices=tuple(PREFERENCE_LOSSES),
        level="basic",
        source="LLaMA-Factory",
    )
    dpo_label_smoothing: float = option(
        0.0,
        label="Label smoothing",
        help="Assumed probability that the preference of a pair is flipped. 0 trusts all pairs.",
        minimum=0,
        below=0.5,
        source="LLaMA-Factory",
    )
    simpo_gamma: float = option(
        0.5,
        label="SimPO margin",
        help="Target reward margin γ of `simpo`.",
        minimum=0,
        source="LLaMA-Factory",
    )
    discopop_tau: float = option(
        0.05,
        label="DiscoPOP temperature",
        help="Temperature τ of `discopop`: how sharply it switches between its two losses.",
        above=0,
        maximum=1,
        source="Hugging Face",
    )
    pref_bco_weight: float = option(
        0.0,
        label="BCO loss weight",
        help="Adds the BCO loss, which looks at each answer alone, with this weight.",
        minimum=0,
        source="LLaMA-Factory",
    )
    ld_alpha: float | None = option(
        None,
        unset="1",
        label="Length desensitization",
        help="LD-DPO: weight of tokens beyond the length of the shorter answer. Default: 1.",
        minimum=0,
        maximum=1,
        source="LLaMA-Factory",
    )


def _chosen(config: ConfigValues) -> bool:
    return config.stage.stage == "dpo"


def _one_pair(config: ConfigValues) -> bool:
    return _chosen(config) and config.training.per_device_train_batch_size == 1


RULES = (
    Rule(
        ("dpo_label_smoothing", "pref_loss"),
        lambda c: _chosen(c) and c.get("dpo_label_smoothing") > 0 and c.get("pref_loss") not in SMOOTHED,
        lambda c: (
            f"The loss {c.get('pref_loss')} has no label smoothing, but dpo_label_smoothing is "
            f"{c.get('dpo_label_smoothing'):g}. Expected 0, or one of {', '.join(SMOOTHED)}."
        ),
        (Fix("Set smoothing to 0", {"dpo_label_smoothing": 0.0}), Fix("Use sigmoid", {"pref_loss": "sigmoid"})),
    ),
    Rule(
        ("pref_loss", "dpo_label_smoothing"),
        lambda c: _chosen(c) and c.get("pref_loss") == "exo_pair" and c.get("dpo_label_smoothing") == 0,
        "With exo_pair the loss takes the logarithm of dpo_label_smoothing, which is 0. Expected a value above 0, "
        "such as 0.001.",
        (Fix("Set to 0.001", {"dpo_label_smoothing": 0.001}),),
    ),
    Rule(
        ("ref_model", "pref_loss"),
        lambda c: _chosen(c) and c.get("pref_loss") in REFERENCE_FREE and names_reference(c),
        lambda c: f"The loss {c.get('pref_loss')} uses no reference model, but one is set.",
        (
            Fix("Remove the reference model", {"ref_model": None, "ref_model_adapters": None,
                                            "ref_model_quantization_bit": None}),
            Fix("Use sigmoid", {"pref_loss": "sigmoid"}),
        ),
    ),
    Rule(
        ("pref_bco_weight", "pref_loss"),
        lambda c: _chosen(c) and c.get("pref_loss") in REFERENCE_FREE and c.get("pref_bco_weight") > 0,
        lambda c: f"BCO needs a reference model, and pref_loss {c.get('pref_loss')} uses none.",
        (Fix("Switch off BCO", {"pref_bco_weight": 0.0}), Fix("Use sigmoid", {"pref_loss": "sigmoid"})),
    ),
    Rule(
        ("discopop_tau", "pref_loss"),
        lambda c: _chosen(c) and c.get("pref_loss") == "discopop" and c.get("discopop_tau") < LEVEL_TAU,
        lambda c: (
            f"With discopop_tau {c.get('discopop_tau'):g}"
            f"{', as in its paper' if c.get('discopop_tau') == PAPER_TAU else ''}, the discopop loss first "
            "makes the chosen response less likely, while the policy is close to the reference model. Expected "
            f"discopop_tau above {LEVEL_TAU:.3f}."
        ),
        (Fix("Set to 0.2", {"discopop_tau": 0.2}), Fix("Use sigmoid", {"pref_loss": "sigmoid"})),
        severity="warning",
    ),
    Rule(
        ("ld_alpha", "pref_loss"),
        lambda c: _chosen(c) and c.get("ld_alpha") is not None and PREFERENCE_LOSSES[c.get("pref_loss")].averages,
        lambda c: (
            "`ld_alpha` lowers the weight of tokens beyond the length of the shorter response, and pref_loss "
            f"{c.get('pref_loss')} averages over tokens, so length has no effect on it. Expected no ld_alpha."
        ),
        (Fix("Remove it", {"ld_alpha": None}), Fix("Use sigmoid", {"pref_loss": "sigmoid"})),
    ),
    Rule(
        ("per_device_train_batch_size", "pref_loss"),
        lambda c: _one_pair(c) and PREFERENCE_LOSSES[c.get("pref_loss")].batch_dependent,
        lambda c: (
            f"The loss {c.get('pref_loss')} compares the pairs of a micro-batch with each other, and "
            "per_device_train_batch_size is 1. Expected at least 2."
        ),
        (Fix("Set to 4", {"per_device_train_batch_size": 4}),),
        severity="warning",
    ),
    Rule(
        ("precompute_ref_log_probs", "pref_loss"),
        lambda c: _chosen(c) and bool(c.get("precompute_ref_log_probs")) and c.get("pref_loss") in REFERENCE_FREE,
        lambda c: f"The loss {c.get('pref_loss')} uses no reference model, so this has no effect.",
        (Fix("Remove it", {"precompute_ref_log_probs": None}),),
        severity="note",
    ),
    no_effect(DPOOptions, "simpo_gamma", "pref_loss: simpo", lambda c: _chosen(c) and c.get("pref_loss") != "simpo"),
    no_effect(
        DPOOptions, "discopop_tau", "pref_loss: discopop", lambda c: _chosen(c) and c.get("pref_loss") != "discopop"
    ),
)  # fmt: skip


def _compares(config: ConfigValues) -> bool:
    return PREFERENCE_LOSSES[config.get("pref_loss")].needs_reference


DPO = StageDeclaration(
    name="dpo",
    label="dpo (direct preference optimization)",
    implementation="llf_core.stages.dpo:DPO",
    options=DPOOptions,
    rules=RULES,
    data_kind="pairs",
    loss_kind="preference",
    evaluation_metrics=MappingProxyType({"rewards/accuracies": True, "rewards/margins": True}),
    compares=True,
    has_reference=True,
    uses_reference=_compares,
    holds_reference=_compares,
    second_model=named_reference,
    other_names=MappingProxyType({"beta": "pref_beta", "ppo_kl_coef": "pref_beta", "teacher_model": "ref_model"}),
)
