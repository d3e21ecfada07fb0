from typing import Annotated

import typer

from llf_core.cli.checked_config import functions_of_file, load_with_rewards
from llf_core.cli.errors import UsageError, in_a_sentence
from llf_core.cli.follow_run import attach_run, follow_run
from llf_core.cli.parameters import ConfigFile, Json, Overrides, RewardFile
from llf_core.cli.terminal import err, out, print_json
from llf_core.user_error import UserError


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
