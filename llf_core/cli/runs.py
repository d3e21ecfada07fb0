"""`llf runs …`: list, show, request, resume, branch, move to the bin, and export."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from llf_core.cli.follow_run import attach_run, follow_run, functions_of_file, say_unused
from llf_core.cli.terminal import (
    Detach,
    Json,
    RewardFile,
    RunId,
    Trust,
    UsageError,
    in_a_sentence,
    out,
    print_json,
    progress_status,
)
from llf_core.redaction import redact, redact_nested
from llf_core.runs.states import SHOWN_STATES
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.launch import Run

LOG_LINES = 10


def runs_list(  # noqa: PLR0913, PLR0917 - options of a command
    state: Annotated[str | None, typer.Option(help=f"Only runs in this state: {', '.join(SHOWN_STATES)}.")] = None,
    query: Annotated[
        str | None,
        typer.Option(help="Only runs with these parts of names, ids, tags, notes, models, data."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of runs, newest first.", min=1)] = 20,
    offset: Annotated[int, typer.Option(help="Skip this many runs.", min=0)] = 0,
    on: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Runs of another host, such as ssh://box.")] = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first, with state, step and last loss."""
    from llf_core.config.did_you_mean import did_you_mean
    from llf_core.config.number_format import with_unit
    from llf_core.runs import home, list_runs
    from llf_core.runs.folder import blocked_path_message, run_ids

    if state is not None and state not in SHOWN_STATES:
        expected = f"Expected one of {', '.join(SHOWN_STATES)}."
        raise UsageError(f"{state!r} is not a run state.{did_you_mean(state, SHOWN_STATES)} {expected}")

    if on is not None:
        _list_remote(on, as_json=as_json, offset=offset, limit=limit, state=state, query=query)
        return
    if (said := blocked_path_message()) is not None:
        raise UserError(said)
    try:
        page = list_runs(home(), offset, limit, state, query)
    except ValueError as error:  # a search of too many words
        raise UsageError(str(error)) from None
    if as_json:
        print_json({"total": page.total, "runs": [row.json() for row in page.rows]})
        return
    from llf_core.runs.run_text import table

    if page.rows:
        for line in table(page.rows, run_ids(), out.width):
            out.print(line, markup=False)
    out.print(f"[dim]{len(page.rows)} of {with_unit(page.total, 'run')} in {escape(str(home() / 'runs'))}[/dim]")


def _list_remote(on: str, *, as_json: bool, **query: object) -> None:
    from llf_core.config.number_format import with_unit
    from llf_core.remote.address import parse_address
    from llf_core.remote.open_mirror import list_remote

    host, _ = parse_address(on)
    page = list_remote(host, width=out.width, **query)
    if as_json:
        print_json({"total": page["total"], "runs": page["runs"]})
        return
    for line in page["lines"]:
        out.print(redact(str(line)), markup=False)
    shown = f"{len(page['runs'])} of {with_unit(int(page['total']), 'run')} on {host}"
    out.print(f"[dim]{escape(shown)}[/dim]")


def runs_fetch(run: RunId) -> None:
    """Copy the result of a run on another host (ssh://host/run) to this machine, whole and checked."""
    found = attach_run(run)
    with in_a_sentence():
        out.print(str(found.fetch()), markup=False, highlight=False, soft_wrap=True)


def runs_show(
    run: RunId,
    as_json: Json = False,
    code: Annotated[bool, typer.Option("--code", help="Print a notebook cell that starts the same run.")] = False,
) -> None:
    """Show a run: state, settings, last metrics, and what you can do next."""
    from llf_core.runs.config_file import non_default_config
    from llf_core.runs.findings import advice, is_active
    from llf_core.runs.folder import run_ids, short_id
    from llf_core.runs.run_text import overview

    found = attach_run(run)
    if code:
        with in_a_sentence():
            out.print(found.code(), markup=False, highlight=False, soft_wrap=True)
        return
    facts = found.summary()
    if as_json:
        print_json(redact_nested(facts))
        return
    state, events = facts["state"], [one for one in found.events() if one.get("attempt", 1) == facts["attempt"]]
    findings = [
        f"{one['message']} {advice(one, state)}".strip()
        for one in events
        if one["type"] == "finding" and "message" in one and is_active(one, state, facts["step"])
    ]
    called, changed = short_id(found.id, run_ids()), non_default_config(found.folder)
    for line in overview(facts, changed=changed, findings=findings, called=called, width=out.width):
        out.print(redact(line), markup=False)
    expected = any(one["type"] == "error" and "trace" not in one for one in events)  # the reason says it all
    log = found.log(LOG_LINES).rstrip() if state in {"failed", "lost", "broken"} and not expected else ""
    if log:
        out.print(f"\nThe last lines of {found.folder.log}:", markup=False)
        out.print(log, markup=False)


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
    from llf_core.runs.control import check_changes

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


