"""Finds secrets in Python source before it is stored: by variable names, by key formats, and by randomness."""

from __future__ import annotations

import ast
import io
import itertools
import math
import re
import string
import tokenize
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.redaction.redact_text import is_secret_name
from llf_core.redaction.secret_patterns import (
    EMBEDDED,
    POSSIBLE_SECRET_NAMES,
    PUBLIC_NAMES,
    SECRET_NAMES,
    SERVICE_KEYS,
    compiled,
    split_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOW_COMMENT = "llf: allow-secret"
"""A comment that exempts its line from the scan."""
MIN_RANDOM_CHARACTERS = 20
"""Minimum length of an unnamed string that counts as a secret because it looks random."""
MIN_NAMED_CHARACTERS = 8
"""Minimum length of a string stored under a name that may denote a secret."""
MIN_DIGITS = 6
SETTERS = {"setdefault", "putenv", "setenv", "set", "add_header", "putheader", "get", "getenv", "pop"}
"""Functions that take a name and its value or default."""
WRAPPERS = {"SecretStr", "str", "bytes", "b64decode", "fromhex"}
"""Functions that return their argument in another form."""
RANDOM_THRESHOLDS = {"bits": 2.8, "changes": 0.22}
"""Entropy (Shannon 1948) in bits per character, and rate of changes between character classes, of random strings.

Chosen on the secrets and harmless texts of `tests/core/redaction/test_source_scan.py`.
"""
_PLACEHOLDER = re.compile(
    r"|<.*>|\{.*\}|\[.*\]|\$\w+|\$\{.*\}|([*.#_xX-])\1{2,}|(?:your|example|dummy|fake|change|replace|insert|enter)"
    r"[-_ ][a-z_ -]*|none|null|true|false|env|todo|changeme|secret|password|token|key",
    re.IGNORECASE | re.DOTALL,
)
_WORD = re.compile(
    "[A-Z]?(?=[a-z]{0,20}?[aeiou])[a-z]{3,}|(?<![a-z])[A-Z]{4,}(?![a-z])|(?<![A-Za-z0-9])[A-Z]{1,3}[0-9]{1,3}(?![A-Za-z0-9])"
)
MAX_WORD_SHARE = 0.45
"""Maximum share of a mixed-case random string that may consist of words."""
_PIECE = re.compile(r"[A-Za-z0-9+/_=-]{20,}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{32,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?<![0-9])(?P<name>password|passwd|pwd|secret|token|api[_-]?key|account_?key|access_?key)"
    r"[\"']?\s*[=:]\s*[\"']?(?P<value>[^\s\"',;&{}<>()\[\]]{6,})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FoundSecret:
    """A secret in source code.

    Attributes:
        line: line number, counted from 1.
        what: description of the secret for a message; never the secret itself.
    """

    line: int
    what: str


def secrets_in(source: str) -> list[FoundSecret]:
    """Find secrets in Python source, by line; see `secret_kind`. Lines with `# llf: allow-secret` are skipped."""
    try:
        tree = ast.parse(source)
    except MemoryError:  # of thousands of nested operators, by which the parser's stack overflows
        raise RecursionError("The source is nested too deeply.") from None
    lines = re.split(r"\r\n?|\n", source)  # as Python counts them
    names = _NameCollector()
    names.visit(tree)
    known: dict[int, object] = {}
    inside: set[int] = set()
    found: dict[int, str] = {}
    for node in ast.walk(tree):  # an expression comes before its parts
        if id(node) in inside:
            continue
        inside.update(map(id, _parts(node, known)))
        value = _value(node, known)
        what = None if value is None else secret_kind(names.names_by_node.get(id(node), ""), value)
        first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0) or 0
        if what and not any(ALLOW_COMMENT in line for line in lines[first - 1 : last]):
            found.setdefault(first, what)
    for number, text in _comments(source):
        what = secret_kind("", text)
        if what and ALLOW_COMMENT not in text:
            found.setdefault(number, what)
    return [FoundSecret(line, what) for line, what in sorted(found.items())]


def secret_kind(name: str, value: object) -> str | None:
    """Describe why a value looks like a secret, such as "a text is called api_key"; None if it does not.

    Args:
        name: name the value is stored under; empty if it has none.
        value: a string, bytes or an integer, or a container of these; other values are no secrets.
    """
    if isinstance(value, dict):
        return next(
            (what for key, one in value.items() if (what := secret_kind(key if isinstance(key, str) else name, one))),
            None,
        )
    if isinstance(value, list | tuple | set | frozenset):
        return next((what for one in value if (what := secret_kind(name, one))), None)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    plain = split_words(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{name} is a number" if SECRET_NAMES.search(plain) and abs(value) >= 10 ** (MIN_DIGITS - 1) else None
    return _text_secret_kind(name, plain, value) if isinstance(value, str) else None


def is_secret(name: str, value: object) -> bool:
    """Whether an unknown setting may be a secret: judged by its value, or for a string by its name alone.

    Stricter than `secret_kind`: the value of an unknown config key would otherwise be repeated in messages.
    """
    if secret_kind(name, value):
        return True
    return isinstance(value, str) and is_secret_name(name) and not _PLACEHOLDER.fullmatch(value.strip())


def _text_secret_kind(name: str, plain: str, value: str) -> str | None:
    if any(mark in value and compiled(pattern).search(value) for mark, pattern in SERVICE_KEYS):
        return "a text has the shape of a key that a service has issued"
    if any(pattern.search(value) for _, pattern in EMBEDDED):
        return "a text holds a password or a key"
    if _PLACEHOLDER.fullmatch(value.strip()):
        return None
    if SECRET_NAMES.search(plain):
        return f"a text is called {name}"
    if POSSIBLE_SECRET_NAMES.search(plain) and _is_key(value):
        return f"a text that looks random is called {name}"
    return None if PUBLIC_NAMES.search(plain) else _embedded_secret(value)


def _embedded_secret(value: str) -> str | None:
    assigned = _ASSIGNED.search(value)
    if assigned and not _PLACEHOLDER.fullmatch(assigned["value"]) and re.search(r"[\d!@#$%^*+/=]", assigned["value"]):
        before = value[: assigned.start()]
        prefix = before[len(before.rstrip(f"{string.ascii_letters}_-")) :]
        return f"a text gives {prefix}{assigned['name']} a value"
    return "a text looks random" if any(_is_random(piece) for piece in _PIECE.findall(value)) else None


def _is_key(value: str) -> bool:
    """Whether a single word looks like a key: digits among its letters, or random."""
    if len(value) < MIN_NAMED_CHARACTERS or re.search(r"\s|[<>{}|]", value):
        return False
    return (
        bool(_UUID.fullmatch(value))
        or _is_random(value)
        or (_entropy(value) >= RANDOM_THRESHOLDS["bits"] and _has_inner_digits(value))
    )


def _has_inner_digits(value: str) -> bool:
    """Whether digits occur between letters, not only at the end as in `reward_v2`."""
    return bool(re.search(r"\d[A-Za-z]", value) and re.search(r"[A-Za-z]\d", value))


def _is_random(value: str) -> bool:
    """Whether a long string looks generated, unlike words or a path."""
    value = value.strip("=")
    if _UUID.fullmatch(value):
        return False
    if _HEX.fullmatch(value):
        return (
            bool(re.search(r"\d", value) and re.search(r"[a-f]", value, re.IGNORECASE))
            and _entropy(value) > RANDOM_THRESHOLDS["bits"]
        )
    words = sum(map(len, _WORD.findall(value)))
    if re.search("[A-Z]", value):
        if words > MAX_WORD_SHARE * len(value):
            return False
    elif re.search("[-_/]", value):
        return any(_is_random(part) for part in re.split("[-_/]", value) if len(part) >= MIN_RANDOM_CHARACTERS)
    kinds = ["d" if one.isdigit() else "u" if one.isupper() else "l" if one.islower() else "o" for one in value]
    letters = [kind for kind in kinds if kind != "o"]
    changes = sum(a != b for a, b in itertools.pairwise(letters))
    return (
        len(value) >= MIN_RANDOM_CHARACTERS
        and "d" in kinds
        and ("u" in kinds or "l" in kinds)
        and _entropy(value) >= RANDOM_THRESHOLDS["bits"] + 0.6
        and changes >= RANDOM_THRESHOLDS["changes"] * len(letters)
    )


def _entropy(value: str) -> float:
    return -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())


def _value(node: ast.AST, known: dict[int, Any]) -> Any:
    """The constant value of an expression; for an f-string its fixed parts. None if it is not constant."""
    if id(node) not in known:
        known[id(node)] = _constant(node, known)
    return known[id(node)]


def _constant(node: ast.AST, known: dict[int, Any]) -> Any:
    match node:
        case ast.Constant(value=str() | bytes() | int() as value):
            return value
        case ast.JoinedStr(values=values):
            fixed = (_value(one.value if isinstance(one, ast.FormattedValue) else one, known) for one in values)
            return "".join("{}" if one is None else _text_in(one) for one in fixed)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = (_value(left, known), _value(right, known))
            if all(isinstance(one, str) for one in both):
                return both[0] + both[1]
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as joint), attr="join"), args=[one]):
            parts = [_value(part, known) for part in getattr(one, "elts", ())]
            if parts and all(isinstance(part, str) for part in parts):
                return joint.join(parts)
    return None


