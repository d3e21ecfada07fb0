"""Finds secrets in source code, before it is kept: by the names that texts have, by shape, by looking random."""

from __future__ import annotations

import ast
import io
import itertools
import math
import re
import tokenize
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.redaction.redact_text import is_secret_name
from llf_core.redaction.secret_patterns import EMBEDDED, ISSUED, PUBLIC, STRONG, WEAK, plain_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOW = "llf: allow-secret"
"""A comment by which its line is allowed."""
LONG = 20
"""Characters of a text without a name that may be a secret because it looks random."""
SHORT = 8
"""Characters of a text whose name may be that of a secret."""
DIGITS = 6
"""Digits of a number that may be a password."""
SETTERS = {"setdefault", "putenv", "setenv", "set", "add_header", "putheader", "get", "getenv", "pop"}
"""Functions that take a name and its value, or what stands in for it."""
WRAPPERS = {"SecretStr", "str", "bytes", "b64decode", "fromhex"}
"""Functions that give back what they take, in another form."""
RANDOM = {"bits": 2.8, "changes": 0.22}
"""Of a random text: entropy of its characters, and how often small letters, capital ones and digits change."""
_PLACEHOLDER = re.compile(
    r"|<.*>|\{.*\}|\[.*\]|\$\w+|\$\{.*\}|([*.#_xX-])\1{2,}|(?:your|example|dummy|fake|change|replace|insert|enter)"
    r"[-_ ][a-z_ -]*|none|null|true|false|env|todo|changeme|secret|password|token|key",
    re.IGNORECASE | re.DOTALL,
)
_WORD = re.compile(
    "[A-Z]?(?=[a-z]*[aeiou])[a-z]{3,}|(?<![a-z])[A-Z]{4,}(?![a-z])|(?<![A-Za-z0-9])[A-Z]{1,3}[0-9]{1,3}(?![A-Za-z0-9])"
)
WORDS = 0.45
"""Share of a text with capitals in it that may be words where it is random."""
_PIECE = re.compile(r"[A-Za-z0-9+/_=-]{20,}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{32,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?<![A-Za-z0-9])(?P<name>[A-Za-z_-]*(?:password|passwd|pwd|secret|token|api[_-]?key|account_?key|access_?key))"
    r"[\"']?\s*[=:]\s*[\"']?(?P<value>[^\s\"',;&{}<>()\[\]]{6,})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Found:
    """A secret in a source.

    Attributes:
        line: counted from 1.
        what: it is, for a sentence; never the secret itself.
    """

    line: int
    what: str


def secrets_in(source: str) -> list[Found]:
    """The secrets in a source, by line; those on lines with the comment `# llf: allow-secret` are left out.

    Args:
        source: Python that can be parsed.
    """
    tree = ast.parse(source)
    lines = source.splitlines()
    names = _Names()
    names.visit(tree)
    inside = {id(part) for node in ast.walk(tree) for part in _parts(node)}
    found: dict[int, str] = {}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        value = _value(node)
        what = None if value is None else looks_secret(names.found.get(id(node), ""), value)
        first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0) or 0
        if what and not any(ALLOW in line for line in lines[first - 1 : last]):
            found.setdefault(first, what)
    for number, text in _comments(source):
        what = looks_secret("", text)
        if what and ALLOW not in text:
            found.setdefault(number, what)
    return [Found(line, what) for line, what in sorted(found.items())]


