"""Finds the Python code that comes with a model or a run folder, without executing it."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.evaluation_keys import function_name
from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.model_folder import snapshots
from llf_core.config.paths import expanded, is_there
from llf_core.runs.config_file import run_config
from llf_core.runs.trust import TooMuchCodeError, allow, is_allowed, is_signed, python_files, read_code
from llf_core.untrusted import NotPlainError, json_value, leads_to_file, leads_to_folder, read_object_or_empty
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llf_core.config import RunConfig
    from llf_core.runs.folder import RunFolder

VARIABLE, RUN_VALUE = "LLF_FOREIGN_CODE", "run"
"""Environment variable: `run` in processes that train what the user started. Otherwise code must be allowed first."""
SHOWN_LINES, SHOWN_FILES, SHOWN_WIDTH = 12, 20, 160
NOT_ALLOWED = "you have not allowed it"
MIN_HASH_CHARACTERS = 12
"""Characters of a hash that are displayed for comparison."""


class UntrustedCodeError(UserError, RuntimeError):
    """Code would run that the user has not allowed. The message names it, and how to allow it."""

    exit_code = BAD_CONFIG

    def __init__(self, message: str, code: Iterable[ForeignCode] = (), *, found: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.code, self._found = tuple(code), tuple(found)

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The code as views show it, see `ForeignCode.json`."""
        return [*self._found, *(one.json() for one in self.code)]


@dataclass(frozen=True)
class ForeignCode:
    """Code from an untrusted source.

    Attributes:
        owner: what the code belongs to, as the subject of a sentence: `the model data/model`.
        folder: its location; permission is granted per folder.
        references: `auto_map` entries of JSON files, as `file: AutoModel module.Class`; for an unreadable config the
            reason and its hash.
    """

    owner: str
    folder: Path
    files: tuple[tuple[str, Path], ...]
    references: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of file names, contents and references: a permission holds for exactly this version."""
        digest = hashlib.sha256()
        for name, path in self.files:
            digest.update(f"{name}\0{hashlib.sha256(read_code(path)).hexdigest()}\n".encode("utf-8", "replace"))
        for reference in self.references:
            digest.update(f"{reference}\n".encode("utf-8", "replace"))
        return digest.hexdigest()

    def json(self) -> dict[str, Any]:
        """The code as shown to the user before anything runs.

        Returns:
            `owner`, `folder`, `sha256`; `files`, the first `SHOWN_FILES`, each with `name`, `path` and `lines`; `more`,
            the number of others; and `references`, the first `SHOWN_FILES` classes that `auto_map` names.
        """
        files = [{"name": name, "path": str(path), "lines": _head(path)} for name, path in self.files[:SHOWN_FILES]]
        return {
            "owner": self.owner,
            "folder": str(self.folder),
            "sha256": self.sha256,
            "files": files,
            "more": len(self.files) - len(files),
            "references": list(self.references[:SHOWN_FILES]),
        }

    def __str__(self) -> str:
        """One line with owner, files, folder and hash."""
        names = ", ".join(name for name, _ in self.files[:3]) or "none of it is on this machine yet"
        more = f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""  # noqa: PLR2004
        return f"{self.owner}: {names}{more} in {self.folder} (SHA-256 {self.sha256[:MIN_HASH_CHARACTERS]})"


def code_of_model(folder: Path, name: str | None = None) -> ForeignCode | None:
    """Find the Python code that loading a model or tokenizer may run; None if there is none.

    Args:
        folder: folder of the model or adapter, or a file in it.
        name: the user's name for it, shown unless it is the folder.
    """
    folder = folder if folder.is_dir() else folder.parent
    references: list[str] = []
    files = {os.path.relpath(path, folder): path for path in python_files(folder)}
    for path in sorted(folder.glob("*.json")):
        for where, reference in _auto_map(path):
            references.append(f"{path.name}: {where} {reference}")
            files |= _external_files(folder, reference)
    if not files and not references:
        return None
    owner = "the model" if name is None or name == str(folder) else f"the model {name}"  # its folder is shown beside it
    return ForeignCode(owner, folder, tuple(sorted(files.items())), tuple(references))


def code_of_functions(folder: RunFolder, names: Iterable[str] = ()) -> ForeignCode | None:
    """Find the reward functions and metrics in a run's `code/`, and those of the config (`names`)."""
    wanted = [folder.code / f"{function_name(name)}.py" for name in names]
    paths = [*python_files(folder.code), *(path for path in wanted if leads_to_file(path))]
    files = {os.path.relpath(path, folder.path): path for path in paths}
    return ForeignCode("the functions of the run", folder.path, tuple(sorted(files.items()))) if files else None


