from typing import Annotated

import typer

from llf_core.cli.checked_config import load_config
from llf_core.cli.errors import UsageError, in_a_sentence
from llf_core.cli.parameters import ConfigFile, Json, Overrides, Trust
from llf_core.cli.terminal import err, out, print_json, progress_status


def find_learning_rate(  # noqa: PLR0913, PLR0917 - options of a command
    config: ConfigFile,
    overrides: Overrides = None,
    rates: Annotated[
        str | None,
        typer.Option(help="Learning rates, separated by commas. Default: 8 from 1e-6 upwards, for adapters from 1e-5."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Maximum number of steps of each learning rate.")] = 30,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Propose a learning rate: trains a few steps from the start with each of several rates. Makes no run.

    The loss of each rate is compared with that of the untrained model on the same batches. Ctrl-C ends it.
    """
    from llf_core.evaluation.learning_rate_search import find_learning_rate as search

    tried = None if rates is None else _numbers(rates)
    loaded = load_config(config, overrides)
    with in_a_sentence(), progress_status() as progress:
        found = search(
            loaded,
            rates=tried,
            steps=steps,
            trust=trust,
            say=lambda sentence: err.print(sentence, markup=False, highlight=False),
            progress=progress,
        )
    print_json(found.json()) if as_json else out.print(found.text(), markup=False, highlight=False)


def _numbers(text: str) -> list[float]:
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise UsageError(f"--rates is {text!r}. Expected numbers separated by commas, such as 1e-5,1e-4.") from None
