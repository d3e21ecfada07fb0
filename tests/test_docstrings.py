"""Docstrings of public functions, classes and methods hold what a caller has to know.

Public is what has no leading underscore in its name, in its class or in its module. Checked are the definitions at the
top of a module and the methods of its classes. Not checked are functions inside functions, `@overload`, setters and
methods that their base class documents (`@override`).

- Each has a docstring.
- With two or more parameters besides `self` and `cls`, a section `Args:` names each of them. With fewer, one line will
  do. Properties and pydantic validators, which nobody calls by hand, need no `Args:`.
- The docstring of a command of the terminal is its help text, up to `Raises:`, and its parameters have help texts of
  their own.
- What it raises: `test_docstring_raises.py`.
- A parameter annotated as a `Tensor` has a shape in its entry of `Args:`, or in the docstring where there is no
  `Args:`; a returned `Tensor` has one under `Returns:`, or in the docstring where there is no `Returns:`. A shape is
  a list of axes in square brackets (`[batch, seq]`, `[N]`, `[..., hidden]`, `[]`), the word scalar, or a phrase with
  "shape" (same shape as, any shape). Tensors in containers (`dict[str, Tensor]`) are not checked.
- The entry of a parameter or attribute that may be None says what None means, by the word, its default, a condition
  ("if known"), or with "see" another place.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.strings import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PENDING: frozenset[str] = frozenset()
"""Packages and modules whose docstrings are still to be completed. Remove an entry, never add one."""
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Example|Examples|Note):\s*$")
SHAPE = re.compile(r"\[(?:|[\w.*+/ -]+(?:, ?[\w.*+/ -]+)*)\]|\bscalars?\b|\bshapes?\b", re.IGNORECASE)
MEANING_OF_NONE = re.compile(
    r"\b(?:None|[Dd]efaults?|[Ww]ithout|[Uu]nset)\b|\bif (?:any|there|it|known|given)\b|, if |\bsee (?:`|[A-Z])"
    r"|\bnot (?:used|called|needed)\b"
)
UNDOCUMENTED = frozenset(("overload", "override", "setter", "deleter"))
UNCALLED = frozenset(("property", "cached_property", "field_validator", "model_validator", "field_serializer"))
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


def decorators(node: Function) -> set[str]:
    """Last parts of the names of a function's decorators."""
    return {name_of(one) for one in node.decorator_list}


def sections(text: str) -> dict[str, str]:
    """Text of each section of a docstring in Google's style, with its summary and description under an empty name."""
    found, current = {"": ""}, ""
    for line in text.splitlines():
        match = SECTION.match(line)
        if match:
            current = match[1]
            found[current] = ""
        else:
            if line and not line.startswith(" "):
                current = "" if current else current
            found[current] += line + "\n"
    return found


def entries(section: str) -> dict[str, str]:
    """Names and texts of the entries of `Args:`; `a, b: …` is two entries with one text."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        match = re.match(r" {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", line)
        if match:
            names = [name.lstrip("*") for name in match[1].split(", ")]
        for name in names:
            found[name] = found.get(name, "") + line + "\n"
    return found


def name_of(node: ast.expr | None) -> str:
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


def may_be_none(annotation: ast.expr | None) -> bool:
    """Whether an annotation is a union with None, not one of a container's items."""
    if isinstance(annotation, ast.BinOp):
        return may_be_none(annotation.left) or may_be_none(annotation.right)
    return isinstance(annotation, ast.Constant) and annotation.value is None


def problems_of_class(name: str, node: ast.ClassDef) -> Iterator[str]:
    """What a class's docstring lacks."""
    text = ast.get_docstring(node)
    if not text:
        yield f"{name}: no docstring"
        return
    parts = sections(text)
    arguments, attributes = (entries(parts.get(section, "")) for section in ("Args", "Attributes"))
    made = [one for one in node.body if isinstance(one, Function) and one.name == "__init__"]
    found = [(one.arg, one.annotation, arguments) for init in made for one in (*init.args.args, *init.args.kwonlyargs)]
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    found += [(one.target.id, one.annotation, arguments | attributes) for one in fields]
    for arg, annotation, documented in found:
        if arg in documented and may_be_none(annotation) and not MEANING_OF_NONE.search(documented[arg]):
            yield f"{name}: what None means for {arg}"