def looks_secret(name: str, value: Any) -> str | None:
    """What makes a value a secret; None where it is none, as far as can be told.

    Args:
        name: that it has where it stands; empty where it has none.
        value: a text, bytes, or a number; of containers each item is looked at.
    """
    if isinstance(value, dict):
        return next(
            (what for key, one in value.items() if (what := looks_secret(key if isinstance(key, str) else name, one))),
            None,
        )
    if isinstance(value, list | tuple | set | frozenset):
        return next((what for one in value if (what := looks_secret(name, one))), None)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    plain = plain_name(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{name} is a number" if STRONG.search(plain) and len(str(abs(value))) >= DIGITS else None
    return _of_text(name, plain, value) if isinstance(value, str) else None


def is_secret(name: str, value: Any) -> bool:
    """Whether a setting that nobody knows may be a secret: by its value, or a text by its name alone."""
    if looks_secret(name, value):
        return True
    return isinstance(value, str) and is_secret_name(name) and not _PLACEHOLDER.fullmatch(value.strip())


def _of_text(name: str, plain: str, value: str) -> str | None:
    """What makes a text a secret, the surest first."""
    if any(pattern.search(value) for _, pattern in ISSUED):
        return "a text has the shape of a key that a service has issued"
    if any(pattern.search(value) for _, pattern in EMBEDDED):
        return "a text holds a password or a key"
    if _PLACEHOLDER.fullmatch(value.strip()):
        return None
    if STRONG.search(plain):
        return f"a text is called {name}"
    if WEAK.search(plain) and _is_key(value):
        return f"a text that looks random is called {name}"
    return None if PUBLIC.search(plain) else _within(value)


def _within(value: str) -> str | None:
    """What makes a part of a text a secret."""
    assigned = _ASSIGNED.search(value)
    if assigned and not _PLACEHOLDER.fullmatch(assigned["value"]) and re.search(r"[\d!@#$%^*+/=]", assigned["value"]):
        return f"a text gives {assigned['name']} a value"
    return "a text looks random" if any(_is_random(piece) for piece in _PIECE.findall(value)) else None


def _is_key(value: str) -> bool:
    """Whether a text of one word is no word: with digits among its letters, or random."""
    if len(value) < SHORT or re.search(r"\s|[<>{}|]", value):
        return False
    return bool(_UUID.fullmatch(value)) or _is_random(value) or (_bits(value) >= RANDOM["bits"] and _mixed(value))


def _mixed(value: str) -> bool:
    """Whether digits stand among the letters, not only behind them as in `reward_v2`."""
    return bool(re.search(r"\d[A-Za-z]", value) and re.search(r"[A-Za-z]\d", value))


def _is_random(value: str) -> bool:
    """Whether a long text looks like the output of a generator, and not like words or a path."""
    value = value.strip("=")
    if _UUID.fullmatch(value):
        return False
    if _HEX.fullmatch(value):
        return (
            bool(re.search(r"\d", value) and re.search(r"[a-f]", value, re.IGNORECASE))
            and _bits(value) > RANDOM["bits"]
        )
    words = sum(map(len, _WORD.findall(value)))
    if re.search("[A-Z]", value):
        if words > WORDS * len(value):
            return False
    elif re.search("[-_/]", value):
        return any(_is_random(part) for part in re.split("[-_/]", value) if len(part) >= LONG)
    kinds = ["d" if one.isdigit() else "u" if one.isupper() else "l" if one.islower() else "o" for one in value]
    letters = [kind for kind in kinds if kind != "o"]
    changes = sum(a != b for a, b in itertools.pairwise(letters))
    return (
        len(value) >= LONG
        and "d" in kinds
        and ("u" in kinds or "l" in kinds)
        and _bits(value) >= RANDOM["bits"] + 0.6
        and changes >= RANDOM["changes"] * len(letters)
    )


def _bits(value: str) -> float:
    """Entropy of the characters of a text, in bits a character."""
    return -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())


