"""Defines the fields of a config, from which form, CLI, JSON Schema and reference are generated."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from llf_core.untrusted import NotPlainError, json_value

Level = Literal["basic", "more"]
Origin = Literal["LLaMA-Factory", "Hugging Face", "LLF"]
PathKind = Literal["model", "adapters", "data", "folder", "file", "metrics"]
META = "llf"


def option(  # noqa: PLR0913 - one named argument for each thing that a field tells
    default: object,
    *,
    label: str,
    help: str,  # noqa: A002 - the field's name everywhere it is shown
    unit: str | None = None,
    choices: tuple[Any, ...] | None = None,
    choices_from: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    level: Level = "more",
    source: Origin = "LLF",
    path: PathKind | None = None,
    lines: bool = False,
    trait: str = "",
    method_trait: str = "",
    unset: str = "",
) -> Any:
    """Define a field of a section, from which form, CLI help, JSON Schema and reference are generated.

    Args:
        label: its name in a form, two or three words.
        unit: shown after the value, e.g. `tokens`.
        choices: all allowed values; None if any value is allowed.
        choices_from: a kind of plug-in whose names are the choices, e.g. `method`.
        minimum: inclusive; None for no bound.
        maximum: inclusive; None for no bound.
        above: exclusive lower bound; None for no bound.
        below: exclusive upper bound; None for no bound.
        level: `basic` fields are shown at once, the others behind "more".
        path: how a relative path in it is resolved; None if it is not a path.
        trait: a trait of `StageDeclaration`; stages that have it use the option. Empty: all stages do.
        method_trait: a trait of `MethodDeclaration`; methods that have it use the option. Empty: all methods do.
        unset: meaning of a default such as null or -1, for a form: `the epochs end the run`; `{key}` and `{key*2}`
            stand for the number of another key.
    """
    meta: dict[str, Any] = {
        "label": label,
        "unit": unit,
        "choices": choices,
        "choices_from": choices_from,
        "level": level,
        "source": source,
        "path": path,
        "lines": lines,
        "trait": trait,
        "method_trait": method_trait,
        "unset": unset,
    }
    bounds: dict[str, Any] = {"ge": minimum, "le": maximum, "gt": above, "lt": below}
    return Field(
        default=default,
        title=label,
        description=help,
        json_schema_extra={META: meta},
        **{name: bound for name, bound in bounds.items() if bound is not None},
    )


def split_names(value: object) -> Any:
    """Split a comma-separated list of names, or a list, into a tuple without empty names. Other values stay."""
    if isinstance(value, str):
        return tuple(name for part in value.split(",") if (name := part.strip()))
    return tuple(name for name in value if name != "") if isinstance(value, list | tuple) else value


@functools.cache
def _flags() -> TypeAdapter[bool]:
    return TypeAdapter(bool)


def flag(value: object) -> bool | None:
    """Read a flag as an option of the type `bool` does: true, 1, `yes`, `on` and the like; None if it is no flag."""
    try:
        return _flags().validate_python(value)
    except ValidationError:
        return None


def same_value(one: object, other: object) -> bool:
    """Whether two values of a config file mean the same: flags in any words, names as a text or as a list."""
    if isinstance(one, bool) or isinstance(other, bool):
        return flag(one) is flag(other)
    return bool(split_names(one) == split_names(other))


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(split_names),
    PlainSerializer(",".join, return_type=str, when_used="json"),
]
"""Names, written `a,b` in a file, as in LLaMA-Factory."""


def _join_lines(value: object) -> object:
    """Join a list of texts, one per line; line breaks inside a text become spaces, so that each stays one prompt."""
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return "\n".join(" ".join(one.splitlines()) for one in value)
    return value


Lines = Annotated[str, BeforeValidator(_join_lines)]
"""Texts, one per line; a list of texts is accepted too."""


def _parse_object(value: object) -> object:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json_value(value)
        except NotPlainError as error:
            raise ValueError(f"Expected a mapping or a JSON object ({error}).") from None
    return value


MAX_STEPS = 2**53
"""Largest integer up to which a float represents every integer."""
LARGEST = 3.4e38
"""Largest number of float32, in which models compute."""


def _share_or_number(value: float) -> float:
    """Convert a whole number such as 500.0 to an integer; YAML reads shares and numbers of steps as float."""
    if value > MAX_STEPS:
        raise ValueError(f"Expected an integer of at most {MAX_STEPS:,}, or a share below 1.")
    if value > 1 and value != int(value):
        raise ValueError("Expected an integer, or a share below 1.")
    return int(value) if value == int(value) else value


Steps = Annotated[float, AfterValidator(_share_or_number)]
"""An integer, or a share of all steps if below 1."""

Object = Annotated[dict[str, Any], BeforeValidator(_parse_object)]
"""A mapping, or its JSON text."""


_FLAG, _NUMBER = re.compile(r"bool|True|False"), re.compile(r"int|float|Literal\[\d")
"""Annotations that accept true, and those in which Python would take it for 1."""


class Section(BaseModel):
    """A frozen group of options; also the base of a plug-in's `Options`.

    Its validator is built when a config names one of its keys: all of them would take a quarter of a command's start.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        defer_build=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_as_number(cls, value: object, info: ValidationInfo) -> object:
        """Reject `lora_rank: true`, which Python treats as 1."""
        annotation = str(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and not _FLAG.search(annotation) and _NUMBER.search(annotation):
            raise ValueError  # pydantic catches it; the field says what it expects
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _fits_float32(cls, value: object) -> object:
        """Reject `learning_rate: 1e300`, which is infinity in float32."""
        if isinstance(value, float) and abs(value) > LARGEST:
            raise ValueError(f"Expected a number of at most {LARGEST:g}.")
        return value
