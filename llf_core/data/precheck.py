"""Checks of the data, before it is read, that a run would fail by: sets, columns, kinds, chat templates, media."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config import Fix, Problem
from llf_core.config.declaration import StageDeclaration
from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.data_sets import DEMO, DEMO_PAIRS
from llf_core.config.name_checks.model_folder import config_of, folder_of
from llf_core.config.paths import COMPRESSED
from llf_core.config.registry import declared
from llf_core.data.align import PEEK_ROWS, decide, kind_by_entry, other_kind, stages_for, wanted_kind
from llf_core.data.chat_template import OWN_TEMPLATE
from llf_core.data.conversation import ANSWERS, PAIRS, REASONING_FIELDS, TEXTS, cell_of
from llf_core.data.data_file import LongFileError, file_type, limit_file
from llf_core.data.errors import BadExample, DataError, EntryError, OtherKindError
from llf_core.data.file_readers import read_file, record_unit
from llf_core.data.load import no_records_error, open_source
from llf_core.data.media import KINDS, add_media
from llf_core.data.media_files import check_medium
from llf_core.data.records import BrokenLine, Record, renames_of
from llf_core.data.sources import media_dir, sources_of
from llf_core.data.template_check import CALLS, DROPPED, TOOLS, FieldCheck, fields_of
from llf_core.data.template_facts import NO_CHAT_TEMPLATE, SETTINGS, own_template_text, why_never_ends_here
from llf_core.data.templates import named_template
from llf_core.estimate.model_shapes import is_multimodal
from llf_core.runs import home
from llf_core.untrusted import MODEL_SETTINGS_BYTES, read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llf_core.config import RunConfig
    from llf_core.config.declaration import DataKind
    from llf_core.data.align import Reading
    from llf_core.data.records import RecordOrBroken, Row
    from llf_core.data.sources import Source
    from llf_core.data.template_check import Field


WHOLE_FILE_TYPES = frozenset({"json"})
"""File types that must be read completely for their first record."""

MAX_FILE_BYTES = 4_000_000
"""Maximum size of such a file, or of a compressed file, for the quick check."""

MAX_READ_BYTES = 50_000_000
"""Maximum number of decompressed bytes to read."""


@dataclass(frozen=True)
class QuickCheck:
    """Result of a quick check.

    Attributes:
        rows: first records; empty if the data set is remote or slow to read.
        error: the error that training would raise. A missing data set is no error here; it is reported elsewhere.
        entry: whether `dataset_info.json` describes how it is read.
    """

    rows: tuple[Row, ...] = ()
    reading: Reading | None = None
    error: DataError | None = None
    entry: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, in order of occurrence, for a form's choice of columns; empty if no row was read."""
        return tuple(dict.fromkeys(column for row in self.rows for column in row))


def quick_check(config: RunConfig, name: str, kind: DataKind) -> QuickCheck:
    """Check a data set for a form, without reading much. Downloads only `dataset_info.json` of a hub (`REMOTE:`)."""
    try:
        (source,) = sources_of(config, (name,))
    except EntryError as error:
        return QuickCheck(error=error)
    except (DataError, ValueError):
        return QuickCheck()
    entry = source.formatting is not None and config.data.dataset_format is None
    rows: tuple[Row, ...] = ()
    try:
        rows = tuple(_first_rows(source))
        if rows:
            return QuickCheck(rows, decide(source, rows, kind), entry=entry)
        held = kind_by_entry(source, kind)
        return QuickCheck(error=None if held is None or held == kind else other_kind(source, held, kind), entry=entry)
    except DataError as error:
        return QuickCheck(rows, error=error, entry=entry)


def precheck(config: RunConfig, name: str, kind: DataKind) -> DataError | None:
    """The error of a quick check that training would raise; None if no problem is known."""
    return quick_check(config, name, kind).error


def _first_rows(source: Source) -> list[Row]:
    """First records of a local data set; empty if it is remote, slow to read or not permitted to be read."""
    if source.path is None:
        return []
    try:
        files = open_source(source).files
        local = [file for file in files if isinstance(file, Path)]
        if not local:
            return []
        file = next((one for one in local if one.stat().st_size), local[0])  # an empty one holds no record
        stat = file.stat()
        costly = file_type(file) in WHOLE_FILE_TYPES or file.suffix.lower() in COMPRESSED
        if costly and stat.st_size > MAX_FILE_BYTES:
            return []
        entries, whole = _entries(file, stat.st_mtime_ns, stat.st_size)
        rows = [entry.row for entry in entries if isinstance(entry, Record)]
        if rows or not whole or len(files) != 1:
            return rows
        unit = record_unit((file,))
    except OSError:
        return []
    flaws = [entry for entry in entries if isinstance(entry, BrokenLine)]
    raise no_records_error(source.label, str(file), flaws, unit)


