"""Direct preference optimization (arXiv 2305.18290) and its family.

Preference losses (`pref_loss`) and the traits that rules check. `llf_core.stages` computes them.

Kahneman-Tversky optimization (arXiv 2402.01306).

Reward models (Bradley-Terry).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from llf_core.config.declaration import StageDeclaration
from llf_core.config.option import Section, option
from llf_core.config.rule import Fix, Rule, no_effect
from llf_core.config.rules.conditions import named_reference, names_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

PAPER_TAU = 0.05

LEVEL_TAU = (1 - math.log(2)) / 3
"""At this `discopop_tau` the loss is level where the policy equals its reference: the root of its slope there."""


@dataclass(frozen=True, kw_only=True)
class PreferenceLoss:
    """Traits of a value of `pref_loss`.

    Attributes:
        needs_reference: whether it compares the policy with a reference model.
        averages: whether it uses means of log-probabilities over tokens instead of sums.
        smooths: whether it uses `dpo_label_smoothing`.
        batch_dependent: whether the loss of a pair depends on the other pairs of its micro-batch.
    """

    needs_reference: bool
    averages: bool
    smooths: bool = False
    batch_dependent: bool = False


PREFERENCE_LOSSES: Mapping[str, PreferenceLoss] = MappingProxyType(
    {
        "sigmoid": PreferenceLoss(needs_reference=True, averages=False, smooths=True),
        "hinge": PreferenceLoss(needs_reference=True, averages=False),
        "ipo": PreferenceLoss(needs_reference=True, averages=True),
        "kto_pair": PreferenceLoss(needs_reference=True, averages=False, batch_dependent=True),
        "orpo": PreferenceLoss(needs_reference=False, averages=True),
        "simpo": PreferenceLoss(needs_reference=False, averages=True, smooths=True),
        "robust": PreferenceLoss(needs_reference=True, averages=False, smooths=True),
        "exo_pair": PreferenceLoss(needs_reference=True, averages=False, smooths=True),
        "apo_zero": PreferenceLoss(needs_reference=True, averages=False),
        "apo_down": PreferenceLoss(needs_reference=True, averages=False),
        "sppo_hard": PreferenceLoss(needs_reference=True, averages=False),
        "nca_pair": PreferenceLoss(needs_reference=True, averages=False),
        "bco_pair": PreferenceLoss(needs_reference=True, averages=False),
        "discopop": PreferenceLoss(needs_reference=True, averages=False),
        "aot": PreferenceLoss(needs_reference=True, averages=False, smooths=True, batch_dependent=True),
        "aot_unpaired": PreferenceLoss(needs_reference=True, averages=False, smooths=True, batch_dependent=True),
    }
)
"""LLaMA-Factory's six first."""


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


SMOOTHED = tuple(name for name, loss in PREFERENCE_LOSSES.items() if loss.smooths)
REFERENCE_FREE = tuple(name for name, loss in PREFERENCE_LOSSES.items() if not loss.needs_reference)

DPO_RULES = (
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
    rules=DPO_RULES,
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


class KTOOptions(Section):
    """Options of KTO."""

    kto_chosen_weight: float = option(
        1.0,
        label="Desirable weight",
        help="Loss weight of desirable answers. Raise it where there are fewer of them.",
        minimum=0,
        source="LLaMA-Factory",
    )
    kto_rejected_weight: float = option(
        1.0,
        label="Undesirable weight",
        help="Loss weight of undesirable answers. Raise it where there are fewer of them.",
        minimum=0,
        source="LLaMA-Factory",
    )


KTO_RULES = (
    Rule(
        ("per_device_train_batch_size", "stage"),
        lambda c: c.stage.stage == "kto" and c.training.per_device_train_batch_size == 1,
        "KTO estimates the KL divergence from the reference model in each micro-batch, which is inaccurate with one "
        "example. Expected a batch of at least 2.",
        (Fix("Set to 4", {"per_device_train_batch_size": 4}),),
        severity="warning",
    ),
    Rule(
        ("kto_chosen_weight", "kto_rejected_weight"),
        lambda c: c.stage.stage == "kto" and c.get("kto_chosen_weight") == c.get("kto_rejected_weight") == 0,
        "Both weights are 0, so nothing is learned. Expected at least one weight above 0.",
        (Fix("Set both to 1", {"kto_chosen_weight": 1.0, "kto_rejected_weight": 1.0}),),
    ),
)

KTO = StageDeclaration(
    name="kto",
    label="kto (desirable and undesirable responses)",
    implementation="llf_core.stages.kto:KTO",
    options=KTOOptions,
    rules=KTO_RULES,
    data_kind="unpaired_preferences",
    loss_kind="preference",
    evaluation_metrics=MappingProxyType({"rewards/margins": True}),
    compares=True,
    has_reference=True,
    uses_reference=lambda _: True,
    holds_reference=lambda _: True,
    second_model=named_reference,
    other_names=MappingProxyType({"beta": "pref_beta", "ppo_kl_coef": "pref_beta", "teacher_model": "ref_model"}),
)


class RMOptions(Section):
    """Options of reward model training."""

    center_rewards_coefficient: float | None = option(
        None,
        unset="none",
        label="Reward centering",
        help="Weight of a term that keeps the rewards of a pair around zero. Typical: 0.01.",
        above=0,
        source="Hugging Face",
    )


RM_RULES = (
    Rule(
        ("watched_prompts", "stage"),
        lambda c: c.stage.stage == "rm" and bool(c.generation.watched_prompts),
        "A reward model scores completions and does not generate text, so watched prompts have no effect.",
        (Fix("Remove the watched prompts", {"watched_prompts": None}),),
    ),
    Rule(
        ("measure_forgetting", "stage"),
        lambda c: c.stage.stage == "rm" and c.training.measure_forgetting,
        "A reward model scores completions and predicts no tokens, so what it forgets cannot be measured.",
        (Fix("Do not measure forgetting", {"measure_forgetting": None}),),
    ),
)

RM = StageDeclaration(
    name="rm",
    label="rm (reward model)",
    implementation="llf_core.stages.rm:RM",
    options=RMOptions,
    rules=RM_RULES,
    data_kind="pairs",
    loss_kind="preference",
    evaluation_metrics=MappingProxyType({"rewards/accuracies": True, "rewards/margins": True}),
    has_reward_head=True,
    generates=False,
)
