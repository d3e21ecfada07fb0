"""Layout of a run's charts: no grid, no legend, a transparent background for both themes.

The large chart is at the top, four small ones that every run has are at the bottom; between them is a chart for each
other group, two per row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.runs.metric_catalog import EVAL_PREFIX

if TYPE_CHECKING:
    from llf_core.runs.metric_catalog import Form, LoggedGroup
    from llf_widgets.monitor.curves import Curves

# Middle tones with at least 4.2:1 on white and on #111. `monitor.css` knows each by its exact numbers.
TRAINING = "rgb(16, 127, 198)"
EVALUATION = "rgb(194, 93, 10)"
THIRD, FOURTH = "rgb(11, 133, 96)", "rgb(158, 89, 176)"
# Four with at least 4:1 on both grounds.
TONES = (TRAINING, EVALUATION, THIRD, FOURTH)
QUIET = "rgb(122, 122, 122)"
BAD = "rgb(221, 60, 60)"
INK, AXIS = "rgb(121, 121, 121)", "rgb(123, 123, 123)"  # QUIET to the eye, other tokens to the stylesheet
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
LOSS_RIGHT, NARROW_RIGHT = 0.88, 0.76  # the rest is for the labels at the ends of the lines
PANELS = {  # name -> (title, axis number, hover format)
    "learning_rate": ("Learning rate", 2, ".2e"),
    "grad_norm": ("Gradient norm", 3, ".3g"),
    "tokens_per_second": ("Tokens per second", 4, ",.0f"),
    "memory": ("Memory, GB", 5, ".3g"),
}
GAP, NARROW_GAP = 0.075, 0.15  # the labels of an axis stand in it
LEFT = 50  # pixels left of an axis: its labels
TOOLS = [["zoom2d", "pan2d", "resetScale2d", "toImage"]]  # beside the charts while the pointer is over them
CONFIG = {"modeBarButtons": TOOLS}
TOP, BOTTOM = 30, 28  # pixels above and below the charts
LARGE, SMALL, BETWEEN = 216, 87, 69  # heights of the large and the small charts, and what is between them
CHART, HEADING = 120, 94  # of a group's chart, and of what stands above it
HALF_GAP = 0.075
ROOM = 0.26  # of it, for the labels at the ends of its lines
FORMATS: dict[Form, tuple[str, str]] = {"number": ("", ".4g"), "share": (".0%", ".1%"), "count": (",d", ",.0f")}
"""Number formats of axis and hover text."""
ZERO = {"0e+0": "0"}


class Places:
    """Positions of the charts, as fractions of the figure.

    Args:
        groups: number of charts between the large and the small ones.
        narrow: two small charts per row and one group, instead of four and two.
    """

    def __init__(self, groups: int, *, narrow: bool = False) -> None:
        self.narrow = narrow
        self._columns, self._small_columns = (1, 2) if narrow else (2, 4)
        self._rows = -(-groups // self._columns)
        small_rows = len(PANELS) // self._small_columns
        self._below = small_rows * SMALL + (small_rows - 1) * BETWEEN
        self.charts = LARGE + BETWEEN + self._below + self._rows * (CHART + HEADING)
        self.main = [1 - LARGE / self.charts, 1.0]
        self.right = NARROW_RIGHT if narrow else LOSS_RIGHT

    def small(self, number: int) -> tuple[list[float], list[float]]:
        """Left and right, bottom and top of a small chart."""
        row, column = divmod(number, self._small_columns)
        left, right = self._across(column, self._small_columns, NARROW_GAP if self.narrow else GAP)
        bottom = self._below - SMALL - row * (SMALL + BETWEEN)
        return [left, right], [bottom / self.charts, (bottom + SMALL) / self.charts]

    def group(self, number: int) -> tuple[list[float], list[float]]:
        """Left and right, bottom and top of a group's chart."""
        row, column = divmod(number, self._columns)
        bottom = self._below + BETWEEN + (self._rows - 1 - row) * (CHART + HEADING)
        left, right = self._across(column, self._columns, HALF_GAP)
        return [left, right - (right - left) * ROOM], [bottom / self.charts, (bottom + CHART) / self.charts]

    @staticmethod
    def _across(column: int, columns: int, gap: float) -> tuple[float, float]:
        width = (1 - gap * (columns - 1)) / columns
        return column * (width + gap), column * (width + gap) + width


def axis_number(group: int) -> int:
    """Plotly axis number of a group's chart; 1 to 6 belong to the other charts."""
    return 7 + group


