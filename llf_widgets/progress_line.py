from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
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
