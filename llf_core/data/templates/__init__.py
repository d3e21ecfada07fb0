"""Chat templates as data: `NAME.jinja` is a TOML header between two `+++` lines, then the Jinja text.

The Jinja sees what a tokenizer's own template sees: `messages`, `tools`, `add_generation_prompt`, the special
tokens. It must be open-ended: what it renders for the first turns of a conversation begins what it renders for all.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llf_core.data.errors import DataError
from llf_core.data.nearest import did_you_mean

FOLDER = Path(__file__).parent
FENCE = "+++\n"


@dataclass(frozen=True)
class NamedTemplate:
    """A template that ships with LLF.

    Attributes:
        name: LLaMA-Factory's name of it.
        label: what it is called elsewhere.
        end: the token that ends an answer, or `eos_token` for the tokenizer's own.
        jinja: the text.
    """

    name: str
    label: str
    end: str
    jinja: str


@cache
def template_names() -> tuple[str, ...]:
    """The templates that can be named, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.jinja")))


@cache
def named_template(name: str) -> NamedTemplate:
    """Reads a template.

    Raises:
        DataError: there is none of that name; the nearest one is named.
    """
    if name not in template_names():
        choices = f"Choose one of {', '.join(template_names())}, or leave template out for the model's own."
        raise DataError(f"There is no template {name!r}.{did_you_mean(name, template_names())} {choices}")
    _, header, jinja = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8").split(FENCE, 2)
    fields = tomllib.loads(header)
    return NamedTemplate(name, fields["label"], fields["end"], jinja)
