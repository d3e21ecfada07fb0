"""Which exceptions each function of a project can raise, its own and those of the functions that it calls.

Read from the source alone (`ast`), to a fixpoint over the calls. A function's set holds

- the classes of its `raise` statements: of Python, of the project and of other packages;
- `OSError` where it calls a function of the file system (`open`, `Path.read_text`, `os.replace`, `shutil.copy`, …);
- what `OUTSIDE_ERRORS` names of a function of another package (`json.loads`, `numpy.load`, `subprocess.Popen`, …);
- the set of each function of the project that it calls, each property that it reads and each class that it creates;
- what its docstring names, such as errors of other packages. Of `ARGUMENT_ERRORS` only an abstract method passes them
  on, whose docstring holds for all overrides;

without what a `try`, `suppress` or a context manager of the project around the place catches, and does not raise again.

Calls are resolved by imports, by annotations (of parameters, attributes and results) and by assignments of what has a
known type; what is chosen of a table of functions may be any of them. What cannot be resolved is taken to raise
nothing, so an error may be missed, but none is invented. Left out are `IGNORED` classes, and functions that are passed
on and called elsewhere.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
from typing import TYPE_CHECKING

from tests.raised_errors.body import IGNORED, Body
from tests.raised_errors.source import Function, Guard, Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

ARGUMENT_ERRORS = frozenset(
    {"ValueError", "KeyError", "TypeError", "IndexError", "LookupError", "AttributeError", "ArithmeticError"}
    | {"ZeroDivisionError", "OverflowError", "InvalidOperation", "RepresenterError", "SyntaxError", "RuntimeError"}
    | {"TemplateError", "UnicodeEncodeError"}
)
"""What a wrong argument causes. Where only a docstring names one, callers know whether they cause it."""
RAISES = re.compile(r"^Raises:\n((?:[ \t]+.*\n?|\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}([\w.]+(?:, [\w.]+)*):", re.MULTILINE)


def named_under_raises(docstring: str | None) -> set[str]:
    """Last parts of the names of the classes that a docstring names under `Raises:`."""
    section = RAISES.search(docstring or "")
    entries = ENTRY.findall(section[1] if section else "")
    return {name.rpartition(".")[2] for entry in entries for name in entry.split(", ")}


class Project:
    """All functions of some packages, with what they can raise.

    Attributes:
        functions: by dotted name.
        applied: function and class of each exclusion of `ruled_out` that made a difference.
    """

    def __init__(self, root: Path, packages: Iterable[str], ruled_out: Mapping[str, Collection[str]]) -> None:
        """Read and resolve everything.

        Args:
            root: folder of the packages.
            packages: their names.
            ruled_out: classes that a function cannot raise or does not pass on, by its dotted name.
        """
        self.source = Source(root, packages)
        self.functions = self.source.functions
        self._ruled_out = ruled_out
        self.applied: set[tuple[str, str]] = set()
        self._families: dict[str, set[str]] = {}
        self._by_last_name = {name.rpartition(".")[2]: name for name in self.source.classes}
        for function in list(self.functions.values()):
            Body(self.source, function).walk()
        self._solve()

    def family(self, name: str) -> set[str]:
        """Last parts of the names of an exception class and its bases."""
        if name not in self._families:
            self._families[name] = self._family(name)
        return self._families[name]

    def _family(self, name: str) -> set[str]:
        if name in self.source.classes:
            bases = self.source.classes[name].bases
            return {name.rpartition(".")[2]}.union(*(self.family(base) for base in bases))
        module, _, last = name.rpartition(".")
        try:
            real = getattr(importlib.import_module(module) if module else builtins, last, None)
        except ImportError:
            real = None
        return (
            {one.__name__ for one in real.__mro__} if isinstance(real, type) else {last, "Exception", "BaseException"}
        )

    def documented(self, function: Function) -> set[str] | None:
        """Classes that its docstring, or that of its class or of the method it overrides, names; None without one."""
        text = ast.get_docstring(function.node)
        if function.node.name == "__init__":
            of_class = ast.get_docstring(self.source.classes[function.owner].node)
            return named_under_raises(text) | named_under_raises(of_class)
        if text is not None or not function.owner:
            return None if text is None else named_under_raises(text)
        bases = self.source.classes[function.owner].bases
        found = (Body(self.source, function).member(base, function.node.name) for base in bases)
        above = next((one for one in found if one is not None and one.kind == "function"), None)
        return None if above is None else self.documented(self.functions[above.name])

    def overridden(self, function: Function) -> Function | None:
        """The method of the topmost class of the project that a method overrides; None if it overrides none."""
        found, owner = None, function.owner
        while owner:
            bases = self.source.classes[owner].bases if owner in self.source.classes else []
            kinds = (Body(self.source, function).member(base, function.node.name) for base in bases)
            kind = next((one for one in kinds if one is not None and one.kind == "function"), None)
            if kind is None:
                return found
            found = self.functions[kind.name]
            owner = found.owner
        return found

    def chain(self, function: Function, name: str) -> list[str]:
        """The functions and lines through which a class comes, from the function to the `raise`."""
        line, callee = function.raises[name]
        return [f"{function.name}:{line}", *(self.chain(self.functions[callee], name) if callee else ())]

    def _catches(self, guards: tuple[Guard, ...], name: str) -> bool:
        """Whether one of the guards around a place catches an exception that is raised there."""
        family = self.family(name)
        for guard in guards:
            if isinstance(guard, str):
                if self._catches(self.functions[guard].yields, name):
                    return True
                continue
            for classes, again in guard:
                if classes is None and again:
                    continue
                if classes is None or _meet(classes, family):
                    if not _meet(again, family):
                        return True
                    break
        return False

    def _is_ruled_out(self, function: Function, name: str) -> bool:
        last = name.rpartition(".")[2]
        is_ruled_out = last in self._ruled_out.get(function.name, ())
        if is_ruled_out:
            self.applied.add((function.name, last))
        return is_ruled_out

    def _begin(self, function: Function) -> None:
        """What a function raises by itself."""
        for name, line, guards in function.own:
            if not self._catches(guards, name) and not self._is_ruled_out(function, name):
                function.raises.setdefault(name, (line, ""))
        for last in named_under_raises(ast.get_docstring(function.node)) - IGNORED:
            name = self._by_last_name.get(last, last)
            if not self._is_ruled_out(function, name) and (last not in ARGUMENT_ERRORS or function.is_abstract):
                function.raises.setdefault(name, (function.node.lineno, ""))

    def _solve(self) -> None:
        callers: dict[str, list[tuple[Function, int, tuple[Guard, ...]]]] = {}
        for function in self.functions.values():
            self._begin(function)
            for name, line, guards in function.calls:
                callers.setdefault(name, []).append((function, line, guards))
        waiting = list(self.functions.values())
        while waiting:
            callee = waiting.pop()
            for function, line, guards in callers.get(callee.name, ()):
                fresh = [
                    name
                    for name in callee.raises.keys() - function.raises.keys()
                    if not self._catches(guards, name) and not self._is_ruled_out(function, name)
                ]
                function.raises.update(dict.fromkeys(fresh, (line, callee.name)))
                if fresh and not function.is_abstract:
                    waiting.append(function)


def _meet(classes: tuple[str, ...], family: set[str]) -> bool:
    return any(one.rpartition(".")[2] in family for one in classes)
