"""`llf.Compare(runs)`: overlaid curves, differences, and answers to the same prompts."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import traitlets

from llf_core.runs.metric_catalog import primary_metric
from llf_core.runs.run_index import RunIndex
from llf_core.runs.summary_numbers import window_of
from llf_widgets.close_widgets import close_descendants
from llf_widgets.compare.comparison_table import NONE, TableSection, comparison_sections
from llf_widgets.compare.labels import labels, middle
from llf_widgets.compare.plotly_figure import X_AXES, available_curves, figure_json, run_style
from llf_widgets.front_end import FrontEnd
from llf_widgets.home import run_folder
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.plotting.array_encoding import encode_arrays
from llf_widgets.view_files import script, stylesheet
from llf_widgets.view_mime_type import VIEW_MIME_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from llf_core.launch import Run
    from llf_core.runs import RunFolder

    AnyRun = Run | RunFolder | Path | str

MAX_RUNS = 8
MAX_CHOICES = 50  # runs that can be added, the newest ones
NAME_CHARACTERS = 40  # letters of a run's name in a list
SMOOTHING = (0, 5, 10, 30, 100, 300, 1000)
"""Smoothing windows in steps; 0 disables smoothing."""
CELL = "padding:2px 14px 2px 0;text-align:{};vertical-align:top;border:0"


class CompareView(FrontEnd):
    """The front end: x axis, table, curves and answers.

    It sends `{"type": "add" | "remove", "run": id}` and `{"type": "html"}`, answered with `{"html": page}`.
    """

    _esm = script("compare")
    _css = stylesheet("compare")
    view = traitlets.Dict(help="`runs`, `sections`, `answers`, and `offered`: runs that can be added").tag(sync=True)
    figure = traitlets.Dict(help="What `figure_json` makes, packed").tag(sync=True)
    curve = traitlets.Unicode("loss", help="The name of the curve that is drawn").tag(sync=True)
    curves: traitlets.List[dict[str, object]] = traitlets.List(
        help="`title`, `help`, `log` and `lines` ([name, label]) of each chart"
    ).tag(sync=True)
    x_axis = traitlets.Enum(list(X_AXES), "step").tag(sync=True)
    smoothing = traitlets.Int(None, allow_none=True, help="Steps; None takes what suits the runs").tag(sync=True)
    log_scale = traitlets.Bool(default_value=False).tag(sync=True)
    show_raw = traitlets.Bool(default_value=False).tag(sync=True)
    choices = traitlets.List(list(SMOOTHING)).tag(sync=True)
    error = traitlets.Unicode("", help="Why a run could not be added").tag(sync=True)


class Compare(widgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """Runs side by side: results, cost, differences in config, data and environment, curves and answers.

    It is read-only. Live runs are shown in their current state; `refresh()` reads them again.

    Args:
        runs: runs, their ids or folders; one to eight.
        home: `LLF_HOME`. Default: from the environment.

    Raises:
        FileNotFoundError: a run does not exist.
        ValueError: no runs, or more than eight; an id is invalid.
        TypeError: an entry is neither a run nor an id nor a path.
        OSError: the folder of runs is not accessible.
        HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.

    Example:
        >>> llf.Compare([run, "20261124-142530-smollm2-sft-lora"])
    """

    def __init__(self, runs: Sequence[AnyRun], *, home: Path | str | None = None) -> None:
        self._home = home
        self._index = RunIndex(home)
        self._view = CompareView()
        self._trackers = self._track(runs)
        super().__init__(children=[self._view])
        self.add_class("llf")
        self.add_class("llf-Compare")
        self._view.observe(lambda _: self._draw(), ["curve", "x_axis", "log_scale", "show_raw"])
        self._view.observe(lambda _: self.refresh(), "smoothing")
        self._view.on_msg(self._on_message)
        self.refresh()

    def show(self, runs: Sequence[AnyRun]) -> None:
        """Show other runs in the same view, as a sweep does with its best ones.

        Raises:
            FileNotFoundError: a run does not exist.
            ValueError: no runs, or more than eight; an id is invalid.
            TypeError: an entry is neither a run nor an id nor a path.
            OSError: the folder of runs is not accessible.
            HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
        """
        self._trackers = self._track(runs)
        self.refresh()

    def refresh(self) -> None:
        """Read the runs again, for live runs; the reader's choice of curve and axes is kept.

        Raises:
            OSError: the folder of runs is not accessible.
            BrokenRunError: the status of a queued run became unreadable during the refresh.
        """
        for tracker in self._trackers:
            tracker.refresh()
        chosen = self._view.smoothing
        window = max(window_of(one.series, one.snapshot.total) for one in self._trackers) if chosen is None else chosen
        for tracker in self._trackers:
            if tracker.window != window:
                tracker.smooth(window)
        self._update_curves()
        shown = {tracker.snapshot.id for tracker in self._trackers}
        self._view.view = {
            "runs": [
                {"name": tracker.snapshot.name or tracker.snapshot.id, "label": label, "id": tracker.snapshot.id,
                 "state": tracker.snapshot.state, "tone": number % 4 + 1, "dash": run_style(number)[1]}
                for number, (tracker, label) in enumerate(zip(self._trackers, labels(self._trackers), strict=True))
            ],
            "sections": [section.json() for section in self.sections()],
            "answers": self.answers(),
            "available_runs": [
                {"id": row.id, "name": f"{middle(row.name, NAME_CHARACTERS)}, {row.state}",
                 "title": f"{row.name} ({row.id})"}
                for row in self._index.page(limit=MAX_CHOICES).rows if row.id not in shown and row.state != "broken"
            ] if len(self._trackers) < MAX_RUNS else [],
        }  # fmt: skip
        self._draw()

    def sections(self) -> list[TableSection]:
        """The table as data, for code that needs the numbers.

        Raises:
            OSError: the output folder of a run is not accessible.
        """
        return comparison_sections(self._trackers)

    def answers(self) -> list[dict[str, Any]]:
        """Prompts that several runs answered, since only those can be compared.

        Returns:
            `prompt`, `base` (the base model's answer), and `texts`, the last answer of each run or None.
        """
        by_run = [
            {prompt: (base, answer) for prompt, base, answer, _ in tracker.answers.last()} for tracker in self._trackers
        ]
        prompts = list(dict.fromkeys(prompt for answers in by_run for prompt in answers))
        rows = []
        for prompt in prompts:
            found = [answers.get(prompt) for answers in by_run]
            if len(self._trackers) > 1 and sum(one is not None for one in found) < 2:  # noqa: PLR2004 - side by side
                continue
            base = next((one[0] for one in found if one is not None and one[0]), "")
            rows.append({"prompt": prompt, "base": base, "texts": [None if one is None else one[1] for one in found]})
        return rows

    def frame(self) -> pd.DataFrame:
        """All metrics of all runs as a DataFrame, for other plots: one row per run and step, one column per metric.

        Raises:
            ModuleNotFoundError: pandas is not installed.
            UnreadableError: the metrics of a run cannot be read.
            OSError: too many files are open.
        """
        import pandas as pd

        from llf_core.launch import Run

        frames = {tracker.snapshot.id: Run(tracker.folder).metrics() for tracker in self._trackers}
        return pd.concat(frames, names=["run"])

    def html(self, path: Path | str | None = None) -> str:
        """Table, curves (as an image) and answers as a standalone HTML page, to share with people without Jupyter.

        Args:
            path: file to write the page to. Default: none.

        Returns:
            The page.

        Raises:
            OSError: the file cannot be written.
        """
        page = (
            '<!doctype html><meta charset="utf-8"><title>LLF: runs compared</title>'
            f'<body style="font:13px system-ui,sans-serif;max-width:1100px;margin:24px auto">{self._html()}</body>'
        )
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def _track(self, runs: Sequence[AnyRun]) -> list[RunTracker]:
        if isinstance(runs, str | Path) or not 1 <= len(runs) <= MAX_RUNS:
            raise ValueError(f"Compare expects a list of 1 to {MAX_RUNS} runs, run ids or run folders.")
        return [RunTracker(run_folder(run, self._home), self._view.smoothing) for run in runs]

    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Add or remove a run, or answer with the page; errors are shown in the view."""
        kind, run = (message.get("type"), message.get("run")) if isinstance(message, dict) else (None, None)
        ids = [tracker.snapshot.id for tracker in self._trackers]
        self._view.error = ""
        try:
            if kind == "html":
                self._view.send({"html": self.html()})
            elif kind == "add" and isinstance(run, str) and run not in ids:
                self.show([*ids, run])
            elif kind == "remove" and run in ids and len(ids) > 1:
                self.show([one for one in ids if one != run])
        except (OSError, ValueError) as error:
            self._view.error = str(error)

    def _html(self) -> str:
        view = self._view.view
        heads = [one["label"] for one in view["runs"]]
        rows = [_row("th", "", heads), _row("td", "State", [one["state"] for one in view["runs"]])]
        for section in view["sections"]:
            note = f" {escape(section['note'])}" if section["note"] else ""
            width = len(heads) + 1
            style = CELL.format("left") + ";padding-top:10px"
            rows.append(f'<tr><td colspan="{width}" style="{style}"><b>{escape(section["title"])}</b>{note}</td></tr>')
            rows += [_row("td", line["label"], line["cells"], line["best"]) for line in section["rows"]]
        table = f'<table style="border-collapse:collapse"><tbody>{"".join(rows)}</tbody></table>'
        return table + _image(self._trackers, self._options()) + _answers(heads, view["answers"])

    def _update_curves(self) -> None:
        """Update the available curves, and keep the reader's choice or select the primary metric."""
        offered: dict[str, dict[str, Any]] = {}
        found = available_curves(self._trackers)
        for one in found:
            entry = {"title": one.chart.title, "help": one.chart.help, "log": one.chart.log, "lines": []}
            offered.setdefault(one.chart.title, entry)["lines"].append([one.name, one.label])
        names = [one.name for one in found]
        with self._view.hold_sync():
            self._view.curves = list(offered.values())
            if self._view.curve in {self._first, ""} or self._view.curve not in names:
                self._view.curve = primary_metric(names)
        self._first = primary_metric(names)

    _first = "loss"

    def _options(self) -> dict[str, Any]:
        view = self._view
        return {
            "curve": view.curve,
            "x_axis": view.x_axis,
            "log_scale": view.log_scale,
            "show_raw": view.show_raw,
        }

    def _draw(self) -> None:
        self._view.figure = encode_arrays(figure_json(self._trackers, **self._options()))

    def close(self) -> None:
        """Close the view and free its widgets, which ipywidgets keeps otherwise."""
        close_descendants(self)
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget; for hosts without widgets and saved notebooks also table, image and answers."""
        shown = super()._repr_mimebundle_(**kwargs) or {}
        ids = [tracker.snapshot.id for tracker in self._trackers]
        return {
            VIEW_MIME_TYPE: {"view": "compare"},
            **shown,
            "text/html": f'<div class="llf-Static">{self._html()}</div>',
            "text/plain": f"llf.Compare({ids!r})",
        }


def _row(tag: str, label: str, cells: Sequence[str], best: Sequence[int] = ()) -> str:
    texts = [f"<b>{escape(cell)}</b>" if place in best else escape(cell) for place, cell in enumerate(cells)]
    shown = "".join(f'<{tag} style="{CELL.format("right")}">{one}</{tag}>' for one in texts)
    return f'<tr><{tag} style="{CELL.format("left")}">{escape(label)}</{tag}>{shown}</tr>'


def _answers(heads: Sequence[str], answers: Sequence[dict[str, Any]]) -> str:
    if not answers:
        return ""
    style = CELL.format("left") + ";white-space:pre-wrap"
    head = "".join(f'<th style="{style}">{escape(one)}</th>' for one in ("Prompt", "Base", *heads))
    texts = ((row["prompt"], row["base"], *row["texts"]) for row in answers)
    rows = "".join(
        f"<tr>{''.join(f'<td style={style!r}>{escape(one or NONE)}</td>' for one in row)}</tr>" for row in texts
    )
    return f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _image(trackers: Sequence[RunTracker], options: dict[str, Any]) -> str:
    """The curves as a PNG data URL, since hosts without a kernel draw no charts."""
    from llf_widgets.compare.saved_image import saved_image

    image = saved_image(trackers, options)
    return f'<p><img alt="Losses of the runs" style="max-width:100%;width:740px" src="{image}"></p>'
