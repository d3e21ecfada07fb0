from __future__ import annotations

import dataclasses
import functools
import re
import types
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from llf_core.config.data import Data
from llf_core.config.declaration import Declaration, MethodDeclaration, PluginError, StageDeclaration
from llf_core.config.did_you_mean import did_you_mean
from llf_core.config.model import Model
from llf_core.config.number_format import exact
from llf_core.config.option import META, Level, Lines, Origin, PathKind, Section, split_names
from llf_core.config.registry import DECLARATION_TYPES, all_declared, declared
from llf_core.config.sections import Chat, Evaluation, Generation, Launch, MethodSection, OptimizerSection
from llf_core.config.stage import StageSection
from llf_core.config.training import Training

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic.fields import FieldInfo

    from llf_core.config.values import ConfigValues

_OTHER = re.compile(r"\{(?P<key>\w+)(?:\*(?P<times>\d+))?\}")

SECTIONS: dict[str, type[Section]] = {
    "model": Model,
    "data": Data,
    "method": MethodSection,
    "optimizer": OptimizerSection,
    "stage": StageSection,
    "training": Training,
    "generation": Generation,
    "launch": Launch,
    "chat": Chat,
    "evaluation": Evaluation,
}

USED_BY_OTHERS: Mapping[str, str] = MappingProxyType({"chat": "`llf chat`, `llf serve` and `llf predict` use it"})
"""Sections that training does not read, and the end of the sentence about a key of theirs in a run's config."""


@dataclass(frozen=True)
class FieldSpec:
    """Specification of an option, as used by the form, the command line and the reference.

    Attributes:
        section: the section of `RunConfig` that it is shown in.
        plugin: the name of the plug-in that has it; None for a field of a section.
        owner: that plug-in as `kind.name`.
        label: two or three words.
        unit: shown behind the value.
        default: as plain data.
        type: `bool`, `int`, `float`, `text`, `names` (a comma list) or `object` (a mapping).
        optional: whether it may be unset (null).
        choices: None if any value is fine.
        choice_labels: None for the choices themselves.
        minimum: inclusive; None for no bound.
        maximum: inclusive; None for no bound.
        above: exclusive lower bound.
        below: exclusive upper bound.
        level: `basic` is shown at once, `more` behind a button.
        path: how a relative path in it is resolved; None if it is no path.
        unset: meaning of a default that is no value of its own, see `meaning`.
    """

    key: str
    section: str
    plugin: str | None
    owner: str | None
    label: str
    help: str
    unit: str | None
    default: Any
    annotation: Any
    type: Literal["bool", "int", "float", "text", "names", "object"]
    optional: bool
    choices: tuple[Any, ...] | None
    choice_labels: tuple[str, ...] | None
    minimum: float | None
    maximum: float | None
    above: float | None
    below: float | None
    level: Level
    source: Origin
    path: PathKind | None
    lines: bool
    stages: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    unset: str = ""

    def meaning(self, value_of: Callable[[str], object]) -> str:
        """Meaning of a default such as null or -1, for the placeholder of a form, such as `auto: 16`.

        Args:
            value_of: gives the value of another key. If that is not a number of at least 0, the phrase ends before it:
                `auto`.
        """
        if not self.unset:
            return "none" if self.default is None else ""
        found = _OTHER.search(self.unset)
        if found is None:
            return self.unset
        value = value_of(found["key"])
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            return self.unset[: found.start()].rstrip(" :")
        return _OTHER.sub(exact(value * int(found["times"] or 1)), self.unset)

    @property
    def expected(self) -> str:
        """Description of a valid value, as the words after "Expected" in a message."""
        if self.choices is not None:
            choices = ", ".join(str(one) for one in self.choices)
            words = f"{'some' if self.type == 'names' else 'one'} of {choices}"
        else:
            words = {
                "bool": "true or false",
                "int": "an integer",
                "float": "a number",
                "text": "text",
                "names": "names separated by commas",
                "object": "a mapping",
            }[self.type] + self._bounds
        return f"{words}, or null" if self.optional else words

    @property
    def _bounds(self) -> str:
        parts = []
        if self.minimum is not None:
            parts.append(f"at least {_number(self.minimum)}")
        if self.above is not None:
            parts.append(f"above {_number(self.above)}")
        if self.maximum is not None:
            parts.append(f"at most {_number(self.maximum)}")
        if self.below is not None:
            parts.append(f"below {_number(self.below)}")
        of = "of " if parts and parts[0].startswith("at") else ""
        return f" {of}{' and '.join(parts)}" if parts else ""


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def fields() -> tuple[FieldSpec, ...]:
    """All options by section, those of its plug-ins last.

    Raises:
        PluginError: two plug-ins, or a plug-in and a section, declare the same key or name; an option is not declared
            by `option`, has a type that forms do not support, or names a kind or a trait that does not exist; or the
            key that selects a plug-in does not exist.
    """
    return _fields()


