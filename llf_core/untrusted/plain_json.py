"""Untrusted JSON and YAML (1.2) as plain data, with limits on nesting, size and expansion, and as visible text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import yaml

from llf_core.untrusted.files import STATE_BYTES, UnreadableError, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from yaml.nodes import Node

MAX_DEPTH = 64
CONTAINERS = (dict, list, tuple, Mapping)

SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
"""Types of most values. Asking whether a value is a `Mapping` takes ten times as long."""
LONE_SURROGATES = re.compile("[\ud800-\udfff]")
ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Unicode bidirectional control characters. In a name they would change the order of the text around it."""


class NotPlainError(ValueError):
    """Text that is not valid JSON or YAML within the limits, with the line, counted from 1, if known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def json_value(data: bytes | str, pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """Parse untrusted JSON. Nesting is limited, and every string can be encoded as UTF-8, see `replace_surrogates`.

    `NaN` and `Infinity` are accepted, as by Python's `json`. Of a duplicate key the last value counts.

    Args:
        data: the JSON text; as bytes in UTF-8, UTF-16 or UTF-32.
        pairs: `object_pairs_hook` of `json.loads`. Its `ValueError` becomes a `NotPlainError`.

    Raises:
        NotPlainError: the text is not valid JSON, is nested deeper than `MAX_DEPTH`, or contains an integer with
            thousands of digits.
    """
    try:
        value = json.loads(data, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise NotPlainError(f"{error.msg.removesuffix(' at')} (line {error.lineno})", error.lineno) from None
    except UnicodeDecodeError:
        raise NotPlainError("it is not text in UTF-8") from None
    except RecursionError:
        raise NotPlainError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:  # thousands of digits
        raise NotPlainError(str(error).partition(";")[0]) from None
    opened = data.count(b"[") + data.count(b"{") if isinstance(data, bytes) else data.count("[") + data.count("{")
    if opened > MAX_DEPTH and too_deep(value):
        raise NotPlainError(f"it is nested more than {MAX_DEPTH} levels deep")
    text = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    wide = b"\0" in text  # UTF-16 or UTF-32, whose escapes the pattern does not find
    may_have = b"\\u" in text or b"\xed" in text  # a tenth of the time of the pattern
    return _replace_surrogates_in(value) if wide or (may_have and ESCAPED_SURROGATE.search(text)) else value


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates with U+FFFD, since files and terminals cannot encode them."""
    return LONE_SURROGATES.sub(REPLACEMENT, text)


def _replace_surrogates_in(value: object) -> object:
    if isinstance(value, dict):
        return {replace_surrogates(key): _replace_surrogates_in(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_replace_surrogates_in(one) for one in value]
    return replace_surrogates(value) if isinstance(value, str) else value


def read_object(path: Path, max_bytes: int = STATE_BYTES, root: Path | None = None) -> dict[str, Any]:
    """Read a JSON object from a file of a run; an empty dict if the file is missing or contains anything else."""
    try:
        value = json_value(read_bytes(path, max_bytes, root))
    except (FileNotFoundError, NotPlainError):
        return {}
    return value if isinstance(value, dict) else {}


def read_object_or_empty(path: Path, max_bytes: int = STATE_BYTES, root: Path | None = None) -> dict[str, Any]:
    """Read a JSON object like `read_object`; an empty dict for unreadable files too."""
    try:
        return read_object(path, max_bytes, root)
    except UnreadableError:
        return {}


def too_deep(value: object, limit: int = MAX_DEPTH) -> bool:
    """Whether mappings, lists and tuples are nested deeper than a limit, as in a value that contains itself.

    It goes level by level without recursion and visits what occurs several times in a level once.
    """
    level = [value] if isinstance(value, CONTAINERS) else []
    for _ in range(limit):
        inner = {
            id(one): one
            for outer in level
            for one in (outer if isinstance(outer, (list, tuple)) else outer.values())
            if type(one) not in SCALARS and isinstance(one, CONTAINERS)
        }
        level = [*inner.values()]
        if not level:
            return False
    return True


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


MAX_WORD_CHARACTERS = 400
"""Maximum length of a word in a message; longer words are shortened in the middle."""
MAX_MESSAGE_CHARACTERS = 4000
_BEGIN, _END = 0.6, 0.2  # shares of the limit kept before and after the cut

# Control characters except line breaks and tabs, bidirectional controls, hidden characters, lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Escape invisible characters by their code, `\x1b` or `\u202e`, so that no text controls a terminal.

    Invisible are control characters (except `\n` and `\t`; a carriage return becomes `\x0d`), bidirectional controls,
    characters that hide text, and lone surrogates. Text without any is returned unchanged (the same object).
    """
    return text if text.isprintable() else _INVISIBLE.sub(_escaped, text)


def visible_json(text: str) -> str:
    r"""Escape invisible characters in text of `json.dumps` as `\u001b`, so that it stays the same JSON.

    They are those of `visible`. Text without any is returned unchanged (the same object).
    """
    return text if text.isprintable() else _INVISIBLE.sub(_json_escaped, text)


def brief(text: str) -> str:
    """Shorten a message for display: `visible`, with long words and long messages cut in the middle (`…`)."""
    text = visible(text)
    if len(text) > MAX_WORD_CHARACTERS:
        text = re.sub(
            rf"(?<!\S)\S{{{MAX_WORD_CHARACTERS + 1},}}", lambda found: _cut(found[0], MAX_WORD_CHARACTERS), text
        )
    return _cut(text, MAX_MESSAGE_CHARACTERS)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[: int(limit * _BEGIN)]}…{text[-int(limit * _END) :]}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004


def _json_escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
