"""The `llf` command: thin, one function a command. What a command does is in the package that it names."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn

from llf_core import NO_WINDOWS, __version__
from llf_core.door import brief, visible, visible_json
from llf_core.redaction import redact, redact_nested
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llf_core.config import Problem, Report
    from llf_core.launch import Run
    from llf_core.runs import Status

INTERRUPTED = 130
SETTLE_SECONDS = 10
LOG_LINES = 10
RUNS_CODE = ("trust_remote_code", "allow_pickle")
"""Keys that have code of others run: what is noted of them is always said."""
STATES_SHOWN = ("created", "starting", "running", "stopping", "finished", "stopped", "failed", "lost", "broken")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune language models. Runs live in $LLF_HOME/runs and outlive this terminal.",
)
runs_app = typer.Typer(no_args_is_help=True, help="List runs, look into them, stop, resume, delete.")
app.add_typer(runs_app, name="runs")


class Terminal(Console):
    """A console on which texts of strangers (data, names, logs) are read and never obeyed."""

    def print(self, *objects: Any, **how: Any) -> None:
        """The same; characters that a terminal obeys stand as escapes, see `visible`."""
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **how)


out = Terminal(highlight=False, soft_wrap=True)
err = Terminal(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file.")]
RewardModel = Annotated[str, typer.Argument(metavar="REWARD_MODEL", help="A run of stage rm, a folder, a hub's name.")]
RewardFile = Annotated[
    Path | None,
    typer.Option("--rewards", metavar="FILE", help="Python file with reward functions, marked with @reward."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code of a run that was made elsewhere, with your permissions.")
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Run id, the beginning of one, or `last`.")]


def main() -> None:
    """Runs the command; an error that a user can mend is one line, without a trace."""
    if sys.platform == "win32":
        sys.exit(NO_WINDOWS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a sign, or a file name that is no text
            stream.reconfigure(errors="backslashreplace")
    from llf_core.runs.log_handler import log_to

    log_to("stderr")  # stdout is the command's result
    try:
        app()
    except UserError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename:
            _print_error(OSError(f"{error.filename} cannot be used: {error.strerror}."))
            sys.exit(1)
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}:
            raise
        with suppress(OSError, ValueError):  # what is left of the output goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _print_error(OSError(f"The output cannot be written: {error.strerror}. Make room, or send it elsewhere."))
        sys.exit(1)


def _print_error(error: Exception) -> None:
    err.print(f"[red]Error[/red] {escape(brief(redact(str(error))))}")


class UsageError(UserError):
    """An option or argument that a command cannot use."""

    exit_code = BAD_CONFIG


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """What a run or the system refuses, without a trace."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(_refused(error)) from None
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from None


def _refused(error: OSError) -> str:
    """What the system said, as a sentence."""
    from llf_core.runs.disk_errors import disk_sentence, is_disk_error
    from llf_core.runs.folder import home

    if is_disk_error(error) and error.strerror == os.strerror(error.errno or 0):  # not a sentence of ours already
        return disk_sentence(error, home())
    return str(error) if error.filename or not error.strerror else error.strerror


@contextmanager
def _how_far() -> Iterator[Callable[[str, int, int], None]]:
    """A line that says how far another process is."""
    with out.status("Loading …") as status:
        yield lambda what, done, total: status.update(f"{what}: {done:,} of {total:,}")


def _print_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    print(visible_json(text), flush=True)  # noqa: T201 - the result


def _print_problem(problem: Problem) -> None:
    colour = {"error": "red", "warning": "yellow", "note": "dim"}[problem.severity]
    where = f" (line {problem.line})" if problem.line else ""
    err.print(f"[{colour}]{problem.severity.capitalize():7}[/{colour}] {escape(problem.message)}{where}")
    for fix in problem.fixes:
        changes = " ".join(f"{key}={json.dumps(value)}" for key, value in redact_nested(dict(fix.changes)).items())
        err.print(f"        {escape(fix.label)}: {escape(brief(changes))}")


