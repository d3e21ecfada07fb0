"""Static summary of a run for saved notebooks: a MIME bundle that every host can show without a kernel.

It has a table as HTML without a stylesheet, an image of the charts, and text.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.charts import EVAL_PREFIX, held_out_label, lowercase_label
from llf_core.runs.formatting import strip_bidi
from llf_core.untrusted import visible
from llf_widgets.home import home_hash, run_folder
from llf_widgets.monitor import formatting
from llf_widgets.monitor.chart_data import NOTHING
from llf_widgets.monitor.plotly_figure import line_ends
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.monitor.status_text import predictions_text, status_text
from llf_widgets.plotting.image import GRAY, draw_end_labels, format_percent, new_figure, plain_axes, to_png
from llf_widgets.plotting.plotly_layout import (
    BAD,
    EVALUATION,
    TRAINING,
    evaluation_color,
    line_color,
    maximum_range,
    to_hex,
)
from llf_widgets.view_files import VIEW_MIME_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from llf_core.launch import Run
    from llf_core.runs import RunFolder
    from llf_core.runs.charts import LoggedChart
    from llf_widgets.monitor.chart_data import ChartData
    from llf_widgets.monitor.completions import Completion
    from llf_widgets.monitor.snapshot import RunSnapshot


def summary_bundle(run: Run | RunFolder | Path | str) -> dict[str, object]:
    """A run for reports and notebooks, by MIME type: LLF's own, `text/html`, `image/png` (base64), `text/plain`."""
    tracker = RunTracker(run_folder(run))
    tracker.refresh()
    return mime_bundle(tracker)


def mime_bundle(tracker: RunTracker) -> dict[str, object]:
    """The bundle of a tracked run, as of the last read. Drawing the image takes about a second."""
    run = _summary(tracker)
    drawn = saved_image(
        tracker.chart_data(), tracker.snapshot.last_step, title=f"{run.name}, {run.state}", line=run.key_line
    )
    image = base64.b64encode(drawn).decode("ascii")
    return _texts(tracker, replace(run, png=drawn)) | {"image/png": image}


def text_bundle(tracker: RunTracker) -> dict[str, object]:
    """The bundle without the image, whose first drawing takes a second."""
    return _texts(tracker, _summary(tracker))


def _summary(tracker: RunTracker) -> Summary:
    snapshot = tracker.snapshot
    return Summary(
        run_id=snapshot.id,
        name=snapshot.name or snapshot.id,
        state=snapshot.state,
        description=snapshot.description,
        status_text=" ".join(
            filter(None, (status_text(snapshot), predictions_text(snapshot), _progress_when_saved(snapshot)))
        ),
        rows=tracker.summary(),
        png=b"",
        answers=tracker.answers.last(),
        samples=tracker.completions.last(),
    )


def _progress_when_saved(snapshot: RunSnapshot) -> str:
    """Progress of a run that may have ended since."""
    if not snapshot.live or not snapshot.step:
        return ""
    progress = f"Step {snapshot.step:,} of {snapshot.total:,}" if snapshot.total else f"Step {snapshot.step:,}"
    return f"{progress} when this was saved, {formatting.clock(snapshot.heartbeat or snapshot.created or 0)}."


def _texts(tracker: RunTracker, run: Summary) -> dict[str, object]:
    snapshot = tracker.snapshot
    home = home_hash(tracker.folder.home)
    return {
        VIEW_MIME_TYPE: {
            "view": "monitor",
            "run": snapshot.id,
            "home": home,
            "state": snapshot.state,
            "step": snapshot.step,
        },
        "text/html": strip_bidi(summary_html(run)),
        "text/plain": visible(summary_text(run)),
    }


CELL_STYLE = "padding:2px 12px 2px 0;text-align:left;vertical-align:top;border:0"
NUMBER_STYLE = "padding:2px 12px 2px 0;text-align:right;vertical-align:top;border:0;white-space:nowrap"

TEXT_STYLE = f"{CELL_STYLE};white-space:pre-wrap"
EVERY_RUN = ("Training loss", "Evaluation loss", "Tokens", "Time")
MAX_KEY_METRICS = 3  # numbers beside those of every run in the line of the first ones


