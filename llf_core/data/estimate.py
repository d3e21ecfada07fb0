"""The forecast of a run from its config and the text of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config import RunConfig
from llf_core.data.text_lengths import lengths_from_text
from llf_core.estimate import check_fit
from llf_core.estimate.cards import cards_of_place
from llf_core.estimate.past_runs import known_lengths

if TYPE_CHECKING:
    from llf_core.estimate import FitCheck


def estimate(config: object, on: str | None = None) -> FitCheck:
    """Forecast memory, disk, time and speed of a run before it starts, without loading the model or torch.

    Args:
        config: a `RunConfig`, a dict, YAML text, or the path of a YAML or JSON file. Its data set is a name or a file,
            not rows.
        on: cards that this machine need not have, such as `8 x H100 80GB`, each with a process; None for this machine.

    Returns:
        The forecast: `.fits`, `.memory` (bytes by part), `.rooms` (devices), `.disk` (bytes), `.duration`, `.changes`
        that make it fit. What is unknown is None. `print(found.text())` shows it.

    Raises:
        ConfigError: the config has errors.
        ModelSizeError: a file of the model has a size that no model has.
    """
    loaded = config if isinstance(config, RunConfig) else RunConfig.load(config)
    lengths = known_lengths(loaded) or lengths_from_text(loaded)
    if on is None:
        return check_fit(loaded, lengths)
    cards = cards_of_place(on)
    return check_fit(loaded.replace(num_processes=cards.count, num_nodes=1, use_cpu=False), lengths, (cards,))
