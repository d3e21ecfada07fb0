"""Untrusted YAML as plain data: YAML 1.2 numbers and booleans, and limits against expansion attacks."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import yaml

from llf_core.untrusted.files import STATE_BYTES
from llf_core.untrusted.plain_json import MAX_DEPTH, NotPlainError, replace_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable

    from yaml.nodes import Node

MadeT = TypeVar("MadeT")

MAX_NODES = 20_000
"""Maximum number of scalars, lists and mappings in one document, with each alias counted as its full expansion."""
MAX_INTEGER = 2**63
MAX_SHOWN_CHARACTERS = 40  # in a message
TAG = "tag:yaml.org,2002:"
FLOAT = re.compile(
    r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
INTEGER = re.compile(r"^[-+]?[0-9]+$")
BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
NULL = re.compile(r"^(?:~|null|Null|NULL|)$")


class Loader(yaml.SafeLoader):
    """A safe loader with YAML 1.2 scalars (`2e-4` is a number, `no` a string) and limits on nesting and aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to configure a loader
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._heights = [0]
        self._whole: dict[int, tuple[int, int]] = {}  # nodes and depth of each completed node

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose one node and its children, and count them against the limits.

        An alias counts as its full expansion: a few lines of nested aliases could expand to gigabytes.
        """
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            node: Node | None = super().compose_node(parent, index)
            nodes, height = self._whole.get(id(node), (0, MAX_DEPTH + 1))  # an unfinished node contains itself
            self._nodes += nodes
            self._check(height, mark)
        else:
            before = self._nodes
            self._nodes += 1
            self._check(1, mark)
            self._heights.append(0)
            node = super().compose_node(parent, index)
            height = self._heights.pop() + 1
            self._whole[id(node)] = (self._nodes - before, height)
        self._heights[-1] = max(self._heights[-1], height)
        return node

    def _check(self, height: int, mark: yaml.Mark) -> None:
        if self._nodes > MAX_NODES:
            raise yaml.composer.ComposerError(None, None, f"it has more than {MAX_NODES:,} values", mark)
        if len(self._heights) - 1 + height > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {MAX_DEPTH} levels deep", mark)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping, with duplicate keys refused: PyYAML would keep the last value without a message."""
        made = super().construct_mapping(node, deep=deep)
        if len(made) < len(node.value):
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise _error(f"the key {_short(key)} occurs twice in one mapping", key_node)
                seen.add(key)
        return made


def _error(problem: str, node: Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _short(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…")


def _construct_int(loader: Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if not INTEGER.match(text):
        raise _error(f"{_short(text)} is not an integer", node)
    if len(text) > len(str(MAX_INTEGER)) + 1 or abs(int(text)) >= MAX_INTEGER:
        raise _error(f"the number {_short(text)} has {len(text):,} digits. Expected at most 18", node)
    return int(text)


def _construct_float(loader: Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    try:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _error(f"{_short(text)} is not a number", node) from None


def _construct_bool(loader: Loader, node: yaml.ScalarNode) -> bool:
    text = loader.construct_scalar(node).lower()
    if text not in {"true", "false"}:
        raise _error(f"{_short(text)} is neither true nor false", node)
    return bool(text == "true")


def _construct_text(loader: Loader, node: yaml.ScalarNode) -> str:
    return replace_surrogates(loader.construct_scalar(node))


def _refuse(_loader: Loader, node: Node) -> NoReturn:
    tag = node.tag.replace(TAG, "!!")
    raise _error(f"the tag {_short(tag)} is not known. Expected a plain value", node)


for _kind, _pattern, _first in (
    ("null", NULL, ["~", "n", "N", ""]),
    ("bool", BOOLEAN, list("tTfF")),
    ("int", INTEGER, list("-+0123456789")),
    ("float", FLOAT, list("-+.0123456789")),
):
    Loader.add_implicit_resolver(f"{TAG}{_kind}", _pattern, _first)
for _kind, _construct in (
    ("null", yaml.constructor.SafeConstructor.construct_yaml_null),
    ("bool", _construct_bool),
    ("int", _construct_int),
    ("float", _construct_float),
    ("str", _construct_text),
    ("seq", yaml.constructor.SafeConstructor.construct_yaml_seq),
    ("map", yaml.constructor.SafeConstructor.construct_yaml_map),
):
    Loader.add_constructor(f"{TAG}{_kind}", _construct)
Loader.add_constructor(None, _refuse)


class Document:
    """One YAML document within the limits, with the lines of its keys for messages.

    Raises:
        NotPlainError: the text is not valid YAML, or exceeds a limit.
    """

    def __init__(self, text: str, max_bytes: int = STATE_BYTES) -> None:
        if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
            raise NotPlainError(f"it has {len(text):,} characters. Expected at most {max_bytes:,} bytes")
        self._text = text
        self._loader: Any = None
        self._node = self._guarded(self._compose)

    @property
    def empty(self) -> bool:
        """Whether the document holds nothing, or only comments. That is a config with all defaults, not an error."""
        node = self._node
        return node is None or (node.tag == f"{TAG}null" and node.value == "")  # the second begins with `---`

    def value(self) -> Any:
        """The parsed value; None for an empty document."""
        return (
            None if self._node is None else self._guarded(lambda: self._loader.construct_object(self._node, deep=True))
        )

    def pairs(self) -> list[tuple[Any, Any, int]] | None:
        """Key, value and line (counted from 1) of each top-level entry, duplicates included; None for no mapping."""
        if not isinstance(self._node, yaml.MappingNode):
            return None
        pairs = self._node.value

        def construct() -> list[tuple[Any, Any, int]]:
            one = partial(self._loader.construct_object, deep=True)
            return [(one(key), one(value), key.start_mark.line + 1) for key, value in pairs]

        found: list[tuple[Any, Any, int]] = self._guarded(construct)
        return found

    def _compose(self) -> Node | None:
        self._loader = Loader(self._text)
        node: Node | None = self._loader.get_single_node()
        return node

    def _guarded(self, make: Callable[[], MadeT]) -> MadeT:
        if self._loader is not None:
            self._loader.recursive_objects.clear()  # of a call that failed: the next one fails for the same reason
        try:
            return make()
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            character = error.character if isinstance(error.character, int) else ord(error.character)
            raise NotPlainError(f"it has the character U+{character:04X}", line) from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise NotPlainError(str(error.problem), mark.line + 1 if mark else None) from None
        except (yaml.YAMLError, ValueError) as error:
            raise NotPlainError(str(error)) from None


def yaml_value(text: str, max_bytes: int = STATE_BYTES) -> Any:
    """Parse an untrusted YAML document to plain values, within limits; None for an empty document."""
    return Document(text, max_bytes).value()
