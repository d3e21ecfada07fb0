from typing import Annotated

import typer
from rich.markup import escape

from llf_core.cli.attach_run import attach_run
from llf_core.cli.errors import UsageError, in_a_sentence
from llf_core.cli.parameters import Json, RunId
from llf_core.cli.terminal import out, print_json
from llf_core.redaction import redact, redact_nested
from llf_core.runs.states import SHOWN_STATES
from llf_core.user_error import UserError

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
