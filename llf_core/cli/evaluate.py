"""`llf eval`, `llf predict`, `llf runs loss`, `llf runs win-rate` and `llf reward-accuracy`."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from llf_core.cli.follow_run import accepted, attach_run, load_config, prediction_report
from llf_core.cli.terminal import (
    Json,
    Overrides,
    RewardModel,
    RunId,
    Trust,
    UsageError,
    err,
    in_a_sentence,
    out,
    print_json,
    progress_status,
)
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.chat.target import Target
    from llf_core.config import RunConfig
    from llf_core.evaluation.report import ComparedResult
    from llf_core.runs.evaluations import EvaluationResult, ExampleResult


SHOWN_CHARACTERS = 160
"""Maximum characters of a text of an example."""


def evaluate(  # noqa: PLR0913, PLR0917 - one parameter an option
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Runs, RUN@STEP, RUN@base, folders of models or adapters, hub ids; or one config file.",
        ),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="A data set: a name, a file, a folder. Default: the run's validation data, or none with --task.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC", help="A metric of generated answers, such as rouge; can be repeated."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="A benchmark of lm-eval: a name, a YAML file, a folder; can be repeated."),
    ] = None,
    n_shot: Annotated[int | None, typer.Option(help="Solved examples in the prompt of a task.", min=0)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed of the choice of solved examples. Default: 1234.")
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Allow the data of tasks to be downloaded.")] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|URL",
            help="Who compares the answers: a model, or an endpoint with OpenAI's API (https://…/v1).",
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Name of the endpoint's model.")] = None,
    judge_key: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable with the endpoint's key.")
    ] = None,
    rubric: Annotated[Path | None, typer.Option(help="File that says what makes an answer better.")] = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of examples of each data set.", min=1)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Maximum tokens per answer. Default: 256.", min=1)] = None,
    dataset_dir: Annotated[str | None, typer.Option(help="Folder with dataset_info.json.")] = None,
    base: Annotated[bool, typer.Option(help="Measure the base model of each run too.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Measure again what was measured before.")] = False,
    show: Annotated[int, typer.Option(help="Number of examples to show: the worst, and the most changed.", min=0)] = 3,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Measure models on data: perplexity, bits per byte, token accuracy, and metrics of generated answers.

    All models are compared with the first one, which is the base model of the first run: each difference has a verdict
    whether it exceeds the noise and, from ten examples on, a 95 % interval. Results are stored as soon as they are
    complete, and what was measured before is not measured again.

    A config file says what is measured by LLaMA-Factory's keys: task, n_shot, eval_dataset, predict_with_generate,
    save_dir. Options of the command replace them.
    """
    from llf_core.config.number_format import with_unit
    from llf_core.evaluation.config_file import is_config_file, read_evaluation
    from llf_core.evaluation.evaluate import evaluate, with_base
    from llf_core.evaluation.judge.judge import judge_of
    from llf_core.evaluation.report import by_task, compare_with_first
    from llf_core.runs.files import json_bytes, replace_file

    complete: list[EvaluationResult] = []
    with in_a_sentence():
        file = read_evaluation(Path(targets[0])) if len(targets) == 1 and is_config_file(targets[0]) else None
        for note in () if file is None else file.notes:
            err.print(f"[yellow]Warning[/yellow] {escape(note)}")
        named: list[Any] = targets if file is None else [file.target]
        given = {
            "on": _names(on), "metrics": _names(metric), "tasks": _names(task), "n_shot": n_shot, "seed": seed,
            "limit": limit, "max_new_tokens": max_new_tokens, "dataset_dir": dataset_dir,
        }  # fmt: skip
        options: dict[str, Any] = {} if file is None else file.options
        options |= {name: value for name, value in given.items() if value is not None}
        try:
            with progress_status() as progress:
                results = evaluate(
                    with_base(named) if base else named,
                    hub=hub,
                    judge=judge_of(judge, model=judge_model, key_variable=judge_key, rubric=rubric),
                    trust=trust,
                    again=again,
                    progress=progress,
                    on_result=lambda _, result: complete.append(result),
                    **options,
                )
        except KeyboardInterrupt:
            raise UserError(f"Stopped. {with_unit(len(complete), 'result')} complete and stored.") from None
        tables = [(one, compare_with_first(one)) for one in by_task(results)]
        if file is not None and file.save_dir is not None:
            file.save_dir.mkdir(parents=True)
            replace_file(file.save_dir / "results.json", json_bytes(_json(tables)))
        if as_json:
            print_json(_json(tables))
            return
        for number, (of_task, compared) in enumerate(tables):
            if number:
                out.print()
            _print_results(of_task, compared, show)


