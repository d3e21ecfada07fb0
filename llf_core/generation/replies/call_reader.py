"""Reads the calls after an opening mark, character by character, in each notation of `CallFormat`.

Values of calls as JSON: JSON itself, read while it is written, and Python's, Gemma's and untyped notations.
"""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any, Literal, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from llf_core.generation.replies.reply_formats import CallFormat


MAX_NAME = 256
"""Maximum length of a function's name or of a header."""

MAX_LIST = 65_536
"""Maximum length of calls that can be read only as a whole."""

MAX_VALUE = 1 << 20
"""Maximum length of a parameter."""
NAME_KEYS = frozenset({"name", "tool_name"})
ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
ID_KEYS = frozenset({"id", "tool_call_id"})
FENCE = "```"


class CallReader:
    """Reads one or several calls after their opening mark.

    Args:
        schemas: JSON schemas of the parameters of each offered function.
        on_begin: called with the name and the id (empty if the model wrote none) of each call.

    Attributes:
        certain: whether a call was reported, so that the opening mark is not text.
        rest: what was read and belongs to no call; set once `take` has returned something other than `more`.
    """

    def __init__(
        self,
        call: CallFormat,
        schemas: Mapping[str, Mapping[str, Any]],
        on_begin: Callable[[str, str], None],
        on_arguments: Callable[[str], None],
    ) -> None:
        self.certain = False
        self.rest = ""
        self._schemas, self._on_begin, self._on_arguments = schemas, on_begin, on_arguments
        self._raw: list[str] = []
        self._pushed: list[str] = []
        readers = {
            "json": self._json_calls,
            "named_json": self._named_calls,
            "mistral": self._mistral_calls,
            "parameters": self._parameter_calls,
            "python": self._python_calls,
            "gemma": self._gemma_call,
            "action": self._action_call,
        }
        self._reader: Generator[None, str, None] = readers[call.syntax](call)
        next(self._reader)

    def take(self, char: str) -> Literal["more", "ended", "malformed"]:
        """Take the next character; empty at the end of the reply.

        Returns `ended` after the last call, `malformed` if the text since the last call is not a call, else `more`.
        """
        self._raw.append(char)
        try:
            self._reader.send(char)
        except StopIteration:
            self.rest = "".join(reversed(self._pushed))
            return "ended"
        except MalformedCallError:
            self.rest = "".join(self._raw)
            return "malformed"
        return "more"

    def _next(self) -> Generator[None, str, str]:
        if self._pushed:
            return self._pushed.pop()
        return (yield)

    def _push(self, text: str) -> None:
        self._pushed.extend(reversed(text))

    def _safe(self) -> None:
        """Mark what was read so far as part of a call: it never becomes text again."""
        self.certain = True
        self._raw = list(reversed(self._pushed))

    def _skip(self, more: str = "") -> Generator[None, str, str]:
        """Skip whitespace, and return the next character without taking it; empty at the end."""
        while (char := (yield from self._next())) and char in SPACE + more:
            pass
        self._push(char)
        return char

    def _literal(self, text: str) -> Generator[None, str, bool]:
        """Take a text if it follows."""
        read = ""
        while len(read) < len(text):
            char = yield from self._next()
            read += char
            if not char or not text.startswith(read):
                self._push(read)
                return False
        return True

    def _until(self, ends: Sequence[str], most: int = MAX_NAME) -> Generator[None, str, tuple[str, str]]:
        """Read up to one of some texts; the text before it, and which one it is."""
        read = ""
        while len(read) < most and (char := (yield from self._next())):
            read += char
            for end in ends:
                if read.endswith(end):
                    return read[: -len(end)], end
        raise MalformedCallError

    def _name(self, ends: Sequence[str]) -> Generator[None, str, tuple[str, str]]:
        """Read a function's name up to one of some texts; the name, and which text it is."""
        read = ""
        while len(read) < MAX_NAME and (char := (yield from self._next())):
            read += char
            for end in ends:
                if read.endswith(end) and FUNCTION_NAME.fullmatch(name := read[: -len(end)].strip()):
                    return name, end
            name = read[: len(read) - held_at_end(read, ends)].strip()
            if name and not FUNCTION_NAME.fullmatch(name):
                break
        raise MalformedCallError

    def _begin(self, name: str, call_id: str = "") -> None:
        self._on_begin(name, call_id)
        self._safe()

    def _argue(self, text: str) -> None:
        if text:
            self._on_arguments(text)
            self._safe()

    def _stream_object(self, end: str) -> Generator[None, str, None]:
        """Send an object as the arguments of the last call, as it is written."""
        scanner = JSONObject()
        while not scanner.complete:
            char = yield from self._next()
            if not char:
                self._argue(scanner.held)
                return
            try:
                self._argue(scanner.take(char))
            except InvalidJSONError:
                self._argue(scanner.held + char)
                yield from self._stream_raw(end)
                return

    def _stream_raw(self, end: str) -> Generator[None, str, None]:
        """Send everything up to the closing mark as arguments, which are not JSON."""
        tail = ""
        while char := (yield from self._next()):
            tail += char
            if end and tail.endswith(end):
                self._argue(tail[: -len(end)])
                self._push(end)
                return
            kept = held_at_end(tail, (end,)) if end else 0
            self._argue(tail[: len(tail) - kept])
            tail = tail[len(tail) - kept :]
        self._argue(tail)

    def _value(self) -> Generator[None, str, str]:
        """Read a JSON value as text."""
        first = yield from self._skip()
        if first in {"{", "["} and first:
            scanner, text = JSONObject(), ""
            while not scanner.complete:
                char = yield from self._next()
                try:
                    text += scanner.take(char) if char else ""
                except InvalidJSONError:
                    raise MalformedCallError from None
                if not char:
                    raise MalformedCallError
            return text
        scanner, text = JSONObject(), ""
        scanner.take("[")  # within a list, the scanner says where a string or number ends
        while char := (yield from self._next()):
            ends = char in ",}]" and not scanner.in_string
            try:
                more = scanner.take("]" if ends else char)
            except InvalidJSONError:
                raise MalformedCallError from None
            if ends:
                self._push(char)
                return (text + more[:-1]).strip() or malformed()
            text += more
        raise MalformedCallError

    def _json_call(self, call: CallFormat) -> Generator[None, str, None]:
        """One object with name and arguments."""
        found: dict[str, str] = {}
        sent = False
        if not (yield from self._literal("{")):
            raise MalformedCallError
        while (char := (yield from self._skip(","))) == '"':
            key = string_in((yield from self._key()))
            if key in ARGUMENT_KEYS and "name" in found and not sent and (yield from self._skip()) == "{":
                sent = True
                self._begin(found["name"], found.get("id", ""))
                yield from self._stream_object(call.end)
            else:
                self._note(call, found, key, (yield from self._value()))
        if char == "}":
            yield from self._next()
        if sent:
            self._safe()
        elif char == "}" and "name" in found and is_object(arguments := found.get("arguments", "{}")):
            self._begin(found["name"], found.get("id", ""))
            self._argue(arguments)
        else:
            raise MalformedCallError

    def _note(self, call: CallFormat, found: dict[str, str], key: str, value: str) -> None:
        if key in NAME_KEYS:
            found["name"] = string_in(value)
            if not found["name"] or (not call.begin and found["name"] not in self._schemas):
                raise MalformedCallError
        elif key in ID_KEYS:
            found["id"] = string_in(value)
        elif key in ARGUMENT_KEYS:
            found["arguments"] = value if value.startswith("{") else string_in(value)

    def _key(self) -> Generator[None, str, str]:
        """Read a key and its colon."""
        scanner, text = JSONObject(), ""
        scanner.take("{")
        while char := (yield from self._next()):
            try:
                text += scanner.take(char)
            except InvalidJSONError:
                raise MalformedCallError from None
            if char == ":" and scanner.expects_value:
                return text[:-1].strip()
        raise MalformedCallError

    def _json_calls(self, call: CallFormat) -> Generator[None, str, None]:
        """Objects with name and arguments, one after the other or as a list."""
        count, listed = 0, False
        while True:
            char = yield from self._skip(",;" if count else "")
            if char == "[" and not count and not listed:
                listed = bool((yield from self._next()))
            elif char == "]" and listed:
                yield from self._next()
                listed = False
                self._end_of_calls(count)
                if not call.end:
                    return
            elif char == "{":
                yield from self._json_call(call)
                count += 1
            else:
                self._end_of_calls(count)
                if call.end:
                    yield from self._literal(call.end)
                return

    def _end_of_calls(self, count: int) -> None:
        if not count:
            raise MalformedCallError
        self._safe()

    def _named_calls(self, call: CallFormat) -> Generator[None, str, None]:
        """The name, a separator, and the arguments as JSON (DeepSeek, Kimi)."""
        count = 0
        while True:
            yield from self._skip()
            if not (yield from self._literal(call.call[0])):
                self._end_of_calls(count)
                yield from self._literal(call.end)
                return
            name, _ = yield from self._name(call.name_ends)
            if name == "function":  # DeepSeek V3 and R1: `function<sep>NAME`, and the arguments in a code block
                name, _ = yield from self._name(("\n",))
            call_id = name if ":" in name else ""  # Kimi: `functions.NAME:0`, which is the call's id
            name = name.removeprefix("functions.").partition(":")[0]
            yield from self._skip()
            fenced = yield from self._literal(FENCE + "json")
            if not name or (yield from self._skip()) != "{":
                raise MalformedCallError
            self._begin(name, call_id)
            yield from self._stream_object(call.call[1])
            yield from self._skip()
            if fenced and (yield from self._literal(FENCE)):
                yield from self._skip()
            if (yield from self._literal(call.call[1])):
                self._safe()
            count += 1

    def _mistral_calls(self, call: CallFormat) -> Generator[None, str, None]:
        """A list of objects, or (since 2025) the name, an optional id and the arguments."""
        if (yield from self._skip()) == "[":
            yield from self._json_calls(call)
            return
        name, end = yield from self._name(call.name_ends)
        call_id = ""
        if end == "[CALL_ID]":
            call_id, end = yield from self._name(("[ARGS]", "{"))
        if end == "{":
            self._push("{")
        if (yield from self._skip()) != "{":
            raise MalformedCallError
        self._begin(name, call_id)
        yield from self._stream_object("")

    def _action_call(self, _: CallFormat) -> Generator[None, str, None]:
        """`Action: NAME` and `Action Input: {…}` on two lines, LLaMA-Factory's default."""
        name, _end = yield from self._name(("\n",))
        if not (yield from self._literal("Action Input:")) or (yield from self._skip()) != "{":
            raise MalformedCallError
        self._begin(name)
        yield from self._stream_object("")

    def _parameter_calls(self, call: CallFormat) -> Generator[None, str, None]:
        """Each argument between marks of its own (Qwen3-Coder, GLM-4.5, Seed-OSS, MiniMax-M2)."""
        count = 0
        begin, end = call.call
        while True:
            yield from self._skip()
            if begin and not (yield from self._literal(begin)):
                self._end_of_calls(count)
                yield from self._literal(call.end)
                return
            name, stop = yield from self._name(call.name_ends)
            if stop in {call.key[0], end or call.end}:
                self._push(stop)
            elif not begin and (yield from self._skip()) != "<":
                raise MalformedCallError
            self._begin(name)
            if not (yield from self._parameters(call, name, end or call.end)) or not begin:
                return
            count += 1

    def _parameters(self, call: CallFormat, name: str, end: str) -> Generator[None, str, bool]:
        """The arguments of a call up to its end; whether it was reached."""
        sent = "{"
        while True:
            yield from self._skip()
            if (yield from self._literal(end)):
                self._argue("{}" if sent == "{" else "}")
                return True
            if not (yield from self._literal(call.key[0])):
                self._argue("{}" if sent == "{" else "}")
                return False
            try:
                key, _ = yield from self._until((call.key[1],))
                yield from self._skip_to(call.value[0])
                value, _ = yield from self._until((call.value[1],), most=MAX_VALUE)
            except MalformedCallError:  # the reply ends here: the arguments stay incomplete, as they were written
                self._argue(sent + "".join(self._raw).strip())
                self._raw, self._pushed = [], []
                return False
            named = json.dumps(key.strip(), ensure_ascii=False)
            self._argue(f"{sent}{named}: {typed_json(value, self._schemas.get(name, {}).get(key.strip()))}")
            sent = ", "

    def _skip_to(self, mark: str) -> Generator[None, str, None]:
        if mark:
            yield from self._skip()
            if not (yield from self._literal(mark)):
                raise MalformedCallError

    def _python_calls(self, call: CallFormat) -> Generator[None, str, None]:
        """A list of calls as in Python (LFM2)."""
        text, stop = yield from self._until((call.end, call.begin), most=MAX_LIST)
        if stop == call.begin:
            raise MalformedCallError
        for name, arguments in read_python_calls(text):
            self._begin(name)
            self._argue(arguments)

    def _gemma_call(self, call: CallFormat) -> Generator[None, str, None]:
        """`NAME{key:value}`, with `<|"|>` around strings (Gemma 4)."""
        name, _ = yield from self._name(("{",))
        text, stop = yield from self._until((call.end, call.begin), most=MAX_LIST)
        arguments = read_gemma_object("{" + text)
        if stop == call.begin:
            raise MalformedCallError
        self._begin(name)
        self._argue(arguments)


def find_mark(text: str, marks: Iterable[str]) -> tuple[int, str | None]:
    """Position and text of the first mark, the longest of those that begin there; -1 and None without one."""
    found = [(at, -len(mark), mark) for mark in marks if mark and (at := text.find(mark)) >= 0]
    if not found:
        return -1, None
    at, _, mark = min(found)
    return at, mark


def held_at_end(text: str, marks: Iterable[str]) -> int:
    """Number of characters at the end of a text that may begin a mark, and so cannot be sent yet."""
    longest = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest


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
