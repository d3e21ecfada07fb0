"""The Python code that comes with a model or lies in a run's folder, read without running it."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.hub_cache import snapshots
from llf_core.config.paths import expanded, is_there
from llf_core.door import NotPlainError, json_value, read_object_or_empty
from llf_core.runs.code_files import TooMuchCodeError, python_files, read_code
from llf_core.runs.config_file import run_config
from llf_core.runs.trust import allow, is_allowed, is_ours
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llf_core.config import RunConfig
    from llf_core.runs.folder import RunFolder

VARIABLE, RUN = "LLF_FOREIGN_CODE", "run"
"""Of the environment: `run` in processes that train what the user has started. Without it, code has to be allowed."""
SHOWN_LINES, SHOWN_FILES, SHOWN_WIDTH = 12, 20, 160
NOT_ALLOWED = "you have not allowed it"
SHORT = 12
"""Characters of a hash that people compare."""


class UntrustedCodeError(UserError, RuntimeError):
    """Code would run that the user has not allowed; its text says which, and how to allow it.

    Attributes:
        code: what would run.
    """

    exit_code = BAD_CONFIG

    def __init__(self, message: str, code: Iterable[ForeignCode] = ()) -> None:
        super().__init__(message)
        self.code = tuple(code)


@dataclass(frozen=True)
class ForeignCode:
    """Code that somebody else may have written.

    Attributes:
        owner: what it belongs to, as the subject of a sentence: `the model data/model`.
        folder: where it lies; what is allowed is allowed for this folder.
        files: its Python files, by the names that people are shown.
        references: what of it is called: classes named by `auto_map`, in the form `file: Class of module`.
    """

    owner: str
    folder: Path
    files: tuple[tuple[str, Path], ...]
    references: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of the files' names and contents and of the references."""
        digest = hashlib.sha256()
        for name, path in self.files:
            digest.update(f"{name}\0{hashlib.sha256(read_code(path)).hexdigest()}\n".encode("utf-8", "replace"))
        for reference in self.references:
            digest.update(f"{reference}\n".encode("utf-8", "replace"))
        return digest.hexdigest()

    def json(self) -> dict[str, Any]:
        """What a view shows before anything runs: owner, folder, hash, and the first lines of each file."""
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
        """One line: whose code, which files, where, and the hash."""
        names = ", ".join(name for name, _ in self.files[:3]) or "none of it is on this machine yet"
        more = f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""  # noqa: PLR2004
        return f"{self.owner}: {names}{more} in {self.folder} (SHA-256 {self.sha256[:SHORT]})"


def code_of_model(folder: Path, name: str | None = None) -> ForeignCode | None:
    """The Python code that loading a model or tokenizer may run; None where there is none.

    Args:
        folder: of the model or adapter.
        name: what the user calls it.

    Raises:
        TooMuchCodeError: there is more than anybody could read.
    """
    folder = folder if folder.is_dir() else folder.parent
    references: list[str] = []
    files = {os.path.relpath(path, folder): path for path in python_files(folder)}
    for path in sorted(folder.glob("*.json")):
        for where, reference in _auto_map(path):
            references.append(f"{path.name}: {where} {reference}")
            files |= _elsewhere(folder, reference)
    if not files and not references:
        return None
    return ForeignCode(f"the model {name or folder}", folder, tuple(sorted(files.items())), tuple(references))


def code_of_rewards(folder: RunFolder, names: Iterable[str] = ()) -> ForeignCode | None:
    """The reward functions in a run's `code/`; None where there are none.

    Args:
        folder: the run.
        names: of the functions that its config names.
    """
    wanted = [folder.code / f"{name}.py" for name in names]
    paths = [*python_files(folder.code), *(path for path in wanted if path.is_file())]
    files = {os.path.relpath(path, folder.path): path for path in paths}
    return ForeignCode("the reward functions", folder.path, tuple(sorted(files.items()))) if files else None


def code_of_run(folder: RunFolder) -> tuple[ForeignCode, ...]:
    """What training a run would execute of its own folder and of its models; nothing of it is executed here.

    Args:
        folder: the run, of whoever made it.
    """
    from llf_core.config import ConfigError

    rewards = code_of_rewards(folder)
    found = [] if rewards is None else [rewards]
    try:
        config = run_config(folder)
    except ConfigError:
        return tuple(found)  # resume, replay and branch refuse it with what is wrong, and no trainer begins with it
    rewards = code_of_rewards(folder, config.get("reward_functions") or ())
    found = [] if rewards is None else [rewards]
    return (*found, *(code_of_config(config) if config.model.trust_remote_code else ()))


def code_of_config(config: RunConfig) -> tuple[ForeignCode, ...]:
    """The code of all models that a config names, and of the bases of its adapters, as far as it is on this machine."""
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
            base = _base(place) if place.is_dir() else None
            names += [base] if isinstance(base, str) and base else []
    return tuple(one for one in found.values() if one is not None)


def _base(place: Path) -> Any:
    """The model that an adapter is of, as its config says; a file of a hub's cache is a link."""
    return read_object_or_empty(Path(os.path.realpath(place / "adapter_config.json"))).get("base_model_name_or_path")


def code_to_allow(folder: RunFolder) -> tuple[ForeignCode, ...]:
    """What the user must allow before a run is trained again; nothing of one that this user has made or allowed."""
    return () if is_ours(folder) else code_of_run(folder)


