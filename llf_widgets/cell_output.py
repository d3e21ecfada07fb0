"""What functions print and show below a cell: a line of progress, and tables."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Self

from llf_core.runs.formatting import strip_bidi

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType


class ProgressLine:
    """One line of progress below a cell, updated in place.

    Used as a context manager, it ends the line on exit, also after an error.

    Args:
        text: initial text; empty to start without a line.
    """

    def __init__(self, text: str = "") -> None:
        self._width = 0
        if text:
            self._write(text)

    def __enter__(self) -> Self:
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show progress; a `total` of 0 shows the name only."""
        self._write(f"{what}: {done:,} of {total:,}" if total else f"{what} …")

    def _write(self, text: str) -> None:
        self._width = max(self._width, len(text))
        print(f"\r{text:<{self._width}}", end="", flush=True)  # noqa: T201 - the cell's progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._width:
            print(flush=True)  # noqa: T201 - the cell's progress


CELL_STYLE = "padding: 4px 12px 4px 0; text-align: left; vertical-align: top; white-space: pre-wrap"


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with escaped texts and without bidirectional controls, which could show a text in another order."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f'<{tag} style="{CELL_STYLE}">{escape(cell)}</{tag}>' for cell in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return strip_bidi(f"<table><thead>{line('th', heads)}</thead><tbody>{body}</tbody></table>")