def runs_resume(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN|ADDRESS", help="Run id, the beginning of one, `last`, or where sync_to copied it."),
    ],
    detach: Detach = False,
    rewards: RewardFile = None,
    trust: Trust = False,
    num_processes: Annotated[
        int | None, typer.Option(min=1, help="Go on in N processes, with the same examples in each step.", metavar="N")
    ] = None,
) -> None:
    """Resume a run that was stopped or failed from its newest complete checkpoint, in the same folder.

    A run of another machine is fetched from its copy (sync_to) first: llf runs resume s3://bucket/RUN. Reward functions
    can be replaced, for example one whose error ended the run.
    """
    from llf_core.config.sections import is_place

    found = _fetched(run) if is_place(run) else attach_run(run)
    with in_a_sentence():
        from llf_core.rewards import reward_names

        given, known = functions_of_file(rewards), reward_names(found.folder)
        mended = [one for name, one in given.items() if name in known]
        if given and not mended:
            has = f"the run has {', '.join(known)}" if known else "the run has none"
            raise UserError(
                f"{rewards} does not define a reward function of {found.id}: it defines {', '.join(given)}, and {has}."
            )
        say_unused(found.id, given, known)
        found.resume(rewards=mended, trust=trust, num_processes=num_processes)
    if detach:
        out.print(found.id)
    else:
        follow_run(found, as_json=False)


def _fetched(url: str) -> "Run":
    from llf_core.launch import fetch

    with in_a_sentence(), progress_status() as progress:
        return fetch(url, progress=lambda done, total: progress("Fetching (MB)", done // 10**6, total // 10**6))


def runs_branch(
    run: RunId,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Overrides, such as learning_rate=5e-5.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Step of the checkpoint. Default: the newest.")] = None,
    detach: Detach = False,
    trust: Trust = False,
) -> None:
    """Start a new run from a checkpoint of another run, with changed settings, to compare both."""
    from llf_core.untrusted import NotPlainError
    from llf_core.untrusted.plain_yaml import yaml_value

    found = attach_run(run)
    given: dict[str, object] = {}
    for change in changes or ():
        key, sign, value = change.partition("=")
        if not sign:
            raise UserError(f"{change!r} is not KEY=VALUE, such as learning_rate=5e-5.")
        try:
            given[key] = yaml_value(value)
        except NotPlainError:
            given[key] = value  # a text that is no YAML
    with in_a_sentence():
        new = found.branch(step, changes=given, trust=trust)
    if detach:
        out.print(new.id)
    else:
        follow_run(new, as_json=False)


def runs_replay(run: RunId, detach: Detach = False, trust: Trust = False) -> None:
    """Start a new run with the same config and the same live changes at the same steps, to repeat its result."""
    found = attach_run(run)
    with in_a_sentence():
        new = found.replay(trust=trust)
    if detach:
        out.print(new.id)
    else:
        follow_run(new, as_json=False)


def runs_delete(run: RunId) -> None:
    """Move a run to the bin. `llf runs restore` restores it."""
    from llf_core.runs import delete_run

    found = attach_run(run)
    with in_a_sentence():
        delete_run(found.id)
    out.print(f"{found.id} is in the bin. Restore it with: llf runs restore {found.id}")


def runs_restore(run: Annotated[str, typer.Argument(metavar="RUN")]) -> None:
    """Restore a run from the bin, to resume or compare it again."""
    from llf_core.runs import restore_run
    from llf_core.runs.folder import find_run

    with in_a_sentence():
        found = restore_run(find_run(run, binned=True))
    out.print(f"{found.id} is restored.")


def runs_clean(
    days: Annotated[float, typer.Option(help="Only runs that have been in the bin for this many days.")] = 0,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Checkpoints of finished runs too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete the runs in the bin permanently, and uploads that were not used for a week."""
    from llf_core.runs import clean, find_cleanable
    from llf_core.runs.formatting import size
    from llf_core.runs.uploads import UPLOADS

    with in_a_sentence():
        freed = find_cleanable(days=days, checkpoints=checkpoints)
    if not freed.items:
        out.print("Nothing to clean.")
        return
    uploads = sum(item.parent.name == UPLOADS for item in freed.items)
    kinds = {"folder": len(freed.items) - uploads, "unused uploaded file": uploads}
    told = " and ".join(f"{count:,} {kind}{'' if count == 1 else 's'}" for kind, count in kinds.items() if count)
    question = f"Remove {told} ({' '.join(size(freed.bytes))}) permanently?"
    if yes or typer.confirm(question):
        with in_a_sentence():
            clean(days=days, checkpoints=checkpoints)
        out.print(f"Freed {' '.join(size(freed.bytes))}.")


def runs_export(
    run: RunId,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="The zip file. Default: RUN.zip here.")] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints/--no-checkpoints", help="Include the checkpoints.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a whole run (config, curves, code, data, result) into a zip file, which llf runs import opens elsewhere."""
    from llf_core.config.paths import expanded
    from llf_core.runs.archive import export_run

    found = attach_run(run)
    file = expanded(str(to or f"{found.id}.zip")).absolute()
    with in_a_sentence(), progress_status() as progress:
        export_run(
            found.id,
            file,
            checkpoints=checkpoints,
            overwrite=overwrite,
            home=found.folder.home,
            progress=lambda done, total: progress("Writing (MB)", done // 10**6, total // 10**6),
        )
    out.print(str(file), markup=False)


def runs_import(file: Annotated[Path, typer.Argument(metavar="FILE", help="A zip file of llf runs export.")]) -> None:
    """Open a zip file of llf runs export as a run of this machine. Its code asks for permission before it runs."""
    from llf_core.config.paths import expanded
    from llf_core.runs.archive import import_run

    with in_a_sentence(), progress_status() as progress:
        run = import_run(
            expanded(file),
            progress=lambda done, total: progress("Reading (MB)", done // 10**6, total // 10**6),
        )
    out.print(run.id)
