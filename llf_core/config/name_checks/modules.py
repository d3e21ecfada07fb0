from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llf_core.config.did_you_mean import listed, misspelt, nearest
from llf_core.config.field_specs import plain
from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.model_folder import CheckResult, folder_of, settings_of
from llf_core.config.name_checks.models import families, family_of
from llf_core.config.rule import Fix, Problem
from llf_core.config.weight_shapes import read_shapes, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.run_config import RunConfig

Kind = Literal["linear", "any", "inside", "outside"]
KEYS: dict[str, Kind] = {
    "lora_target": "linear",
    "oft_target": "linear",
    "boft_target": "linear",
    "vera_target": "linear",
    "adalora_target": "linear",
    "ia3_target": "linear",
    "ia3_feedforward": "linear",
    "peft_target": "any",
    "additional_target": "any",
    "freeze_trainable_modules": "inside",
    "freeze_extra_modules": "outside",
}
"""Keys that name modules, and which kind: linear layers, any, or single names inside or outside the blocks."""
ALL = "all"
WITHOUT_ALL = frozenset({"additional_target", "freeze_extra_modules", "ia3_feedforward"})
"""Keys of `KEYS` in which `all` is no special value."""
EXPERTS = ("gate_up_proj", "down_proj")
"""Names in transformers of the parameters with the weights of all experts of a layer."""
HEADS = ("lm_head", "score")
"""Heads that exist even if no weight of that name is stored: tied to the embedding, or new."""


@dataclass(frozen=True)
class Modules:
    """Names of a model's modules.

    Attributes:
        linear: linear layers, embeddings and parameters of experts that an adapter can be put on.
        outside: those outside the blocks that hold parameters.
        exact: whether they were read from the model itself, and not from the table of families.
    """

    linear: frozenset[str]
    every: frozenset[str]
    inside: frozenset[str]
    outside: frozenset[str]
    exact: bool

    def of_kind(self, kind: Kind) -> frozenset[str]:
        """The modules that a key may name, by its entry in `KEYS`."""
        return {"linear": self.linear, "any": self.every, "inside": self.inside, "outside": self.outside}[kind]


