"""Colors and dash styles of lines, texts and axes, legible on the light and on the dark theme."""

from __future__ import annotations

# Middle tones with at least 4:1 on white and on #111. `plotly_colors.css` replaces each with a color of the theme, and
# knows it by its exact numbers.
TRAINING = "rgb(16, 127, 198)"
EVALUATION = "rgb(194, 93, 10)"
LINE_COLORS = (TRAINING, EVALUATION, "rgb(11, 133, 96)", "rgb(158, 89, 176)")
MUTED = "rgb(122, 122, 122)"
BAD = "rgb(221, 60, 60)"
INK, AXIS = "rgb(121, 121, 121)", "rgb(123, 123, 123)"  # MUTED to the eye, other tokens to the stylesheet

SOLID, DASHED, DOTTED = "solid", "6px,3px", "1.5px,3px"


def line_color(number: int) -> tuple[str, str]:
    """Color and dash of a line by its index in its chart. Colors repeat after four, then dotted."""
    return LINE_COLORS[number % len(LINE_COLORS)], SOLID if number < len(LINE_COLORS) else DOTTED


def evaluation_color(color: str, lines: int) -> str:
    """Color of an evaluation line: its own beside a single line, else that of its training line, with another dash."""
    return EVALUATION if lines == 1 else color


def faded(color: str) -> str:
    """The translucent color of an area, in Plotly's format, from `rgb(r, g, b)`."""
    return f"rgba{color.removeprefix('rgb').removesuffix(')')}, 0.15)"


def to_hex(color: str) -> str:
    """Convert `rgb(16, 127, 198)`, which Plotly and the stylesheet use, to matplotlib's hexadecimal format."""
    red, green, blue = (int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))
    return f"#{red:02x}{green:02x}{blue:02x}"
