"""Output of commands (untrusted text cannot control the terminal), their errors, and options that several share."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from llf_core.redaction import redact
from llf_core.runs.jsonl import spell_non_finite
from llf_core.untrusted import brief, visible, visible_json
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llf_core.config import Problem


class Terminal(Console):
    """A console that escapes control characters in untrusted text (data, names, logs)."""

    def print(self, *objects: object, **options: Any) -> None:
        """Print with control characters escaped, see `visible`."""
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **options)


out = Terminal(highlight=False, soft_wrap=True)
err = Terminal(stderr=True, highlight=False, soft_wrap=True)


def print_error(error: Exception) -> None:
    """Print an error to stderr without secrets, shortened and with control characters escaped; line breaks stay."""
    err.print(f"[red]Error[/red] {escape(brief(redact(str(error))))}")


def print_json(value: object) -> None:
    """Print the result of a command as JSON, with `spell_non_finite` and control characters escaped."""
    text = json.dumps(spell_non_finite(value), ensure_ascii=False, indent=2, allow_nan=False, default=str)
    print(visible_json(text), flush=True)  # noqa: T201 - the result


def print_problem(problem: Problem) -> None:
    """Print a problem of a config with its fixes to stderr."""
    colour = {"error": "red", "warning": "yellow", "note": "dim"}[problem.severity]
    where = f" (line {problem.line})" if problem.line and f"line {problem.line}" not in problem.message else ""
    err.print(f"[{colour}]{problem.severity.capitalize():7}[/{colour}] {escape(problem.message)}{where}")
    for fix in problem.fixes:
        changes = " ".join(f"{key}={json.dumps(value)}" for key, value in fix.shown_changes().items())
        err.print(f"        {escape(fix.label)}: {escape(brief(changes))}")


@contextmanager
def progress_status() -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of another process on one line, while the block runs.

    Yields:
        A function of the task, the number done and the total (0 if unknown), which updates the line.
    """
    with out.status("Loading …") as status:
        # what is done may name a file or a model
        yield lambda what, done, total: status.update(
            escape(visible(f"{what}: {done:,} of {total:,}" if total else f"{what} …"))
        )


@contextmanager
def row_progress() -> Iterator[Callable[[str, int], None]]:
    """Show the number of prepared records on stderr while the block runs, if that is a terminal.

    Yields:
        A function of the data set's name and the number of records, which updates the line.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from llf_core.config.number_format import with_unit

    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=err, transient=True) as bar:
        task = bar.add_task("Reading …", total=None)
        yield lambda dataset, rows: bar.update(
            task, description=f"{escape(dataset)}: {with_unit(rows, 'record')} prepared"
        )


INTERRUPTED = 130


class UsageError(UserError):
    """An option or argument that a command cannot use."""

    exit_code = BAD_CONFIG


@contextmanager
def in_a_sentence() -> Iterator[None]:
    """Convert errors of runs and of the system to sentences without a traceback; used as a `with` block.

    Raises:
        UserError: an `OSError`, `RuntimeError` or `ValueError` of the block, as a sentence.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(_refused(error)) from None
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from None


def _refused(error: OSError) -> str:
    from llf_core.runs.disk_errors import command_message, is_disk_error
    from llf_core.runs.folder import home

    if is_disk_error(error) and error.strerror == os.strerror(error.errno or 0):  # not a sentence of ours already
        return command_message(error, home())
    if error.filename:
        return file_message(error)
    return temporary_folder_message(error) or error.strerror or str(error)


def temporary_folder_message(error: OSError) -> str:
    """Say what to do if `tempfile` finds no folder that can be written, as on a full disk or a read-only system."""
    if not isinstance(error, FileNotFoundError) or "temporary directory" not in (error.strerror or ""):
        return ""
    return f"{error.strerror}. Free disk space, or set TMPDIR to a folder that can be written."


def file_message(error: OSError) -> str:
    """Say which file the system has refused, and why."""
    return f"{error.filename} cannot be opened: {error.strerror}."


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file.")]
RewardModel = Annotated[str, typer.Argument(metavar="REWARD_MODEL", help="A run of stage rm, a folder or a hub id.")]

RewardFile = Annotated[
    Path | None,
    typer.Option("--rewards", metavar="FILE", help="Python file with reward functions, marked with @reward."),
]

Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Allow the code of a run that was created on another machine. It runs with your permissions."
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Run id, the beginning of one, `last`, or ssh://host/run.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]
Detach = Annotated[bool, typer.Option("--detach")]
