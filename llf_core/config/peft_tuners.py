"""The adapters of the installed PEFT and their options, read from its source, since importing it loads torch."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Union

from pydantic import ConfigDict, TypeAdapter, ValidationError

from llf_core.config.did_you_mean import any_of, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from llf_core.config.quantizers import Quantizer

OURS = frozenset(
    {
        "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "task_type",
        "inference_mode", "target_modules", "exclude_modules", "target_parameters", "modules_to_save",
        "ensure_weight_tying",
    }
)  # fmt: skip
"""Fields of PEFT's config classes that LLF sets itself."""
PROMPTS = "PromptLearningConfig"
"""PEFT's base class of the configs of adapters with trained vectors before each example."""
EVERY_BACKEND = "resolve_quantization_backend"
"""A function of adapters that support the layers of all quantizers; others have a file named after each quantizer."""
PLAIN: Mapping[str, Any] = MappingProxyType(
    {
        "int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict, "tuple": tuple, "Any": Any,
        "None": None,
    }
)  # fmt: skip
STRICT = ConfigDict(strict=True)  # a `true` is no number


@dataclass(frozen=True)
class PeftOption:
    """An option of an adapter: a field of its config class.

    Attributes:
        annotation: its type; None if a config cannot hold it, as an object of PEFT's own.
        shown: its type as PEFT's source writes it.
    """

    name: str
    annotation: Any
    shown: str
    has_default: bool


@dataclass(frozen=True)
class PeftTuner:
    """An adapter that the installed PEFT has. Its options are read from PEFT's source when they are asked for.

    Attributes:
        name: its type, such as `IA3`.
        backends: names of the quantizers whose layers it supports, among other names; `EVERY_BACKEND` for all.
    """

    name: str
    config_class: str
    backends: frozenset[str]

    @functools.cached_property
    def options(self) -> Mapping[str, PeftOption]:
        """Those that a config may set, by name."""
        return MappingProxyType({key: option for key, option in self._options.items() if key not in OURS})

    @functools.cached_property
    def fields(self) -> frozenset[str]:
        """Names of all fields of its config class."""
        return frozenset(self._options)

    @functools.cached_property
    def prompts(self) -> bool:
        """Whether it puts trained vectors before each example instead of changing layers."""
        return any(one.name == PROMPTS for one in _ancestry(self.config_class))

    @functools.cached_property
    def _options(self) -> dict[str, PeftOption]:
        return {option.name: option for one in _ancestry(self.config_class) for option in _options(one)}


@functools.cache
def tuner_names() -> tuple[str, ...]:
    """Names of the adapters of the installed PEFT, sorted; empty if it is not installed. Only one file is read."""
    folder = _folder()
    file = None if folder is None else folder / "utils" / "peft_types.py"
    if file is None or not file.is_file():
        return ()
    for node in _parsed(file).body:
        if isinstance(node, ast.ClassDef) and node.name == "PeftType":
            return tuple(sorted(value for _, value in _members(node)))
    return ()


@functools.cache
def tuner(name: str) -> PeftTuner | None:
    """Find an adapter of the installed PEFT by its type, such as `IA3`; None if there is none."""
    folder = _folder()
    files = sorted(folder.glob("tuners/*/__init__.py")) if folder is not None else []
    for file in sorted(files, key=lambda one: one.parent.name.upper() != name):  # most are in a folder of their name
        registered = _registered(file)
        if registered and registered["name"].upper() == name:
            return PeftTuner(name, registered["config_cls"], _backends(file.parent))
    return None


def supports(found: PeftTuner, quantizer: Quantizer) -> bool:
    """Whether an adapter can be trained over quantized layers. Vectors before each example do not touch the layers."""
    if quantizer.unpacks:
        return True
    if quantizer.adapters:
        return found.name in quantizer.adapters or found.prompts
    return not found.backends.isdisjoint({EVERY_BACKEND, quantizer.name}) or found.prompts


