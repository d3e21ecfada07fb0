"""Checks that the models of a config exist, with the nearest known names where they do not."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.did_you_mean import misspelt, nearest
from llf_core.config.field_specs import plain
from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.hub import HUB, HUGGING_FACE, LISTING, cache_folder, endpoint, mirror_of
from llf_core.config.name_checks.model_folder import (
    CheckResult,
    cached,
    has_token,
    question_with_hint,
    replacement_fixes,
    snapshot,
)
from llf_core.config.paths import is_there, without_secrets
from llf_core.config.rule import Problem
from llf_core.model_catalog import find_model, known_models, license_conditions
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.rule import Severity
    from llf_core.config.run_config import RunConfig
    from llf_core.model_catalog import CatalogModel

HUB_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")

LONGEST_HUB_NAME = 96
"""Characters of each part of a hub id."""

MOST = 500
"""Maximum number of entries of a folder to search for suggestions."""

LONGEST_LOOKED_AT = 200
"""Maximum characters of a name that are compared for suggestions."""
LONGEST_SHOWN = 120
MARKS = ("config.json", "adapter_config.json")


def is_path(name: str) -> bool:
    """Whether a name can only be a local path."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or name.lower().endswith(".gguf")


def may_be_hub_id(name: str) -> bool:
    """Whether a hub may have a repository of this name: `name` or `owner/name`, as its client allows them."""
    parts = name.split("/")
    good = all(HUB_NAME.fullmatch(part) and len(part) <= LONGEST_HUB_NAME for part in parts)
    return good and len(parts) <= 2 and not any(odd in name for odd in ("--", "..")) and not name.endswith(".git")  # noqa: PLR2004 - owner and name


def shown_name(name: str) -> str:
    """Format a name for a message: truncated, and in quotes if some of its characters would be invisible."""
    short = name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}…"
    return short if short.strip() == short and short.isprintable() and short else repr(short)


def meant_instead(name: str, cache_dir: str | None = None) -> str:
    """` Did you mean …?` for a model or adapter that cannot be loaded; empty if no known name is similar."""
    here = tuple(_local_models((Path.cwd(),)))
    near = nearest(name[:LONGEST_LOOKED_AT], (EMBEDDED, *here, *cached("model", cache_dir), *models()))
    return f" Did you mean {near!r}?" if near not in {None, name} else ""


def check_models(config: RunConfig, spec: FieldSpec, folders: Sequence[Path], runs: Iterable[str]) -> CheckResult:
    """Check each model or adapter in the value of a key, without network access.

    Args:
        folders: folders to search for models, at least one; relative paths start from the first.
        runs: ids of runs, which a reward model may be.

    Returns:
        An error for a name that can be no model, or that misspells one on this machine; a problem for a missing path
        (`paths.absent`); and a question for each hub id that is neither cached nor well known.
    """
    value = config.get(spec.key)
    names = value if isinstance(value, tuple) else () if value is None else (value,)
    found = CheckResult()
    for name in names:
        found += _check_model(name, config, spec, tuple(folders), tuple(runs) if spec.key == "reward_model" else ())
    return found


def _check_model(
    name: str, config: RunConfig, spec: FieldSpec, folders: tuple[Path, ...], runs: tuple[str, ...]
) -> CheckResult:
    wrong, meant = _wrong(name, spec)
    if wrong:
        return _refused(name, config, spec, wrong, meant)
    known_here = name == EMBEDDED or name in runs or Path(name).is_absolute() or is_there(Path(name))
    return CheckResult() if known_here else _by_name(name, config, spec, folders, runs)


def _wrong(name: str, spec: FieldSpec) -> tuple[str, str | None]:
    """Reason why a name cannot be a model, whatever the hub has, and a suggestion; empty if it may be one."""
    if not name.strip():
        return "No model is set.", EMBEDDED
    if "://" in name and not is_there(Path(name)):
        shown = shown_name(without_secrets(name))
        return f"{shown} is a URL.", shown.split("://", 1)[-1].strip("/").partition("/")[2]
    looks = spec.path == "model" and spec.key != "reward_model" and is_there(Path(name))
    return (_not_one(Path(name)) if looks else ""), None


