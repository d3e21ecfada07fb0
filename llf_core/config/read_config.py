"""Reads the requested config: a file, YAML or JSON text, a mapping, and `key=value` overrides."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from llf_core.config.classify_key import without_renamed
from llf_core.config.number_format import for_yaml
from llf_core.config.paths import expanded
from llf_core.config.rule import Problem
from llf_core.untrusted import MAX_DEPTH, NotPlainError, UnreadableError, json_value, read_text, too_deep
from llf_core.untrusted.plain_yaml import FLOAT, INTEGER, MAX_INTEGER, MAX_SHOWN_CHARACTERS, Document, yaml_value

OPENS = re.compile(r'\s*("(?:[^"\\]|\\.)*+")')
"""A line of JSON that begins with a string."""


@dataclass
class RequestedConfig:
    """Config as requested, before validation.

    Attributes:
        values: plain data by key.
        lines: the line of each key, counted from 1.
        base: the folder that relative paths start from.
        file: whether the values come from a file in `base`.
        repeated: keys that stand more than once.
        overridden: keys of the overrides, which take precedence.
        spelled_out: keys that another key or its file stands for, such as `strategy` for `deepspeed`.
    """

    values: dict[str, Any]
    base: Path
    lines: dict[str, int] = field(default_factory=dict)
    file: bool = False
    problems: list[Problem] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    overridden: set[str] = field(default_factory=set)
    spelled_out: set[str] = field(default_factory=set)


class _Dumper(yaml.SafeDumper):
    """Writes one key per line, in YAML that `plain_yaml` and other YAML readers read as the same values."""

    inside = False

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        """Write the outermost mapping with one key per line, the others in braces."""
        inside, self.inside = self.inside, True
        node = super().represent_mapping(tag, mapping, flow_style or inside)
        self.inside = inside
        return node

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """Write lists in brackets."""
        return super().represent_sequence(tag, sequence, flow_style is not False)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes these line breaks of Unicode as they are, and reads each as a space.
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    text = for_yaml(value)
    kind = "int" if INTEGER.match(text) else "float"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", text)


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)

for _kind in (bytes, set, date, datetime):  # `plain_yaml` reads none of them as what they are
    _Dumper.add_representer(_kind, _Dumper.represent_undefined)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def dump_yaml(values: Mapping[str, object]) -> str:
    """Write a flat mapping as YAML, one key per line, in its order; tuples read back as lists, in YAML 1.1 too."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def read(source: object, overrides: Sequence[str] = (), base: str | Path | None = None) -> RequestedConfig:
    """Read a config of any form, without raising on invalid content, which becomes a problem.

    Args:
        source: a mapping; a path to a YAML or JSON file; YAML or JSON text. A string is text if it is blank, begins
            with a brace, or has a line break or a colon before a space; else it is a path.
        overrides: `key=value`, the value as YAML; they take precedence over the source. A single text is one of them.
        base: folder that relative paths start from. Default: the file's folder, or the working directory.
    """
    base = expanded(base).absolute() if base else None
    if isinstance(source, Mapping):
        requested = RequestedConfig({str(key): value for key, value in source.items()}, base or Path.cwd())
    elif isinstance(source, Path) or (isinstance(source, str) and not _is_text(source)):
        requested = _read_file(expanded(source), base)
    elif isinstance(source, str):
        requested = _read_text(source, base or Path.cwd())
    else:
        requested = RequestedConfig({}, Path.cwd())
        requested.problems.append(
            _broken(f"A config cannot be a {type(source).__name__}. Expected a mapping, YAML text or a path.")
        )
    if overrides:
        _override(requested, overrides)
    for key, value in [*requested.values.items()]:
        why = _unusual(value) or _unusual(key)
        if why:
            requested.problems.append(Problem("invalid", key, None, f"`{key}` {why}", line=requested.lines.get(key)))
            del requested.values[key]
    return requested


def _unusual(value: object) -> str:
    """Reason why a value is refused for every key; empty if it is not."""
    if too_deep(value):  # first, since the others go into the value by recursion
        return f"contains itself, or is nested more than {MAX_DEPTH} levels deep. Expected plain data."
    return _not_plain(value)


def _not_plain(value: object) -> str:
    if isinstance(value, str):
        if "\0" in value:
            return "contains the character U+0000. Expected text."
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return "contains a lone surrogate. Expected text that can be encoded as UTF-8."
    elif isinstance(value, int) and abs(value) >= MAX_INTEGER:
        return f"is an integer of {value.bit_length()} bits. Expected at most 63."
    elif isinstance(value, Mapping | list | tuple):
        inner = (*value.keys(), *value.values()) if isinstance(value, Mapping) else value
        return next(filter(None, map(_not_plain, inner)), "")
    elif isinstance(value, bytes | set | frozenset | date):
        return f"contains a {type(value).__name__}. Expected text, numbers, true, false, null, lists and mappings."
    return ""


def _is_text(source: str) -> bool:
    return "\n" in source or ": " in source or source.lstrip().startswith("{") or not source.strip()


