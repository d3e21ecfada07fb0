"""`llf predict`: the responses of a model to a data set, as LLaMA-Factory's `do_predict` writes them."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from llf_core.cli.checked_config import accepted, load_config, prediction_report
from llf_core.cli.errors import UsageError, in_a_sentence
from llf_core.cli.parameters import Json, Overrides, Trust
from llf_core.cli.terminal import err, out, print_json
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.chat.target import Target
    from llf_core.config import RunConfig


def predict(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG|RUN", help="A YAML or JSON file; or a run, also RUN@STEP or RUN@base.")
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the result. Default: output_dir of the config; RUN/predictions of a run."),
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Generate the response to each prompt of a data set, and write generated_predictions.jsonl.

    The data are eval_dataset, the validation split, or dataset of the config; of a run, its validation data. The same
    command continues what was stopped.
    """
    asked = _of_config(config, overrides) if Path(config).is_file() else _of_run(config, overrides)
    folder = output or asked.folder
    if folder is None:
        raise UsageError("The config has no output_dir.", "Name a folder with --output.")
    with in_a_sentence():
        done = _predict(asked, folder.expanduser().absolute(), trust=trust)
    if as_json:
        print_json(done)
    else:
        for name, value in done["values"].items():
            err.print(f"{name}: {value:,.4g}", markup=False)
        out.print(done["file"], markup=False)


@dataclass(frozen=True)
class _Asked:
    config: "RunConfig"
    target: "Target"
    folder: Path | None
    metrics: tuple[str, ...]


def _of_config(source: str, overrides: list[str] | None) -> _Asked:
    from llf_core.chat.target import target_of_config
    from llf_core.config.paths import absolute, expanded
    from llf_core.config.read_config import read
    from llf_core.evaluation.config_file import requested_metrics

    requested = read(source, overrides or ())
    if requested.problems:
        load_config(source, overrides)  # prints them, and ends the command
    loaded = accepted(prediction_report(requested.values, requested.base))
    folder = requested.values.get("output_dir")
    place = requested.base / expanded(folder) if isinstance(folder, str) else None
    names = tuple(absolute(one, "metrics", requested.base, file=True) for one in requested_metrics(requested.values))
    return _Asked(loaded, target_of_config(loaded), place, names)


def _of_run(name: str, overrides: list[str] | None) -> _Asked:
    """Functions among the run's metrics are left out: their code came with the run."""
    from llf_core.chat.target import find_target
    from llf_core.config.evaluation_keys import declarations_of
    from llf_core.config.read_config import read
    from llf_core.runs import open_run
    from llf_core.runs.config_file import run_config

    with in_a_sentence():
        target = find_target(name)
        if not target.run_id:
            raise UsageError(
                f"{name} is neither a config nor a run.", "Expected a YAML file with a data set, or a run."
            )
        run = open_run(target.run_id)
        config = run_config(run)
    if not (config.data.eval_dataset or config.data.val_size):
        raise UsageError(
            f"{run.id} has no validation data.", "Name a config with the data set and the run's output instead."
        )
    requested = read(config.flat(), overrides or ())
    metrics = tuple(one for one in config.evaluation.metrics or () if declarations_of(one))
    loaded = accepted(prediction_report(requested.values, run.path))
    return _Asked(loaded, target, run.predictions, metrics)


def _predict(asked: _Asked, folder: Path, *, trust: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from llf_core.chat.batch_prediction import LOADING, PredictionProgress, predict_data_set, prediction_metrics

    began = 0.0

    def show(at: PredictionProgress) -> None:
        nonlocal began
        if not began:
            began = time.monotonic()
            if at.done:
                err.print(f"{at.done:,} of {at.total:,} records have a prediction already.")
        speed = at.tokens / max(time.monotonic() - began, 1e-9)
        status.update(escape(at.activity or f"{at.done:,} of {at.total:,} records, {speed:,.1f} tokens/s"))

    with prediction_metrics(asked.metrics, _warn) as metrics, err.status(LOADING) as status:
        try:
            done = predict_data_set(
                asked.config, asked.target, folder, metrics, warn=_warn, on_progress=show, trust=trust
            )
        except KeyboardInterrupt:
            raise UserError(f"Stopped. The predictions so far are in {folder}; the same command continues.") from None
    return asdict(done)


def _warn(sentence: str) -> None:
    err.print(f"[yellow]Warning[/yellow] {escape(sentence)}")
