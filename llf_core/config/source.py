"""Reads what was asked for: a file, YAML or JSON text, a mapping, and `key=value` overrides."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from llf_core.config.exact import for_yaml
from llf_core.config.paths import expanded
from llf_core.config.problem import Problem

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

FLOAT = re.compile(
    r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
INTEGER = re.compile(r"^[-+]?[0-9]+$")
BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
NULL = re.compile(r"^(?:~|null|Null|NULL|)$")


@dataclass
class Asked:
    """What was asked for, before anything is judged.

    Attributes:
        values: plain data by key.
        lines: the line of each key, counted from 1.
        base: the folder that relative paths start from.
        file: whether the values come from a file in `base`.
        problems: what could not be read.
    """

    values: dict[str, Any]
    base: Path
    lines: dict[str, int] = field(default_factory=dict)
    file: bool = False
    problems: list[Problem] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and booleans: `2e-4` is a number, `no` is a word."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to configure a loader


class _Dumper(yaml.SafeDumper):
    """Writes one key a line, and what `_Loader` and every other YAML reader take for the same values."""

    inside = False

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        """The outermost mapping a key a line, the others in braces."""
        inside, self.inside = self.inside, True
        node = super().represent_mapping(tag, mapping, flow_style or inside)
        self.inside = inside
        return node

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """Lists in brackets."""
        return super().represent_sequence(tag, sequence, flow_style is not False)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes these line breaks of Unicode as they are, and reads each as a space.
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    text = for_yaml(value)
    kind = "int" if INTEGER.match(text) else "float"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", text)


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", BOOLEAN, list("tTfF")),
    ("tag:yaml.org,2002:int", INTEGER, list("-+0123456789")),
    ("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def yaml_value(text: str) -> Any:
    """One YAML value, e.g. of an override."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def dump_yaml(values: Mapping[str, Any]) -> str:
    """A flat mapping as YAML, one key a line, in its own order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def read(source: object, overrides: Sequence[str] = (), base: str | Path | None = None) -> Asked:
    """Reads a config.

    Args:
        source: a mapping; a path to a YAML or JSON file; YAML or JSON text.
        overrides: `key=value`, the value as YAML; they win over the source.
        base: where relative paths start; unset, the file's folder, or the working directory.

    Returns:
        The values, with problems for what could not be read.
    """
    if isinstance(source, Mapping):
        asked = Asked({str(key): value for key, value in source.items()}, Path(base or Path.cwd()).absolute())
    elif isinstance(source, Path) or (isinstance(source, str) and not _is_text(source)):
        asked = _read_file(expanded(source), base)
    elif isinstance(source, str):
        asked = _read_text(source, Path(base or Path.cwd()).absolute())
    else:
        asked = Asked({}, Path.cwd())
        asked.problems.append(
            _broken(f"A config is no {type(source).__name__}. Expected a mapping, YAML text or a path.")
        )
    _override(asked, overrides)
    return asked


def _is_text(source: str) -> bool:
    return "\n" in source or ": " in source or source.lstrip().startswith("{") or not source.strip()


def _read_file(path: Path, base: str | Path | None) -> Asked:
    path = path.absolute()
    folder = Path(base).absolute() if base else path.parent
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        asked = Asked({}, folder)
        asked.problems.append(
            _broken(f"The config {path} cannot be read: {error.strerror}. Expected a YAML or JSON file.")
        )
        return asked
    except UnicodeDecodeError:
        asked = Asked({}, folder)
        asked.problems.append(_broken(f"The config {path} is not text in UTF-8. Expected a YAML or JSON file."))
        return asked
    asked = _read_text(text, folder, as_json=path.suffix == ".json")
    asked.file = True
    return asked


def _read_text(text: str, base: Path, *, as_json: bool = False) -> Asked:
    asked = Asked({}, base)
    try:
        if as_json or text.lstrip().startswith("{"):
            return _take_json(text, asked)
    except json.JSONDecodeError as error:
        if as_json:
            asked.problems.append(
                _broken(f"The JSON cannot be read at line {error.lineno}: {error.msg}.", error.lineno)
            )
            return asked
    try:
        node = yaml.compose(text, _Loader)
        if isinstance(node, yaml.MappingNode):
            _take_yaml(node, asked)
        elif node is not None:
            asked.problems.append(_broken("The config is not a list of keys. Expected lines of the form `key: value`."))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        where = f" at line {line}" if line else ""
        asked.problems.append(_broken(f"The YAML cannot be read{where}: {error.problem}.", line))
    except yaml.YAMLError as error:
        asked.problems.append(_broken(f"The YAML cannot be read: {error}."))
    return asked


def _take_json(text: str, asked: Asked) -> Asked:
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object is closed last
        return dict(found)

    if not isinstance(json.loads(text, object_pairs_hook=keep), dict):
        asked.problems.append(_broken('The config is no JSON object. Expected `{"key": value, …}`.'))
        return asked
    lines = text.splitlines()
    for key, value in pairs:
        start = json.dumps(key, ensure_ascii=False)
        line = next((number for number, content in enumerate(lines, 1) if content.strip().startswith(start)), 1)
        _take(key, value, line, asked)
    return asked


def _take_yaml(node: MappingNode, asked: Asked) -> None:
    loader = _Loader("")
    pairs: list[tuple[Node, Node]] = node.value
    for key_node, value_node in pairs:
        key = str(loader.construct_object(key_node, deep=True))
        _take(key, loader.construct_object(value_node, deep=True), key_node.start_mark.line + 1, asked)


def _take(key: str, value: Any, line: int, asked: Asked) -> None:
    if key in asked.values:
        message = f"`{key}` stands in line {asked.lines[key]} and again in line {line}. Expected it once."
        asked.problems.append(Problem("invalid", key, None, message, line=line))
    asked.values[key] = value
    asked.lines[key] = line


def _override(asked: Asked, overrides: Sequence[str]) -> None:
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("-")
        if not equals or not key:
            asked.problems.append(_broken(f"The override {text!r} is no `key=value`, e.g. `learning_rate=1e-4`."))
            continue
        try:
            asked.values[key] = yaml_value(value)
        except yaml.YAMLError:
            asked.problems.append(
                Problem("invalid", key, value, f"The value of the override {text!r} cannot be read as YAML.")
            )
        asked.lines.pop(key, None)


def _broken(message: str, line: int | None = None) -> Problem:
    return Problem("invalid", "", None, message, line=line, fixes=())
