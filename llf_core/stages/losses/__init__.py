"""The losses of the preference family: pure functions of pairs of answers, a file a family."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from llf_core.stages.losses.aot import aot, aot_unpaired
from llf_core.stages.losses.apo_down import apo_down
from llf_core.stages.losses.apo_zero import apo_zero
from llf_core.stages.losses.bco_pair import bco_pair
from llf_core.stages.losses.discopop import discopop
from llf_core.stages.losses.exo_pair import exo_pair
from llf_core.stages.losses.hinge import hinge
from llf_core.stages.losses.ipo import ipo
from llf_core.stages.losses.kto_pair import kto_pair
from llf_core.stages.losses.nca_pair import nca_pair
from llf_core.stages.losses.orpo import orpo
from llf_core.stages.losses.pairs import Pairs, Terms
from llf_core.stages.losses.robust import robust
from llf_core.stages.losses.sigmoid import sigmoid
from llf_core.stages.losses.simpo import simpo
from llf_core.stages.losses.sppo_hard import sppo_hard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

__all__ = ["LOSSES", "Loss", "Pairs", "Terms"]


@dataclass(frozen=True)
class Loss:
    """A value of `pref_loss`.

    Attributes:
        function: what each pair costs, `[P]`.
        needs_reference: whether it compares the policy with a reference.
        averages: whether it looks at means per token instead of sums.
        smooths: whether it uses `label_smoothing`.
        batch_dependent: whether a pair's cost depends on the other pairs of its micro-batch.
    """

    function: Callable[[Pairs, Terms], Tensor]
    needs_reference: bool
    averages: bool
    smooths: bool = False
    batch_dependent: bool = False


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "sigmoid": Loss(sigmoid, needs_reference=True, averages=False, smooths=True),
        "hinge": Loss(hinge, needs_reference=True, averages=False),
        "ipo": Loss(ipo, needs_reference=True, averages=True),
        "kto_pair": Loss(kto_pair, needs_reference=True, averages=False, batch_dependent=True),
        "orpo": Loss(orpo, needs_reference=False, averages=True),
        "simpo": Loss(simpo, needs_reference=False, averages=True, smooths=True),
        "robust": Loss(robust, needs_reference=True, averages=False, smooths=True),
        "exo_pair": Loss(exo_pair, needs_reference=True, averages=False, smooths=True),
        "apo_zero": Loss(apo_zero, needs_reference=True, averages=False),
        "apo_down": Loss(apo_down, needs_reference=True, averages=False),
        "sppo_hard": Loss(sppo_hard, needs_reference=True, averages=False),
        "nca_pair": Loss(nca_pair, needs_reference=True, averages=False),
        "bco_pair": Loss(bco_pair, needs_reference=True, averages=False),
        "discopop": Loss(discopop, needs_reference=True, averages=False),
        "aot": Loss(aot, needs_reference=True, averages=False, smooths=True, batch_dependent=True),
        "aot_unpaired": Loss(aot_unpaired, needs_reference=True, averages=False, smooths=True, batch_dependent=True),
    }
)
"""The losses by their names, LLaMA-Factory's six first."""