def code_of_run(folder: RunFolder) -> tuple[ForeignCode, ...]:
    """Find the code that training a run would execute, from its folder and its models. Executes none of it."""
    from llf_core.config import ConfigError

    functions = code_of_functions(folder)
    found = [] if functions is None else [functions]
    try:
        config = run_config(folder)
    except ConfigError:
        return tuple(found)  # resume, replay and branch report the error, and no trainer starts with it
    functions = code_of_functions(folder, [*(config.get("reward_functions") or ()), *(config.evaluation.metrics or ())])
    found = [] if functions is None else [functions]
    return (*found, *(_code_of_config(config) if config.model.trust_remote_code else ()))


def _code_of_config(config: RunConfig) -> tuple[ForeignCode, ...]:
    """Find the code of all models and adapter bases named in a config; one that is not downloaded yet has no files."""
    from llf_core.config.field_specs import fields

    values = [config.get(spec.key) for spec in fields() if spec.path in {"model", "adapters"}]
    names = [name for value in values for name in (value if isinstance(value, tuple) else (value,)) if name]
    found: dict[str, ForeignCode | None] = {EMBEDDED: None}
    while names:
        name = names.pop()
        if name in found:
            continue
        path = expanded(name)
        places = (path,) if is_there(path) else snapshots(name, config.model.cache_dir)
        found[name] = None if places else ForeignCode(f"the model {name}", path, ())
        for place in places:
            found[str(place)] = code_of_model(place, name)
            base = _base_model(place) if place.is_dir() else None
            names += [base] if isinstance(base, str) and base else []
    return tuple(one for one in found.values() if one is not None)


def _base_model(place: Path) -> object:
    return read_object_or_empty(Path(os.path.realpath(place / "adapter_config.json"))).get("base_model_name_or_path")


def code_to_allow(folder: RunFolder) -> tuple[ForeignCode, ...]:
    """Find the code that the user must allow before the run can be trained again; none if the run is signed."""
    return () if is_signed(folder) else code_of_run(folder)


def code_as_json(code: Iterable[ForeignCode]) -> dict[str, Any]:
    """Code as shown by views: `code`, and the combined hash `sha256` by which the user allows it."""
    code = tuple(code)
    return {"sha256": combined_hash(code) if code else "", "code": [one.json() for one in code]}


def check_run(folder: RunFolder, trust: bool | str, how: str) -> None:
    """Refuse to restart a run with code, unless this user created or allowed it.

    Args:
        trust: True to allow its code; a prefix of the hash that was displayed, of at least 12 characters, to allow
            exactly that code; False or an empty text to allow none.

    Raises:
        UntrustedCodeError: the run was created elsewhere or modified since, and its code would run.
    """
    code = code_to_allow(folder)
    if not code or trust is True:
        return
    if isinstance(trust, str) and len(trust) >= MIN_HASH_CHARACTERS and combined_hash(code).startswith(trust):
        return
    changed = "The code differs from what was shown. " if trust else ""
    listed = "".join(f"\n  {one}" for one in code)
    raise UntrustedCodeError(
        f"{folder.id} was created on another machine or modified since, and this code would run with your "
        f"permissions:{listed}\n{changed}Nothing was executed. Review the source, then allow it with {how}.",
        code,
    )