def check_modules(config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Check the module names in the value of a key, such as `lora_target`, against those of the model.

    Returns:
        An error if the model lacks a module; only a warning if its modules are known by family alone and the name is no
        misspelling, or if it is a misspelling and the model unknown.
    """
    requested = [name for name in config.get(spec.key) or () if name != ALL or spec.key in WITHOUT_ALL]
    modules = modules_of(config.model.model_name_or_path, config.model.cache_dir) if requested else None
    if not requested:
        return CheckResult()
    if modules is None:
        return _among_all_families(config, spec, requested)
    kind = KEYS[spec.key]
    known = modules.of_kind(kind)
    by_path = kind in {"linear", "any"}  # the others are compared with the parts of a path
    missing = [name for name in requested if (name.rpartition(".")[2] if by_path else name) not in known]
    if not missing:
        return CheckResult()
    slips = [name for name in missing if misspelt(name, known)]
    model = Path(config.model.model_name_or_path).name
    shown = sorted(modules.linear) if by_path and modules.linear else sorted(known)
    where = "" if by_path else f" {kind} its blocks"
    lacks = f"{model} has no {' and no '.join(missing)}{where}.{_meant(missing, known)}"
    expected = "some" if spec.key in WITHOUT_ALL else "`all`, or some"
    message = f"{lacks} Expected {expected} of {listed(shown)}."
    severity: Literal["error", "warning"] = "error" if modules.exact or slips else "warning"
    return CheckResult((_problem(config, spec, message, missing, known, severity),))


def _among_all_families(config: RunConfig, spec: FieldSpec, requested: list[str]) -> CheckResult:
    """Check names for an unknown model: a warning if one misspells a name that other models have."""
    known = {name for family in families() for name in (*family.linear, *family.inside, *family.outside)}
    odd = [name for name in requested if name.rpartition(".")[2] not in known and misspelt(name, known)]
    if not odd:
        return CheckResult()
    message = f"None of the models that LLF knows has a module {' or '.join(odd)}.{_meant(odd, known)}"
    return CheckResult((_problem(config, spec, message, odd, known, "warning"),))


def _problem(  # noqa: PLR0913, PLR0917 - the parts of a message
    config: RunConfig,
    spec: FieldSpec,
    message: str,
    missing: list[str],
    known: Iterable[str],
    severity: Literal["error", "warning"],
) -> Problem:
    value = config.get(spec.key)
    near = {name: _one_or_several(name, known) for name in missing}
    mended = tuple(dict.fromkeys(part for name in value for part in near.get(name) or (name,)))
    fixes = [Fix(f"Use {plain(mended)}", {spec.key: plain(mended)})] if all(near.values()) else []
    if spec.default == ALL:
        fixes.append(Fix("Use all", {spec.key: ALL}))
    keys = (spec.key, "model_name_or_path")
    return Problem("unresolved", spec.key, str(plain(value)), message, tuple(fixes), severity, keys=keys)


def _one_or_several(name: str, known: Iterable[str]) -> tuple[str, ...]:
    parts = tuple(part for part in re.split(r"[\s;|+]+", name) if part)
    if len(parts) > 1 and set(parts) <= set(known):
        return parts
    near = nearest(name, sorted(known))
    return (near,) if near else ()


def _meant(missing: Iterable[str], known: Iterable[str]) -> str:
    near = [",".join(one) for name in missing if (one := _one_or_several(name, known))]
    return f" Did you mean {', '.join(near)}?" if near else ""


def modules_of(model: str, cache_dir: str | None = None) -> Modules | None:
    """Find the modules of a local or well-known `model_name_or_path`; None if they are unknown."""
    if model == EMBEDDED:
        family = family_of(model_type="llama")
    else:
        folder = folder_of(model, cache_dir)
        if folder is not None and (read := _of_folder(folder)):
            return read
        family = family_of(model)
    if family is None:
        return None
    linear = {*family.linear, *family.experts, *_embeddings(family.outside)}
    return Modules(
        frozenset(linear),
        frozenset({*linear, *family.inside, *family.outside, *HEADS}),
        frozenset(family.inside),
        frozenset({*family.outside, *HEADS}),
        exact=model == EMBEDDED,
    )


def _of_folder(folder: Path) -> Modules | None:
    files = tuple((file.name, file.stat().st_mtime_ns) for file in weight_files(folder))
    return _read(folder, files)


@functools.lru_cache(maxsize=16)
def _read(folder: Path, _state: tuple[tuple[str, int], ...]) -> Modules | None:
    """Cached until a file changes, since a form asks after every change."""
    family = family_of(model_type=str(settings_of(folder).get("model_type", "")))
    weights = read_shapes(folder)
    if not weights and family is None:
        return None
    linear = set() if family is None else {*family.linear, *family.experts, *_embeddings(family.outside)}
    inside = set() if family is None else set(family.inside)
    outside = set(HEADS) if family is None else {*family.outside, *HEADS}
    every = inside | outside
    for name, shape in weights.items():
        *path, kind = name.split(".")
        every.update(part for part in path if not part.isdigit())
        block = next((at for at, part in enumerate(path) if part.isdigit()), None)
        if block is None:
            outside.update(path[-1:])
        else:
            inside.update(part for part in path[block:] if not part.isdigit())
        if "experts" in path:  # which transformers keeps together when it loads them
            linear.update(EXPERTS)
        if path and (len(shape) > 1 or kind not in {"weight", "bias"}):  # quantized weights have other names
            linear.add(path[-1])
    return Modules(frozenset(linear - set(HEADS)), frozenset(every), frozenset(inside), frozenset(outside), exact=True)


def _embeddings(outside: Iterable[str]) -> set[str]:
    return {name for name in outside if name not in HEADS and ("embed" in name or name in {"wte", "wpe"})}
