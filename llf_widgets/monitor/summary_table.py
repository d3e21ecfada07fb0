"""Summary of a run as HTML without a stylesheet: table, image and code to continue."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from llf_core.runs.metric_catalog import held_out_label, lowercase_label
from llf_widgets.monitor import formatting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_widgets.monitor.completions import Completion

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
