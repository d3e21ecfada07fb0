"""`llf.Examples(run)`: the training examples behind the loss curve."""

from __future__ import annotations

import threading
from html import escape
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config.number_format import with_unit
from llf_core.runs.config_file import run_config
from llf_core.runs.formatting import number
from llf_core.runs.metric_columns import OUTLIER_KINDS, ExampleLosses
from llf_core.user_error import UserError
from llf_widgets.front_end import FrontEnd
from llf_widgets.home import allow_code, run_folder
from llf_widgets.inspect.data_process import DataProcess, ProcessExitedError
from llf_widgets.view_files import VIEW_MIME_TYPE, script, stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.runs import RunFolder
    from llf_core.runs.metric_columns import ExampleLoss

PAGE = 10
CODE_NOT_ALLOWED = (
    "The texts are not shown, since the tokenizer would execute the code below. Examples are listed by index."
)


class Examples(FrontEnd):
    """Training examples with their losses: of one step, or those with unusual losses, which often are data errors.

    It begins with the hardest examples. Losses are read from the run's folder, texts from a child process with
    tokenizer and prepared data. If the tokenizer would run Python code that the user has not allowed, the code is
    shown, and examples are listed by number.

    Args:
        run: a run, its id or its folder.
        home: `LLF_HOME`; None for the environment's.

    Raises:
        FileNotFoundError: no run has this id, or there is no such folder.
        ValueError: the id is invalid.
        TypeError: it is neither a run nor an id nor a path.
        ConfigError: the run's config is no longer valid.

    Example:
        >>> rows = llf.Examples(run)
        >>> rows.at(36)              # the examples of a step with a loss spike
        >>> rows.outliers("odd")     # losses too high for chance
    """

    _esm = text(script("examples"))
    _css = text(stylesheet("examples"))
    _page = traitlets.Dict(help="`total`, `rows`, `seen` and `query`").tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _code: traitlets.List[dict[str, object]] = traitlets.List(help="what would run, and was not allowed").tag(sync=True)

    def __init__(self, run: Run | RunFolder | Path | str, *, home: Path | str | None = None) -> None:
        self._process: DataProcess | None = None  # before what may fail, since `close` is called then too
        self._lock = threading.RLock()  # held while the page changes: texts arrive in a thread
        self._folder = run_folder(run, home)
        self._losses = ExampleLosses(self._folder)
        super().__init__()
        self.on_msg(self._receive)
        self.show("hardest")

    def at(self, step: int) -> list[dict[str, Any]]:
        """Show and return the examples of a step, highest loss first.

        Returns:
            `llf_core.runs.metric_columns.ExampleLoss.json` of each, with its losses in nats per token; empty if the
            step was not recorded.
        """
        self.show_step(step)
        return [one.json() for one in self._losses.at(step)]

    def outliers(self, kind: str = "hardest", limit: int = 50) -> list[dict[str, Any]]:
        """Show and return examples with unusual losses, see `llf_core.runs.metric_columns.ExampleLosses.outliers`.

        Args:
            kind: `hardest` (all examples, by their excess loss), `unlearned` (seen again without progress), `easy` (a
                low loss at the first visit) or `odd` (a loss too high for chance).

        Returns:
            `llf_core.runs.metric_columns.ExampleLoss.json` of each, most unusual first.
        """
        self._losses.refresh()
        found = self._losses.outliers(kind)[: max(0, limit)]
        self.show(kind)
        return [one.json() for one in found]

    def show(self, kind: str, offset: int = 0) -> None:
        """Show a page of examples with unusual losses, of a kind of `outliers`, from the example `offset` on."""
        self._losses.refresh()
        self._show(self._losses.outliers(kind), {"kind": kind, "offset": offset})

    def show_step(self, step: int, offset: int = 0) -> None:
        """Show the examples of a step, highest loss first, from the example `offset` on."""
        self._losses.refresh()
        self._show(self._losses.at(step), {"step": step, "offset": offset})

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        data, metadata = self.widget_mimebundle(**kwargs)
        call = f"llf.Examples({self._folder.id!r})"
        texts = {"text/plain": call, "text/html": summary_html(call, self._page.get("rows", []))}
        return data | texts | {VIEW_MIME_TYPE: {"view": "examples"}}, metadata

    def close(self) -> None:
        """Close the view and end its child process."""
        if self._process is not None:
            self._process.close()
        super().close()

    def _show(self, found: list[ExampleLoss], query: dict[str, Any]) -> None:
        first = max(0, query["offset"])
        rows = [one.json() for one in found[first : first + PAGE]]
        with self._lock:
            self._page = {"total": len(found), "rows": rows, "seen": len(self._losses), "query": query}
        if not rows or self._code:
            return
        if self._process is None:
            config = run_config(self._folder).yaml()  # its paths are absolute
            self._note = "Reading the data…"
            self._process = DataProcess(config, lambda _: None, self._on_progress, lambda _: None, self._on_exit)
            self._process.start()
        answer = self._process.request("numbered", numbers=[row["number"] for row in rows])
        answer.add_done_callback(lambda future: self._show_texts(future, rows, query))

    def _show_texts(self, answer: Future[Any], rows: list[dict[str, Any]], query: dict[str, Any]) -> None:
        try:
            texts = {one["number"]: one for one in answer.result()}
        except ProcessExitedError:
            return  # `_on_exit` says why
        except ValueError as error:
            self._note = str(error)
            return
        with self._lock:
            if self._page.get("query") != query:
                return  # something else is shown by now
            self._note = "" if texts else "The data of this run has changed since, so its texts cannot be shown."
            self._page = self._page | {"rows": [row | texts.get(row["number"], {}) for row in rows]}

    def _on_progress(self, dataset: str, rows: int) -> None:
        self._note = f"{dataset}: {with_unit(rows, 'record')} prepared…"

    def _on_exit(self, reason: str) -> None:
        child, self._process = self._process, None
        self._code = [] if child is None else child.code
        self._note = CODE_NOT_ALLOWED if self._code else reason

    def _allow(self) -> None:
        if error := allow_code(self._code):
            self._note = error
            return
        self._code, self._note = [], ""
        self._receive(self, self._page["query"], [])

    def _receive(self, _widget: object, content: object, _buffers: object) -> None:
        if not isinstance(content, dict):
            return
        offset = content.get("offset", 0)
        offset = max(0, offset) if isinstance(offset, int) else 0
        try:
            if content.get("type") == "allow":
                self._allow()
            elif isinstance(content.get("step"), int):
                self.show_step(content["step"], offset)
            elif content.get("kind") in OUTLIER_KINDS:
                self.show(content["kind"], offset)
        except (UserError, OSError, ValueError) as error:  # of the run's files: nobody else would see it
            self._note = str(error)


HEADS = ("Record", "Loss", "Text")
CELL = "padding:2px 12px 2px 0;text-align:{};vertical-align:top"


def summary_html(call: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of the view as an HTML table with escaped text: `last` (the loss) and, if known, `record` and `segments`."""
    lines = [_row("td", _cells(row)) for row in rows]
    table = f"<table><thead>{_row('th', HEADS)}</thead><tbody>{''.join(lines)}</tbody></table>" if lines else ""
    return f'<div class="llf-Static">{table}<p>Run <code>{escape(call)}</code> to see the rows of the run.</p></div>'


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    loss = row.get("last")
    text = "".join(part for part, _ in row.get("segments", ()))
    return str(row.get("record", "…")), "NaN" if loss is None else number(loss), text


def _row(tag: str, cells: Sequence[str]) -> str:
    sides = ("right", "right", "left")
    styled = (
        f'<{tag} style="{CELL.format(side)}">{escape(cell)}</{tag}>' for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(styled)}</tr>"