def field(key: str) -> FieldSpec | None:
    """Look up the specification of an option; None if there is no such option."""
    return _by_key().get(key)


@functools.cache
def _by_key() -> dict[str, FieldSpec]:
    return {spec.key: spec for spec in _fields()}


@functools.cache
def _fields() -> tuple[FieldSpec, ...]:
    found: dict[str, FieldSpec] = {}
    owners: dict[str, str] = {}
    for where, (section, plugin, options) in _sources().items():
        for key, info in options.model_fields.items():
            if key in found:
                raise PluginError(f"The key {key!r} is declared by {owners[key]} and by {where}. Rename one of them.")
            owners[key] = where
            found[key] = _spec(key, info, section, plugin, where)
    for one in all_declared().values():
        for key in filter(None, (one.selector, getattr(one, "switch", ""))):
            if key not in found:
                raise PluginError(
                    f"The {one.kind} {one.name} is selected by the key {key!r}, which no section and no plug-in "
                    "declares. Expected one of its own options, or a key of a section."
                )
    order = tuple(SECTIONS)
    return tuple(sorted(found.values(), key=lambda spec: order.index(spec.section)))


def _sources() -> dict[str, tuple[str, Declaration | None, type[Section]]]:
    sections = {f"the section {name}": (name, None, section) for name, section in SECTIONS.items()}
    brought = {
        f"the {one.kind} {one.name} ({one.options.__module__})": (one.section, one, one.options)
        for one in all_declared().values()
    }
    return {**sections, **brought}


def _spec(key: str, info: FieldInfo, section: str, plugin: Declaration | None, where: str) -> FieldSpec:
    extra = info.json_schema_extra
    if not isinstance(extra, dict) or META not in extra:
        raise PluginError(f"The key {key!r} of {where} has no label and help. Declare it with `option(...)`.")
    meta: dict[str, Any] = extra[META]  # type: ignore[assignment]
    choices, labels = meta["choices"], None
    if meta["choices_from"]:
        offered = declared(_kind(meta["choices_from"], key))
        default = info.get_default()
        # The default is first, then what another library implements.
        order = sorted(offered.values(), key=lambda one: (one.name != default, bool(one.implementation)))
        choices = tuple(one.name for one in order)
        labels = tuple(one.line for one in order)
    bounds: dict[type, Any] = {type(one): one for one in info.metadata}
    kind, optional = _type(info.annotation)
    return FieldSpec(
        key=key,
        section=section,
        plugin=plugin.name if plugin else None,
        owner=f"{plugin.kind}.{plugin.name}" if plugin else None,
        label=meta["label"],
        help=info.description or "",
        unit=meta["unit"],
        default=plain(info.get_default(call_default_factory=True)),
        annotation=info.annotation,
        type=kind,
        optional=optional,
        choices=choices,
        choice_labels=labels or (tuple(str(one) for one in choices) if choices else None),
        minimum=bounds[Ge].ge if Ge in bounds else None,
        maximum=bounds[Le].le if Le in bounds else None,
        above=bounds[Gt].gt if Gt in bounds else None,
        below=bounds[Lt].lt if Lt in bounds else None,
        level=meta["level"],
        source=meta["source"],
        path=meta["path"],
        lines=meta["lines"],
        stages=_names_with(StageDeclaration, meta["trait"], key),
        methods=_names_with(MethodDeclaration, meta["method_trait"], key),
        unset=meta["unset"],
    )