@functools.lru_cache(maxsize=64)
def _entries(file: Path, _changed: int, size: int) -> tuple[list[RecordOrBroken], bool]:
    """First entries of a file, and whether these are all; cached until the file changes."""
    found: list[RecordOrBroken] = []
    if not size:
        return found, True
    try:
        found.extend(islice(read_file(limit_file(file, MAX_READ_BYTES)), PEEK_ROWS))
    except LongFileError:
        return found, False
    return found, len(found) < PEEK_ROWS


FIELDS = ("dataset", "eval_dataset")
FORMAT_KEYS = ("dataset_format", "dataset_columns")
DEMOS = {ANSWERS: DEMO, PAIRS: DEMO_PAIRS}


def dataset_problems(config: RunConfig) -> tuple[Problem, ...]:
    """Find the data sets of a config that do not fit its stage or cannot be read; at most one problem per field."""
    kind, found = wanted_kind(config), []
    for key in FIELDS:
        names: Sequence[str] = config.get(key) or ()
        for name in names:
            error = precheck(config, name, kind)
            if error is not None:
                fixes = _fixes(key, names, error, kind)
                if config.data.dataset_format is not None:
                    fixes = (*fixes, Fix("Detect automatically", dict.fromkeys(FORMAT_KEYS)))
                found.append(Problem("invalid", key, ",".join(names), error.message, fixes, keys=(key, "stage")))
                break  # one problem per field
    return tuple(found)


def demo_for_stage(name: object, stage: str) -> str | None:
    """Name of the demo data set of a stage; None if there is none, or if `name` is no demo data set."""
    known = declared(StageDeclaration)
    data_kind = known[stage].data_kind if stage in known else ANSWERS
    return DEMOS.get(data_kind) if name in DEMOS.values() else None


def usable_datasets(config: RunConfig | None, names: Sequence[str]) -> list[str]:
    """Filter the data sets that fit the stage, as far as known without network access; all if the config has errors."""
    if config is None:
        return list(names)
    kind = wanted_kind(config)
    return [name for name in names if not isinstance(precheck(config, name, kind), OtherKindError)]


def _fixes(key: str, names: Sequence[str], error: Exception, kind: DataKind) -> tuple[Fix, ...]:
    if not isinstance(error, OtherKindError):
        return ()
    stages = stages_for(error.kind) if key == "dataset" else ()
    fixes = [Fix(f"Set the stage to {name}", {"stage": name}) for name in stages]
    changes: dict[str, str] = {key: DEMOS[kind]} if kind in DEMOS else {}
    if changes and set(names) <= set(DEMOS.values()):
        fixes.insert(0, Fix(f"Take {DEMOS[kind]}", changes))
    return tuple(fixes)


ALIASES = ("reasoning_content", "thinking", "reasoning")
"""Fields that transformers gives to a tokenizer's own template under each of these names."""
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def template_problems(config: RunConfig) -> tuple[Problem, ...]:
    """Find what is wrong with a config's chat template, from its text and the files of the tokenizer.

    An error beside `template` if the model has no template, or lacks the token with which the named one ends responses.
    Else a warning beside `dataset` for each field of the first records whose name does not occur in the template; a
    field that it mentions may still be dropped, which the run finds by rendering.
    """
    kind = wanted_kind(config)
    if kind == TEXTS:
        return ()
    folder = _model_folder(config)
    if folder is not None and (problem := _unusable(config, folder)) is not None:
        return (problem,)
    source = _source(config, folder)
    if not source:
        return ()
    name = config.data.template or OWN_TEMPLATE
    names = (*(config.data.dataset or ()), *(config.data.eval_dataset or ()))
    fields = sorted({field for one in names for field in _fields(config, one, kind)})
    unread = _unread(source, fields, named=config.data.template is not None)
    return tuple(_problem(config, one, name) for one in unread)


def _fields(config: RunConfig, name: str, kind: DataKind) -> Iterable[Field]:
    found = quick_check(config, name, kind)
    if found.reading is None:
        return
    reading = replace(found.reading, renames=renames_of(config))
    for row in found.rows:
        try:
            yield from fields_of(reading.align(row))
        except BadExample:
            continue


