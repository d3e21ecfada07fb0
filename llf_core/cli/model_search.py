from typing import TYPE_CHECKING, Annotated

import typer

from llf_core.cli.terminal import Json, UsageError, out

if TYPE_CHECKING:
    from collections.abc import Iterable


def models(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORDS]...", help="Parts of the model's name, in any order.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the known models: size, context length, license, whether access is gated, and chat template.

    Any other hub id, folder or GGUF file can be trained too. No request is sent to a hub.
    """
    from llf_core.cli.model_table import answer
    from llf_core.model_catalog import search_models

    found = search_models(words or ())
    if not found:
        raise UsageError(_nothing(words or ()))
    out.print(answer(found, as_json), markup=False)


def _nothing(words: "Iterable[str]") -> str:
    import re

    from llf_core.config.did_you_mean import did_you_mean
    from llf_core.model_catalog import known_models, unmatched_words

    bad = unmatched_words(words)
    if not bad:
        return f"No known model has all of the words {' '.join(words)!r} in its name. Leave one out."
    parts = {part for one in known_models() for part in re.findall(r"[a-z0-9.]+", f"{one.id} {one.family}".lower())}
    return f"No known model has {bad[0]!r} in its name.{did_you_mean(bad[0].lower(), sorted(parts))}"