def _value(node: ast.AST) -> Any:
    """The text, bytes or number that an expression stands for; of an f-string what is fixed."""
    match node:
        case ast.Constant(value=str() | bytes() | int() as value):
            return value
        case ast.JoinedStr(values=values):
            fixed = (_value(one.value if isinstance(one, ast.FormattedValue) else one) for one in values)
            return "".join("{}" if one is None else str(one) for one in fixed)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = (_value(left), _value(right))
            if all(isinstance(one, str) for one in both):
                return both[0] + both[1]
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as joint), attr="join"), args=[one]):
            parts = [_value(part) for part in getattr(one, "elts", ())]
            if parts and all(isinstance(part, str) for part in parts):
                return joint.join(parts)
    return None


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions that the value of one is made of; what is called within it, say, has a value of its own."""
    made_of: list[ast.AST] = []
    match node:
        case ast.JoinedStr(values=values):
            made_of = [one.value if isinstance(one, ast.FormattedValue) else one for one in values]
        case ast.BinOp(left=left, right=right) if _value(node) is not None:
            made_of = [left, right]
        case ast.Call(args=[listed]) if _value(node) is not None:
            made_of = [*getattr(listed, "elts", ())]
    for one in made_of:
        if _value(one) is not None:
            yield one
            yield from _parts(one)


class _Names(ast.NodeVisitor):
    """By expression the name that its value is given: of a variable, an attribute, a key, a parameter, its equal.

    Attributes:
        found: by `id` of the expression.
    """

    def __init__(self) -> None:
        self.found: dict[int, str] = {}

    def give(self, name: str, node: ast.AST | None) -> None:
        """Gives an expression a name, and what its value may come from."""
        if node is None or not name:
            return
        self.found.setdefault(id(node), name)
        inner = [*getattr(node, "elts", ())]
        match node:
            case ast.BoolOp(values=values):
                inner += values
            case ast.IfExp(body=body, orelse=orelse):
                inner += [body, orelse]
            case ast.Call(func=ast.Attribute(value=value, attr="encode" | "strip" | "decode")):
                inner.append(value)
            case ast.Call(func=function, args=values) if _called(function) in WRAPPERS:
                inner += values
            case ast.Call(func=function, args=[first, *values]) if _called(function) in SETTERS:
                if not _has_name(_text_of(first)):
                    inner += values
        for one in inner:
            self.give(name, one)

    def visit_Dict(self, node: ast.Dict) -> None:
        """Keys are names."""
        for key, value in zip(node.keys, node.values, strict=True):
            self.give(_text_of(key), value)
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        """So are the names of arguments; `auth=(name, password)` is how requests takes a password."""
        password = node.arg == "auth" and isinstance(node.value, ast.Tuple)
        self.give("password" if password else node.arg or "", node.value)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """What is assigned has the name of its target."""
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for one, given in zip(target.elts, node.value.elts, strict=False):
                    self.give(_called(one), given)
            else:
                self.give(_called(target), node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The same with a type."""
        self.give(_called(node.target), node.value)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        """The same within an expression."""
        self.give(_called(node.target), node.value)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """What something is compared to may have its name."""
        for one in node.comparators:
            self.give(_called(node.left), one)
            self.give(_called(one), node.left)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """`os.environ.setdefault("API_KEY", …)`."""
        if len(node.args) == 2 and _called(node.func) in SETTERS:  # noqa: PLR2004 - a name and its value
            name = _text_of(node.args[0])
            if _has_name(name):
                self.give(name, node.args[1])
        self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> None:
        """Defaults have the names of their parameters."""
        plain = [*node.posonlyargs, *node.args]
        for one, value in zip(plain[len(plain) - len(node.defaults) :], node.defaults, strict=True):
            self.give(one.arg, value)
        for one, given in zip(node.kwonlyargs, node.kw_defaults, strict=True):
            self.give(one.arg, given)
        self.generic_visit(node)


def _has_name(name: str) -> bool:
    """Whether a name is one that a secret may have."""
    return bool(STRONG.search(plain_name(name)) or WEAK.search(plain_name(name)))


def _called(node: ast.AST) -> str:
    """The last name of an expression: of `self.api_key`, `headers["X-API-Key"]` or `f(x)`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(slice=key):
            return _text_of(key)
        case ast.Call(func=function):
            return _called(function)
    return ""


def _text_of(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
