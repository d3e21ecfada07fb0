"""Values of calls as JSON: JSON itself, read while it is written, and Python's, Gemma's and untyped notations."""

from __future__ import annotations

import ast
import json
import re
from typing import NoReturn

FUNCTION_NAME = re.compile(r"[\w.:/-]+")
SPACE = " \t\r\n"
MAX_DEPTH = 64
MAX_SCALAR = 400
"""Maximum length of a number."""
WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
"""Constants as models write them, and JSON's. Models trained on Python write its names."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SCALAR_START = re.compile(r"[-0-9tfnTFN]")
_SCALAR = re.compile(r"[-+.0-9A-Za-z]")


class MalformedCallError(Exception):
    """The text after an opening mark is not a call."""


def typed_json(value: str, schema: object) -> str:
    """A value as JSON: a string if its schema names strings and no type that fits, else of the type it looks like.

    Formats with marks around parameters write all values as text. Values that JSON lacks, such as NaN, become strings.
    """
    text = value.removeprefix("\n").removesuffix("\n")
    kinds = _types(schema)
    if kinds == {"string"}:
        return json.dumps(text, ensure_ascii=False)
    try:
        found = json.loads(text)
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        found = {"True": True, "False": False, "None": None}.get(text.strip(), text)
    if "string" in kinds and not isinstance(found, str | None):
        found = text if not kinds & _kinds_of(found) else found
    return json.dumps(found, ensure_ascii=False)


def _types(schema: object) -> set[str]:
    """JSON types that a schema names."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type")
    listed = named if isinstance(named, list) else [named]
    found = {one for one in listed if isinstance(one, str)}
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        for one in options if isinstance(options, list) else ():
            found |= _types(one)
    return found


def _kinds_of(value: object) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    names = {int: {"integer", "number"}, float: {"number"}, dict: {"object"}, list: {"array"}, type(None): {"null"}}
    return names.get(type(value), set())


def string_in(text: str) -> str:
    """The string that JSON text holds; empty if it holds something else."""
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""


def is_object(text: str) -> bool:
    """Whether a text is an object by Python's `json`, which takes NaN for a number."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def read_python_calls(text: str) -> list[tuple[str, str]]:
    """Names and JSON arguments of a Python list of calls, or of a single one; it is parsed, never run.

    Raises:
        MalformedCallError: there is no call, or something other than calls with keyword arguments of plain values.
    """
    try:
        text = _PYTHON_STRING.sub(lambda found: found[0].replace("\n", "\\n"), text.strip())
        tree = ast.parse(text, mode="eval").body
        calls = tree.elts if isinstance(tree, ast.List) else [tree]
        found = []
        for one in calls:
            if not isinstance(one, ast.Call) or one.args or any(word.arg is None for word in one.keywords):
                raise MalformedCallError
            arguments = {str(word.arg): _plain(word.value) for word in one.keywords}
            found.append((ast.unparse(one.func), json.dumps(arguments, ensure_ascii=False, allow_nan=False)))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise MalformedCallError from None
    if not found or not all(FUNCTION_NAME.fullmatch(name) for name, _ in found):
        raise MalformedCallError
    return found


def _plain(node: ast.expr) -> object:
    """A Python literal, or one of JSON's constants."""
    if isinstance(node, ast.Name):
        return json.loads(node.id)  # `true`, `false` or `null`
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(one) for one in node.elts]
    if isinstance(node, ast.Dict):
        keys = [str(_plain(key)) if key is not None else malformed() for key in node.keys]
        return dict(zip(keys, map(_plain, node.values), strict=True))
    return ast.literal_eval(node)


def malformed() -> NoReturn:
    """Raise `MalformedCallError`, where an expression is needed."""
    raise MalformedCallError


_PYTHON_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_GEMMA = re.compile(
    r'<\|"\|>(.*?)<\|"\|>'  # a string
    r'|"(?:[^"\\]|\\.)*"'  # a string of JSON
    r'|([{,]\s*)([^\s:{}\[\],"<]+)(\s*:)'  # a key
    r"|\b(None|True|False)\b",
    re.DOTALL,
)