def _unread(source: str, fields: Iterable[Field], *, named: bool) -> Iterable[FieldCheck]:
    """Fields that matter and that a template's text does not mention as a key."""

    def reads(name: str) -> bool:
        return re.search(rf"(?:\.|['\"]){name}\b", source) is not None

    for role, name in fields:
        if (role, name) == TOOLS:
            if re.search(r"\btools\b", source) is None:
                yield FieldCheck(role, name, DROPPED)
        elif (role, name) == CALLS or name in REASONING_FIELDS:
            same = ALIASES if name in ALIASES and not named else (name,)
            if not any(map(reads, same)):
                others = REASONING_FIELDS if name in REASONING_FIELDS else ()
                yield FieldCheck(role, name, DROPPED, rename=next((one for one in others if reads(one)), ""))


def _problem(config: RunConfig, field: FieldCheck, template: str) -> Problem:
    fixes: tuple[Fix, ...] = ()
    if field.rename:
        renames = {**(config.data.rename_fields or {}), field.name: field.rename}
        fixes = (Fix(f"Rename {field.name} to {field.rename}", {"rename_fields": renames}),)
    keys = ("dataset", "template", "rename_fields")
    return Problem("violation", "dataset", config.get("dataset"), field.text(template), fixes, "warning", keys=keys)


def _unusable(config: RunConfig, folder: Path) -> Problem | None:
    name = config.data.template
    try:
        why = (NO_CHAT_TEMPLATE if _has_none(folder) else "") if name is None else why_never_ends_here(config, folder)
    except DataError:
        return None  # the name is reported beside its key
    if not why:
        return None
    fixes = [] if name is None else [Fix("Add the token", {"resize_vocab": True})]
    if name is not None and not _has_none(folder):
        fixes.insert(0, Fix("Use the model's own template", {"template": None}))
    return Problem("violation", "template", name, why, tuple(fixes), keys=("template", "model_name_or_path"))


def _has_none(folder: Path) -> bool:
    """Whether a tokenizer has no chat template, in its settings or in a file of its own."""
    settings = Path(os.path.realpath(folder / SETTINGS))
    if not settings.is_file() or any((folder / name).exists() for name in TEMPLATE_FILES):
        return False
    told = read_object_or_empty(settings, MODEL_SETTINGS_BYTES)
    return bool(told) and not told.get("chat_template") and not told.get("auto_map")


def _model_folder(config: RunConfig) -> Path | None:
    model = config.model
    if model.model_name_or_path == EMBEDDED:
        folder = home() / "models" / EMBEDDED
        return folder if folder.is_dir() else None
    return folder_of(model.model_name_or_path, model.cache_dir)


def _source(config: RunConfig, folder: Path | None) -> str | None:
    data = config.data
    if data.template is not None:
        try:
            return named_template(data.template).jinja(tools=data.tool_format)
        except DataError:
            return None  # the name is reported beside its key
    if folder is None:
        return None
    return own_template_text(folder)


MOST_RECORDS = 20
"""Number of records of a data set whose media are checked."""


def media_problems(config: RunConfig) -> tuple[Problem, ...]:
    """Check the media of the first records of a config's local data: whether each file exists and is an image.

    One warning per `dataset` or `eval_dataset`; none for a text model, which leaves media out.
    """
    folder = folder_of(config.model.model_name_or_path, config.model.cache_dir)
    settings = {} if folder is None else config_of(folder)
    if settings and not is_multimodal(settings):
        return ()
    kind, found = wanted_kind(config), []
    for key in FIELDS:
        for name in config.get(key) or ():
            results = [*islice(_results(config, name, kind), MOST_RECORDS)]
            reasons = [one for one in results if one]
            if reasons:
                message = (
                    f"{len(reasons)} of the first {len(results)} records of {name} that have media cannot be used, the "
                    f"first because {reasons[0]}. A run drops such records. Expected readable files; relative paths "
                    f"start from {media_dir(config)} (media_dir)."
                )
                keys = (key, "media_dir", "model_name_or_path")
                found.append(Problem("violation", key, config.get(key), message, severity="warning", keys=keys))
    return tuple(found)


def _results(config: RunConfig, name: str, kind: DataKind) -> Iterator[str]:
    """Why each of the first records with media cannot be used; empty for one that can."""
    found = quick_check(config, name, kind)
    if found.reading is None:
        return
    columns = found.reading.columns
    for row in found.rows:
        if not any(cell_of(row, columns, column) for column in KINDS):
            continue
        try:
            conversation = add_media(found.reading.align(row), row, columns, media_dir(config))
            for medium in conversation.media:
                check_medium(medium)
        except BadExample as error:
            yield str(error)
        else:
            yield ""
