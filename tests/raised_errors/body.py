"""What the body of a function raises and calls, and the guards around each place."""

from __future__ import annotations

import ast
from copy import copy
from typing import TYPE_CHECKING

from tests.raised_errors.source import (
    PLAIN,
    Class,
    Function,
    FunctionNode,
    Guard,
    Source,
    Type,
    assigned,
    last_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IGNORED = frozenset(
    {"NotImplementedError", "AssertionError", "StopIteration", "StopAsyncIteration", "GeneratorExit"}
    | {"KeyboardInterrupt", "SystemExit", "Exception", "BaseException"}
)
"""Mistakes of the program, signals between its parts, and what says nothing."""
PATH = Type("instance", "pathlib.Path")
PATH_ATTRIBUTES = frozenset(
    {"absolute", "resolve", "expanduser", "with_suffix", "with_name", "with_stem", "joinpath", "parent"}
)
ONLY_PATH_CALLS = frozenset(
    {"iterdir", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rmdir", "touch"}
)
"""Methods that nothing but a path has."""
PATH_CALLS = ONLY_PATH_CALLS | frozenset(
    {
        "open",
        "stat",
        "lstat",
        "exists",
        "is_file",
        "is_dir",
        "replace",
        "rename",
        "chmod",
        "symlink_to",
        "hardlink_to",
        "readlink",
    }
)
FILE_CALLS = {
    "": "open",
    "io.": "open",
    "os.": "open replace rename unlink remove mkdir makedirs rmdir listdir scandir stat lstat chmod fchmod link "
    "symlink readlink utime truncate ftruncate fsync write read pread pwrite mkfifo statvfs",
    "shutil.": "copy copy2 copyfile copyfileobj copytree move rmtree disk_usage",
    "tempfile.": "mkstemp mkdtemp NamedTemporaryFile TemporaryDirectory TemporaryFile",
}
FILE_FUNCTIONS = frozenset(module + name for module, names in FILE_CALLS.items() for name in names.split())
OUTSIDE_ERRORS = {
    "ast.literal_eval": ("ValueError", "SyntaxError"),
    "ast.parse": ("SyntaxError", "ValueError"),
    "base64.b64decode": ("binascii.Error",),
    "datasets.Dataset.from_file": ("OSError", "ValueError"),
    "importlib.import_module": ("ImportError",),
    "json.load": ("json.JSONDecodeError", "RecursionError"),
    "json.loads": ("json.JSONDecodeError", "RecursionError"),
    "inspect.getsource": ("OSError", "TypeError"),
    "numpy.load": ("OSError", "ValueError", "EOFError", "zipfile.BadZipFile"),
    "numpy.save": ("OSError",),
    "os.getpgid": ("OSError",),
    "os.kill": ("OSError",),
    "os.killpg": ("OSError",),
    "os.pidfd_open": ("OSError",),
    "psutil.Process": ("psutil.NoSuchProcess",),
    "pyarrow.ipc.open_file": ("OSError", "pyarrow.ArrowException"),
    "pyarrow.ipc.open_stream": ("OSError", "pyarrow.ArrowException"),
    "pyarrow.parquet.ParquetFile": ("OSError", "pyarrow.ArrowException"),
    "pyarrow.parquet.read_table": ("OSError", "pyarrow.ArrowException"),
    "pyarrow.parquet.write_table": ("OSError", "pyarrow.ArrowException"),
    "safetensors.safe_open": ("OSError", "safetensors.SafetensorError"),
    "safetensors.torch.load_file": ("OSError", "safetensors.SafetensorError"),
    "safetensors.torch.save_file": ("OSError", "safetensors.SafetensorError"),
    "signal.Signals": ("ValueError",),
    "subprocess.Popen": ("OSError",),
    "subprocess.run": ("OSError",),
    "torch.load": ("OSError", "RuntimeError", "EOFError", "KeyError", "IndexError", "pickle.UnpicklingError"),
    "torch.save": ("OSError", "RuntimeError"),
    "urllib.request.urlopen": ("OSError",),
    "yaml.load": ("yaml.YAMLError",),
    "zipfile.ZipFile": ("OSError", "zipfile.BadZipFile"),
}
"""What functions of other packages raise for a file or a text that is not as it should be."""
CALLERS = frozenset(
    {"map", "filter", "reduce", "sorted", "min", "max", "sort", "sub", "starmap", "takewhile", "dropwhile", "groupby"}
    | {"run_in_thread", "run_in_list_thread", "to_thread"}
)
"""Functions that call the function they are given, at once or for each item that is taken."""
EVERY = ("BaseException",)


class Body(ast.NodeVisitor):
    """Walks a body once. Visiting an expression returns its type, as far as it is known."""

    def __init__(self, source: Source, function: Function, local: Mapping[str, Type | None] | None = None) -> None:
        self.source, self.function, self.module = source, function, function.module
        self.local: dict[str, Type | None] = dict(local or {})
        self.guards: tuple[Guard, ...] = ()
        self.caught: frozenset[str] = frozenset()
        arguments = function.node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for one in every:
            self.local[one.arg] = source.annotated(one.annotation, self.module, self.local)
        if function.owner and every and "staticmethod" not in function.decorators:
            kind = "class" if "classmethod" in function.decorators else "instance"
            self.local[every[0].arg] = Type(kind, function.owner)

    def walk(self) -> None:
        for one in self.function.node.body:
            self.visit(one)

    def type_of(self, node: ast.expr) -> Type | None:
        """Type of an expression, without collecting what it calls."""
        other = copy(self)
        other.function = Function("", self.module, self.function.node, self.function.owner)
        return other.visit(node)

    def visit(self, node: ast.AST | None) -> Type | None:
        return None if node is None else super().visit(node)

    # -- statements --------------------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: FunctionNode) -> None:
        inner = Function(f"{self.function.name}.<locals>.{node.name}", self.module, node)
        self.source.functions[inner.name] = inner
        self.local[node.name] = Type("function", inner.name)
        Body(self.source, inner, self.local).walk()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - a name that `ast.NodeVisitor` calls

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.local[node.name] = None

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Called elsewhere."""

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.local.update(self.source.imported(node, self.module))

    visit_ImportFrom = visit_Import  # noqa: N815 - a name that `ast.NodeVisitor` calls

    def visit_Raise(self, node: ast.Raise) -> None:
        if node.exc is None or getattr(node.exc, "id", None) in self.caught:
            return  # see `_raised_again`
        kind = self.visit(node.exc)
        self.visit(node.cause)
        if kind is not None and kind.kind in {"class", "instance"}:
            self._raise(kind.name, node.lineno)

    def _raise(self, name: str, line: int) -> None:
        if name.rpartition(".")[2] not in IGNORED:
            self.function.own.append((name, line, self.guards))

    def visit_Try(self, node: ast.Try) -> None:
        outside, caught = self.guards, self.caught
        self.guards = (tuple(self._handler(one) for one in node.handlers), *outside)
        self._block(node.body)
        self.guards = outside
        for one in node.handlers:
            if one.name:
                classes = self._classes(one.type) or ()
                self.local[one.name] = Type("instance", classes[0]) if len(classes) == 1 else None
                self.caught = caught | {one.name}
            self._block(one.body)
            self.caught = caught
        self._block(node.orelse)
        self._block(node.finalbody)

    def _block(self, body: list[ast.stmt]) -> None:
        for one in body:
            self.visit(one)

    def _handler(self, node: ast.ExceptHandler) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        return self._classes(node.type), tuple(self._raised_again(node.body, node.name, EVERY))

    def _raised_again(self, body: list[ast.stmt], name: str | None, classes: tuple[str, ...]) -> Iterator[str]:
        """Classes that a handler raises again; below `if isinstance(error, X)` these are X."""
        for node in body:
            if isinstance(node, ast.Raise) and (node.exc is None or getattr(node.exc, "id", "") == name):
                yield from classes
            elif isinstance(node, ast.If):
                yield from self._raised_again(node.body, name, self._narrowed(node.test, name) or classes)
                yield from self._raised_again(node.orelse, name, classes)
            elif isinstance(node, ast.With | ast.For | ast.While):
                yield from self._raised_again(node.body, name, classes)

    def _narrowed(self, test: ast.expr, name: str | None) -> tuple[str, ...] | None:
        """X of a test `isinstance(error, X)`, alone or with `and`."""
        for one in test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]:
            if isinstance(one, ast.Call) and last_name(one) == "isinstance" and last_name(one.args[0]) == name:
                return self._classes(one.args[1])
        return None

    def _classes(self, node: ast.expr | None) -> tuple[str, ...] | None:
        """Dotted names of the classes that a handler names, also by a constant; None if one is unknown."""
        if node is None:
            return EVERY
        constant, home = self._tuple_constant(node)
        if constant is not None and home != self.module:
            other = copy(self)
            other.module, other.local = home, {}
            return other._classes(constant)
        node = constant or node
        if isinstance(node, ast.Tuple):
            found = [self._classes(one.value if isinstance(one, ast.Starred) else one) for one in node.elts]
            return None if None in found else tuple(name for one in found for name in one or ())
        kind = self.source.named(node, self.module, self.local)
        return (kind.name,) if kind is not None and kind.kind == "class" else None

    def _tuple_constant(self, node: ast.expr) -> tuple[ast.Tuple | None, str]:
        """A constant of this or another module that is a tuple, and its module."""
        value, home = self._constant(node)
        return (value if isinstance(value, ast.Tuple) else None), home

    def _constant(self, node: ast.expr) -> tuple[ast.expr | None, str]:
        """The value of a constant of this or another module, and its module."""
        if not isinstance(node, ast.Name) or node.id in self.local:
            return None, self.module
        home, name = self.module, node.id
        kind = self.source.names[home].get(name)
        if kind is not None and kind.kind == "name":
            home, _, name = kind.name.rpartition(".")
        return self.source.constants.get(home, {}).get(name), home

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        outside = self.guards
        for item in node.items:
            kind = self._entered(item.context_expr, node.lineno)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, kind)
        self._block(node.body)
        self.guards = outside

    visit_AsyncWith = visit_With  # noqa: N815 - a name that `ast.NodeVisitor` calls

    def _entered(self, node: ast.expr, line: int) -> Type | None:
        """Guard what follows, and return the type of what `as` binds."""
        kind = self.visit(node)
        callee = self.type_of(node.func) if isinstance(node, ast.Call) else None
        if callee is not None and callee.name == "contextlib.suppress":
            self.guards = (((self._classes(ast.Tuple(node.args)), ()),), *self.guards)
        elif callee is not None and callee.kind == "function":
            self.guards = (callee.name, *self.guards)
            if self.source.functions[callee.name].decorators & {"contextmanager", "asynccontextmanager"}:
                return _item(kind)
        if kind is not None and kind.kind == "instance" and kind.name in self.source.classes:
            enter = self.member(kind.name, "__enter__")
            self._call(enter, line)
            self._call(self.member(kind.name, "__exit__"), line)
            return self._result(enter) or kind
        return kind

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            pairs = assigned(target, node.value)
            kinds = [self.visit(value) for _, value in pairs]
            for (one, _), kind in zip(pairs, kinds, strict=True):
                self._bind(one, kind)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        kind = self.visit(node.value)
        self._bind(node.target, self.source.annotated(node.annotation, self.module, self.local) or kind)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._bind(node.target, _item(self.visit(node.iter)))
        self._block(node.body)
        self._block(node.orelse)

    visit_AsyncFor = visit_For  # noqa: N815 - a name that `ast.NodeVisitor` calls

    def _bind(self, target: ast.expr, kind: Type | None) -> None:
        if isinstance(target, ast.Name):
            self.local[target.id] = kind
        elif isinstance(target, ast.Tuple | ast.List):
            parts = kind.parts if kind is not None and kind.kind == "tuple" else ()
            for place, one in enumerate(target.elts):
                self._bind(one, parts[place] if len(parts) == len(target.elts) else None)
        elif not isinstance(target, ast.Starred):
            self.visit(target)

    # -- expressions -------------------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> Type | None:
        return self.source.named(node, self.module, self.local)

    def visit_Await(self, node: ast.Await) -> Type | None:
        return self.visit(node.value)

    def visit_Yield(self, node: ast.Yield) -> None:
        self.function.yields = self.function.yields or self.guards
        self.visit(node.value)

    def visit_IfExp(self, node: ast.IfExp) -> Type | None:
        self.visit(node.test)
        kinds = self.visit(node.body), self.visit(node.orelse)
        return kinds[0] or kinds[1]

    def visit_BoolOp(self, node: ast.BoolOp) -> Type | None:
        kinds = [self.visit(one) for one in node.values]
        return next((kind for kind in kinds if kind is not None), None)

    def visit_BinOp(self, node: ast.BinOp) -> Type | None:
        left = self.visit(node.left)
        self.visit(node.right)
        return PATH if left == PATH and isinstance(node.op, ast.Div) else None

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Type | None:
        kind = self.visit(node.value)
        self._bind(node.target, kind)
        return kind

    def visit_Subscript(self, node: ast.Subscript) -> Type | None:
        kind = self.visit(node.value)
        self.visit(node.slice)
        if kind is None or kind.kind == "choice":
            return kind or self._choice(node.value)
        return kind.parts[0] if kind.kind in {"items", "values"} else None

    def visit_Dict(self, node: ast.Dict) -> Type | None:
        kinds = [self.visit(one) for one in node.values]
        for one in node.keys:
            self.visit(one)
        functions = tuple(kind for kind in kinds if kind is not None and kind.kind == "function")
        return Type("choice", parts=functions) if functions else None

    def visit_Tuple(self, node: ast.Tuple | ast.List | ast.Set) -> Type | None:
        kinds = tuple(self.visit(one) for one in node.elts)
        known = {kind for kind in kinds if kind is not None and kind.kind == "instance"}
        if isinstance(node, ast.Tuple) and len(known) > 1:
            return Type("tuple", parts=kinds)
        return Type("items", parts=tuple(known)) if len(known) == 1 else None

    visit_List = visit_Set = visit_Tuple  # noqa: N815 - a name that `ast.NodeVisitor` calls

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Type | None:
        before = dict(self.local)
        for one in node.generators:
            self._bind(one.target, _item(self.visit(one.iter)))
            for test in one.ifs:
                self.visit(test)
        mapped = isinstance(node, ast.DictComp)
        self.visit(node.key if mapped else None)
        kind = self.visit(node.value if mapped else node.elt)
        self.local = before
        return None if kind is None else Type("values" if mapped else "items", parts=(kind,))

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp  # noqa: N815 - a name that `ast.NodeVisitor` calls

    def visit_Attribute(self, node: ast.Attribute) -> Type | None:
        base = self.visit(node.value)
        kind = "" if base is None else base.kind
        found: Type | None = None
        if kind == "module":
            found = self.source.resolve(Type("name", f"{base.name}.{node.attr}"))
        elif base == PATH:
            known = {"parent": PATH, "parents": Type("items", parts=(PATH,))}
            found = known.get(node.attr) or Type("path", node.attr)
        elif kind == "super":
            above = (self.member(one, node.attr) for one in self.source.classes[base.name].bases)
            found = next((one for one in above if one is not None), None)
        elif kind in {"items", "values", "tuple", "choice"}:
            found = Type("container", node.attr, (base,))
        elif kind == "external" or (kind == "class" and base.name not in self.source.classes):
            found = Type("external", f"{base.name}.{node.attr}")
        elif kind in {"instance", "class"}:
            found = self._read(base, node)
        return found

    def _read(self, base: Type, node: ast.Attribute) -> Type | None:
        """Type of an attribute; a property is called."""
        found = self.member(base.name, node.attr)
        if found is None or found.kind != "function" or base.kind != "instance":
            return found or (Type("unknown") if base.name in self.source.classes else None)
        if not self.source.functions[found.name].is_property:
            return found
        self._call(found, node.lineno)
        return self._result(found)

    def member(self, owner: str, name: str) -> Type | None:
        """An attribute of a class: a function, or the type of its values."""
        one = self.source.classes.get(owner)
        if one is None:
            return None
        if f"{owner}.{name}" in self.source.functions:
            return Type("function", f"{owner}.{name}")
        if name in one.fields:
            return self.source.annotated(one.fields[name], one.module)
        if name in one.values or name in one.types:
            return self._type_of_value(one, name)
        found = (self.member(base, name) for base in one.bases)
        return next((kind for kind in found if kind is not None), None)

    def _type_of_value(self, one: Class, name: str) -> Type | None:
        if name in one.values:
            value, method = one.values.pop(name)  # so that an attribute that is computed from itself ends
            one.types[name] = None
            if method in self.source.functions:
                one.types[name] = Body(self.source, self.source.functions[method]).type_of(value)
        return one.types[name]

    # -- calls -------------------------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> Type | None:
        callee = self.visit(node.func)
        gets = callee is None and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        chosen = self._choice(node.func.value) if gets else None
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        kinds = [self.visit(one.value if isinstance(one, ast.Starred) else one) for one in values]
        for one, kind in zip(values, kinds, strict=True) if last_name(node) in CALLERS else ():
            self._call(kind, node.lineno)
            if isinstance(one, ast.Lambda):
                self._visit_called(one)
        if _opens_file(node, callee):
            self._raise("OSError", node.lineno)
        for name in OUTSIDE_ERRORS.get(callee.name, ()) if callee is not None else ():
            self._raise(name, node.lineno)
        if _decodes_file(node, callee):
            self._raise("UnicodeDecodeError", node.lineno)
        if _expands_home(node, callee) or _follows_links(callee):
            self._raise("RuntimeError", node.lineno)
        if last_name(node) == "super" and self.function.owner:
            return Type("super", self.function.owner)
        return chosen if callee is None else self._called(callee, kinds[0] if node.args else None, node.lineno)

    def _visit_called(self, node: ast.Lambda) -> None:
        before = dict(self.local)
        self.local |= dict.fromkeys((one.arg for one in node.args.args), None)
        self.visit(node.body)
        self.local = before

    def _called(self, callee: Type, first: Type | None, line: int) -> Type | None:
        """Type of the result of a call, by the type of its first argument."""
        found: Type | None = None
        if callee.kind == "function":
            self._call(callee, line)
            chosen = first is not None and first.kind == "class" and self._returns_its_argument(callee)
            found = first if chosen else self._result(callee)
        elif callee.kind == "choice":
            for one in callee.parts:
                self._call(one, line)
        elif callee.kind == "path":
            found = PATH if callee.name in PATH_ATTRIBUTES else None
            found = Type("items", parts=(PATH,)) if callee.name in {"iterdir", "glob", "rglob"} else found
        elif callee.kind == "container":
            found = _of_container(callee.name, callee.parts[0])
        elif callee.name in {"functools.partial", "sorted", "reversed", "iter", "list", "tuple", "set", "frozenset"}:
            found = first
        elif callee.name in {"next", "min", "max"}:
            found = _item(first)
        elif callee.kind == "class":
            for method in ("__new__", "__init__", "__post_init__"):
                self._call(self.member(callee.name, method), line)
            found = Type("instance", callee.name) if callee.name not in PLAIN else Type("plain")
        return found

    def _choice(self, table: ast.expr) -> Type | None:
        """The functions of a constant that is a mapping to functions; what is chosen of it may be any of them."""
        value, home = self._constant(table)
        if not isinstance(value, ast.Dict):
            return None
        other = copy(self)
        other.module, other.local = home, {}
        found = [
            other._of_lambda(table.id, one) if isinstance(one, ast.Lambda) else self.source.named(one, home)
            for one in value.values
        ]
        functions = tuple(one for one in found if one is not None and one.kind == "function")
        return Type("choice", parts=functions) if functions else None

    def _of_lambda(self, table: str, node: ast.Lambda) -> Type:
        """A lambda of a table as a function; its parameters are annotated by the table's `Callable`."""
        name = f"{self.module}.<locals>.{table}:{node.lineno}:{node.col_offset}"
        if name not in self.source.functions:
            given = [one for one in ast.walk(self.source.annotations[self.module].get(table, ast.Tuple([])))
                     if isinstance(one, ast.List)]  # fmt: skip
            for one, annotation in zip(node.args.args, given[0].elts if given else (), strict=False):
                one.annotation = annotation
            inner = ast.FunctionDef(name, node.args, [ast.Expr(node.body, lineno=node.lineno)], [], lineno=node.lineno)
            self.source.functions[name] = Function(name, self.module, inner)
            Body(self.source, self.source.functions[name]).walk()
        return Type("function", name)

    def _call(self, callee: Type | None, line: int) -> None:
        if callee is not None and callee.kind == "function":
            self.function.calls.append((callee.name, line, self.guards))

    def _returns_its_argument(self, callee: Type) -> bool:
        """Whether a function returns a class that is, or inherits from, the one it is given: `type[T] -> type[T]`."""
        node = self.source.functions[callee.name].node
        given = [one.annotation for one in node.args.args if one.arg not in {"self", "cls"}]
        result = "" if node.returns is None else ast.unparse(node.returns)
        return result.startswith("type[") and bool(given) and given[0] is not None and ast.unparse(given[0]) == result

    def _result(self, callee: Type | None) -> Type | None:
        """Type of what a function returns, by its annotation."""
        function = self.source.functions.get(callee.name) if callee is not None and callee.kind == "function" else None
        if function is None:
            return None
        if last_name(function.node.returns) == "Self" and function.owner:
            return Type("instance", function.owner)
        return self.source.annotated(function.node.returns, function.module)


def _item(kind: Type | None) -> Type | None:
    """Type of the items of a container."""
    return kind.parts[0] if kind is not None and kind.kind == "items" else None


def _of_container(method: str, kind: Type) -> Type | None:
    """Type of what a method of a container or a mapping returns."""
    if kind.kind == "choice":
        return kind if method in {"get", "pop"} else None
    inside = kind.parts[0]
    if kind.kind == "values":
        by_method = dict.fromkeys(("get", "pop", "setdefault"), inside)
        pairs = Type("tuple", parts=(None, inside))
        return (by_method | {"values": Type("items", parts=(inside,)), "items": Type("items", parts=(pairs,))}).get(
            method
        )
    return inside if kind.kind == "items" and method == "pop" else None


def _expands_home(node: ast.Call, callee: Type | None) -> bool:
    """Whether a call looks up the home of a user, who may be unknown. `os.path.expanduser` then does nothing."""
    known = callee is not None and callee.kind != "path"
    return callee.name == "pathlib.Path.home" if known else last_name(node) == "expanduser"


def _follows_links(callee: Type | None) -> bool:
    """Whether a call is `Path.resolve`, which a loop of links ends with an error up to Python 3.12."""
    return callee == Type("path", "resolve")


def _decodes_file(node: ast.Call, callee: Type | None) -> bool:
    """Whether a call decodes a file, which may hold bytes that are no text. Files of an installed package are text."""
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if method != "read_text" or not _opens_file(node, callee):
        return False
    return len(node.args) < 2 and not any(one.arg == "errors" for one in node.keywords)


def _opens_file(node: ast.Call, callee: Type | None) -> bool:
    """Whether a call opens, changes or lists a file. Files that are installed with a package can be read."""
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if callee is None:
        return method in ONLY_PATH_CALLS and not any(last_name(one) == "files" for one in ast.walk(node.func))
    if callee.kind == "path":
        return method in PATH_CALLS
    ignoring = any(one.arg == "ignore_errors" for one in node.keywords)
    return callee.kind in {"external", "class"} and callee.name in FILE_FUNCTIONS and not ignoring