def _load(source: str, overrides: list[str] | None = None) -> Any:
    """The config of a command that begins on this machine; says what stands against it."""
    from llf_core.config import validate as check

    report = _with_data(_with_names(check(source, overrides or ()), starting=True))
    for problem in report.problems:
        if problem.severity != "note" or problem.kind == "unresolved" or problem.key in RUNS_CODE:
            _print_problem(problem)
    if not report.ok:
        raise typer.Exit(BAD_CONFIG)
    return report.config


def _with_names(report: Report, *, starting: bool = False) -> Report:
    """The report with what the names in it bring."""
    from llf_core.config.name_checks import check as check_names
    from llf_core.runs.folder import home, run_ids

    return check_names(report, runs=run_ids(), home=home(), starting=starting)


def _with_data(report: Report) -> Report:
    """The report with what a glance at the data sets brings, where nothing else stands against the config."""
    if not report.ok:
        return report
    from llf_core.data.kind_check import against

    found = (replace(problem, line=report.lines.get(problem.key)) for problem in against(report.config))
    return report.with_problems((*report.problems, *found))


def _rewards(path: Path | None) -> dict[str, Callable[..., Any]]:
    """The functions of a file by their names."""
    if path is None:
        return {}
    from llf_core.rewards import by_name, from_file

    with _in_a_sentence():
        return {name: one for name, one in by_name(from_file(path)).items() if one is not None}


def _left_aside(who: str, given: Iterable[str], known: Iterable[str]) -> None:
    others = ", ".join(name for name in given if name not in set(known))
    if others:
        err.print(f"{who} has no reward function {others}: left aside.", highlight=False)


def _named(source: str, overrides: list[str] | None) -> tuple[str, ...]:
    """The reward functions that a config names."""
    from llf_core.config import validate as check

    return check(source, overrides or ()).config.get("reward_functions") or ()


def _run(run_id: str) -> Run:
    from llf_core.launch import attach
    from llf_core.runs.find import find_run

    with _in_a_sentence():
        return attach(find_run(run_id))


@app.command()
def train(  # noqa: PLR0913, PLR0917 - options of a command
    config: ConfigFile,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the run.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run and return at once.")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Start when no other run trains on this machine.")] = False,
    rewards: RewardFile = None,
    as_json: Json = False,
) -> None:
    """Train, and follow the run. Ctrl-C stops it with a checkpoint; a second Ctrl-C kills it."""
    from llf_core.launch import active_runs, launch

    given = _rewards(rewards)
    named = list(_named(config, overrides) or given) if given else []
    loaded = _load(config, [*(overrides or ()), *([f"reward_functions={json.dumps(named)}"] if named else [])])
    _left_aside("The config", given, named)
    for other in () if queue else active_runs():
        err.print(f"[dim]Note   [/dim] {other.id} is {other.state} on this machine too; both will be slower.")
    with _in_a_sentence():
        run = launch(loaded, name=name, queue=queue, rewards=[given.get(one, one) for one in named] if given else None)
    if detach:
        _print_json({"id": run.id, "folder": str(run.folder.path)}) if as_json else out.print(run.id)
        return
    _follow(run, as_json=as_json)


def _follow(run: Run, *, as_json: bool) -> None:
    """Shows progress until the run ends, then exits with 0, 1 or (interrupted) 130."""
    if not as_json:
        err.print(f"{run.id}  [dim]{escape(str(run.folder.path))}[/dim]")
    interrupted = False
    while True:
        try:
            run.wait(progress=not as_json, interrupt="raise")
            break
        except KeyboardInterrupt:
            if interrupted:
                run.kill()
                err.print("Killed.")
            else:
                interrupted = True
                run.stop()
                err.print("Stopping after the current step, with a checkpoint. Ctrl-C again kills the run.")
    status = _settled(run)
    if as_json:
        _print_json({"id": run.id, "state": status.state, "step": status.step, "reason": status.reason})
    else:
        at = f" at step {status.step:,} of {status.total:,}" if status.total else ""
        out.print(f"{status.state}{at}. {escape(status.reason or '')}".rstrip())
        if status.state == "stopped":
            out.print(f"Go on with: llf runs resume {run.id}")
        if run.output.is_dir():
            out.print(f"The result is in {run.output}", markup=False)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if status.state not in {"finished", "stopped"}:
        raise typer.Exit(BAD_CONFIG if status.exit_code == BAD_CONFIG else 1)


