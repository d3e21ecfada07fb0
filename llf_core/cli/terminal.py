"""Output of commands; untrusted text cannot control the terminal."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from llf_core.redaction import redact
from llf_core.runs.jsonl import spell_non_finite
from llf_core.untrusted import brief, visible, visible_json

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
