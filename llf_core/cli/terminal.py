"""What a command prints: texts of strangers are read and never obeyed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from llf_core.door import brief, visible, visible_json
from llf_core.redaction import redact, redact_nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llf_core.config import Problem


class Terminal(Console):
    """A console on which texts of strangers (data, names, logs) are read and never obeyed."""

    def print(self, *objects: object, **options: Any) -> None:
        """The same; characters that a terminal obeys stand as escapes, see `visible`."""
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **options)


out = Terminal(highlight=False, soft_wrap=True)
err = Terminal(stderr=True, highlight=False, soft_wrap=True)


def print_error(error: Exception) -> None:
    """Prints an error without secrets, on standard error."""
    err.print(f"[red]Error[/red] {escape(brief(redact(str(error))))}")


def print_json(value: object) -> None:
    """Prints the result of a command as JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    print(visible_json(text), flush=True)  # noqa: T201 - the result


def print_problem(problem: Problem) -> None:
    """Prints what is wrong with a config, and how to mend it, on standard error."""
    colour = {"error": "red", "warning": "yellow", "note": "dim"}[problem.severity]
    where = f" (line {problem.line})" if problem.line else ""
    err.print(f"[{colour}]{problem.severity.capitalize():7}[/{colour}] {escape(problem.message)}{where}")
    for fix in problem.fixes:
        changes = " ".join(f"{key}={json.dumps(value)}" for key, value in redact_nested(dict(fix.changes)).items())
        err.print(f"        {escape(fix.label)}: {escape(brief(changes))}")


@contextmanager
def progress_status() -> Iterator[Callable[[str, int, int], None]]:
    """A line that says how far another process is."""
    with out.status("Loading …") as status:
        yield lambda what, done, total: status.update(f"{what}: {done:,} of {total:,}")


@contextmanager
def row_progress() -> Iterator[Callable[[str, int], None]]:
    """Shows on a terminal how many rows are prepared, on standard error."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=err, transient=True) as bar:
        task = bar.add_task("Reading …", total=None)
        yield lambda dataset, rows: bar.update(task, description=f"{escape(dataset)}: {rows:,} records prepared")