def _settled(run: Run) -> Status:
    """The status once the supervisor, which has the exit code, has had its say too."""
    until = time.monotonic() + SETTLE_SECONDS
    status = run.status()
    while status.exit_code is None and status.guard is not None and status.guard.alive() and time.monotonic() < until:
        time.sleep(0.02)
        status = run.status()
    return status


@app.command()
def validate(
    config: ConfigFile,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    as_json: Json = False,
) -> None:
    """Check a config: unknown keys, names that do not exist, columns that fit no format, impossible combinations."""
    from llf_core.config import validate as check

    report = _with_data(_with_names(check(config, overrides or ())))
    if as_json:
        _print_json(report.json())
    else:
        for problem in report.problems:
            _print_problem(problem)
        if report.ok:
            warnings = sum(problem.severity == "warning" for problem in report.problems)
            told = f" {warnings} warning{'s' if warnings > 1 else ''}: see above." if warnings else ""
            out.print(f"The config is good.{told}")
    if not report.ok:
        raise typer.Exit(BAD_CONFIG)


@app.command()
def inspect(
    config: ConfigFile,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    as_json: Json = False,
    dump: Annotated[
        Path | None, typer.Option(help="Write every example to this file, one JSON object per line.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there are unusable records.")] = False,
) -> None:
    """Show what the loss sees: counts of examples and tokens, and three examples with the trained tokens marked."""
    from llf_core.data import dump_examples, prepare
    from llf_core.models import load_processor, load_tokenizer, resolve_model
    from llf_core.runs.foreign_code import started_by_user

    loaded = _load(config, overrides)
    with started_by_user():
        source = resolve_model(loaded.model.model_name_or_path, loaded)
        tokenizer = load_tokenizer(source, loaded)
        processor = load_processor(source, loaded, tokenizer)
        with _progress() as progress:
            prepared = prepare(loaded, tokenizer, progress=progress, look=True, processor=processor)
    report = replace(prepared.report, packing_fill=prepared.fill(loaded.data.cutoff_len))
    _print_json(report.summary()) if as_json else out.print(report.text(), markup=False)
    if dump is not None:
        try:
            dump_examples(prepared, dump)
        except OSError as error:
            nobody = "It is a named pipe that nobody reads" if error.errno == errno.ENXIO else error.strerror
            raise UserError(f"{dump} cannot be written: {nobody}. Expected a file.") from None
    if strict and report.unusable():
        raise UserError(f"Unusable records: {len(report.unusable()):,} (--strict).")


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """Shows on a terminal how many rows are prepared, on standard error."""
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=err, transient=True) as bar:
        task = bar.add_task("Reading …", total=None)
        yield lambda dataset, rows: bar.update(task, description=f"{escape(dataset)}: {rows:,} records prepared")


@app.command()
def env(as_json: Json = False) -> None:
    """Show versions, device and folders: what to paste into a bug report."""
    from llf_core.launch.environment import describe

    facts = describe()
    if as_json:
        _print_json(facts)
        return
    for key, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items() if v) if isinstance(value, dict) else value
        out.print(f"{key:10} {escape(str(text))}")


@app.command()
def demo(
    report: Annotated[bool, typer.Option("--report", help="Only report on the newest run on the demo data.")] = False,
) -> None:
    """Fine-tune a small model in about a minute, then show how its answers changed."""
    from llf_core.config import RunConfig, preset
    from llf_core.evaluation.demo_report import newest_demo, report_on
    from llf_core.launch import launch

    run = _run(newest_demo()) if report else launch(RunConfig.load(preset("first-minute")), name="demo")
    if not report:
        _follow(run, as_json=False)
    try:
        good, text = report_on(run)
    except RuntimeError as error:
        raise UserError(f"The answers could not be made: {error}") from None
    out.print(text, markup=False)
    if not good:
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