@dataclass(frozen=True)
class Summary:
    """Content of a summary, apart from its format. Answers are (prompt, base answer, last answer, its step)."""

    run_id: str
    name: str
    state: str
    description: str
    status_text: str
    rows: Sequence[tuple[str, str, str]]
    png: bytes
    answers: Sequence[tuple[str, str, str, int]] = ()
    samples: tuple[int, Sequence[Completion]] = (0, ())

    @property
    def key_line(self) -> str:
        """The key numbers in one line."""
        names = [label for label, _, _ in self.rows]
        before = names[: next((place for place, label in enumerate(names) if label in EVERY_RUN), len(names))]
        counted = [label for label in before if held_out_label(label) not in before][:MAX_KEY_METRICS]
        return ", ".join(
            f"{lowercase_label(label)} {value}" for label, value, _ in self.rows if label in (*counted, *EVERY_RUN)
        )


def summary_html(run: Summary) -> str:
    """The summary as one HTML block; all text is escaped, and the image is a data URL."""
    cells = "".join(
        f'<tr><td style="{CELL_STYLE}">{escape(label)}</td><td style="{NUMBER_STYLE}"><b>{escape(value)}</b></td>'
        f'<td style="{CELL_STYLE}">{escape(note)}</td></tr>'
        for label, value, note in run.rows
    )
    heading = " · ".join(escape(text) for text in (run.state, run.description) if text)
    return (
        f'<div class="llf-Static"><p><b>{escape(run.name)}</b> · {heading}</p><p>{escape(run.status_text)}</p>'
        f'<table style="border-collapse:collapse"><tbody>{cells}</tbody></table>'
        f"{_image(run)}{_answers(run.answers)}{_samples(*run.samples)}"
        f"<p>Live view: <code>llf.Monitor({escape(repr(run.run_id))})</code></p></div>"
    )


def _image(run: Summary) -> str:
    if not run.png:
        return ""
    return (
        f'<img alt="Training and evaluation loss of {escape(run.name)}" style="max-width:100%;width:740px" '
        f'src="data:image/png;base64,{base64.b64encode(run.png).decode("ascii")}">'
    )


def _answers(answers: Sequence[tuple[str, str, str, int]]) -> str:
    if not answers:
        return ""
    step = max(step for *_, step in answers)
    heads = "".join(f'<th style="{TEXT_STYLE}">{head}</th>' for head in ("Prompt", "Base", f"Tuned, step {step:,}"))
    rows = "".join(
        "<tr>" + "".join(f'<td style="{TEXT_STYLE}">{escape(text)}</td>' for text in texts) + "</tr>"
        for *texts, _ in answers
    )
    return f'<table style="border-collapse:collapse"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _samples(step: int, samples: Sequence[Completion]) -> str:
    if not samples:
        return ""
    heads = "".join(
        f'<th style="{TEXT_STYLE}">{head}</th>' for head in ("Reward", "Prompt", f"Sampled at step {step:,}")
    )
    rows = "".join(
        "<tr>" + "".join(f'<td style="{TEXT_STYLE}">{escape(text)}</td>' for text in _cells(one)) + "</tr>"
        for one in samples
    )
    return f'<table style="border-collapse:collapse"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _cells(one: Completion) -> tuple[str, str, str]:
    return "–" if one.reward is None else formatting.number(one.reward), one.prompt, one.text  # noqa: RUF001 - a dash


def summary_text(run: Summary) -> str:
    """The summary as plain text, for terminals and frontends without HTML."""
    width = max((len(label) for label, _, _ in run.rows), default=0)
    lines = [f"{run.name}: {run.state}. {run.status_text}".rstrip()]
    lines += [f"  {label:<{width}}  {value}  {note}".rstrip() for label, value, note in run.rows]
    lines += [f"  {prompt}\n    base: {base}\n    step {step:,}: {text}" for prompt, base, text, step in run.answers]
    step, samples = run.samples
    lines += [
        f"  {prompt}\n    reward {reward} at step {step:,}: {text}" for reward, prompt, text in map(_cells, samples)
    ]
    return "\n".join([*lines, f"Live view: llf.Monitor({run.run_id!r})"])


