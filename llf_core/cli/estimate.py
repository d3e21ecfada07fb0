"""`llf estimate`: forecasts memory, disk and time of a run."""

from llf_core.cli.checked_config import load_config
from llf_core.cli.parameters import ConfigFile, Json, Overrides
from llf_core.cli.terminal import out, print_json


def estimate(config: ConfigFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Forecast memory by part, disk, time and speed of a run before it starts, and what would make it fit.

    No weights are loaded.

    Raises:
        Exit: the config has errors.
        ModelSizeError: a file of the model has a size that no model has.
        HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
        UnreadableError: the `state.json` of a data set of `Dataset.save_to_disk` is not a regular file, or too large.
        OSError: a file of the model or of the data cannot be read.
        PluginError: the implementation of a format cannot be imported, or two installed packages declare the same name
            or key.
    """
    from llf_core.data.estimate import estimate as forecast

    found = forecast(load_config(config, overrides))
    print_json(found.json()) if as_json else out.print(found.text(), markup=False, highlight=False)