@runs_app.command("list")
def runs_list(
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    query: Annotated[str | None, typer.Option(help="Only runs with these words in name, tags, note, data.")] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of runs, newest first.")] = 20,
    offset: Annotated[int, typer.Option(help="Skip this many runs.")] = 0,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    from llf_core.config.did_you_mean import did_you_mean
    from llf_core.runs import home, list_runs
    from llf_core.runs.folder import in_the_way, run_ids

    if state is not None and state not in STATES_SHOWN:
        expected = f"Expected one of {', '.join(STATES_SHOWN)}."
        raise UsageError(f"{state!r} is not a state.{did_you_mean(state, STATES_SHOWN)} {expected}")

    if (said := in_the_way()) is not None:
        raise UserError(said)
    try:
        page = list_runs(home(), offset, limit, state, query)
    except ValueError as error:  # a search of too many words
        raise UsageError(str(error)) from None
    if as_json:
        _print_json({"total": page.total, "runs": [row.json() for row in page.rows]})
        return
    from llf_core.runs.run_table import table

    if page.rows:
        for line in table(page.rows, run_ids(), out.width):
            out.print(line, markup=False)
    out.print(f"[dim]{len(page.rows)} of {page.total} runs in {escape(str(home() / 'runs'))}[/dim]")


@runs_app.command("show")
def runs_show(
    run: RunId,
    as_json: Json = False,
    code: Annotated[bool, typer.Option("--code", help="Print a notebook cell that starts the same run.")] = False,
) -> None:
    """Show a run: state, settings, last metrics, and what you can do next."""
    from llf_core.runs.config_file import changed_config
    from llf_core.runs.find import short_id
    from llf_core.runs.findings import advice, stands
    from llf_core.runs.folder import run_ids
    from llf_core.runs.overview import overview

    found = _run(run)
    if code:
        with _in_a_sentence():
            out.print(found.code(), markup=False, highlight=False, soft_wrap=True)
        return
    facts = found.summary()
    if as_json:
        _print_json(facts)
        return
    state, events = facts["state"], [one for one in found.events() if one.get("attempt", 1) == facts["attempt"]]
    findings = [
        f"{one['message']} {advice(one, state)}".strip()
        for one in events
        if one["type"] == "finding" and stands(one, state, facts["step"])
    ]
    called, changed = short_id(found.id, run_ids()), changed_config(found.folder)
    for line in overview(facts, changed=changed, findings=findings, called=called, width=out.width):
        out.print(line, markup=False)
    expected = any(one["type"] == "error" and "trace" not in one for one in events)  # the reason says it all
    log = found.log(LOG_LINES).rstrip() if state in {"failed", "lost", "broken"} and not expected else ""
    if log:
        out.print(f"\nThe last lines of {found.folder.log}:", markup=False)
        out.print(log, markup=False)


@runs_app.command("stop")
def runs_stop(run: RunId) -> None:
    """Stop a run after the current step, with a checkpoint."""
    found = _run(run)
    if not _has_ended(found):
        with _in_a_sentence():
            found.stop(wait=True)
        out.print(f"{found.id} is {found.state}.")


@runs_app.command("checkpoint")
def runs_checkpoint(run: RunId) -> None:
    """Write a checkpoint after the current step; the run goes on."""
    _ask(run, "checkpoint")


@runs_app.command("evaluate")
def runs_evaluate(run: RunId) -> None:
    """Compute the evaluation loss after the current step."""
    _ask(run, "evaluate")


@runs_app.command("sample")
def runs_sample(run: RunId) -> None:
    """Answer the watched prompts after the current step."""
    _ask(run, "sample")


@runs_app.command("set")
def runs_set(
    run: RunId,
    changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="learning_rate, max_steps or watch.")],
) -> None:
    """Change a live run from its next step on: learning_rate=1e-4, max_steps=200, watch="Say hi."."""
    given: dict[str, Any] = {}
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign:
            raise UserError(f"{change!r} is not KEY=VALUE, such as learning_rate=1e-4.")
        try:
            given[key] = value if key == "watch" else float(value)
        except ValueError:
            raise UserError(f"{key} is {value!r}. Expected a number.") from None
    _ask(run, "set", given)