def combined_hash(code: Iterable[ForeignCode]) -> str:
    """One hash for several pieces of code."""
    return hashlib.sha256("\n".join(one.sha256 for one in code).encode()).hexdigest()


def _auto_map(path: Path) -> Iterator[tuple[str, str]]:
    """Classes that a model's JSON file names in `auto_map`, at any depth. An unreadable config yields its hash.

    transformers may read what is refused here, so an unreadable config counts as code.
    """
    if not path.is_file():
        return
    try:
        content = json_value(read_code(path))
    except (NotPlainError, TooMuchCodeError) as error:
        if "config" in path.name:  # larger ones are tokenizer.json and weight indexes
            with path.open("rb") as file:
                yield f"is not read ({error}):", hashlib.file_digest(file, "sha256").hexdigest()
        return
    yield from _auto_map_names(content, "auto_map")


def _auto_map_names(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield from _texts(inner, "")
            else:
                yield from _auto_map_names(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _auto_map_names(inner, key)


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)


def _external_files(folder: Path, reference: str) -> dict[str, Path]:
    """Files referenced outside the model's folder: in another repository, or by absolute path."""
    repository, _, rest = reference.rpartition("--")
    module = rest.partition(".")[0]
    if not repository:
        path = folder / f"{module}.py"
        return {str(path): path} if module.startswith("/") and leads_to_file(path) else {}
    other = expanded(repository)
    places = [other] if leads_to_folder(other) else snapshots(repository)
    return {f"{repository}/{os.path.relpath(path, place)}": path for place in places for path in python_files(place)}


def _head(path: Path) -> list[str]:
    try:
        text = read_code(path).decode("utf-8", "replace")
    except (OSError, TooMuchCodeError) as error:
        return [str(error)]
    lines = text.splitlines()
    return [line[:SHOWN_WIDTH] for line in lines[:SHOWN_LINES]] + (["…"] if len(lines) > SHOWN_LINES else [])


def _is_code_allowed(code: ForeignCode, home: Path) -> bool:
    return is_allowed(code.folder, code.sha256, home)


def allow_code(code: ForeignCode, home: Path) -> None:
    """Record that the user allows this code in its current version; changed code needs a new permission."""
    allow(code.folder, code.sha256, home)


@contextmanager
def started_by_user() -> Iterator[None]:
    """Mark a process that the user started (training, `llf inspect`): the config decides whether code runs."""
    before = os.environ.get(VARIABLE)
    os.environ.setdefault(VARIABLE, RUN_VALUE)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)


def may_run(code: ForeignCode, home: Path, run: RunFolder | None = None) -> None:
    """Allow code to run in a training process, and elsewhere only if the user has allowed this version.

    Code that training runs is recorded as allowed, so that views do not ask again.

    Args:
        run: run that contains the code; code of a signed run needs no permission.

    Raises:
        UntrustedCodeError: the code is not allowed.
    """
    if os.environ.get(VARIABLE) == RUN_VALUE:
        with suppress(OSError, ValueError):
            allow_code(code, home)
        return
    if _is_code_allowed(code, home) or (run is not None and is_signed(run)):
        return
    raise UntrustedCodeError(
        f"This Python code would run with your permissions, and {NOT_ALLOWED}: {code}. Nothing was executed. Review "
        "the source, then allow it: with the view's button, trust=True in Python, or --trust in a terminal.",
        (code,),
    )


def runs_code(folder: Path, home: Path, *, trust_remote_code: bool) -> bool:
    """Whether to run a model's own Python code. All loaders of models, tokenizers and processors call this.

    Raises:
        UntrustedCodeError: code would run in a process that only inspects, and the user has not allowed it, or there is
            more than a person could review.
    """
    if not trust_remote_code:
        return False
    try:
        code = code_of_model(folder)
    except TooMuchCodeError as error:
        if os.environ.get(VARIABLE) == RUN_VALUE:
            return True
        raise UntrustedCodeError(f"{error} None of it was executed.", ()) from error
    if code is None:
        return False
    may_run(code, home)
    return True
