"""`llf.Compare(runs)`: overlaid curves, differences, and answers to the same prompts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sized
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import traitlets

from llf_core.runs import FINAL
from llf_core.runs.charts import primary_metric
from llf_core.runs.curves import window_of
from llf_core.runs.run_index import RunIndex
from llf_core.untrusted import replace_surrogates
from llf_widgets.compare.comparison_table import NONE, TableSection, comparison_sections
from llf_widgets.compare.labels import MAX_LENGTH, RunGroup, middle, named_groups
from llf_widgets.compare.plotly_figure import X_AXES, available_curves, figure_json, run_style
from llf_widgets.front_end import ClosedByHand, FrontEnd, SavedOutputs, close_descendants
from llf_widgets.home import run_folder
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.monitor.snapshot import Poller
from llf_widgets.plotting.plotly_layout import encode_arrays
from llf_widgets.view_files import VIEW_MIME_TYPE, script, stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from llf_core.launch import Run
    from llf_core.runs import RunFolder

    AnyRun = Run | RunFolder | Path | str
    Runs = Sequence[AnyRun] | Mapping[str, AnyRun | Sequence[AnyRun]]

MAX_RUNS = 8
"""Maximum number of columns: runs, or groups of runs."""
MAX_GROUP_RUNS = 20
POLL_SECONDS = 1.0
"""Interval at which runs that have not ended are read."""
SAVE_SECONDS = 30.0  # between two rewrites of the saved text while no run changes its state
ENDED = FINAL | {"broken"}
"""States after which a run is not read again."""
MAX_CHOICES = 50  # runs that can be added, the newest ones
NAME_CHARACTERS = 40  # letters of a run's name in a list
SMOOTHING = (0, 5, 10, 30, 100, 300, 1000)
"""Smoothing windows in steps; 0 disables smoothing."""
BAND_NOTE = "A line is the mean of the runs of its group, its band reaches from the lowest to the highest run."
CELL = "padding:2px 14px 2px 0;text-align:{};vertical-align:top;border:0"


class CompareView(FrontEnd):
    """The front end: x axis, table, curves and answers.

    It sends `{"type": "add" | "remove", "run": id}` and `{"type": "html"}`, answered with `{"html": page}`.
    """

    _esm = text(script("compare"))
    _css = text(stylesheet("compare"))
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


class Compare(SavedOutputs, ClosedByHand, widgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """Runs side by side: results, cost, differences in config, data and environment, curves and answers.

    It is read-only, and follows its runs until all have ended; so do the texts in a saved notebook. `refresh()` reads
    the runs again, for one that was resumed since. A run whose files are damaged or were deleted is shown as `broken`.

    Args:
        runs: runs, their ids or folders; one to eight. Or groups of runs by name, such as the runs of one method with
            several seeds: a group is one column and one line. The line is the mean of its runs, with a band from the
            lowest to the highest; the table has the mean, the lowest and the highest number.
        home: `LLF_HOME`; None for the environment's.

    Raises:
        FileNotFoundError: no run has an id, or a folder does not exist.
        ValueError: no runs, more than eight, or a single id or path in place of a list; a group without a name or
            without runs, or with more than twenty; an id is invalid.
        TypeError: `runs` is a single run or has no length, or an entry is neither a run nor an id nor a path.

    Example:
        >>> llf.Compare([run, "20261124-142530-smollm2-sft-lora"])
        >>> seeds = {"seed": [1, 2, 3]}
        >>> llf.Compare({name: llf.sweep(config | {"finetuning_type": name}, seeds) for name in ("lora", "full")})
    """

    def __init__(self, runs: Runs, *, home: Path | str | None = None) -> None:
        self._home = home
        self._index = RunIndex(home)
        self._view = CompareView()
        self._members = self._track(runs)
        self._reading = threading.RLock()  # the poller reads while a message adds or removes a run
        self._poll_error, self._saved = "", (0.0, [""])
        self._poller = Poller(self._poll, self._show_poll_error, "llf-compare")
        super().__init__(children=[self._view])
        self.add_class("llf")
        self.add_class("llf-Compare")
        self._view.observe(lambda _: self._draw(), ["curve", "x_axis", "log_scale", "show_raw"])
        self._view.observe(lambda _: self._read(), "smoothing")
        self._view.on_msg(self._on_message)
        self.refresh()

    def show(self, runs: Runs) -> None:
        """Show other runs in the same view; after an error the runs before stay."""
        self._show(self._track(runs))

    def refresh(self) -> None:
        """Read the runs again; the reader's choice of curve and axes is kept."""
        self._read()
        self._save()
        self._poller.start()

    def _poll(self) -> float | None:
        with self._reading:
            changed = [tracker.refresh() for tracker in self._trackers]
            if any(changed):
                self._update()
            states = [tracker.snapshot.state for tracker in self._trackers]
        if states != self._saved[1] or (time.monotonic() - self._saved[0] > SAVE_SECONDS):
            self._save()
        return None if ENDED.issuperset(states) else POLL_SECONDS

    def _save(self) -> None:
        self._saved = (time.monotonic(), [tracker.snapshot.state for tracker in self._trackers])
        self._update_outputs()

    def _show_poll_error(self, sentence: str) -> None:
        if self._view.error == self._poll_error:  # else it says why a run could not be added
            self._view.error = sentence
        self._poll_error = sentence

    def _read(self) -> None:
        with self._reading:
            for tracker in self._trackers:
                tracker.refresh()
            self._update()

    def _update(self) -> None:
        chosen = self._view.smoothing
        window = max(window_of(one.series, one.snapshot.total) for one in self._trackers) if chosen is None else chosen
        for tracker in self._trackers:
            if tracker.window != window:
                tracker.smooth(window)
        self._groups = named_groups(self._members)
        self._update_curves()
        shown = {tracker.snapshot.id for tracker in self._trackers}
        self._view.view = {
            "runs": [_head(number, group) for number, group in enumerate(self._groups)],
            "note": BAND_NOTE if any(len(group.trackers) > 1 for group in self._groups) else "",
            "sections": [section.json() for section in self.sections()],
            "answers": self.answers(),
            "available_runs": [
                {"id": row.id, "name": f"{middle(row.name, NAME_CHARACTERS)}, {row.state}",
                 "title": f"{row.name} ({row.id})"}
                for row in self._index.page(limit=MAX_CHOICES).rows if row.id not in shown and row.state != "broken"
            ] if len(self._groups) < MAX_RUNS else [],
        }  # fmt: skip
        self._draw()

    def _show(self, members: list[tuple[str, list[RunTracker]]]) -> None:
        """Show other runs; where they cannot be read, the runs before stay."""
        with self._reading:
            before, self._members = self._members, members
            try:
                self._read()
            except BaseException:
                self._members = before
                raise
        self._save()
        self._poller.start()

    @property
    def _trackers(self) -> list[RunTracker]:
        return [tracker for _, trackers in self._members for tracker in trackers]

    def sections(self) -> list[TableSection]:
        """The table as texts, as of the last `refresh`."""
        return comparison_sections(self._groups)

    def answers(self) -> list[dict[str, Any]]:
        """Prompts that several runs answered; of a single run, all its prompts.

        Returns:
            `prompt`, `base` (the base model's answer, empty if unknown), and `texts`: the last answer of each run, None
            without one. Of a group each different answer, the most frequent first, preceded by its number of runs (`2
            of 3: …`) if there are several.
        """
        found = [[_last_answers(tracker) for tracker in group.trackers] for group in self._groups]
        every = [answers for several in found for answers in several]
        prompts = list(dict.fromkeys(prompt for answers in every for prompt in answers))
        rows = []
        for prompt in prompts:
            if len(every) > 1 and sum(prompt in answers for answers in every) < 2:  # noqa: PLR2004 - side by side
                continue
            base = next((answers[prompt][0] for answers in every if answers.get(prompt, ("", ""))[0]), "")
            texts = [_group_answer([one[prompt][1] for one in several if prompt in one]) for several in found]
            rows.append({"prompt": prompt, "base": base, "texts": texts})
        return rows

    def frame(self) -> pd.DataFrame:
        """All metrics of all runs as a DataFrame: one row per run and step, one column per metric.

        Returns:
            The frame, float64, indexed by `run` (its id) and step; of groups by `group` (its name), `run` and step. NaN
            where a step has no such metric; no rows for a run without metrics.
        """
        import pandas as pd

        from llf_core.launch import Run

        if not any(label for label, _ in self._members):
            return pd.concat({one.snapshot.id: Run(one.folder).metrics() for one in self._trackers}, names=["run"])
        frames = {
            (group.label, one.snapshot.id): Run(one.folder).metrics()
            for group in self._groups
            for one in group.trackers
        }
        return pd.concat(frames, names=["group", "run"])

    def html(self, path: Path | str | None = None) -> str:
        """Table, curves (as an image) and answers as a standalone HTML page, also written to `path`."""
        page = (
            '<!doctype html><meta charset="utf-8"><title>LLF: runs compared</title>'
            f'<body style="font:13px system-ui,sans-serif;max-width:1100px;margin:24px auto">{self._html()}</body>'
        )
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")  # not `replace_file`, whose files only their owner can read
        return page

    def _track(self, runs: Runs) -> list[tuple[str, list[RunTracker]]]:
        """Label (empty for the label of a run) and runs of each column."""
        expected = (
            f"Compare expects a list of 1 to {MAX_RUNS} runs, run ids or run folders, or 1 to {MAX_RUNS} groups of "
            'runs by name: {"a": [run, run], …}.'
        )
        if isinstance(runs, str | Path):
            raise ValueError(expected)  # noqa: TRY004 - one run where several are expected
        if not isinstance(runs, Sized):  # a run, or an iterator
            raise TypeError(expected)
        if not 1 <= len(runs) <= MAX_RUNS:
            raise ValueError(expected)
        if not isinstance(runs, Mapping):
            return [("", [self._tracker(run)]) for run in runs]
        members = []
        for name, given in runs.items():
            several: Sequence[AnyRun] = given if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]
            label = middle(replace_surrogates(str(name)).strip(), MAX_LENGTH)
            if not label or not 1 <= len(several) <= MAX_GROUP_RUNS:
                raise ValueError(
                    f"The group {name!r} has {len(several)} runs. Compare expects groups with a name and 1 to "
                    f"{MAX_GROUP_RUNS} runs."
                )
            members.append((label, [self._tracker(run) for run in several]))
        return members

    def _tracker(self, run: AnyRun) -> RunTracker:
        return RunTracker(run_folder(run, self._home), self._view.smoothing)

    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Add or remove a run, or answer with the page; errors are shown in the view."""
        kind, run = (message.get("type"), message.get("run")) if isinstance(message, dict) else (None, None)
        ids = [tracker.snapshot.id for tracker in self._trackers]
        heads = [group.id for group in self._groups]
        self._view.error = ""
        try:
            if kind == "html":
                self._view.send({"html": self.html()})
            elif kind == "add" and isinstance(run, str) and run not in ids:
                if len(heads) < MAX_RUNS:
                    self._show([*self._members, ("", [self._tracker(run)])])
            elif kind == "remove" and run in heads and len(heads) > 1:
                pairs = zip(self._members, heads, strict=True)
                self._show([member for member, head in pairs if head != run])
        except (OSError, ValueError) as error:
            self._view.error = str(error)

    def _html(self) -> str:
        view = self._view.view
        heads = [one["label"] for one in view["runs"]]
        rows = [_row("th", "", heads), _row("td", "State", [one["status_text"] for one in view["runs"]])]
        for section in view["sections"]:
            note = f" {escape(section['note'])}" if section["note"] else ""
            width = len(heads) + 1
            style = CELL.format("left") + ";padding-top:10px"
            rows.append(f'<tr><td colspan="{width}" style="{style}"><b>{escape(section["title"])}</b>{note}</td></tr>')
            rows += [_row("td", line["label"], line["cells"], line["best"]) for line in section["rows"]]
        table = f'<table style="border-collapse:collapse"><tbody>{"".join(rows)}</tbody></table>'
        note = f"<p>{escape(view['note'])}</p>" if view["note"] else ""
        return table + _image(self._groups, self._options()) + note + _answers(heads, view["answers"])

    def _update_curves(self) -> None:
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
        self._view.figure = encode_arrays(figure_json(self._groups, **self._options()))

    def close(self) -> None:
        """Close the view and free its widgets."""
        self._poller.stop()
        close_descendants(self)
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        shown = widgets.VBox._repr_mimebundle_(self, **kwargs) or {}
        ids: object = [tracker.snapshot.id for tracker in self._trackers]
        if any(label for label, _ in self._members):
            ids = {group.label: [tracker.snapshot.id for tracker in group.trackers] for group in self._groups}
        with self._reading:
            html = self._html()
        return {
            VIEW_MIME_TYPE: {"view": "compare"},
            **shown,
            "text/html": f'<div class="llf-Static">{html}</div>',
            "text/plain": f"llf.Compare({ids!r})",
        }, {}


def _row(tag: str, label: str, cells: Sequence[str], best: Sequence[int] = ()) -> str:
    texts = [_mark(*cell.partition("\n")[::2], best=place in best) for place, cell in enumerate(cells)]
    shown = "".join(f'<{tag} style="{CELL.format("right")}">{one}</{tag}>' for one in texts)
    return f'<tr><{tag} style="{CELL.format("left")}">{escape(label)}</{tag}>{shown}</tr>'


def _mark(text: str, below: str, *, best: bool) -> str:
    """A cell: its text, bold if it is the best, and the range of its runs smaller below it."""
    first = f"<b>{escape(text)}</b>" if best else escape(text)
    return first + "".join(f"<br><small>{escape(one)}</small>" for one in below.splitlines())


def _head(number: int, group: RunGroup) -> dict[str, Any]:
    """Head of a group's column: label, name (of a group how many runs it has), and a sample of its line."""
    names = [f"{one.snapshot.name or one.snapshot.id} ({one.snapshot.id})" for one in group.trackers]
    several = len(group.trackers) > 1
    first = group.trackers[0].snapshot
    return {
        "name": f"{len(names)} runs" if several else first.name or first.id,
        "label": group.label,
        "id": group.id,
        "title": "\n".join(names),
        "state": group.state,
        "finding": group.has_finding,
        "status_text": group.status_text,
        "tone": number % 4 + 1,
        "dash": run_style(number)[1],
    }


def _last_answers(tracker: RunTracker) -> dict[str, tuple[str, str | None]]:
    return {prompt: (base, answer) for prompt, base, answer, _ in tracker.answers.last()}


def _group_answer(texts: Sequence[str | None]) -> str | None:
    """The different answers of a group's runs, the most frequent first; None without any."""
    counts = Counter(text for text in texts if text is not None)
    if len(counts) < 2:  # noqa: PLR2004 - nothing to count
        return next(iter(counts), None)
    return "\n".join(f"{count} of {counts.total()}: {text}" for text, count in counts.most_common())


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


def _image(groups: Sequence[RunGroup], options: dict[str, Any]) -> str:
    from llf_widgets.compare.comparison_table import saved_image

    image = saved_image(groups, options)
    return f'<p><img alt="Losses of the runs" style="max-width:100%;width:740px" src="{image}"></p>'