def is_used(spec: FieldSpec, config: ConfigValues) -> bool:
    """Whether a run uses an option: its plug-in is selected, or it selects it; stage and method read it.

    Options that are not used are neither shown in a form nor written with the defaults, and setting one is reported.
    """
    owner = all_declared()[spec.owner] if spec.owner else None
    selected = owner is None or spec.key == owner.selector or owner.is_selected(config)
    in_stage = not spec.stages or config.stage.stage in spec.stages
    return (
        spec.section not in USED_BY_OTHERS
        and selected
        and in_stage
        and (not spec.methods or config.method.finetuning_type in spec.methods)
    )


def _kind(name: str, key: str) -> type[Declaration]:
    kinds = {kind.kind: kind for kind in DECLARATION_TYPES}
    if name not in kinds:
        raise PluginError(
            f"The choices of the key {key!r} are of the kind {name!r}. Expected one of {', '.join(kinds)}."
        )
    return kinds[name]


def _names_with(kind: type[Declaration], trait: str, key: str) -> tuple[str, ...]:
    if not trait:
        return ()
    traits = [one.name for one in dataclasses.fields(kind)]
    if trait not in traits:
        raise PluginError(
            f"A {kind.kind} has no trait {trait!r}, as the key {key!r} names it.{did_you_mean(trait, traits)}"
        )
    return tuple(name for name, one in declared(kind).items() if getattr(one, trait))


def plain(value: object) -> Any:
    """Convert a value to its form in a file: names as a comma-separated text, or a list if that reads differently."""
    if not isinstance(value, tuple):
        return value
    text = ",".join(value)
    return text if split_names(text) == value else list(value)


def _type(annotation: object) -> tuple[Literal["bool", "int", "float", "text", "names", "object"], bool]:
    parts = _leaves(annotation)
    optional = type(None) in parts
    parts = [part for part in parts if part is not type(None)]
    if any(get_origin(part) is tuple for part in parts):
        return "names", optional
    if any(get_origin(part) is dict or part is dict for part in parts):
        return "object", optional
    for kind, name in ((str, "text"), (float, "float"), (int, "int"), (bool, "bool")):
        if kind in parts:
            return name, optional  # type: ignore[return-value]
    raise PluginError(f"Forms do not support the type {annotation}. Expected bool, int, float, str, Names or Object.")


def _leaves(annotation: object) -> list[object]:
    """The types in an annotation: members of unions, and for literals the types of their values."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [leaf for part in get_args(annotation) for leaf in _leaves(part)]
    if origin is Literal:
        return [type(value) for value in get_args(annotation)]
    if hasattr(annotation, "__metadata__"):
        return _leaves(get_args(annotation)[0])
    return [annotation]


TYPES = {
    "bool": ["boolean"],
    "int": ["integer"],
    "float": ["number"],
    "text": ["string"],
    "names": ["string", "array"],
    "object": ["object", "string"],
}
"""JSON types of a value in a file: an object may be JSON text, names and prompts a list."""


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a flat config file, without other names of keys and keys that are not needed."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "LLF run",
        "type": "object",
        "properties": {spec.key: _property(spec) for spec in fields()},
        "additionalProperties": False,
    }


def _property(spec: FieldSpec) -> dict[str, object]:
    described: dict[str, object] = {"title": spec.label, "description": spec.help, "default": spec.default}
    types = [*TYPES[spec.type], *(["null"] if spec.optional else [])]
    if spec.annotation in (Lines, Lines | None):
        types.insert(1, "array")
        described["items"] = {"type": "string"}
    if spec.type == "names":
        described["items"] = {"type": ["string", "number"]} if spec.choices is None else {"enum": list(spec.choices)}
    if spec.choices is not None and spec.type != "names":
        described["enum"] = [*spec.choices, *([None] if spec.optional else [])]
    else:
        described["type"] = types if len(types) > 1 else types[0]
    bounds = {
        "minimum": spec.minimum,
        "maximum": spec.maximum,
        "exclusiveMinimum": spec.above,
        "exclusiveMaximum": spec.below,
    }
    described |= {name: bound for name, bound in bounds.items() if bound is not None}
    described |= {"x-section": spec.section, "x-level": spec.level, "x-source": spec.source}
    if spec.unit:
        described["x-unit"] = spec.unit
    if spec.plugin:
        described["x-plugin"] = spec.plugin
    return described
