from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from llf_core.cli.attach_run import attach_run
from llf_core.cli.errors import in_a_sentence
from llf_core.cli.parameters import RunId
from llf_core.cli.terminal import out
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.launch import Run


def runs_stop(run: RunId) -> None:
    """Stop a run after the current step, with a checkpoint from which it can be resumed."""
    found = attach_run(run)
    if not _has_ended(found):
        with in_a_sentence():
            found.stop(wait=True)
        out.print(f"{found.id} is {found.state}.")


def runs_kill(run: RunId) -> None:
    """Kill a run now. Its work since the last checkpoint is lost."""
    found = attach_run(run)
    if not _has_ended(found):
        with in_a_sentence():
            found.kill()
        out.print(f"{found.id} is {found.state}.")


def runs_checkpoint(run: RunId) -> None:
    """Save a checkpoint after the current step, for example to try the model. The run continues."""
    _ask(run, "checkpoint")


def runs_evaluate(run: RunId) -> None:
    """Compute the evaluation loss after the current step, without waiting for the next planned evaluation."""
    _ask(run, "evaluate")


def runs_sample(run: RunId) -> None:
    """Generate completions of the watched prompts after the current step, to see what the model has learned so far."""
    _ask(run, "sample")


def runs_set(
    run: RunId,
    changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="learning_rate, max_steps or watch.")],
) -> None:
    """Change a live run from its next step on: learning_rate=1e-4, max_steps=200, watch="Say hi."."""
    given: dict[str, object] = {}
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign:
            raise UserError(f"{change!r} is not KEY=VALUE, such as learning_rate=1e-4.")
        given[key] = value
        with suppress(ValueError):  # what is no number is refused with what its key expects
            given[key] = value if key == "watch" else float(value)
    _ask(run, "set", given)


def _ask(run: str, what: str, args: dict[str, object] | None = None) -> None:
    from llf_core.runs.change_journal import check_changes

    found = attach_run(run)
    with in_a_sentence():
        said = found.ask(what, check_changes(args) if args is not None else None, wait=True, by="terminal")
    out.print(said, markup=False)


def _has_ended(run: "Run") -> bool:
    from llf_core.runs import FINAL

    with in_a_sentence():
        state = run.state
    if state in FINAL:
        out.print(f"{run.id} has already ended: {state}.")
    return state in FINAL