def read_gemma_object(text: str) -> str:
    """Convert Gemma's notation of an object (strings between `<|"|>`, keys without quotes) to JSON.

    Raises:
        MalformedCallError: it is not an object, or has a number that JSON lacks, such as NaN.
    """

    def one(found: re.Match[str]) -> str:
        if found[1] is not None:
            return json.dumps(found[1], ensure_ascii=False)
        if found[3] is not None:
            return f"{found[2]}{json.dumps(found[3], ensure_ascii=False)}{found[4]}"
        if found[5] is not None:
            return {"None": "null", "True": "true", "False": "false"}[found[5]]
        return found[0]

    try:
        value = json.loads(_GEMMA.sub(one, text))
        if not isinstance(value, dict):
            raise MalformedCallError
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise MalformedCallError from None


class InvalidJSONError(ValueError):
    """A character is not valid in its place."""


class JSONObject:
    """Follows an object or a list from its first to its last character, when `complete` becomes true."""

    def __init__(self) -> None:
        self.complete = False
        self._stack: list[str] = []
        self._expected = "value"
        self._word = ""
        self._escape = 0

    def take(self, char: str) -> str:
        """Take the next character, and return the valid JSON that can be sent; a number or constant when it ends.

        Line breaks in strings are escaped, and Python's constants become JSON's. Not called once `complete`.
        """
        if self.in_string:
            return self._in_string(char)
        if self._word:
            if _SCALAR.fullmatch(char) and len(self._word) < MAX_SCALAR:
                self._word += char
                return ""
            held, ended = self._word, self._end_word()
            try:
                return ended + self._structure(char)
            except InvalidJSONError:
                self._word = held
                raise
        return self._structure(char)

    @property
    def expects_value(self) -> bool:
        """Whether a value must follow, as after a key and its colon."""
        return self._expected == "value"

    @property
    def in_string(self) -> bool:
        """Whether the next character is part of a string."""
        return self._expected in {"string", "key_string"}

    @property
    def held(self) -> str:
        """The number or constant that was taken and not yet returned; an `InvalidJSONError` does not change it."""
        return self._word

    def _structure(self, char: str) -> str:
        if char in SPACE:
            return char
        expected = self._expected
        if expected in {"value", "value_or_end"} and self._begin_value(char):
            return "" if self._word else char
        if expected in {"key", "key_or_end"} and char == '"':
            self._expected = "key_string"
        elif expected == "colon" and char == ":":
            self._expected = "value"
        elif expected == "after" and char == ",":
            self._expected = "key" if self._stack[-1] == "}" else "value"
        elif expected in {"after", "value_or_end", "key_or_end"} and self._stack and char == self._stack[-1]:
            self._stack.pop()
            self._expected = "after"
            self.complete = not self._stack
        else:
            raise InvalidJSONError(char)
        return char

    def _begin_value(self, char: str) -> bool:
        if char in "{[":
            if len(self._stack) >= MAX_DEPTH:
                raise InvalidJSONError(char)
            self._stack.append("}" if char == "{" else "]")
            self._expected = "key_or_end" if char == "{" else "value_or_end"
        elif not self._stack:
            return False
        elif char == '"':
            self._expected = "string"
        elif _SCALAR_START.fullmatch(char):
            self._word, self._expected = char, "after"
        else:
            return False
        return True

    def _end_word(self) -> str:
        word, self._word = self._word, ""
        if word in WORDS:
            return WORDS[word]
        if not _NUMBER.fullmatch(word):
            self._word = word
            raise InvalidJSONError(word)
        return word

    def _in_string(self, char: str) -> str:
        if self._escape > 1:
            if char not in "0123456789abcdefABCDEF":
                raise InvalidJSONError(char)
            self._escape -= 1
            self._escape = 0 if self._escape == 1 else self._escape
        elif self._escape:
            if char not in '"\\/bfnrtu':
                raise InvalidJSONError(char)
            self._escape = 5 if char == "u" else 0
        elif char == "\\":
            self._escape = 1
        elif char == '"':
            self._expected = "colon" if self._expected == "key_string" else "after"
        elif char < " ":
            return json.dumps(char)[1:-1]
        return char
