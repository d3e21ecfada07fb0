"""`llf models`: searches the catalog of models."""

from typing import TYPE_CHECKING, Annotated

import typer

from llf_core.cli.errors import UsageError
from llf_core.cli.parameters import Json
from llf_core.cli.terminal import out, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llf_core.model_catalog import CatalogModel

WIDTH = 80
"""Characters of a line of the table, as of a terminal that says nothing else."""
NARROW = 10
"""Least width of the columns of license and template, in characters."""


def models(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORDS]...", help="Parts of the model's name, in any order.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the known models: size, context length, license, whether access is gated, and chat template.

    Any other hub id, folder or GGUF file can be trained too. No request is sent to a hub.

    Raises:
        UsageError: a word is in no name, or no model has all words.
    """
    from llf_core.model_catalog import known_models, search_models

    found = search_models(words or ())
    if not found:
        raise UsageError(_nothing(words or ()))
    if as_json:
        print_json([one.json() for one in found])
        return
    lines = table(found)
    if any(one.gated for one in found):
        lines.append("*: the owner gives access on the hub after its conditions are accepted.")
    lines.append(f"{len(found)} of {len(known_models())} known models. Any other hub id or folder works too.")
    out.print("\n".join(lines), markup=False)


def table(found: "Iterable[CatalogModel]") -> list[str]:
    """Format models as lines of at most `WIDTH` characters: id, size, context, license and template.

    Each column is as wide as its content. If that is too much, license and template are shortened; if ids leave little
    room, the template is left out. An id is never cut, since it is what is copied.
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


def _nothing(words: "Iterable[str]") -> str:
    """Say that nothing was found, because of which word, and what was probably meant."""
    import re

    from llf_core.config.did_you_mean import did_you_mean
    from llf_core.model_catalog import known_models, unmatched_words

    bad = unmatched_words(words)
    if not bad:
        return f"No known model has all of the words {' '.join(words)!r} in its name. Leave one out."
    parts = {part for one in known_models() for part in re.findall(r"[a-z0-9.]+", f"{one.id} {one.family}".lower())}
    return f"No known model has {bad[0]!r} in its name.{did_you_mean(bad[0].lower(), sorted(parts))}"
