"""Suggestions for data sets and models without a hub, and questions to hubs about names in a thread."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from llf_core.chat.kept_examples import kept_datasets
from llf_core.config.name_checks import query_hub
from llf_core.config.name_checks.data_sets import INFO_FILE, info_of
from llf_core.config.paths import expanded
from llf_core.data.sources import DEMO_FILES
from llf_core.launch.start import to_table, write_rows
from llf_core.runs import home
from llf_core.runs.uploads import UPLOADS
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    import pyarrow as pa

    from llf_core.config.name_checks import Answer
    from llf_core.model_catalog import CatalogModel

_DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_MOST = 50


@dataclass(frozen=True)
class Completions:
    """Values that complete a text, with a description of each, and a sentence on further ones."""

    options: tuple[tuple[str, str], ...]
    more: str = ""


def datasets(dataset_dir: str, here: Path | None = None) -> list[str]:
    """At most 50 values for `dataset`: built-in sets, names in `dataset_info.json`, rows kept in chats, data files.

    Args:
        here: folder for relative paths; None for the working directory.
    """
    folder = expanded(dataset_dir)
    here = here or Path.cwd()
    names = [*DEMO_FILES, *_named(folder / INFO_FILE), *(str(one.file) for one in kept_datasets())]
    for place in dict.fromkeys((here, folder)):
        files: list[Path] = []
        with suppress(OSError):
            files = sorted(file for file in place.iterdir() if file.suffix in _DATA_SUFFIXES and file.is_file())
        names += [str(file.relative_to(here)) if file.is_relative_to(here) else str(file) for file in files]
    return [name for name in dict.fromkeys(names) if name and Path(name).name != INFO_FILE][:_MOST]


def models(here: Path | None = None) -> list[str]:
    """At most 50 models of this machine: the embedded one, and GGUF files and model folders in `here`."""
    from llf_core.config.model import EMBEDDED

    here = here or Path.cwd()
    found = [
        entry.name
        for entry in sorted(here.iterdir())
        if entry.suffix == ".gguf" or leads_to_file(entry / "config.json")
    ]
    return [EMBEDDED, *(f"./{name}" for name in found)][:_MOST]


def complete_model(text: str, here: Path | None = None) -> Completions:
    """Complete the name of a model while it is typed: models of this machine first, then of the catalog.

    Args:
        text: parts of a name, in any order. Without text, only models of this machine are listed; for a whole name
            none.
    """
    from llf_core.model_catalog import find_model, search_models

    words = text.lower().split()
    local = [one for one in models(here) if all(word in one.lower() for word in words)]
    if not words:
        return Completions(tuple((one, "on this machine") for one in local))
    if text in local or find_model(text) is not None:
        return Completions(())
    known = search_models(words)
    options = [*((one, "on this machine") for one in local), *((one.id, _facts(one)) for one in known)]
    more = len(options) - _MOST
    return Completions(tuple(options[:_MOST]), f"{more} more: type another part of the name." if more > 0 else "")


def _facts(model: CatalogModel) -> str:
    return " · ".join(one for one in (model.size, model.license, "gated" if model.gated else "") if one)


def _named(info: Path) -> list[str]:
    try:
        return list(info_of(info))
    except (OSError, ValueError):
        return []


Asked = TypeVar("Asked")

DEBOUNCE_SECONDS = 0.3
"""Seconds without new questions before the hub is queried."""

RETRY_SECONDS = 60.0
"""Seconds after which an unreachable hub is queried again."""


class HubLookup(Generic[Asked]):
    """Answers from a hub about names, kept while the form is open.

    Args:
        on_answer: called in the background thread when there are new answers.
        query: answers questions; None for the hubs.
    """

    def __init__(
        self,
        on_answer: Callable[[], None],
        query: Callable[[Collection[Asked]], Mapping[Asked, Answer]] | None = None,
    ) -> None:
        self._query = query
        self._on_answer = on_answer
        self._lock = threading.Lock()
        self._requested: tuple[Asked, ...] = ()
        self._answers: dict[Asked, tuple[Answer, float]] = {}
        self._thread: threading.Thread | None = None

    @property
    def answers(self) -> Mapping[Asked, Answer]:
        """Copy of the answers so far."""
        with self._lock:
            return {question: answer for question, (answer, _) in self._answers.items()}

    def request(self, questions: Iterable[Asked]) -> None:
        """Replace the current questions, of which unanswered ones are sent `DEBOUNCE_SECONDS` after the last change."""
        with self._lock:
            self._requested = tuple(questions)
            if self._unanswered() and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llf-form-hub", daemon=True)
                self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until all questions are answered, or `timeout` seconds have passed, for tests and scripts."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _unanswered(self) -> tuple[Asked, ...]:
        """Questions without a valid answer. The caller holds the lock."""
        now = time.monotonic()
        known = {
            question
            for question, (answer, at) in self._answers.items()
            if answer.there is not None or now - at < RETRY_SECONDS
        }
        return tuple(question for question in self._requested if question not in known)

    def _run(self) -> None:
        try:
            self._ask()
        except BaseException:  # of `on_answer`: the next questions need a thread again
            with self._lock:
                self._thread = None
            raise

    def _ask(self) -> None:
        before: tuple[Asked, ...] = ()
        while True:
            with self._lock:
                questions = self._unanswered()
                if not questions:
                    self._thread = None
                    return
            if questions != before:  # somebody may be typing
                before = questions
                time.sleep(DEBOUNCE_SECONDS)
                continue
            query = cast("Callable[[Collection[Asked]], Mapping[Asked, Answer]]", self._query or query_hub)
            found = query(questions)
            with self._lock:
                self._answers |= {question: (answer, time.monotonic()) for question, answer in found.items()}
            self._on_answer()


VARIABLE = "rows"


@dataclass(frozen=True)
class CellRows:
    """Rows from a cell, stored as a Parquet file, so that every check and view reads them like any data set."""

    table: pa.Table
    path: str
    variable: str

    @classmethod
    def save(cls, rows: object) -> CellRows:
        """Write rows in any form that `llf.train` accepts below `LLF_HOME`; equal rows go to the same file."""
        table = to_table(rows)
        path, _ = write_rows(table, home() / UPLOADS)
        return cls(table, str(path), _variable(rows))

    def ensure_saved(self) -> None:
        """Write the file again if `llf runs clean` removed it while the form was open."""
        if not Path(self.path).exists():
            write_rows(self.table, Path(self.path).parent)

    @property
    def label(self) -> str:
        """Label of the data set in the form in place of the file name: `40 rows from this cell`."""
        count = self.table.num_rows
        return f"{count:,} {'row' if count == 1 else 'rows'} from this cell"

    def to_display(self, text: str) -> str:
        """Replace the file name in a value of `dataset` with the label."""
        return text.replace(self.path, self.label)

    def from_display(self, text: str) -> str:
        """Replace the label in a typed value of `dataset` with the file name."""
        return text.replace(self.label, self.path)

    def matches(self, dataset: object) -> bool:
        """Whether a value of `dataset` refers to these rows only, in any form that a config accepts."""
        return dataset in (self.path, (self.path,), [self.path])


def _variable(rows: object) -> str:
    """Name of the variable that holds an object in the notebook; `rows` if none."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    names = {} if shell is None else shell.user_ns
    return next((name for name, value in names.items() if value is rows and not name.startswith("_")), VARIABLE)