def _names(given: list[str] | None) -> list[str] | None:
    return [name for one in given for part in one.split(",") if (name := part.strip())] if given else None


def _json(tables: "Sequence[tuple[Sequence[EvaluationResult], Sequence[ComparedResult]]]") -> dict[str, object]:
    return {
        "results": [one.json() | {"folder": str(one.folder)} for results, _ in tables for one in results],
        "differences": [line for _, compared in tables for one in compared for line in one.json()],
        "judged": [
            {"target": one.result.target.name, **asdict(rate), "sentence": rate.sentence}
            for _, compared in tables
            for one in compared
            for rate in one.judged
        ],
    }


def _print_results(results: "Sequence[EvaluationResult]", compared: "Sequence[ComparedResult]", show: int) -> None:
    _print_table(results, compared)
    for one in compared:
        if not one.pairs:
            first, second = results[0].target.name, one.result.target.name
            err.print(f"[yellow]Warning[/yellow] {escape(f'{first} and {second} have other examples.')}")
    if show:
        _print_examples(results, compared, show)


def _print_table(results: "Sequence[EvaluationResult]", compared: "Sequence[ComparedResult]") -> None:
    """One row a metric: the value of each target, and the difference of each from the first."""
    from rich.table import Table

    from llf_core.evaluation.report import data_text, label_text, value_text
    from llf_core.runs.formatting import amount_text

    out.print(escape(data_text(results[0], ", ".join(results[0].data.names))))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for result in results:
        table.add_column(escape(result.target.name))
    for value in results[0].metrics:
        found = [one.metric(value.name) for one in results]
        table.add_row(escape(label_text(value)), *("" if one is None else value_text(one) for one in found))
        for source in value.by_source if len(value.by_source) > 1 else ():
            row = [None if one is None else one.by_source.get(source) for one in found]
            shown = ("" if number is None else amount_text(number, value.unit) for number in row)
            table.add_row(f"  [dim]{escape(source)}[/dim]", *shown)
    out.print(table)
    for one in compared:
        if one.differences:
            out.print(f"\n[bold]{escape(one.result.target.name)}[/bold] against {escape(results[0].target.name)}")
        for name, difference in one.differences.items():
            metric = one.result.metric(name)
            out.print(f"  {escape(name if metric is None else metric.label)}: {escape(difference.sentence)}")
        for rate in one.judged:
            out.print(f"  {escape(f'Judge {rate.judge}')}: {escape(rate.sentence)}")


def _print_examples(results: "Sequence[EvaluationResult]", compared: "Sequence[ComparedResult]", most: int) -> None:
    """The worst examples of the last target, and those that differ most from the first."""
    from llf_core.evaluation.comparison import most_changed_first, score_of, worst_first
    from llf_core.runs.evaluations import examples_of

    last = results[-1]
    answered = [one for one in last.metrics if any(one.name in example.scores for example in examples_of(last))]
    value = next(iter(answered or last.metrics), None)
    if value is None:
        return
    worst = worst_first(examples_of(last), value)[:most]
    _print_list(f"Worst examples of {last.target.name} by {value.label}", [[one] for one in worst], [last], value.name)
    if compared and compared[-1].pairs:
        changed = most_changed_first(compared[-1].pairs, value)[:most]
        changed = [one for one in changed if score_of(one.base, value.name) != score_of(one.tuned, value.name)]
        title = f"Most changed examples by {value.label}"
        _print_list(title, [[one.base, one.tuned] for one in changed], [results[0], last], value.name)


