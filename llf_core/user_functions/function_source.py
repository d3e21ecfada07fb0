"""The source of a notebook function with what it depends on, as a module, a run's file or a cell."""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import re
import subprocess
import symtable
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from keyword import iskeyword
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from llf_core.config.option import split_names
from llf_core.config.rule import ConfigError, Problem
from llf_core.redaction.source_scan import ALLOW_COMMENT, secret_kind, secrets_in
from llf_core.runs.config_file import read_config
from llf_core.untrusted import leads_to_file, read_text, real_path
from llf_core.user_error import UserError
from llf_core.user_functions.function_kind import DECORATORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from llf_core.runs import RunFolder
    from llf_core.user_functions.function_kind import FunctionKind, UserFunction


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


def function_sources(functions: Mapping[str, UserFunction], kind: FunctionKind) -> dict[str, str]:
    """Source of each function with its dependencies, with failures as problems of the config.

    Raises:
        ConfigError: the source of one cannot be extracted.
    """
    found = {}
    for name, function in functions.items():
        try:
            found[name] = source_of(function, kind.noun, name)
        except SourceError as error:
            raise ConfigError((Problem("invalid", kind.key, name, str(error)),)) from error
    return found


def write_code(folder: Path, code: Mapping[str, str]) -> None:
    """Write modules to a run's `code/`, one file `NAME.py` each."""
    for name, text in code.items():
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def joined(rewards: Mapping[str, str], metrics: Mapping[str, str]) -> dict[str, str]:
    """Sources of a run's reward functions and metrics by name; one function may be both.

    Raises:
        ConfigError: a reward function and a metric with the same name differ.
    """
    for name, text in metrics.items():
        if rewards.get(name, text) != text:
            message = f"A reward function and a metric are named {name}, and differ. Expected different names."
            raise ConfigError((Problem("invalid", "metrics", name, message),))
    return {**metrics, **rewards}


class StoredFunctionError(Exception):
    """A stored function cannot be loaded. The message says why, without its final full stop."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


def load_stored_function(path: Path) -> UserFunction:
    """Execute a file `code/NAME.py` and return its function `NAME`.

    It is not imported: Python could use stale bytecode of a source that was corrected within the same second.

    Raises:
        StoredFunctionError: the file is missing, cannot be executed, or defines no such function.
    """
    if not leads_to_file(path):
        raise StoredFunctionError(f"there is no {path.name} in {path.parent}", missing=True)
    module = ModuleType(f"llf_function_{path.stem}")
    try:
        exec(compile(read_text(path, root=path.parent.parent), str(path), "exec"), vars(module))  # noqa: S102 - the user's own
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StoredFunctionError(f"{path} cannot be run: {cause.rstrip('.')}") from error
    function = getattr(module, path.stem, None)
    if not callable(function):
        raise StoredFunctionError(f"{path} defines no function {path.stem}")
    return function  # type: ignore[no-any-return]  # it is callable


def functions_under_decorator(path: Path, kind: FunctionKind) -> list[UserFunction]:
    """Execute a Python file and return the functions that it registers, such as for `llf train --rewards FILE`.

    Raises:
        ValueError: the file cannot be read or run, or has no function under the decorator.
    """
    before = dict(kind.registered)
    run_file(path, kind)
    found = [function for called, function in kind.registered.items() if before.get(called) is not function]
    if not found:
        raise ValueError(
            f"{path} has no {kind.noun}. Expected a function under @{kind.decorator} (from "
            f"llf_core.{kind.decorator}s import {kind.decorator})."
        )
    return found


def run_file(path: Path, kind: FunctionKind) -> ModuleType:
    """Execute a Python file of the user in this process, which registers its functions; it can import from its folder.

    Its module stays in `sys.modules`, also after an error, under a name that hides no other one.

    Raises:
        ValueError: the file is missing, is not named like a Python file, or raises an error.
    """
    # Not the file's own name, by which another process could import another module.
    name = f"llf_{kind.decorator}s_of_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not leads_to_file(path):
        raise ValueError(f"{path} cannot be read. Expected a Python file, such as {kind.decorator}s.py.")
    module = sys.modules[name] = module_from_spec(spec)
    folder = str(real_path(path).parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise ValueError(f"{path} cannot be run: {cause}.") from error
    finally:
        with suppress(ValueError):  # the file may have removed it
            sys.path.remove(folder)
    return module


OURS = "import llf_widgets as llf"


def definition_cell(folder: RunFolder) -> str:
    """Source of a notebook cell that defines the functions that a run stores; empty if it stores none.

    A module whose names conflict with another one is wrapped in a function.

    Raises:
        ValueError: a stored module cannot be parsed, or its name is not an identifier.
    """
    paths = sorted(folder.code.glob("*.py"))
    if not paths:
        return ""
    texts = {path.stem: read_text(path, root=folder.path).removeprefix(HEAD).strip("\n") for path in paths}
    for name, text in texts.items():
        if not name.isidentifier() or iskeyword(name):
            raise ValueError(f"code/{name}.py of {folder.id} has a name that no function has. Expected an identifier.")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"code/{name}.py of {folder.id} is not Python: {error}.") from None
    bound = {name: _bound(text) for name, text in texts.items()}
    given = {name: _read(text) - bound[name].keys() for name, text in texts.items()}  # which a module takes as they are
    values = read_config(folder.config)
    metrics = {one.rpartition(":")[2] for one in _named(values.get("metrics"))}
    rewards = _named(values.get("reward_functions"))

    def decorators(name: str) -> list[str]:
        own = ["metric"] if name in metrics else []
        return [*own, "reward"] if name in rewards or not own else own

    parts = [HEAD, OURS]
    known = _bound(OURS)
    for name, text in texts.items():
        own = bound[name]
        agree = all(known.get(one, meaning) == meaning for one, meaning in own.items())
        if agree and not any(own.keys() & names for other, names in given.items() if other != name):
            known |= own
            parts.append(f"{text}\n\n\n{_registered(name, decorators(name), name)}")
        else:
            alone = f"_{name}_alone"
            parts.append(f"{_scope(alone, name, text)}\n\n\n{_registered(name, decorators(name), f'{alone}()')}")
    return "\n\n".join(parts) + "\n\n"


def _named(value: object) -> set[str]:
    """Names in a value of a config that was not validated."""
    names = split_names(value)
    return {one for one in names if isinstance(one, str)} if isinstance(names, tuple) else set()


def _registered(name: str, decorators: Sequence[str], function: str) -> str:
    for decorator in decorators:
        function = f'llf.{decorator}(name="{name}")({function})'
    return function


def _bound(text: str) -> dict[str, str]:
    """The names that a module binds, with the code that binds them."""
    found: dict[str, str] = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                of = getattr(statement, "module", None)
                found |= {(one.asname or one.name).partition(".")[0]: f"{of}.{one.name}" for one in names}
            case ast.FunctionDef(name=name):
                found[name] = ast.dump(statement)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = ast.dump(statement)
    return found


def _read(text: str) -> set[str]:
    return {one.id for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def _scope(called: str, name: str, text: str) -> str:
    """A function that returns the object `name` of a module."""
    found = ast.parse(f"def {called}():\n    return {name}")
    (function,) = found.body
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - for the type checker
    function.body = [*ast.parse(text).body, *function.body]
    return ast.unparse(found)