def check_options(found: PeftTuner, options: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Check the names and types of options against PEFT's config class.

    Yields:
        The name of each option that does not fit, or that is missing and has no default, and a sentence about it.
    """
    for name, value in options.items():
        option = found.options.get(name)
        if name in OURS and name in found.fields:
            yield name, f"{name} is set by LLF. Expected it to be absent."
        elif option is None:
            known = sorted(found.options)
            meant = did_you_mean(name, known)
            expected = f"Expected {any_of(known)}" if known else "It has none"
            yield name, f"PEFT's {found.name} has no option {name!r}.{meant} {expected}."
        elif option.annotation is None:
            yield name, f"{name} is a {option.shown}, which a config cannot hold. Expected it to be absent."
        elif not _fits(option, value):
            yield name, f"{name} is {value!r}. Expected a value of the type {option.shown}."
    for name, option in found.options.items():
        if not option.has_default and name not in options:
            yield name, f"PEFT's {found.name} needs {name} ({option.shown}), which is not set."


def _fits(option: PeftOption, value: object) -> bool:
    try:
        TypeAdapter(option.annotation, config=STRICT).validate_python(value)
    except ValidationError:
        return False
    return True


@functools.cache
def _folder() -> Path | None:
    found = find_spec("peft")  # of a package at the top, which is not imported for it
    places = list(found.submodule_search_locations or ()) if found else []
    return Path(places[0]) if places else None


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _registered(file: Path) -> dict[str, str]:
    if not file.is_file() or "register_peft_method" not in file.read_text(encoding="utf-8"):
        return {}
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "register_peft_method":
            return {one.arg: _name(one.value) for one in node.keywords if one.arg is not None}
    return {}


def _name(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else node.id if isinstance(node, ast.Name) else ""


@functools.cache
def _classes() -> Mapping[str, tuple[ast.ClassDef, Path]]:
    folder = _folder()
    files: Iterable[Path] = (
        ()
        if folder is None
        else [*folder.glob("config.py"), *folder.glob("tuners/*.py"), *folder.glob("tuners/*/config.py")]
    )
    return {node.name: (node, file) for file in files for node in _parsed(file).body if isinstance(node, ast.ClassDef)}


def _backends(package: Path) -> frozenset[str]:
    files = list(package.glob("*.py"))
    every = any(EVERY_BACKEND in file.read_text(encoding="utf-8") for file in files)
    return frozenset({file.stem for file in files} | ({EVERY_BACKEND} if every else set()))


def _ancestry(name: str) -> list[ast.ClassDef]:
    """A config class and its bases within PEFT, the class itself last."""
    found = _classes().get(name)
    if found is None:
        return []
    bases = [one for base in found[0].bases for one in _ancestry(_name(base))]
    return [*bases, found[0]]


def _options(node: ast.ClassDef) -> Iterator[PeftOption]:
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        value = line.value
        called = isinstance(value, ast.Call) and _name(value.func) == "field"
        given = {one.arg: one.value for one in value.keywords} if isinstance(value, ast.Call) and called else {}
        if isinstance(init := given.get("init"), ast.Constant) and init.value is False:
            continue
        has_default = value is not None and (not called or bool({"default", "default_factory"} & given.keys()))
        default = given.get("default") if called else value
        optional = isinstance(default, ast.Constant) and default.value is None  # as PEFT's sources do not always say
        try:
            annotation = Union[_type(line.annotation), None] if optional else _type(line.annotation)  # noqa: UP007
        except LookupError:
            annotation = None
        yield PeftOption(line.target.id, annotation, ast.unparse(line.annotation), has_default)


def _type(node: ast.expr) -> object:
    match node:
        case ast.Constant(None):
            return None
        case ast.Name(name):
            return _named_type(name)
        case ast.BinOp(left, ast.BitOr(), right):
            return _union((left, right))
        case ast.Subscript(ast.Name(outer), inner):
            return _generic(outer, inner)
    raise LookupError(ast.unparse(node))


def _named_type(name: str) -> object:
    if name in PLAIN:
        return PLAIN[name]
    members = _members(_classes()[name][0])
    if not members:
        raise LookupError(name)
    return Literal[tuple(value for _, value in members)]


def _generic(outer: str, inner: ast.expr) -> object:
    """`outer[inner]`, such as `list[int]`."""
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    match outer.lower():
        case "optional" | "union":
            return _union((*parts, *([ast.Constant(None)] if outer == "Optional" else ())))
        case "literal":
            try:
                return Literal[ast.literal_eval(inner)]
            except (ValueError, SyntaxError):  # an enumeration's member
                raise LookupError(outer) from None
        case "list":
            return list[_type(inner)]  # type: ignore[misc]
        case "tuple":
            return list  # a file has no tuples; PEFT checks what is in it
        case "dict":
            return dict[tuple(_type(part) for part in parts)]  # type: ignore[misc]
    raise LookupError(outer)


def _union(parts: Iterable[ast.expr]) -> object:
    found = []
    for part in parts:
        try:
            found.append(_type(part))
        except LookupError:
            continue
    if not found:
        raise LookupError
    return Union[tuple(found)]  # noqa: UP007 - of types that are known here only


def _members(node: ast.ClassDef) -> list[tuple[str, str]]:
    """Names and values of an enumeration of texts; empty for any other class."""
    return [
        (target.id, line.value.value)
        for line in node.body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
        for target in line.targets
        if isinstance(target, ast.Name)
    ]