def _ask(run: str, what: str, args: dict[str, Any] | None = None) -> None:
    """Asks a live run, and prints what it answers."""
    from llf_core.runs.change_journal import check

    found = _run(run)
    with _in_a_sentence():
        said = found.ask(what, check(args) if args is not None else None, wait=True, by="terminal")
    out.print(said, markup=False)


@runs_app.command("replay")
def runs_replay(run: RunId, detach: Annotated[bool, typer.Option("--detach")] = False, trust: Trust = False) -> None:
    """Start a new run with the same config and the same live changes at the same steps."""
    found = _run(run)
    with _in_a_sentence():
        new = found.replay(trust=trust)
    if detach:
        out.print(new.id)
    else:
        _follow(new, as_json=False)


@runs_app.command("branch")
def runs_branch(
    run: RunId,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Overrides, such as learning_rate=5e-5.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Step of the checkpoint. Default: the newest.")] = None,
    detach: Annotated[bool, typer.Option("--detach")] = False,
    trust: Trust = False,
) -> None:
    """Start a new run from a checkpoint of another run, with changed settings."""
    from llf_core.door import NotPlainError
    from llf_core.door.plain_yaml import yaml_value

    found = _run(run)
    given: dict[str, Any] = {}
    for change in changes or ():
        key, sign, value = change.partition("=")
        if not sign:
            raise UserError(f"{change!r} is not KEY=VALUE, such as learning_rate=5e-5.")
        try:
            given[key] = yaml_value(value)
        except NotPlainError:
            given[key] = value  # a text that is no YAML
    with _in_a_sentence():
        new = found.branch(step, changes=given, trust=trust)
    if detach:
        out.print(new.id)
    else:
        _follow(new, as_json=False)


