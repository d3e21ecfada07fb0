from typing import Annotated

import typer

from llf_core.cli.attach_run import attach_run
from llf_core.cli.errors import in_a_sentence
from llf_core.cli.parameters import RunId
from llf_core.cli.terminal import out


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
