from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.run_config import RunConfig

KEY = "mixture_of_depths"


def check_routers(settings: Mapping[str, object], config: RunConfig) -> tuple[Problem, ...]:
    """Compare a model's `config.json` with `mixture_of_depths`: convert needs one without routers, load one with them.

    Without the option, the routers of a converted model would not be trained with the blocks around them.
    """
    asked, stored = config.get(KEY), settings.get(KEY)
    converted = stored is not None and stored is not False
    if converted and asked != "load":
        wrong = f"{config.get('model_name_or_path')} was converted to Mixture-of-Depths before. Expected {KEY}: load."
        fix = Fix("Continue it", {KEY: "load"})
    elif asked == "load" and not converted:
        wrong = (
            f"{KEY} is load, and {config.get('model_name_or_path')} has no routers. Expected a model that was trained "
            f"with {KEY}: convert."
        )
        fix = Fix("Convert it", {KEY: "convert"})
    else:
        return ()
    return (Problem("violation", KEY, asked, wrong, (fix,), "error", keys=(KEY, "model_name_or_path")),)