@runs_app.command("loss")
def runs_loss(
    run: RunId,
    data: Annotated[
        str | None, typer.Option(help="Data set to evaluate on. Default: the run's validation data.")
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute the evaluation loss of the base model and of the result of a finished run."""
    from dataclasses import asdict

    from llf_core.evaluation.run_losses import losses_in_child

    found = _run(run)
    with _in_a_sentence(), out.status("Computing the losses of base and result …"):
        computed = losses_in_child(found.id, data, found.folder.home, trust=trust)
    if as_json:
        _print_json(asdict(computed))
    else:
        out.print(f"base {computed.base:.4f}, tuned {computed.tuned:.4f}, on {computed.examples:,} examples")


@runs_app.command("win-rate")
def runs_win_rate(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunId,
    reward_model: RewardModel,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Prompt to answer; can be repeated. Default: the run's validation data.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Maximum tokens per answer.", min=1)] = 128,
    most: Annotated[int, typer.Option(help="Maximum number of prompts from the validation data.", min=1)] = 100,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute how often a reward model prefers the answers of the result to those of the base model (win rate)."""
    from dataclasses import asdict

    from llf_core.evaluation.win_rate import win_rate_in_child

    found = _run(run)
    with _in_a_sentence(), _how_far() as progress:
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
        _print_json(asdict(rate))
    else:
        out.print(
            f"{rate.rate:.0%} (95 % band {rate.low:.0%} to {rate.high:.0%}): {rate.wins} won, {rate.ties} equal, "
            f"{rate.losses} lost; mean reward {rate.base:.3f} of the base, {rate.tuned:.3f} of the result"
        )


@app.command("reward-accuracy")
def reward_accuracy(  # noqa: PLR0913, PLR0917 - one parameter an option
    reward_model: RewardModel,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A preference data set: a name, a file, a folder.")],
    dataset_dir: Annotated[str | None, typer.Option(help="Folder with dataset_info.json.")] = None,
    most: Annotated[int | None, typer.Option(help="Maximum number of pairs.", min=1)] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute how often a reward model scores the chosen answer above the rejected one (accuracy)."""
    from dataclasses import asdict

    from llf_core.evaluation.reward_accuracy import reward_accuracy_in_child

    with _in_a_sentence(), _how_far() as progress:
        found = reward_accuracy_in_child(
            reward_model, data, dataset_dir=dataset_dir, most=most, progress=progress, trust=trust
        )
    if as_json:
        _print_json(asdict(found))
        return
    out.print(
        f"{found.accuracy:.1%} of {found.pairs:,} pairs (95 % band {found.low:.1%} to {found.high:.1%}), "
        f"mean margin {found.margin:.3f}"
    )
    for reason, count in found.dropped.items():
        out.print(f"{count:,} left out: {escape(reason)}")


@runs_app.command("kill")
def runs_kill(run: RunId) -> None:
    """Kill a run now. Its work since the last checkpoint is lost."""
    found = _run(run)
    if not _has_ended(found):
        with _in_a_sentence():
            found.kill()
        out.print(f"{found.id} is {found.state}.")


def _has_ended(run: Run) -> bool:
    """Whether there is nothing left to end; says so."""
    from llf_core.runs import FINAL

    with _in_a_sentence():
        state = run.state
    if state in FINAL:
        out.print(f"{run.id} has ended already: {state}.")
    return state in FINAL


@runs_app.command("resume")
def runs_resume(
    run: RunId,
    detach: Annotated[bool, typer.Option("--detach")] = False,
    rewards: RewardFile = None,
    trust: Trust = False,
) -> None:
    """Resume from the newest complete checkpoint, in the same folder. Reward functions can be replaced."""
    found = _run(run)
    with _in_a_sentence():
        from llf_core.rewards import functions_of

        given, known = _rewards(rewards), functions_of(found.folder)
        mended = [one for name, one in given.items() if name in known]
        if given and not mended:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(
                f"{rewards} has no reward function of {found.id}: it defines {', '.join(given)}, and {has}."
            )
        _left_aside(found.id, given, known)
        found.resume(rewards=mended, trust=trust)
    if detach:
        out.print(found.id)
    else:
        _follow(found, as_json=False)


@runs_app.command("delete")
def runs_delete(run: RunId) -> None:
    """Move a run to the bin; `llf runs restore` brings it back."""
    from llf_core.runs import delete_run

    found = _run(run)
    with _in_a_sentence():
        delete_run(found.id)
    out.print(f"{found.id} is in the bin. Bring it back with: llf runs restore {found.id}")


@runs_app.command("restore")
def runs_restore(run: Annotated[str, typer.Argument(metavar="RUN")]) -> None:
    """Bring a run back from the bin."""
    from llf_core.runs import restore_run
    from llf_core.runs.find import find_run

    with _in_a_sentence():
        found = restore_run(find_run(run, binned=True))
    out.print(f"{found.id} is back.")


@runs_app.command("clean")
def runs_clean(
    days: Annotated[float, typer.Option(help="Only runs that have been in the bin for this many days.")] = 0,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Checkpoints of finished runs too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete the runs in the bin permanently, and uploads that were not used for a week."""
    from llf_core.runs import clean, cleanable
    from llf_core.runs.formatting import size
    from llf_core.runs.uploads import UPLOADS

    freed = cleanable(days=days, checkpoints=checkpoints)
    if not freed.items:
        out.print("Nothing to clean.")
        return
    uploads = sum(item.parent.name == UPLOADS for item in freed.items)
    kinds = {"folder": len(freed.items) - uploads, "unused uploaded file": uploads}
    told = " and ".join(f"{count:,} {kind}{'' if count == 1 else 's'}" for kind, count in kinds.items() if count)
    question = f"Remove {told} ({' '.join(size(freed.bytes))}) for good?"
    if yes or typer.confirm(question):
        clean(days=days, checkpoints=checkpoints)
        out.print(f"Freed {' '.join(size(freed.bytes))}.")
