"""Losses of the preference family: pure functions of pairs of completions, one file for each family.

In their formulas, `r_w` and `r_l` are `Pairs.chosen_ratio` and `Pairs.rejected_ratio`, `h` is `Pairs.margin`; β, ε,
γ and τ are those of `Terms`.
"""

from __future__ import annotations

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

__all__ = ["LOSSES", "Pairs", "Terms"]

LOSSES: Mapping[str, Callable[[Pairs, Terms], Tensor]] = MappingProxyType(
    {
        "sigmoid": sigmoid,
        "hinge": hinge,
        "ipo": ipo,
        "kto_pair": kto_pair,
        "orpo": orpo,
        "simpo": simpo,
        "robust": robust,
        "exo_pair": exo_pair,
        "apo_zero": apo_zero,
        "apo_down": apo_down,
        "sppo_hard": sppo_hard,
        "nca_pair": nca_pair,
        "bco_pair": bco_pair,
        "discopop": discopop,
        "aot": aot,
        "aot_unpaired": aot_unpaired,
    }
)
"""Loss functions by value of `pref_loss`; each returns `[P]`. Traits: `declarations.stages.preference_losses`."""