def tones(number: int) -> tuple[str, str]:
    """Color and dash of a line by its index in its group; colors repeat after four, dotted."""
    return TONES[number % len(TONES)], "solid" if number < len(TONES) else "1.5px,3px"


def step_range(total: int) -> dict[str, object]:
    """The step axis for `total` steps; automatic if unknown."""
    return {"range": [0, total], "autorange": False} if total > 0 else {"autorange": True}


def traces(curves: Curves) -> list[dict[str, object]]:
    """Styles of all traces, without data: large chart, small charts, markers and labels, then groups."""
    form = FORMATS[curves.main.group.form][1].replace("4g", "4f")
    main = {"type": "scatter", "xaxis": "x", "yaxis": "y", "mode": "lines", "showlegend": False}
    marks = main | {
        "yaxis": "y6",
        "mode": "markers+text",
        "textposition": "middle right",
        "hoverinfo": "x",
        "textfont": {"size": 11, "color": QUIET},
        "cliponaxis": False,
    }
    label = main | {"mode": "text", "cliponaxis": False, "hoverinfo": "skip"}
    small = [
        main
        | {
            "name": title,
            "xaxis": f"x{axis}",
            "yaxis": f"y{axis}",
            "line": {"color": QUIET, "width": 1.25},
            "marker": {"color": QUIET, "size": 4},
            "hovertemplate": f"step %{{x}}: %{{y:{form}}}<extra></extra>",
        }
        for title, axis, form in PANELS.values()
    ]
    return [
        main
        | {
            "name": "training, every step",
            "line": {"color": TRAINING, "width": 1},
            "marker": {"color": TRAINING, "size": 5},
            "opacity": 0.5,
            "hovertemplate": f"step %{{x}}: training %{{y:{form}}}<extra></extra>",
        },
        main | {"name": "training, smoothed", "line": {"color": TRAINING, "width": 1.75}, "hoverinfo": "skip"},
        main
        | {
            "name": "evaluation",
            "mode": "lines+markers",
            "cliponaxis": False,
            "line": {"color": EVALUATION, "width": 1.75, "dash": "6px,3px"},
            "marker": {"color": EVALUATION, "size": 5.5},
            "hovertemplate": f"step %{{x}}: evaluation %{{y:{form}}}<extra></extra>",
        },
        *small,
        marks | {"name": "checkpoints", "marker": {"symbol": "triangle-up", "size": 7, "color": QUIET}},
        marks | {"name": "best", "marker": {"symbol": "star", "size": 8, "color": EVALUATION}},
        marks
        | {
            "name": "attempts",
            "mode": "lines+text",
            "line": {"color": QUIET, "width": 1, "dash": "3px,3px"},
            "hoverinfo": "skip",
        },
        marks
        | {
            "name": "not finite",
            "marker": {"symbol": "x", "size": 7, "color": BAD},
            "textposition": "middle left",
            "textfont": {"size": 11, "color": BAD},
        },
        label | {"name": "training label", "textfont": {"size": 12, "color": TRAINING}},
        label | {"name": "evaluation label", "textfont": {"size": 12, "color": EVALUATION}},
        *(trace for number, one in enumerate(curves.groups) for trace in _group_traces(number, one, curves)),
        small[0]
        | {
            "name": "planned learning rate",
            "line": {"color": QUIET, "width": 1.25, "dash": "1.5px,3px"},
            "hovertemplate": f"step %{{x}}: %{{y:{PANELS['learning_rate'][2]}}} planned<extra></extra>",
        },
    ]


def _group_traces(number: int, shown: LoggedGroup, curves: Curves) -> list[dict[str, object]]:
    """For each line of a group: logged values, smoothed values, and validation values if there are any."""
    axis, form = axis_number(number), FORMATS[shown.group.form][1]
    common = {"type": "scatter", "xaxis": f"x{axis}", "yaxis": f"y{axis}", "mode": "lines", "showlegend": False}
    found: list[dict[str, Any]] = []
    for place, (name, label) in enumerate(shown.lines.items()):
        color, dash = tones(place)
        tip = f"step %{{x}}: {plain(label)} %{{y:{form}}}<extra></extra>"
        found.append(
            common | {"name": plain(name), "line": {"color": color, "width": 1}, "opacity": 0.4, "hovertemplate": tip}
        )
        thick = {"line": {"color": color, "width": 1.75, "dash": dash}, "hoverinfo": "skip"}
        found.append(common | thick | {"name": f"{plain(name)}, smoothed"})
        if curves.held_out(name):
            other = held_out_tone(shown, color)
            look = {"line": {"color": other, "width": 1.75, "dash": "6px,3px"}, "marker": {"color": other, "size": 5}}
            said = tip.replace(plain(label), "held out" if len(shown.lines) == 1 else f"{plain(label)}, held out")
            found.append(
                common | look | {"name": EVAL_PREFIX + plain(name), "mode": "lines+markers", "cliponaxis": False}
                | {"hovertemplate": said}
            )  # fmt: skip
    return found


