"""Public functions, classes and methods have a docstring, and those that take or return tensors say the shapes.

Public is what has no leading underscore in its name, in its class or in its module. Functions inside functions,
`@overload`, setters and methods that their base class documents (`@override`) are not checked. A shape is a list of
axes in square brackets (`[batch, seq]`, `[N]`, `[..., hidden]`, `[]`), the word scalar, or a phrase with "shape".
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SHAPE = re.compile(r"\[(?:|[\w.*+/ -]+(?:, ?[\w.*+/ -]+)*)\]|\bscalars?\b|\bshapes?\b", re.IGNORECASE)
UNDOCUMENTED = frozenset(("overload", "override", "setter", "deleter"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and path of each public module of the two packages."""
    for base in ("llf_core", "llf_widgets"):
        for path in sorted((ROOT / base).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if not any(part.startswith("_") and not part.startswith("__") for part in parts):
                yield ".".join(parts).removesuffix(".__init__"), path


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Public classes, functions and methods of a module or class, each with its dotted name."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from definitions(node.body, prefix)
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{prefix}{node.name}.")


def name_of(node: ast.expr) -> str:
    """Last part of a dotted name, or of the name that is called."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def is_tensor(annotation: ast.expr | None) -> bool:
    """Whether an annotation is a `Tensor`, a union with one or a tuple of some."""
    if isinstance(annotation, ast.BinOp):
        return is_tensor(annotation.left) or is_tensor(annotation.right)
    if isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "tuple":
        inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return any(is_tensor(one) for one in inside)
    return getattr(annotation, "attr", getattr(annotation, "id", "")) == "Tensor"


def problems(source: str, module: str) -> list[str]:
    """What the docstrings of a module lack, one line each."""
    found = []
    for name, node in definitions(ast.parse(source).body):
        if isinstance(node, Function) and {name_of(one) for one in node.decorator_list} & UNDOCUMENTED:
            continue
        text = ast.get_docstring(node)
        if not text:
            found.append(f"{module}.{name}: no docstring")
        elif isinstance(node, Function) and not SHAPE.search(text):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if is_tensor(node.returns) or any(is_tensor(one.annotation) for one in arguments):
                found.append(f"{module}.{name}: no shape")
    return found


def test_docstrings_say_what_a_caller_has_to_know() -> None:
    found = [problem for module, path in modules() for problem in problems(path.read_text(), module)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(): pass", ["m.f: no docstring"]),
        ("class A:\n '''A.'''\n def f(self): pass", ["m.A.f: no docstring"]),
        ("def f(x: Tensor | None):\n '''F.'''", ["m.f: no shape"]),
        ("def f() -> tuple[Tensor, int]:\n '''F.'''", ["m.f: no shape"]),
        ("def f(x: Tensor) -> Tensor:\n '''Twice `x` `[batch, seq]`.'''", []),
        ("def f(a, b):\n '''F.'''", []),
        ("class _A:\n def f(self): pass", []),
    ],
)
def test_what_is_missing_is_found(source: str, expected: list[str]) -> None:
    assert problems(source, "m") == expected