def _read_file(path: Path, base: Path | None) -> RequestedConfig:
    path = path.absolute()
    folder = base or path.parent
    try:
        text = read_text(path.resolve())  # what a person names may be a link
    except (OSError, RuntimeError, ValueError) as error:
        requested = RequestedConfig({}, folder)
        plain = isinstance(error, OSError) and not isinstance(error, UnreadableError)
        said = error.strerror if isinstance(error, OSError) and plain else str(error)  # a loop, a NUL in the path
        why = f"{str(said).rstrip('.')}."
        requested.problems.append(_broken(f"The config {path} cannot be read: {why} Expected a YAML or JSON file."))
        return requested
    requested = _read_text(text, folder, as_json=path.suffix == ".json")
    requested.file = True
    return requested


def _read_text(text: str, base: Path, *, as_json: bool = False) -> RequestedConfig:
    requested = RequestedConfig({}, base)
    kind, text = "JSON" if as_json else "YAML", text.removeprefix("\ufeff")  # a byte order mark of Windows
    try:
        if as_json:
            _take_json(text, requested)
        elif not (text.lstrip().startswith("{") and _is_json(text, requested)):
            _take_yaml(text, requested)
    except NotPlainError as error:
        why = str(error).removesuffix(f" (line {error.line})")
        where = f" at line {error.line}" if error.line else ""
        requested.problems.append(_broken(f"The {kind} cannot be read{where}: {why}.", error.line))
    return requested


def _is_json(text: str, requested: RequestedConfig) -> bool:
    try:
        _take_json(text, requested)
    except NotPlainError:
        return False
    return True


def _take_json(text: str, requested: RequestedConfig) -> None:
    objects: list[list[tuple[str, object]]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        objects[:] = [*objects[-1:], found]  # the outermost object is closed last
        if len(objects) > 1:
            twice = next((key for key, count in Counter(key for key, _ in objects[0]).items() if count > 1), None)
            if twice is not None:
                raise NotPlainError(f"the key {twice[:MAX_SHOWN_CHARACTERS]!r} occurs twice in one object")
        return dict(found)

    if not isinstance(json_value(text, keep), dict):
        requested.problems.append(_broken('The config is not a JSON object. Expected `{"key": value, …}`.'))
        return
    begun: dict[str, int] = {}  # the line that each text opens
    for number, content in enumerate(text.splitlines(), 1):
        opens = OPENS.match(content)
        if opens:
            begun.setdefault(opens[1], number)
    for key, value in objects[-1]:
        _take(key, value, begun.get(json.dumps(key, ensure_ascii=False), 1), requested)


def _take_yaml(text: str, requested: RequestedConfig) -> None:
    document = Document(text)
    pairs = document.pairs()
    if pairs is None and not document.empty:
        requested.problems.append(_broken("The config is not a list of keys. Expected lines of the form `key: value`."))
    for key, value, line in pairs or ():
        _take(str(key), value, line, requested)


def _take(key: str, value: object, line: int, requested: RequestedConfig) -> None:
    if key in requested.values and key not in requested.repeated:
        requested.repeated.add(key)
        message = f"`{key}` is set in line {requested.lines[key]} and again in line {line}. Expected it once."
        requested.problems.append(Problem("invalid", key, None, message, line=line))
    requested.values[key] = value
    requested.lines[key] = line


def _override(requested: RequestedConfig, overrides: Sequence[str]) -> None:
    changes: dict[str, object] = {}
    for text in (overrides,) if isinstance(overrides, str) else overrides:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("-")
        if not equals or not key:
            requested.problems.append(
                _broken(f"The override {text!r} is not `key=value`, for example `learning_rate=1e-4`.")
            )
            continue
        try:
            changes[key] = yaml_value(value)
        except NotPlainError:
            requested.problems.append(
                Problem("invalid", key, None, f"The value of the override {text!r} cannot be read as YAML.")
            )
        requested.lines.pop(key, None)
    kept = without_renamed(requested.values, changes)
    for key in requested.values.keys() - kept.keys():
        requested.lines.pop(key, None)
    requested.values = kept | changes
    requested.overridden.update(changes)


def _broken(message: str, line: int | None = None) -> Problem:
    return Problem("invalid", "", None, message, line=line, fixes=())


@dataclass(frozen=True)
class Preset:
    """A preset: initial values of a config."""

    name: str
    label: str
    help: str
    values: Mapping[str, Any]


@functools.cache
def presets() -> tuple[Preset, ...]:
    """All presets, the simplest first."""
    data = tomllib.loads(files(__package__).joinpath("presets.toml").read_text(encoding="utf-8"))
    return tuple(
        Preset(one["name"], one["label"], one["help"], MappingProxyType(one["values"])) for one in data["preset"]
    )


def preset(name: str) -> dict[str, Any]:
    """The values that a preset sets, by key.

    Raises:
        KeyError: there is no such preset; the message has the names of all.
    """
    for one in presets():
        if one.name == name:
            return dict(one.values)
    raise KeyError(f"Unknown preset {name!r}. Expected one of {', '.join(one.name for one in presets())}.")
