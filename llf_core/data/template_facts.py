"""Chat templates of published models: what each renders and rewrites, by the hash of its text.

`template_page` measures the facts in `config/template_facts.toml` and writes `docs/chat_templates.md`.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from llf_core.config.chat_templates import FILE

FACTS = FILE.with_name("template_facts.toml")


@dataclass(frozen=True)
class TemplateFacts:
    """Properties of a published chat template.

    Attributes:
        sha256: SHA-256 of its text in UTF-8, without whitespace at its ends.
        stop: token that ends a response within the loss, `eos_token` for the tokenizer's own; empty if there is none.
        rewrites: kinds of conversations whose earlier turns it rewrites.
        dropped: fields that it never renders.
        fails: fields and kinds of conversations for which it raises an error.
        object_arguments: whether arguments of calls may be objects; None if it renders no calls.
        next_turn: token that it writes after a response only once the next turn follows; empty if it has a `stop`.
        models: patterns of hub ids of models that have it, and for which LLaMA-Factory's named template differs.
    """

    family: str
    source: str
    sha256: str
    stop: str
    rewrites: tuple[str, ...]
    dropped: tuple[str, ...]
    fails: tuple[str, ...]
    object_arguments: bool | None
    date: bool
    next_turn: str = ""
    models: tuple[str, ...] = ()
    note: str = ""


@cache
def known_templates() -> dict[str, TemplateFacts]:
    """Facts of each template by its name in the table, with which a tokenizer's own is recognized. Read once."""
    with FACTS.open("rb") as file:
        return {name: _facts(entry) for name, entry in tomllib.load(file).items()}


def _facts(entry: dict[str, Any]) -> TemplateFacts:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return TemplateFacts(**({"object_arguments": None} | values))


def find_template(jinja: str) -> TemplateFacts | None:
    """Find a published template by its text; None for a changed or unknown one."""
    digest = sha256(jinja)
    return next((one for one in known_templates().values() if one.sha256 == digest), None)


def own_template_of(model: str) -> TemplateFacts | None:
    """Find the chat template of a model (hub id, in any case) for which LLaMA-Factory's named template differs."""
    name = model.lower()
    return next(
        (one for one in known_templates().values() if any(fnmatchcase(name, each.lower()) for each in one.models)), None
    )


def sha256(jinja: str) -> str:
    """SHA-256 (hexadecimal) of a template's text without whitespace at its ends."""
    return hashlib.sha256(jinja.strip().encode("utf-8", "surrogatepass")).hexdigest()
