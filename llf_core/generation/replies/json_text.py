"""Incremental JSON scanner: the arguments of a call can be sent while they are written."""

from __future__ import annotations

import json
import re

SPACE = " \t\r\n"
MAX_DEPTH = 64
MAX_SCALAR = 400
"""Maximum length of a number."""
WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
"""Constants as models write them, and JSON's. Models trained on Python write its names."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SCALAR_START = re.compile(r"[-0-9tfnTFN]")
_SCALAR = re.compile(r"[-+.0-9A-Za-z]")


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