def problems_of_function(name: str, node: Function) -> Iterator[str]:
    """What a function's docstring lacks."""
    text = ast.get_docstring(node)
    if not text:
        yield f"{name}: no docstring"
        return
    is_command = name.startswith("llf_core.cli.") and node.name in COMMANDS
    parts = sections(text)
    documented = entries(parts.get("Args", ""))
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    arguments += [one for one in (node.args.vararg, node.args.kwarg) if one is not None]
    arguments = [one for one in arguments if one.arg not in {"self", "cls"}]
    if not is_command and not decorators(node) & UNCALLED and (len(arguments) > 1 or "Args" in parts):
        missing = [one.arg for one in arguments if one.arg not in documented and not one.arg.startswith("_")]
        if missing:
            yield f"{name}: no entry under Args for {', '.join(missing)}"
    for one in () if is_command or decorators(node) & UNCALLED else arguments:
        entry = documented.get(one.arg, "" if "Args" in parts else text)
        if may_be_none(one.annotation) and not MEANING_OF_NONE.search(entry):
            yield f"{name}: what None means for {one.arg}"
    for one in arguments:
        if is_tensor(one.annotation) and not SHAPE.search(documented.get(one.arg, "" if "Args" in parts else text)):
            yield f"{name}: no shape of {one.arg}"
    if is_tensor(node.returns) and not SHAPE.search(parts.get("Returns", text)):
        yield f"{name}: no shape of what it returns"


def problems(source: str, module: str) -> list[str]:
    """What the docstrings of a module lack, one line each."""
    found = []
    for name, node in definitions(ast.parse(source).body):
        if isinstance(node, ast.ClassDef):
            found += problems_of_class(f"{module}.{name}", node)
        elif not decorators(node) & UNDOCUMENTED:
            found += problems_of_function(f"{module}.{name}", node)
    return found


def is_pending(module: str) -> bool:
    return any(module == entry or module.startswith(f"{entry}.") for entry in PENDING)


def test_docstrings_say_what_a_caller_has_to_know() -> None:
    found = [
        problem
        for module, path in modules()
        if not is_pending(module)
        for problem in problems(path.read_text(), module)
    ]
    assert not found, "\n".join(found)


def test_pending_packages_are_there() -> None:
    names = {name for name, _ in modules()}
    assert names >= PENDING


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(): pass", "m.f: no docstring"),
        ("class A: pass", "m.A: no docstring"),
        ("class A:\n '''A.'''\n def f(self): pass", "m.A.f: no docstring"),
        ("def f(a, b):\n '''F.'''", "m.f: no entry under Args for a, b"),
        ("def f(a, b):\n '''F.\n\n Args:\n     a: it.\n '''", "m.f: no entry under Args for b"),
        ("def f(x: Tensor):\n '''F.'''", "m.f: no shape of x"),
        ("def f(x: Tensor | None):\n '''F.\n\n Args:\n     x: rows, or None.\n '''", "m.f: no shape of x"),
        ("def f(x: int | None):\n '''F.\n\n Args:\n     x: rows.\n '''", "m.f: what None means for x"),
        ("class A:\n '''F.\n\n Attributes:\n     x: rows.\n '''\n x: int | None", "m.A: what None means for x"),
        ("def f() -> tuple[Tensor, int]:\n '''F.'''", "m.f: no shape of what it returns"),
    ],
)
def test_what_is_missing_is_found(source: str, expected: str) -> None:
    assert problems(source, "m") == [expected]


@pytest.mark.parametrize(
    "source",
    [
        "def _f(): pass",
        "class _A:\n def f(self): pass",
        "def f(a):\n '''F.'''",
        "def f(a, b):\n '''F.\n\n Args:\n     a, b: both.\n '''",
        "def f(x: Tensor) -> Tensor:\n '''Twice `x` `[batch, seq]`.'''",
        "def f(x: Tensor) -> Tensor:\n '''F.\n\n Args:\n     x: logits `[N]`.\n\n Returns:\n     A scalar.\n '''",
    ],
)
def test_what_is_complete_passes(source: str) -> None:
    assert problems(source, "m") == []