def _by_name(
    name: str, config: RunConfig, spec: FieldSpec, folders: tuple[Path, ...], runs: tuple[str, ...]
) -> CheckResult:
    """Check a name that does not exist on this machine."""
    here = tuple(_local_models(folders))
    hub, stored, known = config.model.hub, cached("model", config.model.cache_dir), models()
    mirror = mirror_of(hub)
    if mirror is not None:
        revision = mirror.revision(config.model.model_revision)
        here_already = leads_to_file(cache_folder(hub, name, revision, config.model.cache_dir) / LISTING)
        stored = (name,) if here_already and may_be_hub_id(name) else ()
        known = ()
    if name in stored or name in known:
        return CheckResult()
    if is_path(name):
        return absent(folders[0] / name, name, config, spec)
    near_home = (EMBEDDED, *here, *runs, *_beside(name, folders))
    slip = None if "/" in name else misspelt(name, near_home)
    meant = slip or nearest(name, (*near_home, *stored, *models()))
    if slip is None and may_be_hub_id(name):
        fixes = replacement_fixes(config, spec, name, meant)
        question = question_with_hint("model", name, spec.key, str(plain(config.get(spec.key))), meant, fixes)
        return CheckResult(questions=(replace(question, hub=hub),))
    wrong = f"There is no model {shown_name(name)!r}: no such folder, and not a built-in name."
    return _refused(name, config, spec, wrong, meant, form=slip is None)


def _refused(  # noqa: PLR0913, PLR0917 - the parts of a message
    name: str, config: RunConfig, spec: FieldSpec, wrong: str, meant: str | None, form: bool = True
) -> CheckResult:
    expected = " Expected a model folder, a .gguf file, or a hub id of the form owner/name." if form else ""
    mean = f" Did you mean {meant!r}?" if meant else ""
    fixes = replacement_fixes(config, spec, name, meant)
    value = str(plain(config.get(spec.key)))
    return CheckResult((Problem("unresolved", spec.key, value, f"{wrong}{expected}{mean}", fixes, keys=(spec.key,)),))


def _not_one(path: Path) -> str:
    """Reason why an existing path is not a model; empty if it may be one."""
    if leads_to_file(path):
        return "" if path.suffix.lower() == ".gguf" else f"{path} is a file of type {path.suffix or 'unknown'}."
    try:
        names = [entry.name for entry in islice(path.iterdir(), MOST)]
    except OSError:
        return ""  # reading it says why
    good = len(names) == MOST or "config.json" in names or any(one.endswith(".gguf") for one in names)
    return "" if good else f"The folder {path} does not contain a model: it has no config.json."


def _beside(name: str, folders: Iterable[Path]) -> Iterator[str]:
    """Models in the folder that a name begins with, where there is one: `saves/lora` may be a path or a hub id."""
    first, slash, _ = name.partition("/")
    if slash:
        yield from (f"{first}/{one}" for one in _local_models(folder / first for folder in folders))


def _local_models(folders: Iterable[Path]) -> Iterator[str]:
    """Names of folders with a model or an adapter, and of GGUF files, in each of some folders."""
    for folder in dict.fromkeys(folders):
        try:
            for entry in islice(folder.iterdir(), MOST):
                if entry.suffix == ".gguf" or any((entry / mark).is_file() for mark in MARKS):
                    yield entry.name
        except OSError:
            continue


