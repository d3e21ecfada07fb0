"""Extracts the source of a notebook function with its dependencies as a standalone module."""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import re
import subprocess
import symtable
import sys
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from llf_core.redaction.source_scan import ALLOW_COMMENT, secret_kind, secrets_in
from llf_core.user_error import UserError
from llf_core.user_functions.function_kind import DECORATORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.user_functions.function_kind import UserFunction

MAX_LITERAL = 1_000_000
"""Maximum length of the source text of a constant."""
HEAD = "from __future__ import annotations"
MISSING = object()
FINDS = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


class SourceError(UserError, ValueError):
    """The source of a function cannot be extracted; the message has the cause and the fix."""


def source_of(function: UserFunction, noun: str, name: str | None = None) -> str:
    """Source of a standalone module that defines a function and everything in the notebook that it uses, recursively.

    Imports become import statements; functions of the notebook, or of a file that the trainer would not find, are
    copied as source; numbers, strings, containers of these, and compiled regular expressions are copied by current
    value.

    Args:
        noun: name of the function's kind in messages, such as `reward function`.

    Raises:
        SourceError: the source is not available, is nested too deeply or contains a secret, or the function uses an
            undefined name, a module that the trainer cannot import, or a value that cannot be copied or looks like a
            secret.
    """
    module = _Module()
    name = name or function.__name__
    try:
        module.add_function(name, function, (noun,))
    except RecursionError:  # of an expression with hundreds of operators
        raise SourceError(
            f"The source of the {noun} {name} has an expression that is nested too deeply to be copied. Divide it into "
            "several statements."
        ) from None
    return module.text()


@dataclass
class _Module:
    imports: set[str] = field(default_factory=set)
    constants: dict[str, str] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    known: dict[str, object] = field(default_factory=dict)

    def text(self) -> str:
        parts = ["\n".join([HEAD, *(["", *sorted(self.imports)] if self.imports else [])])]
        if self.constants:
            parts.append("\n".join(f"{name} = {value}" for name, value in self.constants.items()))
        return "\n\n\n".join([*parts, *self.functions]) + "\n"

    def add_function(self, name: str, function: UserFunction, users: tuple[str, ...]) -> None:
        """Add a function after its dependencies."""
        if self._have(name, function, users):
            return
        inner = inspect.unwrap(function)
        users = (*users, name)
        found = _Definition.of(inner, users)
        if found.name != name:
            self._have(found.name, function, users)
        for used, chains in found.names(users):
            value = _value(inner, used)
            if value is MISSING and hasattr(builtins, used):
                continue
            self._add(used, value, chains, users)
        self.functions.append(found.text if found.name == name else f"{found.text}\n\n\n{name} = {found.name}")

    def _add(self, name: str, value: object, chains: set[str], users: tuple[str, ...]) -> None:
        if value is MISSING:
            raise SourceError(f"{_who(users)} uses {name}, which is not defined. Define it, or remove it.")
        home = None if isinstance(value, ModuleType) else _import_location(name, value)
        if home is None and callable(value) and isinstance(inspect.unwrap(value), FunctionType):
            self.add_function(name, value, users)
        elif self._have(name, value, users) and not isinstance(value, ModuleType):
            return
        elif isinstance(value, ModuleType):
            self._import_module(name, value, chains, users)
        elif home is not None:
            self.imports.add(f"from {home[0]} import {home[1]}" + _called(home[1], name))
        else:
            self._constant(name, value, users)

    def _have(self, name: str, value: object, users: tuple[str, ...]) -> bool:
        """Whether the name was added before, with the same value."""
        if name not in self.known:
            self.known[name] = value
            return False
        known = self.known[name]
        if known is not value and (_literal(known) is None or _literal(known) != _literal(value)):
            raise SourceError(
                f"{_who(users)} uses {name}, which has another meaning in a function that it calls. Rename one."
            )
        return True

    def _import_module(self, name: str, module: ModuleType, chains: set[str], users: tuple[str, ...]) -> None:
        whole = module.__name__
        if not _importable(whole):
            raise SourceError(
                f"{_who(users)} uses the module {whole}, which the trainer cannot import. Install it, or import what "
                f"is used of it by name (from {whole} import …), whose source is then copied."
            )
        package, _, last = whole.rpartition(".")
        self.imports.add(f"from {package} import {last}{_called(last, name)}" if package else _plain_import(last, name))
        for chain in chains:  # `import a.b` binds a alone
            inner = [one for one in _prefixes(whole, chain) if isinstance(sys.modules.get(one), ModuleType)]
            self.imports.update(f"import {one}" for one in inner[-1:])

    def _constant(self, name: str, value: object, users: tuple[str, ...]) -> None:
        if isinstance(value, re.Pattern):
            if secret_kind(name, value.pattern):
                raise _secret(name, users)
            self.imports.add("import re")
            self.constants[name] = f"re.compile({value.pattern!r}, {value.flags})"
            return
        text = _literal(value)
        if text is None:
            what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
            raise SourceError(
                f"{_who(users)} uses {name}, {what} of the notebook, which cannot be passed to the trainer. "
                "Create it inside the function, or use an import, another function, or numbers, strings, and lists, "
                "tuples, sets and dicts of them."
            )
        if secret_kind(name, value):
            raise _secret(name, users)
        if len(text) > MAX_LITERAL:
            raise SourceError(
                f"{_who(users)} uses {name}, which is {len(text):,} characters long. Expected at most {MAX_LITERAL:,}: "
                "put it into a column of the data set, or read a file inside the function."
            )
        self.constants[name] = text


