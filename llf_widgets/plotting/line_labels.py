"""Labels at the ends of a chart's lines, moved apart where they would overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_widgets.plotting.plotly_layout import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llf_widgets.plotting.plotly_layout import Axes


@dataclass(frozen=True)
class LineEnd:
    """The label at the last point of a line, whose color is `rgb(r, g, b)` with integers from 0 to 255."""

    x: float
    y: float
    text: str
    color: str


def end_labels(  # noqa: PLR0913 - the labels, and the axis that they stand at
    ends: Sequence[LineEnd], axes: Axes, pixels: float, reach: tuple[float, float], *, apart: float, size: int
) -> list[dict[str, Any]]:
    """The labels at line ends as Plotly annotations, in place of a legend.

    Args:
        ends: the labels; on a logarithmic axis with the logarithm of `y`, as Plotly expects it.
        reach: lower and upper end of the y axis, in the units of `ends`.
        apart: minimum distance between two labels, in pixels.
    """
    low, high = reach
    shifts = label_shifts([pixels * (end.y - low) / (high - low) for end in ends], apart)
    return [
        {
            "text": escape(end.text), "x": end.x, "y": end.y, **axes.reference, "xanchor": "left", "yanchor": "middle",
            "xshift": 5, "yshift": shift, "showarrow": False, "font": {"color": end.color, "size": size},
        }
        for end, shift in zip(ends, shifts, strict=True)
    ]  # fmt: skip


def value_range(lines: Iterable[np.ndarray], *, positive: bool = False) -> tuple[float, float]:
    """Lowest and highest finite value of all lines `[n]`, a little apart if they are equal.

    Without any value 0 and 1; if `positive`, values that a logarithmic axis cannot show are ignored, and the default is
    0.1 and 1.
    """
    every = np.concatenate([*lines, np.empty(0)])
    finite = every[np.isfinite(every) & ((every > 0) | (not positive))]
    if not finite.size:
        return (0.1, 1.0) if positive else (0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    least = low * 1e-3 if positive else max(1e-12, abs(low) * 1e-9)
    return low, max(high, low + least)


def last_point(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """The last point of `x` and `y` `[n]` with finite coordinates; None if there is none."""
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    return (float(x[finite[-1]]), float(y[finite[-1]])) if finite.size else None


def label_shifts(heights: list[float], min_distance: float) -> list[float]:
    """Minimal shifts of labels so that neighbors are at least `min_distance` apart.

    The shifted heights are the least-squares fit under this constraint: isotonic regression of `heights - min_distance
    * rank` by pooling adjacent violators (Ayer et al., Ann. Math. Stat. 26, 1955).

    Args:
        heights: `[n]`, pixels, finite.

    Returns:
        `[n]` shifts in pixels, upwards positive, rounded to tenths.
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    # Heights that touch form a heap, which stands around the mean of what its members want.
    heaps: list[tuple[list[int], float]] = []
    for place in order:
        heap, start = [place], heights[place]
        while heaps and heaps[-1][1] + min_distance * len(heaps[-1][0]) > start:
            heap = heaps.pop()[0] + heap
            start = sum(heights[one] - min_distance * number for number, one in enumerate(heap)) / len(heap)
        heaps.append((heap, start))
    moved = [0.0] * len(heights)
    for heap, start in heaps:
        for number, place in enumerate(heap):
            moved[place] = round(start + min_distance * number - heights[place], 1)
    return moved