def check_model_terms(config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Check the terms of the model in the value of a key, as far as the catalog knows them.

    Returns:
        A warning for a gated model that is not cached while there is no token, unless another hub is set; a note for a
        license with conditions.
    """
    name = config.get(spec.key)
    known = find_model(name) if isinstance(name, str) and not is_there(Path(name)) else None
    if known is None:
        return CheckResult()
    return CheckResult((*_gate(known, config, spec), *_license(known, config, spec)))


def _gate(model: CatalogModel, config: RunConfig, spec: FieldSpec) -> tuple[Problem, ...]:
    """A warning if the hub will refuse the download. Another hub (`HF_ENDPOINT`) may have other gates."""
    elsewhere = config.model.hub != HUGGING_FACE or endpoint() != HUB
    opened = has_token() or elsewhere or snapshot(model.id, config.model.cache_dir) is not None
    if not model.gated or opened:
        return ()
    return (
        _problem(
            config,
            spec,
            f"{model.id} is gated: its owner gives access on {HUB}/{model.id}. Accept the conditions there, then set "
            "HF_TOKEN to a token of your account.",
            "warning",
        ),
    )


def _license(model: CatalogModel, config: RunConfig, spec: FieldSpec) -> tuple[Problem, ...]:
    terms = license_conditions().get(model.license)
    if terms is None:
        return ()
    message = f"The license of {model.id} is the {terms.title}. {terms.conditions} Read it before you use or publish"
    return (_problem(config, spec, f"{message} the result: {terms.url}", "note"),)


def _problem(config: RunConfig, spec: FieldSpec, message: str, severity: Severity) -> Problem:
    value = str(plain(config.get(spec.key)))
    return Problem("violation", spec.key, value, message, severity=severity, keys=(spec.key,))


LONGEST_LIST = 200
"""Maximum characters of a path in a message."""


def check_paths(config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Check that the absolute paths in the value of a key exist, see `absent`."""
    value = config.get(spec.key)
    found = CheckResult()
    for name in value if isinstance(value, tuple) else (value,):
        if name and Path(name).is_absolute() and not is_there(Path(name)):
            found += absent(Path(name), name, config, spec)
    return found


def absent(path: Path, name: str, config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Report a path that does not exist: an error if it misspells a name in its parent folder, else a warning."""
    siblings = _names(path.parent)
    slip = misspelt(path.name, siblings)
    meant = slip or nearest(path.name, siblings)
    mean = f" Did you mean {meant!r}?" if meant else ""
    problem = Problem(
        "unresolved",
        spec.key,
        str(plain(config.get(spec.key))),
        f"No such file or folder: {_shown(path)}.{mean}",
        replacement_fixes(config, spec, name, None if meant is None else str(path.with_name(meant))),
        "error" if slip else "warning",
        keys=(spec.key,),
    )
    return CheckResult((problem,))


def _shown(path: Path) -> str:
    text = str(path)
    text = text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST]}…"
    return text if text.isprintable() else repr(text)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in islice(folder.iterdir(), MOST))
    except (OSError, ValueError):  # a name that no folder has
        return []


@dataclass(frozen=True)
class Family:
    """Architectures (`model_type`) with the same modules.

    Attributes:
        linear: linear layers that an adapter can be put on.
        experts: parameters of experts that an adapter can be put on.
    """

    types: tuple[str, ...]
    linear: tuple[str, ...]
    inside: tuple[str, ...]
    outside: tuple[str, ...]
    experts: tuple[str, ...] = ()


@functools.cache
def families() -> tuple[Family, ...]:
    """All architectures whose modules are known."""
    return tuple(Family(**{key: tuple(value) for key, value in one.items()}) for one in _data()["family"])


@functools.cache
def models() -> tuple[str, ...]:
    """Hub ids of the catalog: they need no query of the hub."""
    return tuple(one.id for one in known_models())


def family_of(model: str = "", model_type: str = "") -> Family | None:
    """Find the family of a model, by its hub id or its `model_type`; None if neither is known."""
    known = find_model(model)
    types = {model_type, "" if known is None else known.type} - {""}
    return next((one for one in families() if types.intersection(one.types)), None)


def datasets() -> tuple[str, ...]:
    """Hub ids of well-known data sets: they need no query of the hub."""
    return tuple(_data()["datasets"]["hub"])


def llama_factory_entries() -> tuple[str, ...]:
    """Names of LLaMA-Factory's own `dataset_info.json`, whose data LLF does not ship."""
    return tuple(_data()["datasets"]["entries"])


@functools.cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("known.toml").read_text(encoding="utf-8"))