@dataclass(frozen=True)
class _Definition:
    """Source of a function without the decorators that register it."""

    name: str
    text: str

    @classmethod
    def of(cls, function: FunctionType, users: tuple[str, ...]) -> _Definition:
        try:
            text = inspect.getsource(function)
        except (OSError, TypeError):
            raise SourceError(
                f"The source of {users[-1]} cannot be read. Define it in a cell of a notebook, or in a file."
            ) from None
        inside = text[:1].isspace()
        try:
            tree: Any = ast.parse(f"if True:\n{text}" if inside else text)
        except (SyntaxError, ValueError):  # a lambda in the middle of a call
            tree = ast.Module([], [])
        _check_secrets(f"if True:\n{text}" if inside else text, 1 if inside else 0, tree, users)
        statements = tree.body[0].body if inside and tree.body else tree.body
        statement = statements[0] if len(statements) == 1 else None
        if isinstance(statement, ast.FunctionDef):
            ours = [one for one in statement.decorator_list if _registers(one, function)]
            gone = {line for one in ours for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)}
            if inside:  # a text in several lines would lose its blanks if the lines were moved
                statement.decorator_list = [one for one in statement.decorator_list if one not in ours]
                return cls(statement.name, ast.unparse(statement))
            lines = [line for number, line in enumerate(text.split("\n"), start=1) if number not in gone]
            return cls(statement.name, "\n".join(lines).rstrip())
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Lambda()):
                return cls(name, ast.unparse(statement))
        raise SourceError(f"{users[-1]} is a lambda inside another statement. Write it as a function: def f(answer): …")

    def names(self, users: tuple[str, ...]) -> Iterator[tuple[str, set[str]]]:
        """Global names that it uses, each with the dotted names that start with it."""
        tree = ast.parse(self.text)
        for node in ast.walk(tree):  # annotations are not evaluated
            if isinstance(node, ast.arg):
                node.annotation = None
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.returns = None
            elif isinstance(node, ast.AnnAssign):
                node.annotation = ast.Constant(None)
        try:
            table = symtable.symtable(ast.unparse(tree), "function", "exec")
        except SyntaxError:  # `nonlocal`
            raise SourceError(
                f"{_who(users)} changes a variable of the function around it (nonlocal), and is stored without that. "
                "Keep the value in a list or a class of the module instead."
            ) from None
        used = sorted(set(_globals(table)) - {self.name})
        chains = [chain for node in ast.walk(tree) if (chain := _chain(node))]
        for name in used:
            yield name, {chain for chain in chains if chain.startswith(f"{name}.")}


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """Global names of a scope and its nested scopes."""
    outermost = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_global() or (outermost and symbol.is_referenced()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _globals(inner)


def _chain(node: ast.AST) -> str | None:
    """`a.b.c` for an attribute chain on a name; else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if parts and isinstance(node, ast.Name) else None


def _prefixes(module: str, chain: str) -> Iterator[str]:
    parts = chain.split(".")[1:]
    for end in range(1, len(parts) + 1):
        yield ".".join([module, *parts[:end]])


def _value(function: FunctionType, name: str) -> object:
    """Value of a name in a function's closure or module; `MISSING` if undefined."""
    around = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if name in around:
        try:
            return around[name].cell_contents
        except ValueError:
            return MISSING
    return function.__globals__.get(name, MISSING)


def _registers(decorator: ast.expr, function: FunctionType) -> bool:
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    match decorator:
        case ast.Name(id=name):
            return _is_ours(_value(function, name))
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return _is_ours(getattr(_value(function, name), attribute, None))
    return False


def _is_ours(value: object) -> bool:
    return any(value is one for one in DECORATORS)


def _import_location(name: str, value: object) -> tuple[str, str] | None:
    """Module and name from which the trainer can import a value."""
    home = getattr(value, "__module__", None)
    if not isinstance(home, str) or home not in sys.modules or home in {"__main__", "builtins"}:
        return None
    for called in (getattr(value, "__qualname__", None), getattr(value, "__name__", None), name):
        if not isinstance(called, str):
            continue
        found = vars(sys.modules[home]).get(called, MISSING)
        if found is value or (inspect.ismethod(value) and found == value):
            return (home, called) if _importable(home) else None
    return None


def _importable(module: str) -> bool:
    """Whether the trainer finds a module: the notebook's folder is not on its path."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return top != "__main__"
    command = [sys.executable, "-P", "-c", FINDS, top]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - our own text


def _literal(value: object) -> str | None:
    try:
        return _text(value)
    except (_NoLiteral, RecursionError, ValueError):  # Python writes no integer of thousands of digits
        return None


class _NoLiteral(Exception):  # noqa: N818 - it tells `_literal`, nobody else
    pass


def _text(value: Any) -> str:
    kind = type(value)
    if kind is float and not math.isfinite(value):
        return f"float({str(value)!r})"
    if value is None or kind in {bool, int, float, complex, str, bytes}:
        return repr(value)
    if kind is dict:
        return "{" + ", ".join(f"{_text(key)}: {_text(one)}" for key, one in value.items()) + "}"
    if kind in {list, tuple, set, frozenset}:
        texts = [_text(one) for one in value]
        inside = ", ".join(sorted(texts) if kind in {set, frozenset} else texts)  # equal sets give equal texts
        comma = "," if len(value) == 1 else ""
        if kind is set:
            return f"{{{inside}}}" if value else "set()"
        if kind is list:
            return f"[{inside}]"
        return f"({inside}{comma})" if kind is tuple else f"frozenset([{inside}])"
    raise _NoLiteral


def _secret(name: str, users: tuple[str, ...]) -> SourceError:
    return SourceError(
        f"{_who(users)} uses {name}, which looks like a secret, and its source is stored with the run. Set it in the "
        f"environment before the training starts, and read it inside the function: os.environ[{name!r}]. If it is not "
        f"a secret, write it inside the function, with the comment # {ALLOW_COMMENT} on that line."
    )


def _check_secrets(source: str, shift: int, tree: ast.Module, users: tuple[str, ...]) -> None:
    found = secrets_in(source) if tree.body else []
    if found:
        line = found[0].line - shift
        raise SourceError(
            f"{_who(users)} contains what looks like a secret on line {line} ({found[0].what}), and its source is kept "
            "with the run. Set it in the environment before the training starts, and read it inside the function: "
            f"os.environ['NAME']. If it is not a secret, write the comment # {ALLOW_COMMENT} on that line."
        )


def _called(name: str, wanted: str) -> str:
    return "" if name == wanted else f" as {wanted}"


def _plain_import(name: str, wanted: str) -> str:
    return f"import {name}{_called(name, wanted)}"


def _who(users: tuple[str, ...]) -> str:
    noun, first, *others = users
    return f"The {noun} {first}" + (f" (in {others[-1]})" if others else "")
