"""The table of `llf models`. Imports the standard library only, so that the command answers at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llf_core.model_catalog import known_models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.model_catalog import CatalogModel

WIDTH = 80
"""Characters of a line of the table."""
NARROW = 10
"""Minimum width of the columns license and template."""


def answer(found: Sequence[CatalogModel], as_json: bool) -> str:
    """Format at least one model for `llf models`: a table with a legend and the number of models, or JSON."""
    if as_json:
        return json.dumps([one.json() for one in found], ensure_ascii=False, indent=2)
    lines = table(found)
    if any(one.gated for one in found):
        lines.append("*: the owner gives access on the hub after its conditions are accepted.")
    lines.append(f"{len(found)} of {len(known_models())} known models. Any other hub id or folder works too.")
    return "\n".join(lines)


def table(found: Sequence[CatalogModel]) -> list[str]:
    """Format models as lines of at most `WIDTH` characters, if ids permit: id, size, context, license and template.

    License and template are shortened if there is too little room, or the template is left out; an id never.
    """
    rows = [("model", "size", "context", "license", "template")]
    rows += [
        (f"{one.id}{' *' if one.gated else ''}", one.size, _tokens(one.context), one.license, one.template)
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    room = WIDTH - sum(width + 2 for width in widths[:3])
    if room >= 2 * NARROW + 2:
        widths[3] = min(widths[3], max(NARROW, room - 2 - widths[4]))
        widths[4] = min(widths[4], room - 2 - widths[3])
    else:
        widths[3:] = [min(widths[3], max(1, room))]
    return ["  ".join(map(_cell, row, widths)).rstrip() for row in rows]


def _cell(text: str, width: int) -> str:
    return f"{text[: width - 1]}…" if len(text) > width else text.ljust(width)


def _tokens(number: int | None) -> str:
    """A number of tokens: `128K`, `1M`, or all digits if it is no multiple of 1024 or one of 1000."""
    if number is None:
        return ""
    if number % 1000 == 0:
        return str(number)
    for unit, size in (("M", 1024**2), ("K", 1024)):
        if number % size == 0:
            return f"{number // size}{unit}"
    return str(number)