def held_out_tone(shown: LoggedGroup, color: str) -> str:
    """Color of a validation line: its own next to a single line, else that line's color.

    Args:
        shown: the group.
        color: color of the training line.
    """
    return EVALUATION if len(shown.lines) == 1 else color


def plain(label: str) -> str:
    """Escape a name for Plotly's markup."""
    return label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")


def layout(curves: Curves, total: int, places: Places) -> dict[str, object]:
    """Axes, margins and colors of the figure; axes are blank until there is data.

    Args:
        curves: the data.
        total: planned steps; 0 if unknown.
        places: positions of the charts.
    """
    axis = {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": AXIS,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": AXIS,
        "showticklabels": curves.points > 0,
        "tickfont": {"size": 11, "color": QUIET},
    }
    steps = axis | step_range(total) | {"rangemode": "tozero", "nticks": 6}
    shape: dict[str, Any] = {
        "template": {"layout": {"font": {"family": FONT}}},  # Plotly's own takes 0.2 s to build and 8 kB to send
        "autosize": True,
        "height": TOP + places.charts + BOTTOM,
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "dragmode": "zoom",
        "uirevision": "llf",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": TRAINING},
        "font": {"family": FONT, "size": 11, "color": QUIET},
        "margin": {"l": LEFT, "r": 12, "t": TOP, "b": BOTTOM},
        "xaxis": steps | {"domain": [0, places.right], "anchor": "y", "nticks": 8, "labelalias": {"0": "step 0"}},
        "yaxis": axis | {"domain": places.main, "anchor": "x", "nticks": 5},
        "yaxis6": {"overlaying": "y", "range": [0, 1], "fixedrange": True, "visible": False, "anchor": "x"},
    }
    for place, (name, (_, number, _)) in enumerate(PANELS.items()):
        across, up = places.small(place)
        shape[f"xaxis{number}"] = steps | {
            "domain": across,
            "anchor": f"y{number}",
            "nticks": 4,
        }
        shape[f"yaxis{number}"] = axis | {
            "domain": up,
            "anchor": f"x{number}",
            "nticks": 3,
            "rangemode": "tozero",
        }
        if name == "learning_rate":
            # `0.0005` is wider than the room left of the axis
            shape[f"yaxis{number}"] |= {"tickformat": "~e", "labelalias": ZERO}
        if name == "tokens_per_second":
            shape[f"yaxis{number}"] |= {"tickformat": ",d"}
    for number, one in enumerate(curves.groups):
        across, up = places.group(number)
        at = axis_number(number)
        shape[f"xaxis{at}"] = steps | {"domain": across, "anchor": f"y{at}"}
        shape[f"yaxis{at}"] = axis | {"domain": up, "anchor": f"x{at}", "nticks": 4} | _scale(one)
    return shape


def _scale(shown: LoggedGroup) -> dict[str, object]:
    """Number format and range of a group's axis."""
    group = shown.group
    if group.top is not None:
        return {"tickformat": FORMATS[group.form][0], "range": [0, 1.03 * group.top], "autorange": False}
    if group.form != "number":
        return {"tickformat": FORMATS[group.form][0], "rangemode": "tozero"}
    # `-0.00005` is wider than the room left of the axis
    return {"tickformatstops": [{"dtickrange": [None, 9e-5], "value": "~e"}], "labelalias": ZERO}


def levels(curves: Curves) -> list[dict[str, object]]:
    """Reference levels of the groups as shapes."""
    return [
        {
            "type": "line", "layer": "below", "xref": f"x{axis_number(number)} domain", "x0": 0, "x1": 1,
            "yref": f"y{axis_number(number)}", "y0": one.group.level, "y1": one.group.level,
            "line": {"color": AXIS, "width": 1, "dash": "2px,3px"},
        }
        for number, one in enumerate(curves.groups) if one.group.level is not None
    ]  # fmt: skip
