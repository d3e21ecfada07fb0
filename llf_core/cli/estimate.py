from typing import Annotated

import typer

from llf_core.cli.checked_config import load_config
from llf_core.cli.parameters import ConfigFile, Json, Overrides
from llf_core.cli.terminal import out, print_json

Places = Annotated[
    list[str] | None,
    typer.Option("--on", metavar="CARDS", help="Cards in place of this machine, such as '8 x H100 80GB'. Repeatable."),
]


def estimate(config: ConfigFile, overrides: Overrides = None, on: Places = None, as_json: Json = False) -> None:
    """Forecast memory by part, disk, time and speed of a run before it starts, and what would make it fit.

    No weights are loaded. Several `--on` print a table of which cards hold the run, and how fast they are.
    """
    from llf_core.data.text_lengths import estimate as forecast
    from llf_core.estimate.fit_result import places_table

    loaded = load_config(config, overrides)
    found = [forecast(loaded, place) for place in on or (None,)]
    if as_json:
        print_json(found[0].json() if len(found) == 1 else [one.json() for one in found])
    else:
        out.print(found[0].text() if len(found) == 1 else places_table(found), markup=False, highlight=False)
