from typing import TYPE_CHECKING, Annotated

import typer

from llf_core.cli.attach_run import attach_run
from llf_core.cli.errors import in_a_sentence
from llf_core.cli.follow_run import follow_run
from llf_core.cli.parameters import Detach, RewardFile, RunId, Trust
from llf_core.cli.reward_functions import functions_of_file, say_unused
from llf_core.cli.terminal import out, progress_status
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.launch import Run


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
    from llf_core.config.sync_place import is_place

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