def _print_list(
    title: str, rows: "Sequence[Sequence[ExampleResult]]", of: "Sequence[EvaluationResult]", metric: str
) -> None:
    from llf_core.evaluation.comparison import score_of
    from llf_core.runs.formatting import number

    if not rows:
        return
    out.print(f"\n[bold]{escape(title)}[/bold]")
    for row in rows:
        first = row[0]
        asked = first.prompt[-1].get("content") if first.prompt else None
        out.print(f"{escape(Path(first.source).name)} {first.index + 1:,}{': ' if asked else ''}{_text(asked or '')}")
        if first.reference is not None:
            out.print(f"  expected: {_text(first.reference)}")
        for one, result in zip(row, of, strict=True):
            score = score_of(one, metric)
            shown = "" if math.isnan(score) else f" {number(score)}"
            answer = f": {_text(one.answer)}" if one.answer is not None else ""
            out.print(f"  {escape(result.target.name)}{shown}{answer}")


def _text(value: object) -> str:
    line = " ".join(str(value).split())
    return escape(line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…")


def runs_loss(
    run: RunId,
    data: Annotated[
        str | None, typer.Option(help="Data set to evaluate on. Default: the run's validation data.")
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute the evaluation loss of the base model and of the tuned model of a finished run.

    The difference says how much the training has improved the model on data that it was not trained on.
    """
    from dataclasses import asdict

    from llf_core.config.number_format import with_unit
    from llf_core.evaluation.run_losses import losses_in_child

    found = attach_run(run)
    with in_a_sentence(), out.status("Computing the losses of the base and the tuned model …"):
        computed = losses_in_child(found.id, data, found.folder.home, trust=trust)
    if as_json:
        print_json(asdict(computed))
    else:
        out.print(f"base {computed.base:.4f}, tuned {computed.tuned:.4f}, on {with_unit(computed.examples, 'example')}")


def runs_win_rate(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunId,
    reward_model: RewardModel,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help=("Prompt to respond to; can be repeated. Default: the run's validation data.")),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Maximum tokens per response.", min=1)] = 128,
    most: Annotated[int, typer.Option(help="Maximum number of prompts from the validation data.", min=1)] = 100,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute the win rate: how often a reward model prefers the tuned model to the base model.

    It measures whole responses, where the loss measures single tokens.
    """
    from dataclasses import asdict

    from llf_core.config.number_format import percent
    from llf_core.evaluation.win_rate import win_rate_in_child

    found = attach_run(run)
    with in_a_sentence(), progress_status() as progress:
        rate = win_rate_in_child(
            found.id,
            reward_model,
            prompt,
            max_new_tokens=tokens,
            most=most,
            home=found.folder.home,
            progress=progress,
            trust=trust,
        )
    if as_json:
        print_json(asdict(rate))
    else:
        out.print(
            f"{percent(rate.rate)} (95 % band {percent(rate.low)} to {percent(rate.high)}): "
            f"{rate.wins} won, {rate.ties} equal, {rate.losses} lost; "
            f"mean reward {rate.base:.3f} of the base, {rate.tuned:.3f} of the result"
        )


def reward_accuracy(  # noqa: PLR0913, PLR0917 - one parameter an option
    reward_model: RewardModel,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A preference data set: a name, a file, a folder.")],
    dataset_dir: Annotated[str | None, typer.Option(help="Folder with dataset_info.json.")] = None,
    most: Annotated[int | None, typer.Option(help="Maximum number of pairs.", min=1)] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute the accuracy of a reward model: how often it scores the chosen response higher.

    Measure it before the model is used for training: a policy learns its errors too.
    """
    from dataclasses import asdict

    from llf_core.config.number_format import percent
    from llf_core.evaluation.reward_accuracy import reward_accuracy_in_child

    with in_a_sentence(), progress_status() as progress:
        found = reward_accuracy_in_child(
            reward_model, data, dataset_dir=dataset_dir, most=most, progress=progress, trust=trust
        )
    if as_json:
        print_json(asdict(found))
        return
    out.print(
        f"{percent(found.accuracy, 1)} of {found.pairs:,} pairs "
        f"(95 % band {percent(found.low, 1)} to {percent(found.high, 1)}), "
        f"mean margin {found.margin:.3f}"
    )
    for reason, count in found.dropped.items():
        out.print(f"{count:,} left out: {escape(reason)}")


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
