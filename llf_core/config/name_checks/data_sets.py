"""Checks that the data sets of a config exist: in `dataset_info.json`, built in, at a URL or path, or on a hub."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llf_core.config.did_you_mean import listed, misspelt, nearest
from llf_core.config.field_specs import plain
from llf_core.config.name_checks import models
from llf_core.config.name_checks.model_folder import CheckResult, cached, question_with_hint, replacement_fixes
from llf_core.config.paths import DATA_SUFFIXES, HANDED_OVER, ONLINE, REMOTE, expanded, is_there
from llf_core.config.rule import Problem
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.run_config import RunConfig


MOST = 500
"""Maximum number of entries of a folder to search for suggestions."""

ENTRIES = 2000
"""Maximum number of entries of `dataset_info.json` to search for suggestions."""


def check_datasets(config: RunConfig, spec: FieldSpec, folders: Iterable[Path]) -> CheckResult:
    """Check each data set in the value of a key.

    Returns:
        An error for each name that is not found here, a warning for one that may be an entry of LLaMA-Factory's
        `dataset_info.json` on another machine, and a question for each hub id that is neither cached nor well known.
        Nothing about absolute paths (`paths.check_paths`), and if `dataset_dir` is a data set of the hub.
    """
    return _DatasetChecker(config, spec, tuple(folders)).check()


class _DatasetChecker:
    def __init__(self, config: RunConfig, spec: FieldSpec, folders: tuple[Path, ...]) -> None:
        self.config, self.spec, self.folders = config, spec, folders
        self.base = Path(config.data.dataset_dir)
        self.info_file = self.base / INFO_FILE
        self.info: dict[str, Any] = {}

    def check(self) -> CheckResult:
        names = self.config.get(self.spec.key) or ()
        where = self.config.data.dataset_dir
        if not names or where.startswith(REMOTE):
            return CheckResult()  # what the file of `REMOTE` names is known when it is fetched
        if where == ONLINE:
            return sum((self.at_hub(name, name) for name in names), CheckResult())
        try:
            self.info = info_of(self.info_file)
        except ValueError as error:
            return CheckResult((self.problem(str(error)),))
        except OSError as error:
            return CheckResult((self.problem(f"{self.info_file} cannot be read: {error.strerror}."),))
        return sum((self.one(name) for name in names), CheckResult())

    def one(self, name: str) -> CheckResult:
        if fnmatch.fnmatch(name, HANDED_OVER) or Path(name).is_absolute():
            return CheckResult()  # paths have a rule of their own
        place = locate(name, self.base, self.info, self.folders)
        if place.kind == "entry":
            return self.entry(name, self.info[name])
        if place.kind == "hub":
            return self.at_hub(name, name)
        return self.nowhere(name) if place.kind == "nowhere" else CheckResult()

    def entry(self, name: str, entry: object) -> CheckResult:
        if not isinstance(entry, dict):
            return CheckResult()  # reading it says so
        if entry.get("hf_hub_url"):
            return self.at_hub(name, str(entry["hf_hub_url"]))
        file = entry.get("file_name")
        if not file or entry.get("cloud_file_name") or is_there(self.base / str(file)):
            return CheckResult()
        meant = nearest(str(file), files((self.base,)))
        mean = f" Did you mean {meant!r}?" if meant else ""
        message = f"The data set {name!r} is {file} in {self.info_file}, and there is no {self.base / str(file)}.{mean}"
        return CheckResult((self.problem(message),))

    def at_hub(self, name: str, hub_id: str) -> CheckResult:
        stored = cached("dataset", self.config.model.cache_dir)
        if hub_id in stored or hub_id in models.datasets():
            return CheckResult()
        meant = nearest(hub_id, (*stored, *models.datasets(), *self.here())) if name == hub_id else None
        fixes = replacement_fixes(self.config, self.spec, name, meant)
        return CheckResult(
            questions=(question_with_hint("dataset", hub_id, self.spec.key, self.value(), meant, fixes),)
        )

    def nowhere(self, name: str) -> CheckResult:
        theirs = models.llama_factory_entries()
        elsewhere = not leads_to_file(self.info_file)
        lacks = f"there is no {self.info_file}" if elsewhere else f"{self.info_file} names {listed(self.info)}"
        away = self.base.is_absolute() and not is_there(self.base)
        if elsewhere and (name in theirs or away) and misspelt(name, self.here()) is None:
            whose = f"{name!r} is an entry of LLaMA-Factory's {INFO_FILE}" if name in theirs else f"No {name!r} here"
            message = f"{whose}, and {lacks}. Set `dataset_dir` to the folder that holds it."
            return CheckResult((self.problem(message, severity="warning"),))
        meant = nearest(name, (*self.here(), *theirs) if elsewhere else self.here())
        mean = f" Did you mean {meant!r}?" if meant else ""
        if meant in theirs and meant not in self.here():
            mean += (
                f" It is an entry of LLaMA-Factory's {INFO_FILE}: set `dataset_dir` to the folder that holds it too."
            )
        message = f"There is no data set {name!r}: no such file or folder, and {lacks}.{mean}"
        return CheckResult((self.problem(message, name, meant),))

    def here(self) -> tuple[str, ...]:
        """Names on this machine that could have been meant."""
        return (*islice(self.info, ENTRIES), *SHIPPED, *files((*self.folders, self.base)))

    def value(self) -> str:
        return str(plain(self.config.get(self.spec.key)))

    def problem(
        self, message: str, name: str = "", meant: str | None = None, severity: Literal["error", "warning"] = "error"
    ) -> Problem:
        key = self.spec.key
        fixes = replacement_fixes(self.config, self.spec, name, meant)
        return Problem("unresolved", key, self.value(), message, fixes, severity, keys=(key, "dataset_dir"))


def files(folders: Iterable[Path]) -> Iterator[str]:
    """Names of the data files among the first `MOST` entries of each folder. Unreadable folders are skipped."""
    for folder in dict.fromkeys(folders):
        try:
            names = [entry.name for entry in islice(folder.iterdir(), MOST)]
        except OSError:
            continue
        yield from (name for name in sorted(names) if name.endswith(DATA_SUFFIXES) and name != INFO_FILE)


DEMO, DEMO_PAIRS = "llf_demo", "llf_demo_pairs"

SHIPPED = (DEMO, DEMO_PAIRS)
"""Data sets that come with LLF."""
INFO_FILE = "dataset_info.json"


@dataclass(frozen=True)
class Place:
    """Location of a data set, by its name; `path` is the file or folder of the kind `path`."""

    kind: Literal["entry", "shipped", "url", "path", "hub", "nowhere"]
    path: Path | None = None


def locate(name: str, base: Path, info: Mapping[str, object], folders: Sequence[Path] = ()) -> Place:
    """Resolve the name of a data set: an entry, a data set of LLF, a URL, a path, or a hub id; the first that fits.

    Args:
        base: `dataset_dir`.
        info: the entries of its `dataset_info.json`.
        folders: folders to search for relative paths, after the working directory and before `base`.
    """
    if name in info:
        return Place("entry")
    if name in SHIPPED:
        return Place("shipped")
    if "://" in name:
        return Place("url")
    for folder in (Path(), *folders, base):
        path = folder / expanded(name)
        if is_there(path):
            return Place("path", path)
    return Place("hub" if _is_hub_id(name) else "nowhere")


def _is_hub_id(name: str) -> bool:
    owner, slash, repository = name.partition("/")
    return bool(slash and owner and repository) and "/" not in repository and not name.startswith((".", "~"))


def info_of(path: Path) -> dict[str, Any]:
    """Read the entries of a `dataset_info.json`, as of LLaMA-Factory; empty if there is no such regular file.

    Raises:
        ValueError: it is not a JSON object; the text is a sentence for the user.
    """
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows may begin it with a mark
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(info, dict):
        raise ValueError(f"{path} is not a JSON object. Expected an object that maps data set names to entries.")  # noqa: TRY004
    return info
