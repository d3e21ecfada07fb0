"""Finds missing tokens and fields that are never rendered by a config's chat template, without a tokenizer."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config import Fix, Problem
from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.model_folder import folder_of
from llf_core.data.align import wanted_kind
from llf_core.data.chat_template import OWN_TEMPLATE
from llf_core.data.errors import BadExample, DataError
from llf_core.data.formats.conversation import REASONING_FIELDS, TEXTS
from llf_core.data.own_template import own_template_text
from llf_core.data.precheck import quick_check
from llf_core.data.rename_fields import renames_of
from llf_core.data.template_check import CALLS, DROPPED, TOOLS, FieldCheck, fields_of
from llf_core.data.template_tokens import NO_CHAT_TEMPLATE, SETTINGS, why_never_ends_here
from llf_core.data.templates import named_template
from llf_core.runs import home
from llf_core.untrusted import MODEL_SETTINGS_BYTES, read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llf_core.config import RunConfig
    from llf_core.config.declaration import DataKind
    from llf_core.data.template_check import Field

ALIASES = ("reasoning_content", "thinking", "reasoning")
"""Fields that transformers gives to a tokenizer's own template under each of these names."""
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def template_problems(config: RunConfig) -> tuple[Problem, ...]:
    """Find what is wrong with a config's chat template, from its text and the files of the tokenizer.

    An error beside `template` if the model has no template, or lacks the token with which the named one ends responses.
    Else a warning beside `dataset` for each field of the first records whose name does not occur in the template; a
    field that it mentions may still be dropped, which the run finds by rendering.
    """
    kind = wanted_kind(config)
    if kind == TEXTS:
        return ()
    folder = _model_folder(config)
    if folder is not None and (problem := _unusable(config, folder)) is not None:
        return (problem,)
    source = _source(config, folder)
    if not source:
        return ()
    name = config.data.template or OWN_TEMPLATE
    names = (*(config.data.dataset or ()), *(config.data.eval_dataset or ()))
    fields = sorted({field for one in names for field in _fields(config, one, kind)})
    unread = _unread(source, fields, named=config.data.template is not None)
    return tuple(_problem(config, one, name) for one in unread)


def _fields(config: RunConfig, name: str, kind: DataKind) -> Iterable[Field]:
    found = quick_check(config, name, kind)
    if found.reading is None:
        return
    reading = replace(found.reading, renames=renames_of(config))
    for row in found.rows:
        try:
            yield from fields_of(reading.align(row))
        except BadExample:
            continue


def _unread(source: str, fields: Iterable[Field], *, named: bool) -> Iterable[FieldCheck]:
    """Fields that matter and that a template's text does not mention as a key."""

    def reads(name: str) -> bool:
        return re.search(rf"(?:\.|['\"]){name}\b", source) is not None

    for role, name in fields:
        if (role, name) == TOOLS:
            if re.search(r"\btools\b", source) is None:
                yield FieldCheck(role, name, DROPPED)
        elif (role, name) == CALLS or name in REASONING_FIELDS:
            same = ALIASES if name in ALIASES and not named else (name,)
            if not any(map(reads, same)):
                others = REASONING_FIELDS if name in REASONING_FIELDS else ()
                yield FieldCheck(role, name, DROPPED, rename=next((one for one in others if reads(one)), ""))


def _problem(config: RunConfig, field: FieldCheck, template: str) -> Problem:
    fixes: tuple[Fix, ...] = ()
    if field.rename:
        renames = {**(config.data.rename_fields or {}), field.name: field.rename}
        fixes = (Fix(f"Rename {field.name} to {field.rename}", {"rename_fields": renames}),)
    keys = ("dataset", "template", "rename_fields")
    return Problem("violation", "dataset", config.get("dataset"), field.text(template), fixes, "warning", keys=keys)


def _unusable(config: RunConfig, folder: Path) -> Problem | None:
    name = config.data.template
    try:
        why = (NO_CHAT_TEMPLATE if _has_none(folder) else "") if name is None else why_never_ends_here(config, folder)
    except DataError:
        return None  # the name is reported beside its key
    if not why:
        return None
    fixes = [] if name is None else [Fix("Add the token", {"resize_vocab": True})]
    if name is not None and not _has_none(folder):
        fixes.insert(0, Fix("Use the model's own template", {"template": None}))
    return Problem("violation", "template", name, why, tuple(fixes), keys=("template", "model_name_or_path"))


def _has_none(folder: Path) -> bool:
    """Whether a tokenizer has no chat template, in its settings or in a file of its own."""
    settings = Path(os.path.realpath(folder / SETTINGS))
    if not settings.is_file() or any((folder / name).exists() for name in TEMPLATE_FILES):
        return False
    told = read_object_or_empty(settings, MODEL_SETTINGS_BYTES)
    return bool(told) and not told.get("chat_template") and not told.get("auto_map")


def _model_folder(config: RunConfig) -> Path | None:
    model = config.model
    if model.model_name_or_path == EMBEDDED:
        folder = home() / "models" / EMBEDDED
        return folder if folder.is_dir() else None
    return folder_of(model.model_name_or_path, model.cache_dir)


def _source(config: RunConfig, folder: Path | None) -> str | None:
    data = config.data
    if data.template is not None:
        try:
            return named_template(data.template).jinja(tools=data.tool_format)
        except DataError:
            return None  # the name is reported beside its key
    if folder is None:
        return None
    return own_template_text(folder)