def _text_in(value: str | bytes | int) -> str:
    """A value in an f-string; of an integer with more digits than Python converts its hexadecimal ones."""
    try:
        return str(value)
    except ValueError:
        return hex(int(value))


def _parts(node: ast.AST, known: dict[int, object]) -> Iterator[ast.AST]:
    """Sub-expressions that form the value of an expression. Arguments of calls are separate values."""
    made_of: list[ast.AST] = []
    match node:
        case ast.JoinedStr(values=values):
            made_of = [one.value if isinstance(one, ast.FormattedValue) else one for one in values]
        case ast.BinOp(left=left, right=right) if _value(node, known) is not None:
            made_of = [left, right]
        case ast.Call(args=[listed]) if _value(node, known) is not None:
            made_of = [*getattr(listed, "elts", ())]
    for one in made_of:
        if _value(one, known) is not None:
            yield one
            yield from _parts(one, known)


class _NameCollector(ast.NodeVisitor):
    """Collects the name that each expression is stored under: variable, attribute, key, parameter or compared name."""

    def __init__(self) -> None:
        self.names_by_node: dict[int, str] = {}

    def add_name(self, name: str, node: ast.AST | None) -> None:
        """Assign a name to an expression and to the expressions its value may come from."""
        if node is None or not name:
            return
        self.names_by_node.setdefault(id(node), name)
        inner = [*getattr(node, "elts", ())]
        match node:
            case ast.BoolOp(values=values):
                inner += values
            case ast.IfExp(body=body, orelse=orelse):
                inner += [body, orelse]
            case ast.Call(func=ast.Attribute(value=value, attr="encode" | "strip" | "decode")):
                inner.append(value)
            case ast.Call(func=function, args=values) if _last_name(function) in WRAPPERS:
                inner += values
            case ast.Call(func=function, args=[first, *values]) if _last_name(function) in SETTERS:
                if not _has_name(_text_of(first)):
                    inner += values
        for one in inner:
            self.add_name(name, one)

    def visit_Dict(self, node: ast.Dict) -> None:
        """Record dictionary keys as names of their values."""
        for key, value in zip(node.keys, node.values, strict=True):
            self.add_name(_text_of(key), value)
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        """Record keyword names. `auth=(user, password)` is how requests takes a password."""
        password = node.arg == "auth" and isinstance(node.value, ast.Tuple)
        self.add_name("password" if password else node.arg or "", node.value)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Record assignment targets as names."""
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for one, given in zip(target.elts, node.value.elts, strict=False):
                    self.add_name(_last_name(one), given)
            else:
                self.add_name(_last_name(target), node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Record targets of annotated assignments."""
        self.add_name(_last_name(node.target), node.value)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        """Record targets of assignment expressions."""
        self.add_name(_last_name(node.target), node.value)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Record the name of the other side of a comparison."""
        for one in node.comparators:
            self.add_name(_last_name(node.left), one)
            self.add_name(_last_name(one), node.left)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Record names in calls such as `os.environ.setdefault("API_KEY", …)`."""
        if len(node.args) == 2 and _last_name(node.func) in SETTERS:  # noqa: PLR2004 - a name and its value
            name = _text_of(node.args[0])
            if _has_name(name):
                self.add_name(name, node.args[1])
        self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> None:
        """Record parameter names for their defaults."""
        plain = [*node.posonlyargs, *node.args]
        for one, value in zip(plain[len(plain) - len(node.defaults) :], node.defaults, strict=True):
            self.add_name(one.arg, value)
        for one, given in zip(node.kwonlyargs, node.kw_defaults, strict=True):
            self.add_name(one.arg, given)
        self.generic_visit(node)


def _has_name(name: str) -> bool:
    return bool(SECRET_NAMES.search(split_words(name)) or POSSIBLE_SECRET_NAMES.search(split_words(name)))


def _last_name(node: ast.AST) -> str:
    """The last identifier of an expression: of `self.api_key`, `headers["X-API-Key"]` or `f(x)`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(slice=key):
            return _text_of(key)
        case ast.Call(func=function):
            return _last_name(function)
    return ""


def _text_of(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _comments(source: str) -> Iterator[tuple[int, str]]:
    with suppress(tokenize.TokenError):  # at the end, of a last line that goes on, which Python accepts
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
