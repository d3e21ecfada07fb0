"""Positions, sizes and axes of the charts of a run.

The large chart is at the top, the small ones that every run has are at the bottom, with a chart between them for each
other group of metrics that the run has logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from llf_widgets.plotting.plotly_layout import Axes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llf_core.runs.charts import Chart, LoggedChart, Place
    from llf_widgets.monitor.chart_data import ChartData


@dataclass(frozen=True)
class Rows:
    """Rows of equal charts. Pairs are for a wide and for a narrow figure.

    Attributes:
        above: pixels between a chart and the row above it, for axis labels and headings.
        columns: charts in a row.
        gaps: share of the figure's width between two charts of a row.
        labels: share of a chart's width for the labels at the ends of its lines.
    """

    height: int
    above: int
    columns: tuple[int, int]
    gaps: tuple[float, float]
    labels: tuple[float, float]


ROWS: Mapping[Place, Rows] = {
    "top": Rows(216, 0, columns=(1, 1), gaps=(0, 0), labels=(0.12, 0.24)),
    "middle": Rows(120, 94, columns=(2, 1), gaps=(0.075, 0.075), labels=(0.26, 0.26)),
    "bottom": Rows(87, 69, columns=(4, 2), gaps=(0.075, 0.15), labels=(0, 0)),
}
"""The rows of each place, from top to bottom."""


@dataclass(frozen=True)
class PlacedChart:
    """A chart at its position in the figure.

    Attributes:
        place: place where it is drawn: a chart of the table's top is in the middle beside another primary metric.
        across: left and right end, as shares of the figure's width.
        up: bottom and top, as shares of the height of all charts.
    """

    place: Place
    shown: LoggedChart
    axes: Axes
    across: tuple[float, float]
    up: tuple[float, float]

    @property
    def chart(self) -> Chart:
        """Title, help and number format."""
        return self.shown.chart

    @property
    def pixels(self) -> int:
        """Its height in pixels."""
        return ROWS[self.place].height


@dataclass(frozen=True)
class ChartGrid:
    """All charts of a figure.

    Attributes:
        charts: the large chart first, then the small ones, then those between.
        marks: axes of the marks in the large chart: its x axis, and a y axis from 0 to 1 of its own.
    """

    charts: tuple[PlacedChart, ...]
    marks: Axes
    height: int

    @property
    def top(self) -> PlacedChart:
        """The large chart."""
        return self.charts[0]


def chart_grid(data: ChartData, *, narrow: bool = False) -> ChartGrid:
    """Place the charts of a run. Those that every run has get the first axes, so that zooms stay as others appear."""
    by_place: dict[Place, Sequence[LoggedChart]] = {"top": (data.top,), "middle": data.middle, "bottom": data.bottom}
    boxes = {place: list(_row_boxes(place, len(charts), narrow=narrow)) for place, charts in by_place.items()}
    height, starts = 0, {}
    for place, found in boxes.items():
        starts[place] = height
        height += max((bottom for _, (_, bottom) in found), default=0)
    numbers = count(1)
    charts = tuple(
        PlacedChart(
            place, shown, Axes.numbered(next(numbers)), across,
            (1 - (starts[place] + bottom) / height, 1 - (starts[place] + top) / height),
        )
        for place in ("top", "bottom", "middle")
        for shown, (across, (top, bottom)) in zip(by_place[place], boxes[place], strict=True)
    )  # fmt: skip
    return ChartGrid(charts, Axes(charts[0].axes.x, next(numbers)), height)


def _row_boxes(place: Place, number: int, *, narrow: bool) -> Iterator[tuple[tuple[float, float], tuple[int, int]]]:
    """Left and right end (shares), and top and bottom (pixels below the rows before) of each chart of a place."""
    rows = ROWS[place]
    columns, gap, labels = rows.columns[narrow], rows.gaps[narrow], rows.labels[narrow]
    width = (1 - gap * (columns - 1)) / columns
    for chart in range(number):
        row, column = divmod(chart, columns)
        left, top = column * (width + gap), rows.above + row * (rows.height + rows.above)
        yield (left, left + width * (1 - labels)), (top, top + rows.height)
