"""Preference losses (`pref_loss`) and the traits that rules check. `llf_core.stages` computes them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
SMOOTHED = tuple(name for name, loss in PREFERENCE_LOSSES.items() if loss.smooths)
REFERENCE_FREE = tuple(name for name, loss in PREFERENCE_LOSSES.items() if not loss.needs_reference)
