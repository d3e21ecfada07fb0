"""Assignment of evaluation examples to data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.rules.conditions import no_sets_reason
from llf_core.config.rules.evaluation_metrics import evaluation_sets
from llf_core.data.example_store import SET_COLUMN

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.data import Prepared


def positions_by_set(config: RunConfig, data: Prepared) -> dict[str, list[int]]:
    """Positions of the evaluation examples of each data set that has some, by its name in metrics.

    Empty without `eval_on_each_dataset`.
    """
    if not config.evaluation.eval_on_each_dataset or no_sets_reason(config) or data.eval is None:
        return {}
    numbers = data.eval_counts[:, SET_COLUMN]
    found = {name: np.flatnonzero(numbers == number).tolist() for number, name in enumerate(evaluation_sets(config))}
    return {name: places for name, places in found.items() if places}
