"""Kahneman-Tversky optimization (arXiv 2402.01306)."""

from __future__ import annotations

from types import MappingProxyType

from llf_core.config.declaration import StageDeclaration
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.reference_model import named_reference
from llf_core.config.rule import Rule


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


RULES = (
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
    rules=RULES,
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
