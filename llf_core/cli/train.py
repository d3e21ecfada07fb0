"""`llf train`, and commands that examine a config without a run: validate, inspect, estimate, rates and others."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llf_core.cli.follow_run import (
    attach_run,
    evaluation_report,
    follow_run,
    functions_of_file,
    load_config,
    load_with_rewards,
    prediction_report,
    with_data_checks,
    with_name_checks,
)
from llf_core.cli.terminal import (
    ConfigFile,
    Json,
    Overrides,
    RewardFile,
    Trust,
    UsageError,
    err,
    in_a_sentence,
    out,
    print_json,
    print_problem,
    progress_status,
    row_progress,
)
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from llf_core.training.parameter_map import ModuleRow


def train(  # noqa: PLR0913, PLR0917 - options of a command
    config: ConfigFile,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run and return at once.")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Start when no other run trains on this machine.")] = False,
    on: Annotated[str | None, typer.Option(help="Where it runs: '2 processes', '4 gpus' or a launcher.")] = None,
    rewards: RewardFile = None,
    as_json: Json = False,
) -> None:
    """Train and follow the run. Ctrl-C stops it with a checkpoint; a second Ctrl-C kills it."""
    from llf_core.config.evaluation_keys import asks_for_evaluation, asks_for_predictions
    from llf_core.config.read_config import read
    from llf_core.launch import active_runs, launch

    values = read(config, overrides or ()).values
    if asks_for_evaluation(values):
        raise UsageError("The config asks for an evaluation and no training.", f"Run it with: llf eval {config}")
    if asks_for_predictions(values):
        raise UsageError("The config has `do_predict` and no `do_train`.", f"Run it with: llf predict {config}")
    loaded, functions = load_with_rewards(config, overrides, functions_of_file(rewards))
    for other in () if queue else active_runs():
        err.print(f"[dim]Note   [/dim] {other.id} is {other.state} on this machine too. Both will be slower.")
    with in_a_sentence():
        run = launch(loaded, name=name, queue=queue, rewards=functions, on=on)
    if detach:
        print_json({"id": run.id, "folder": str(run.folder.path)}) if as_json else out.print(run.id)
        return
    follow_run(run, as_json=as_json)


def demo(
    report: Annotated[bool, typer.Option("--report", help="Only report on the newest run on the demo data.")] = False,
) -> None:
    """Fine-tune a small model in about a minute, then compare its responses before and after."""
    from llf_core.config import RunConfig, preset
    from llf_core.evaluation.demo_report import newest_demo, report_on
    from llf_core.launch import launch

    with in_a_sentence():
        run = attach_run(newest_demo()) if report else launch(RunConfig.load(preset("first-minute")), name="demo")
    if not report:
        follow_run(run, as_json=False)
    try:
        good, text = report_on(run)
    except RuntimeError as error:
        raise UserError(f"The responses could not be generated: {error}") from None
    out.print(text, markup=False)
    if not good:
        raise typer.Exit(1)


def parameters(config: ConfigFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show which modules and layers a config trains, how many parameters, and which servers load the result.

    Check with it what lora_target or freeze_trainable_layers mean for a model. No weights are loaded, and no data set
    is needed.
    """
    from llf_core.config.adapter_servers import server_lines, servers_of_config
    from llf_core.runs import home
    from llf_core.runs.parameter_grid import share_sentence

    checked = load_config(config, overrides, data=False)
    with err.status("Reading the model's architecture…"):
        from llf_core.training.parameter_map import map_of_config

        found = map_of_config(checked)
    known = servers_of_config(checked, home())
    servers = None if known is None else known.json()
    if as_json:
        print_json(found.json() | {"servers": servers})
        return
    from rich.table import Table

    table = Table("module", "layers", "parameters", "trained", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    several = len({row.stack for row in found.rows if row.stack}) > 1
    for row in found.rows:
        module = f"{row.stack}: {row.module}" if several and row.stack else row.module
        table.add_row(module, _layers(row), f"{row.parameters:,}", f"{row.trained:,}" if row.trained else "")
    out.print(table)
    out.print(share_sentence(found.trained, found.parameters))
    for line in server_lines(servers):
        out.print(line, markup=False, highlight=False)


def _layers(row: "ModuleRow") -> str:
    """Its states and their layers: `adapter 0-29 (quantized)`."""
    from llf_core.training.parameter_map import layer_ranges

    told = []
    for state, layers in row.states.items():
        runs = [
            str(first) if first == last else f"{first}-{last}" for first, last in layer_ranges(layers) if first >= 0
        ]
        told.append(f"{state} {', '.join(runs)}".strip())
    return "; ".join(told) + (" (quantized)" if row.quantized and "quantized" not in row.states else "")


def inspect(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: Json = False,
    dump: Annotated[
        Path | None, typer.Option(help="Write every example to this file, one JSON object per line.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there are unusable records.")] = False,
) -> None:
    """Show the training data: counts of examples and tokens, and three examples with the tokens in the loss marked.

    A wrong chat template or column is then seen before it costs a run.
    """
    from llf_core.data import dump_examples, prepare
    from llf_core.models import load_processor, load_tokenizer, resolve_model
    from llf_core.runs.foreign_code import started_by_user

    loaded = load_config(config, overrides)
    with started_by_user():
        source = resolve_model(loaded.model.model_name_or_path, loaded)
        tokenizer = load_tokenizer(source, loaded)
        processor = load_processor(source, loaded, tokenizer)
        with row_progress() as progress:
            prepared = prepare(loaded, tokenizer, progress=progress, peek=True, processor=processor)
    report = replace(prepared.report, packing_fill=prepared.fill(loaded.data.cutoff_len))
    print_json(report.summary()) if as_json else out.print(report.text(), markup=False)
    if dump is not None:
        try:
            dump_examples(prepared, dump)
        except OSError as error:
            nobody = "It is a named pipe without a reader" if error.errno == errno.ENXIO else error.strerror
            raise UserError(f"{dump} cannot be written: {nobody}. Expected a file.") from None
    if strict and report.unusable():
        raise UserError(f"Unusable records: {len(report.unusable()):,} (--strict).")


def validate(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check a config: unknown keys, names that do not exist, columns that match no format, impossible combinations.

    No model is loaded, so that errors are found in seconds.
    """
    from llf_core.config import validate as check
    from llf_core.config.evaluation_keys import asks_for_evaluation, asks_for_predictions
    from llf_core.config.read_config import read

    requested = read(config, overrides or ())
    if asks_for_predictions(requested.values) and not requested.problems:  # the config of `llf predict`
        report = prediction_report(requested.values, requested.base)
    elif asks_for_evaluation(requested.values) and not requested.problems:  # the config of `llf eval`
        report = evaluation_report(requested.values, requested.base)
    else:
        report = with_data_checks(with_name_checks(check(config, overrides or ())))
    if as_json:
        print_json(report.json())
    else:
        for problem in report.problems:
            print_problem(problem)
        if report.ok:
            warnings = sum(problem.severity == "warning" for problem in report.problems)
            told = f" {warnings} warning{'s' if warnings > 1 else ''}: see above." if warnings else ""
            out.print(f"The config is valid.{told}")
    if not report.ok:
        raise typer.Exit(BAD_CONFIG)


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


def try_rewards(  # noqa: PLR0913, PLR0917 - options of a command
    config: ConfigFile,
    overrides: Overrides = None,
    rewards: RewardFile = None,
    prompts: Annotated[int, typer.Option(help="Maximum number of prompts, chosen at random.")] = 16,
    group_size: Annotated[
        int | None, typer.Option(help="Completions of each prompt. Default: `num_generations`, or 4 for ppo.")
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Show the rewards of completions of the untrained model: their spread, and what a run could not learn from them.

    Makes no run. Ctrl-C ends it.
    """
    from llf_core.evaluation.reward_preview import try_rewards as preview

    loaded, functions = load_with_rewards(config, overrides, functions_of_file(rewards))
    with in_a_sentence(), progress_status() as progress:
        found = preview(
            loaded,
            rewards=functions,
            prompts=prompts,
            group_size=group_size,
            trust=trust,
            progress=progress,
        )
    print_json(found.json()) if as_json else out.print(found.text(), markup=False, highlight=False)
