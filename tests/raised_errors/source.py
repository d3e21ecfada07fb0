"""The modules of a project, read with `ast`: their names, functions and classes, and the types of annotations."""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
PLAIN = frozenset({"str", "int", "float", "bool", "bytes", "object", "list", "dict", "set", "tuple", "typing.Any"})
CONTAINERS = frozenset(
    {"list", "tuple", "set", "frozenset", "deque", "Iterable", "Iterator", "Sequence", "Collection", "Generator"}
    | {"AsyncIterator", "Set", "AbstractSet", "MutableSequence"}
)
MAPPINGS = frozenset({"dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"})
MAX_REEXPORTS = 8


@dataclass(frozen=True)
class Type:
    """What a name or an expression stands for.

    Attributes:
        kind: `instance`, `class`, `function` or `module`; `external` for a function of another package; `name` for an
            import that is not resolved yet; `items` of a container, `values` of a mapping, `tuple`; `container` and
            `path` for a method of one; `super`; `choice` of the functions of a table.
        name: dotted name, or name of the method.
        parts: types inside it.
    """

    kind: str
    name: str = ""
    parts: tuple[Type | None, ...] = ()


Guard = tuple[tuple[tuple[str, ...] | None, tuple[str, ...]], ...] | str
"""The handlers of a `try`: classes that each catches (None if they are unknown), and those of them that it raises
again. Or the name of a context manager."""
Place = tuple[str, int, tuple[Guard, ...]]
"""A class that is raised or a function that is called: name, line, and the guards around it, the innermost first."""


@dataclass(eq=False)
class Function:
    """A function or method.

    Attributes:
        name: dotted name.
        owner: dotted name of its class; empty for a function.
        calls: what it calls.
        own: what it raises itself.
        yields: guards around the `yield` of a context manager.
        raises: all it can raise; for each class the line, and the function that is called there or an empty name.
    """

    name: str
    module: str
    node: FunctionNode
    owner: str = ""
    calls: list[Place] = field(default_factory=list)
    own: list[Place] = field(default_factory=list)
    yields: tuple[Guard, ...] = ()
    raises: dict[str, tuple[int, str]] = field(default_factory=dict)

    @cached_property
    def decorators(self) -> set[str]:
        return {last_name(one) for one in self.node.decorator_list}

    @property
    def is_property(self) -> bool:
        return bool(self.decorators & {"property", "cached_property"})

    @property
    def is_abstract(self) -> bool:
        """Whether classes override it, and its body does nothing."""
        body = self.node.body[1:] if ast.get_docstring(self.node) else self.node.body
        empty = all(isinstance(one, ast.Pass) or isinstance(getattr(one, "value", None), ast.Constant) for one in body)
        refuses = len(body) == 1 and isinstance(body[0], ast.Raise) and last_name(body[0].exc) == "NotImplementedError"
        return "abstractmethod" in self.decorators or (bool(self.owner) and (refuses or empty))


@dataclass(eq=False)
class Class:
    """A class.

    Attributes:
        bases: dotted names.
        fields: annotation of each attribute that has one.
        values: first value that a method assigns to each other attribute, with the method's name.
        types: types of these values, as far as they were asked for.
    """

    name: str
    module: str
    node: ast.ClassDef
    bases: list[str] = field(default_factory=list)
    fields: dict[str, ast.expr] = field(default_factory=dict)
    values: dict[str, tuple[ast.expr, str]] = field(default_factory=dict)
    types: dict[str, Type | None] = field(default_factory=dict)


def last_name(node: ast.expr | None) -> str:
    """Last part of a dotted name, or of the name that is called."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def assigned(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Each target of an assignment with its value: of `a, b = x, y` two."""
    if not isinstance(target, ast.Tuple) or not isinstance(value, ast.Tuple) or len(target.elts) != len(value.elts):
        return [(target, value)]
    starred = any(isinstance(one, ast.Starred) for one in (*target.elts, *value.elts))
    return [(target, value)] if starred else list(zip(target.elts, value.elts, strict=True))


