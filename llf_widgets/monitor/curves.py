"""What the charts of a run draw: every line with at most 2,000 points, and the marks beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import decimate

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 2000  # points a trace
LINES = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "memory")
NOTHING = (np.empty(0, dtype=np.int64), np.empty(0))


@dataclass(frozen=True)
class Curves:
    """Lines by name as (steps [n], values [n]), n at most `LIMIT`; NaN where a logged value is not finite.

    Args:
        lines: `loss`, `smoothed`, `eval_loss` and the four small panels; memory in GB.
        kept: steps of checkpoints that are there.
        best: the best checkpoint's step, or nothing.
        marks: (step, words) of every resume and of every change by hand.
        broken: steps at which the loss was not finite, at most `LIMIT`.
        broken_count: how many there are in all.
    """

    lines: Mapping[str, tuple[np.ndarray, np.ndarray]]
    kept: np.ndarray
    best: np.ndarray
    marks: list[tuple[int, str]]
    broken: np.ndarray
    broken_count: int

    @property
    def points(self) -> int:
        """Points of the longest line: what a front end must redraw."""
        return max((x.size for x, _ in self.lines.values()), default=0)


def curves(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    smoothed: np.ndarray,
    *,
    kept: tuple[int, ...] = (),
    best: int | None = None,
    events: tuple[dict[str, Any], ...] = (),
) -> Curves:
    """Thins out what a run logged to what a chart can show.

    Args:
        series: name -> (steps, values), ascending steps.
        smoothed: [n] beside `series["loss"]`.
        kept: steps of whole checkpoints.
        best: the best checkpoint's step.
        events: the run's events, for its marks.
    """
    lines = {name: _thin(*series.get(name, NOTHING)) for name in LINES}
    steps, loss = series.get("loss", NOTHING)
    lines["smoothed"] = _thin(steps, smoothed)
    lines["memory"] = (lines["memory"][0], lines["memory"][1] / 1e9)
    broken = steps[~np.isfinite(loss)]
    marks = np.asarray(kept, dtype=np.int64)
    return Curves(
        lines=lines,
        kept=marks[marks != best],
        best=marks[marks == best],
        marks=[mark for event in events if (mark := _mark(event)) is not None],
        broken=broken[:: max(1, -(-broken.size // LIMIT))],
        broken_count=int(broken.size),
    )


def _mark(event: dict[str, Any]) -> tuple[int, str] | None:
    """What a chart marks of an event: a resume, or a change by hand."""
    if event.get("type") == "resumed" and "attempt" in event and "from_step" in event:
        return int(event["from_step"]), f"attempt {event['attempt']}, from step {event['from_step']}"
    changes = event.get("changes")
    if event.get("type") != "steered" or event.get("again") or not isinstance(changes, dict) or "step" not in event:
        return None
    words = {"learning_rate": "learning rate {:g}", "max_steps": "ends at step {:,}"}
    said = [text.format(changes[name]) for name, text in words.items() if isinstance(changes.get(name), int | float)]
    return (int(event["step"]), f"{event['step']}: {', '.join(said)}") if said else None


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = decimate(steps, values, LIMIT)
    return np.asarray(x), np.where(np.isfinite(y), y, np.nan)
