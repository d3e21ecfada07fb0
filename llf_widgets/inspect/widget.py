"""`llf.Inspect(config)`: the training data, token by token."""

from __future__ import annotations

import threading
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config import RunConfig
from llf_core.config.number_format import with_unit
from llf_core.launch.start import write_rows
from llf_core.user_error import UserError
from llf_widgets.front_end import SavedView
from llf_widgets.home import allow_code
from llf_widgets.inspect.data_process import DataProcess, ProcessExitedError
from llf_widgets.start import split_rows
from llf_widgets.temporary_folder import TemporaryFolder
from llf_widgets.view_files import VIEW_MIME_TYPE, script, stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future


PAGE, ROWS = 18, 7
EDITABLE_KEYS = (
    "cutoff_len", "drop_duplicates", "stop_on_dropped", "dataset_format", "dataset_columns", "rename_fields",
)  # fmt: skip
EMPTY: dict[str, Any] = {}


class Inspect(SavedView):
    """Counts, lengths, notable records, examples token by token, and packed rows of a config's data.

    A child process prepares the data (or loads it from the cache) and answers page by page, so the page stays fast with
    a million examples. Python code that comes with the model is shown, and runs only if it was allowed.

    Args:
        config: a `RunConfig`, a dict, YAML text or a path, as for `llf.train`. In a dict, `dataset` may also be rows.
        on_change: called with changes made in the view, e.g. `{"cutoff_len": 384}`.

    Attributes:
        config: the config with changes made in the view (another cutoff, duplicates dropped), for `llf.train`.

    Raises:
        ConfigError: the config has errors.
        RowsError: the rows are not a table, or Parquet cannot hold one of their values.

    Example:
        >>> view = llf.Inspect({"dataset": "rows.jsonl", "cutoff_len": 512})
        >>> view                              # shows it
        >>> run = llf.train(view.config)
    """

    _esm = text(script("inspect"))
    _css = text(stylesheet("inspect"))
    _state = traitlets.Enum(["preparing", "ready", "failed", "closed"], "preparing").tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _readings = traitlets.Dict().tag(sync=True)
    _overview = traitlets.Dict().tag(sync=True)
    _lengths = traitlets.Dict().tag(sync=True)
    _page = traitlets.Dict().tag(sync=True)
    _examples: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)
    _rows = traitlets.Dict().tag(sync=True)
    _code: traitlets.List[dict[str, object]] = traitlets.List(help="what would run, and was not allowed").tag(sync=True)

    def __init__(
        self,
        config: RunConfig | dict[str, Any] | str | Path,
        *,
        on_change: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> None:
        self._on_change = on_change
        self._process: DataProcess | None = None  # before what may fail, since `close` is called then too
        self._done = threading.Event()
        self._rows_folder: TemporaryFolder | None = None
        given_config, rows = split_rows(config)
        if rows is not None:
            self._rows_folder = TemporaryFolder("rows")
            path, _ = write_rows(rows, Path(self._rows_folder.name))
            given_config["dataset"] = str(path)
        self.config = RunConfig.load(given_config)
        super().__init__()
        self.on_msg(self._receive)
        self._open()

    def wait(self, timeout: float | None = None) -> Inspect:
        """Wait until the data is prepared, at most `timeout` seconds.

        Raises:
            TimeoutError: the data is not prepared after `timeout` seconds.
            RuntimeError: preparation failed, or the view was closed before its end.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"The data was not ready after {timeout:g} s. {self._note}")
        if self._state != "ready":
            raise RuntimeError(self._note)
        return self

    def overview(self) -> dict[str, Any]:
        """Wait for the counts in total and by data set (`llf_core.data.inspect.inspection.Inspection.overview`)."""
        self.wait()
        return dict(self._overview)

    def example(self, number: int) -> dict[str, Any]:
        """One example token by token, as `turns` with `role` and `tokens` (`[text, id, state, special]`).

        See `llf_core.data.inspect.inspection.Inspection.example`.
        """
        found: dict[str, Any] = self._request("example", number=number).result()
        return found

    def notable(self, kind: str = "all", offset: int = 0, limit: int = PAGE) -> dict[str, Any]:
        """Records that are lost or counted twice.

        Args:
            kind: one of `KINDS` and `EXTRA_KINDS` of `llf_core.data.inspect.notable_records`, such as `dropped` or
                `cut`; `all` for all of `KINDS`.

        Returns:
            `rows`; `total`, the number of all such records, 0 for an unknown kind; and `kinds`, the number of records
            of each kind. See `llf_core.data.inspect.inspection.Inspection.notable`.
        """
        found: dict[str, Any] = self._request("notable", kind=kind, offset=offset, limit=limit).result()
        return found

    def search(self, query: str, start: int = 0, limit: int = PAGE) -> dict[str, Any]:
        """Search examples for a text in upper or lower case, page by page.

        Returns:
            `rows` (`number` of the example, `dataset`, `record`, `where` it is, and `reason`, the text around it), and
            `next`, the start of the next page; None at the end. A page ends after a second, also without a result.
        """
        found: dict[str, Any] = self._request("search", text=query, start=start, limit=limit).result()
        return found

    def close(self) -> None:
        """End the process, remove temporary files and close the view."""
        if self._process is not None:
            self._process.close()
        if self._state == "preparing":
            self._state, self._note = "closed", "The view was closed before the data was prepared."
        self._done.set()
        if self._rows_folder is not None:
            self._rows_folder.cleanup()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = self.widget_mimebundle(**options)
        shown = (self._state, self._note, self._overview)
        texts = {"text/plain": summary_text(*shown), "text/html": summary_html(*shown)}
        return data | texts | {VIEW_MIME_TYPE: {"view": "inspect"}}, metadata

    def _open(self) -> None:
        if self._process is not None:
            self._process.close()
        self._done.clear()
        with self.hold_sync():
            self._state, self._note = "preparing", "Reading the tokenizer and the data…"
            self._page, self._rows, self._examples, self._code = EMPTY, EMPTY, [], []
        self._process = None
        try:
            self._process = DataProcess(
                self.config.yaml(), self._on_readings, self._on_progress, self._on_ready, self._on_end
            )
        except OSError as error:
            self._on_end(str(error))
            raise
        self._process.start()

    def _on_readings(self, found: dict[str, Any]) -> None:
        self._readings = found

    def _on_progress(self, dataset: str, rows: int) -> None:
        self._note = f"{dataset}: {with_unit(rows, 'record')} prepared…"

    def _on_ready(self, overview: dict[str, Any]) -> None:
        with self.hold_sync():
            self._overview = overview
            self._state, self._note = "ready", ""
        self._finish()
        self._fetch("lengths", lambda found: setattr(self, "_lengths", found))
        self._show_page("all", 0)
        self._show_rows(0, least=False)
        self._show_example(0)

    def _on_end(self, reason: str) -> None:
        with self.hold_sync():
            self._state, self._note = "failed", reason
            self._code = [] if self._process is None else self._process.code
        self._finish()

    def _finish(self) -> None:
        try:
            self._update_outputs()
        finally:
            self._done.set()  # also if the view is closed meanwhile

    def _request(self, what: str, **arguments: Any) -> Future[Any]:
        self.wait()
        assert self._process is not None  # noqa: S101 - made by _open
        return self._process.request(what, **arguments)

    def _fetch(self, what: str, callback: Callable[[Any], object], **arguments: Any) -> None:
        assert self._process is not None  # noqa: S101 - made by _open
        self._process.request(what, **arguments).add_done_callback(lambda answer: self._on_answer(answer, callback))

    def _on_answer(self, answer: Future[Any], callback: Callable[[Any], object]) -> None:
        try:
            callback(answer.result())
        except (ProcessExitedError, ValueError) as error:
            self._note = str(error)

    def _show_page(self, kind: str, offset: int) -> None:
        def show(found: dict[str, Any]) -> None:
            self._page = found | {"kind": kind, "offset": offset, "query": ""}

        self._fetch("notable", show, kind=kind, offset=offset, limit=PAGE)

    def _search(self, query: str, start: int) -> None:
        def show(found: dict[str, Any]) -> None:
            self._page = found | {"kind": "search", "offset": start, "query": query}

        self._fetch("search", show, text=query, start=start, limit=PAGE)

    def _show_rows(self, offset: int, *, least: bool) -> None:
        def show(found: dict[str, Any]) -> None:
            self._rows = found | {"offset": offset, "least": least}

        self._fetch("rows", show, offset=offset, limit=ROWS, least_full_first=least)

    def _show_example(self, number: int) -> None:
        self._fetch("example", lambda found: setattr(self, "_examples", [found]), number=number)

    def _change(self, changes: dict[str, Any]) -> None:
        known = {key: value for key, value in changes.items() if key in EDITABLE_KEYS}
        self.config = self.config.replace(**known)
        self._on_change(known)
        self._open()

    def _allow(self) -> None:
        if error := allow_code(self._code):
            self._note = error
            return
        self._open()

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        handlers: dict[str, Callable[[], None]] = {
            "page": lambda: self._show_page(str(content["kind"]), int(content["offset"])),
            "search": lambda: self._search(str(content["query"]), int(content["start"])),
            "rows": lambda: self._show_rows(int(content["offset"]), least=bool(content["least"])),
            "example": lambda: self._show_example(int(content["number"])),
            "change": lambda: self._change(dict(content["changes"])),
            "reload": self._open,
            "allow": self._allow,
        }
        if content.get("type") not in handlers:
            return
        try:
            handlers[content["type"]]()
        except (UserError, OSError, ValueError) as error:  # as a setting that is not valid
            self._note = str(error)


HEADS = ("Data set", "Records", "Kept", "Truncated", "Dropped", "Tokens", "In the loss", "In the loss, %")
KEYS = ("dataset", "records", "examples", "cut", "dropped", "tokens", "trained_tokens")
"""Keys of an overview for the first of `HEADS`."""
CELL = "padding: 2px 12px 2px 0; text-align: {}"


def table(overview: Mapping[str, Any]) -> list[list[str]]:
    """One row per data set, and a total if there are several, with a text for each of `HEADS`."""
    lines = [tuple(one[key] for key in KEYS) for one in overview["sets"]]
    if len(lines) > 1:
        lines.append(("All", *(sum(column) for column in list(zip(*lines, strict=True))[1:])))
    return [
        [str(name), *(f"{number:,}" for number in numbers), f"{100 * numbers[-1] / max(1, numbers[-2]):.0f} %"]
        for name, *numbers in lines
    ]


def summary_text(state: str, note: str, overview: Mapping[str, object]) -> str:
    """The counts (see `table`) as plain text, for frontends without HTML; there are none unless `state` is `ready`."""
    if state != "ready":
        return f"Inspect: {note or state}"
    lines = [HEADS, *table(overview)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def summary_html(state: str, note: str, overview: Mapping[str, object]) -> str:
    """The counts as an HTML table, with escaped names of data sets; for the arguments see `summary_text`."""
    if state != "ready":
        return f"<p>Inspect: {escape(note or state)}</p>"

    def row(tag: str, cells: list[str] | tuple[str, ...]) -> str:
        styled = (
            f'<{tag} style="{CELL.format("right" if place else "left")}">{escape(cell)}</{tag}>'
            for place, cell in enumerate(cells)
        )
        return f"<tr>{''.join(styled)}</tr>"

    body = "".join(row("td", line) for line in table(overview))
    return f"<table><thead>{row('th', HEADS)}</thead><tbody>{body}</tbody></table>"