class Source:
    """All modules of some packages, with what each name stands for."""

    def __init__(self, root: Path, packages: Iterable[str]) -> None:
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, Class] = {}
        self.names: dict[str, dict[str, Type]] = {}
        self.constants: dict[str, dict[str, ast.expr]] = {}
        self.annotations: dict[str, dict[str, ast.expr]] = {}
        self._folders: set[str] = set()
        trees = {}
        for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            if name.endswith(".__init__"):
                name = name.removesuffix(".__init__")
                self._folders.add(name)
            trees[name] = ast.parse(path.read_text())
            self.names[name], self.constants[name], self.annotations[name] = {}, {}, {}
        for name, tree in trees.items():
            _Declarations(self, name).visit(tree)
        for one in self.classes.values():
            kinds = [self.named(base, one.module) for base in one.node.bases]
            one.bases = [kind.name for kind in kinds if kind is not None and kind.kind == "class"]

    def imported(self, node: ast.Import | ast.ImportFrom, module: str) -> dict[str, Type]:
        """What the names that an import binds stand for."""
        if isinstance(node, ast.Import):
            tops = {alias.asname or alias.name.partition(".")[0]: alias for alias in node.names}
            return {name: Type("module", alias.name if alias.asname else name) for name, alias in tops.items()}
        base = [node.module] if node.module else []
        if node.level:
            parts = module.split(".")
            base = parts[: len(parts) - node.level + (module in self._folders)] + base
        return {alias.asname or alias.name: Type("name", ".".join([*base, alias.name])) for alias in node.names}

    def resolve(self, kind: Type | None) -> Type | None:
        """What an imported name stands for, through the modules that export it again."""
        for _ in range(MAX_REEXPORTS):
            if kind is None or kind.kind != "name":
                return kind
            module, _, name = kind.name.rpartition(".")
            shown = self.names.get(module, {}).get(name)  # what a package exports hides its module of this name
            if kind.name in self.names and shown in {None, kind}:
                return Type("module", kind.name)
            if module not in self.names:
                return Type("class" if name[:1].isupper() else "external", kind.name)
            kind = self.names[module].get(name) or self._constant(module, name)
        return None

    def _constant(self, module: str, name: str) -> Type | None:
        """Type of a constant that is created from a class."""
        value = self.constants[module].get(name)
        kind = self.named(value.func, module) if isinstance(value, ast.Call) else None
        return Type("instance", kind.name) if kind is not None and kind.kind == "class" else None

    def named(self, node: ast.expr | None, module: str, local: Mapping[str, Type | None] | None = None) -> Type | None:
        """What a name, a dotted name or one with a subscript stands for."""
        if isinstance(node, ast.Subscript):
            return self.named(node.value, module, local)
        if isinstance(node, ast.Attribute):
            base = self.named(node.value, module, local)
            name = "" if base is None else f"{base.name}.{node.attr}"
            if base is not None and base.kind == "module":
                return self.resolve(Type("name", name))
            return Type("class", name) if name in self.classes else None
        return self._simple_name(node.id, module, local or {}) if isinstance(node, ast.Name) else None

    def _simple_name(self, name: str, module: str, local: Mapping[str, Type | None]) -> Type | None:
        if name in local:
            return self.resolve(local[name])
        if name in self.names[module]:
            return self.resolve(self.names[module][name])
        if name in self.constants[module]:
            return self._constant(module, name)
        return Type("class" if isinstance(getattr(builtins, name, None), type) else "external", name)

    def annotated(
        self, node: ast.expr | None, module: str, local: Mapping[str, Type | None] | None = None
    ) -> Type | None:
        """Type of what an annotation describes; None for a union of several known types."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        if isinstance(node, ast.BinOp):
            sides = (self.annotated(node.left, module, local), self.annotated(node.right, module, local))
            known = [side for side in sides if side is not None]
            return known[0] if len(known) == 1 or Type("instance", "pathlib.Path") in known else None
        if isinstance(node, ast.Subscript):
            found = self._subscripted(node, module, local)
            if found is not None:
                return found
        kind = self.named(node, module, local)
        known_class = kind is not None and kind.kind == "class" and kind.name not in PLAIN
        return Type("instance", kind.name) if known_class else None

    def _subscripted(self, node: ast.Subscript, module: str, local: Mapping[str, Type | None] | None) -> Type | None:
        head = last_name(node.value)
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if head in {"Optional", "Annotated", "ClassVar", "Final"}:
            return self.annotated(inside[0], module, local)
        if head == "tuple" and not any(isinstance(one, ast.Constant) and one.value is ... for one in inside):
            return Type("tuple", parts=tuple(self.annotated(one, module, local) for one in inside))
        if head in MAPPINGS | CONTAINERS | {"type"}:
            kind = self.annotated(inside[-1] if head in MAPPINGS else inside[0], module, local)
            if kind is None or head == "type":
                return Type("class", kind.name) if kind is not None and kind.kind == "instance" else None
            return Type("values" if head in MAPPINGS else "items", parts=(kind,))
        return None


class _Declarations(ast.NodeVisitor):
    """Collects what a module defines."""

    def __init__(self, source: Source, module: str) -> None:
        self.source, self.module = source, module
        self.owner: Class | None = None

    @property
    def prefix(self) -> str:
        return self.module if self.owner is None else self.owner.name

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        if self.owner is None:
            self.source.names[self.module].update(self.source.imported(node, self.module))

    visit_ImportFrom = visit_Import  # noqa: N815 - a name that `ast.NodeVisitor` calls

    def visit_FunctionDef(self, node: FunctionNode) -> None:
        name = f"{self.prefix}.{node.name}"
        function = Function(name, self.module, node, "" if self.owner is None else self.owner.name)
        if not function.decorators & {"overload", "setter", "deleter"}:
            self.source.functions[name] = function
        if self.owner is None:
            self.source.names[self.module][node.name] = Type("function", name)
            return
        for one in ast.walk(node):
            self._declare_attribute(one, name)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - a name that `ast.NodeVisitor` calls

    def _declare_attribute(self, node: ast.AST, method: str) -> None:
        """An attribute that a method assigns to `self`."""
        if isinstance(node, ast.Assign):
            for target, value in assigned(node.targets[0], node.value):
                if isinstance(target, ast.Attribute) and last_name(target.value) == "self":
                    self.owner.values.setdefault(target.attr, (value, method))
        elif (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Attribute)
            and last_name(node.target.value) == "self"
        ):
            self.owner.fields.setdefault(node.target.attr, node.annotation)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        name = f"{self.prefix}.{node.name}"
        outside = self.owner
        if outside is None:
            self.source.names[self.module][node.name] = Type("class", name)
        self.owner = self.source.classes[name] = Class(name, self.module, node)
        self.generic_visit(node)
        self.owner = outside

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name) and self.owner is not None:
            self.owner.fields[node.target.id] = node.annotation
        elif isinstance(node.target, ast.Name) and node.value is not None:
            self.source.constants[self.module][node.target.id] = node.value
            self.source.annotations[self.module][node.target.id] = node.annotation

    def visit_Assign(self, node: ast.Assign) -> None:
        if self.owner is None and isinstance(node.targets[0], ast.Name):
            self.source.constants[self.module][node.targets[0].id] = node.value