def shown(code: Iterable[ForeignCode]) -> dict[str, Any]:
    """Code as a view shows it: `code`, and `sha256` of all, by which the reader allows it."""
    code = tuple(code)
    return {"sha256": hash_of(code) if code else "", "code": [one.json() for one in code]}


def check_run(folder: RunFolder, trust: bool | str, how: str) -> None:
    """Lets a run be started again only where this user has made it, has allowed it, or it brings no code.

    Args:
        folder: the run.
        trust: whether the user allows its code; or the beginning of the hash that the user was shown.
        how: the call that allows it, for the message.

    Raises:
        UntrustedCodeError: it was made elsewhere, and code of it would run.
    """
    code = code_to_allow(folder)
    if not code or trust is True:
        return
    if isinstance(trust, str) and len(trust) >= SHORT and hash_of(code).startswith(trust):
        return
    changed = "What would run is not what was shown. " if trust else ""
    listed = "".join(f"\n  {one}" for one in code)
    raise UntrustedCodeError(
        f"{folder.id} was made elsewhere or changed since, and this code would run with your rights:{listed}\n"
        f"{changed}Nothing was run. Read the source, then allow it with {how}.",
        code,
    )


def hash_of(code: Iterable[ForeignCode]) -> str:
    """One hash of several."""
    return hashlib.sha256("\n".join(one.sha256 for one in code).encode()).hexdigest()


def _auto_map(path: Path) -> Iterator[tuple[str, str]]:
    """What a JSON file of a model names as classes of its own, wherever in it; of a config that is not read, its hash.

    transformers may read what is refused here, so an unread config counts as code.
    """
    if not path.is_file():
        return
    try:
        content = json_value(read_code(path))
    except (NotPlainError, TooMuchCodeError) as error:
        if "config" in path.name:  # others are tokenizer.json, indexes of weights
            with path.open("rb") as file:
                yield f"is not read ({error}):", hashlib.file_digest(file, "sha256").hexdigest()
        return
    yield from _named(content, "auto_map")


def _named(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield from _texts(inner, "")
            else:
                yield from _named(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner, key)


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)


def _elsewhere(folder: Path, reference: str) -> dict[str, Path]:
    """Files that a reference names outside of the model's folder: of another repository, or by a whole path."""
    repository, _, rest = reference.rpartition("--")
    module = rest.partition(".")[0]
    if not repository:
        path = folder / f"{module}.py"
        return {str(path): path} if module.startswith("/") and path.is_file() else {}
    other = expanded(repository)
    places = [other] if other.is_dir() else snapshots(repository)
    return {f"{repository}/{os.path.relpath(path, place)}": path for place in places for path in python_files(place)}


def _head(path: Path) -> list[str]:
    try:
        text = read_code(path).decode("utf-8", "replace")
    except (OSError, TooMuchCodeError) as error:
        return [str(error)]
    lines = text.splitlines()
    return [line[:SHOWN_WIDTH] for line in lines[:SHOWN_LINES]] + (["…"] if len(lines) > SHOWN_LINES else [])


def is_code_allowed(code: ForeignCode, home: Path) -> bool:
    """Whether the user has allowed code as it is now."""
    return is_allowed(code.folder, code.sha256, home)


def allow_code(code: ForeignCode, home: Path) -> None:
    """Remembers that the user allows code as it is now."""
    allow(code.folder, code.sha256, home)


@contextmanager
def started_by_user() -> Iterator[None]:
    """What the user has started runs the code that its config allows: a training, or `llf inspect`.

    A process that is already told to look only goes on doing so.
    """
    before = os.environ.get(VARIABLE)
    os.environ.setdefault(VARIABLE, RUN)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)


def may_run(code: ForeignCode, home: Path, run: RunFolder | None = None) -> None:
    """Lets code run in a process that trains, and elsewhere where the user has allowed it as it is now.

    What a training runs the user has allowed by starting it, so that views need not ask for it again.

    Args:
        code: what would run.
        home: `LLF_HOME`.
        run: the run that it lies in; code of one that was made here needs no other leave.

    Raises:
        UntrustedCodeError: nobody has allowed it.
    """
    if os.environ.get(VARIABLE) == RUN:
        with suppress(OSError, ValueError):
            allow_code(code, home)
        return
    if is_code_allowed(code, home) or (run is not None and is_ours(run)):
        return
    raise UntrustedCodeError(
        f"This Python code would run with your rights, and {NOT_ALLOWED}: {code}. Nothing was run. Read the "
        "source, then allow it: with the view's button, trust=True in Python, or --trust in a terminal.",
        (code,),
    )


def runs_code(folder: Path, home: Path, *, trust_remote_code: bool) -> bool:
    """Whether a model's own Python code is to be run; every loader of models, tokenizers and processors asks here.

    Args:
        folder: of the model.
        home: `LLF_HOME`.
        trust_remote_code: what the config says.

    Returns:
        False where the config forbids it, or there is none.

    Raises:
        UntrustedCodeError: it would run in a process that only looks, and nobody has allowed it.
    """
    if not trust_remote_code:
        return False
    try:
        code = code_of_model(folder)
    except TooMuchCodeError as error:
        if os.environ.get(VARIABLE) == RUN:
            return True
        raise UntrustedCodeError(f"{error} Nothing of it was run.", ()) from error
    if code is None:
        return False
    may_run(code, home)
    return True