WIDTH, LARGE, ROW, DPI = 7.4, 3.1, 1.75, 140  # inches
BELOW = 4  # charts below the large one: an image is looked at as a whole
DASHED = (0, (5, 2))


def saved_image(data: ChartData, total: int, title: str = "", line: str = "") -> bytes:
    """Draw the primary metric over the (planned) steps, and the first other charts below, as a PNG with a title."""
    shown = data.middle[:BELOW]
    below = ROW * -(-len(shown) // 2)
    height = LARGE + below
    figure = new_figure(WIDTH, height, DPI)
    for text, down, size, weight in ((title, 0.015, 10, "bold"), (line, 0.085, 8.5, "normal")):
        place = 1 - down * LARGE / height
        figure.text(0.01, place, text, color=GRAY, fontsize=size, fontweight=weight, va="top", parse_math=False)
    box = (0.06, (below + 0.11 * LARGE) / height, 0.76, 0.67 * LARGE / height)
    _draw_large(figure.add_axes(box), data, total)
    for number, one in enumerate(shown):
        row, column = divmod(number, 2)
        bottom = below - ROW * (row + 1) + 0.32
        box = (0.075 + 0.5 * column, bottom / height, 0.3, (ROW - 0.8) / height)
        _draw_chart(figure.add_axes(box), one, data, total)
    return to_png(figure)


def _draw_large(axes: Axes, data: ChartData, total: int) -> None:
    name = data.primary
    _draw_line(axes, name, data, (to_hex(TRAINING), to_hex(EVALUATION)), (0.8, 0.5, 1.6, 3), clip_on=False)
    draw_end_labels(axes, line_ends(data.top, data, "evaluation"), 9)
    for number, (step, label) in enumerate(data.marks):
        axes.axvline(step, color=GRAY, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.annotate(
            f" {label}", (step, 1 - 0.1 * (number % 3)), xycoords=("data", "axes fraction"), color=GRAY, fontsize=8,
            va="top",
        )  # fmt: skip
    if data.broken_count:
        height = np.full(data.broken.size, 0.97)
        transform = axes.get_xaxis_transform()
        axes.plot(data.broken, height, "x", color=to_hex(BAD), markersize=5, transform=transform)
    plain_axes(axes, data.top.chart.title, x=-0.05, outward=4)
    _limit_steps(axes, total)


def _draw_chart(axes: Axes, shown: LoggedChart, data: ChartData, total: int) -> None:
    for number, name in enumerate(shown.lines):
        color, _ = line_color(number)
        held_out = evaluation_color(color, len(shown.lines))
        _draw_line(axes, name, data, (to_hex(color), to_hex(held_out)), (0.6, 0.35, 1.3, 2))
    chart = shown.chart
    if chart.level is not None:
        axes.axhline(chart.level, color=GRAY, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
    if chart.maximum is not None:
        axes.set_ylim(*maximum_range(chart)["range"])
    if chart.form == "share":
        format_percent(axes)
    draw_end_labels(axes, line_ends(shown, data), 8)
    plain_axes(axes, chart.title, size=8.5, x=-0.12, outward=4)
    _limit_steps(axes, total)
    axes.locator_params(axis="y", nbins=4)


def _draw_line(
    axes: Axes,
    name: str,
    data: ChartData,
    colors: tuple[str, str],
    style: tuple[float, float, float, float],
    **evaluation: Any,
) -> None:
    """A metric as logged, smoothed and of evaluations.

    Args:
        style: width and opacity of the logged line, width of the others, size of an evaluation's points.
    """
    thin, opacity, thick, dot = style
    axes.plot(*data.line(name), color=colors[0], linewidth=thin, alpha=opacity)
    axes.plot(*data.smooth.get(name, NOTHING), color=colors[0], linewidth=thick)
    axes.plot(
        *data.line(EVAL_PREFIX + name), color=colors[1], linewidth=thick, linestyle=DASHED, marker="o", markersize=dot,
        **evaluation,
    )  # fmt: skip


def _limit_steps(axes: Axes, total: int) -> None:
    axes.set_xlim(0, total if total > 0 else None)
    axes.locator_params(axis="x", integer=True)
