"""Finds the data sets that a config names: entries of `dataset_info.json`, files, hub ids, the demo data sets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.classify_key import show
from llf_core.config.declaration import FormatDeclaration
from llf_core.config.did_you_mean import did_you_mean, listed
from llf_core.config.name_checks.data_sets import DEMO, DEMO_PAIRS, INFO_FILE, info_of, locate
from llf_core.config.paths import CELL_ROWS_FILE, ONLINE, REMOTE, is_there
from llf_core.config.registry import declared
from llf_core.config.rules.data import COLUMNS
from llf_core.data.errors import DataError, EntryError
from llf_core.data.hub import download_file
from llf_core.data.source import Source
from llf_core.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llf_core.config import RunConfig

DEMO_FILE = Path(__file__).with_name("demo") / "llf_demo.jsonl"
DEMO_FILES = {name: DEMO_FILE.with_name(f"{name}.jsonl") for name in (DEMO, DEMO_PAIRS)}
TAGS = (
    "role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag",
)  # fmt: skip
LOCATION_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "file_name")
ENTRY_KEYS = ("formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags")
NOT_BUILT_LOCATIONS = {
    "ms_hub_url": "ModelScope",
    "om_hub_url": "Modelers",
    "script_url": "loading scripts",
}
CELL_ROWS_LABEL = "(rows of the cell)"
"""Label of the rows of a cell, whose file name is generated."""
MAX_SAMPLES = 100_000_000


def sources_of(config: RunConfig, names: tuple[str, ...], folders: tuple[Path, ...] = ()) -> list[Source]:
    """Find data sets by name with the config's settings, also in `folders` for relative paths. No record is read."""
    data = config.data
    return find_sources(names, data.dataset_dir, folders, data.dataset_format, data.dataset_columns)


def media_dir(config: RunConfig) -> Path:
    """Base folder of relative paths of media: `media_dir`, else `dataset_dir` as in LLaMA-Factory."""
    return Path(config.data.media_dir or config.data.dataset_dir)


def find_sources(
    names: Iterable[str],
    dataset_dir: str | Path,
    folders: Sequence[Path] = (),
    formatting: str | None = None,
    columns: dict[str, str] | None = None,
) -> list[Source]:
    """Find data sets by name. Reads only `dataset_info.json`.

    Args:
        dataset_dir: folder with `dataset_info.json` and its files. As in LLaMA-Factory, `ONLINE` makes all names hub
            ids, and `REMOTE:owner/name` reads the file from a hub's data set.
        folders: folders to search for relative paths, besides the working directory and `dataset_dir`.
        formatting: format of data sets without an entry; None to infer it.
        columns: the data set's column for each of LLaMA-Factory's names, of data sets without an entry; None for the
            format's own names.
    """
    if str(dataset_dir) == ONLINE:
        found = [Source(name, hub_id=name) for name in names]
    else:
        base, info = Path(dataset_dir), _read_dataset_info(dataset_dir)
        found = [_find(name, base, info, folders) for name in names]
    short = [_short_name(one) for one in found]
    # One that is named twice, as data that is evaluated too, keeps its short name.
    shared = Counter(label for label, _ in set(zip(short, (one.name for one in found), strict=True)))
    named = [
        replace(source, label=label if shared[label] == 1 else redact(source.name))
        for source, label in zip(found, short, strict=True)
    ]
    if formatting is None:
        return named
    pairs = None if columns is None else _pairs(columns)
    ranking = {"chosen", "rejected"} <= set(columns or {})
    return [
        source
        if source.formatting is not None
        else replace(source, formatting=formatting, columns=pairs, ranking=ranking, described="dataset_format")
        for source in named
    ]


def _short_name(source: Source) -> str:
    """Name of a data set as shown to people, without credentials of a URL and the file name of rows from a cell."""
    if source.path is not None and CELL_ROWS_FILE.fullmatch(source.path.name):
        return CELL_ROWS_LABEL
    if source.url is not None and "://" in source.name:
        return redact(source.name).partition("?")[0].rpartition("/")[2] or redact(source.name)
    return Path(source.name).name or source.name if source.path is not None else source.name


def _read_dataset_info(dataset_dir: str | Path) -> dict[str, dict[str, object]]:
    """Read `dataset_info.json`, or nothing if there is none."""
    if str(dataset_dir).startswith(REMOTE):
        path = download_file(str(dataset_dir).removeprefix(REMOTE), INFO_FILE)
    else:
        path = Path(dataset_dir) / INFO_FILE
    try:
        return info_of(path)
    except ValueError as error:
        raise DataError(str(error)) from None


def _find(name: str, base: Path, info: dict[str, dict[str, object]], folders: Sequence[Path]) -> Source:
    place = locate(name, base, info, folders)
    if place.kind == "entry":
        return _from_entry(name, info[name], base)
    if place.kind == "shipped":
        return Source(name, path=DEMO_FILES[name])
    if place.kind == "url":
        return Source(name, url=name)
    if place.path is not None:
        return Source(name, path=place.path)
    if place.kind == "hub":
        return Source(name, hub_id=name)
    known = [*DEMO_FILES, *info]
    where = f"{base / INFO_FILE} names {listed(info)}" if info else f"there is no {base / INFO_FILE}"
    raise DataError(
        f"There is no data set {name!r}: no such file or folder, and {where}.{did_you_mean(name, known)} "
        f"Give a path, a hub id such as owner/name, or {DEMO}."
    )


def _check_keys(where: str, given: Iterable[str], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise EntryError(
                f"{where} has an unknown key {key!r}.{did_you_mean(key, known)} Known: {', '.join(known)}."
            )


def _from_entry(name: str, entry: Any, base: Path) -> Source:
    where = f"The entry {name!r} of {base / INFO_FILE}"
    _check_entry(where, entry)
    columns = entry.get("columns")
    shape = {
        "formatting": entry.get("formatting", "alpaca"),
        "columns": None if columns is None else _pairs(columns or {}),
        "tags": _pairs(entry.get("tags") or {}),
        "num_samples": entry.get("num_samples"),
        "ranking": bool(entry.get("ranking")),
    }
    if entry.get("hf_hub_url"):
        hub = {key: entry[key] for key in ("subset", "split", "folder") if entry.get(key)}
        return Source(name, hub_id=entry["hf_hub_url"], **hub, **shape)
    if entry.get("cloud_file_name"):
        return Source(name, url=entry["cloud_file_name"], **shape)
    for key, what in NOT_BUILT_LOCATIONS.items():
        if entry.get(key):
            raise EntryError(
                f"{where} comes from {what} ({key}), which is not supported yet. Set file_name or hf_hub_url."
            )
    if not entry.get("file_name"):
        raise EntryError(f"{where} has neither file_name nor hf_hub_url. Set file_name, relative to {base}.")
    path = base / entry["file_name"]
    if not is_there(path):
        raise DataError(f"{where} names {entry['file_name']}, but {path} does not exist.")
    return Source(name, path=path, **shape)


def _pairs(mapping: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in mapping.items() if value))


def _check_entry(where: str, entry: object) -> None:
    if not isinstance(entry, dict):
        raise EntryError(f'{where} is not an object. Expected one such as {{"file_name": "a.json"}}.')
    _check_keys(where, entry, (*LOCATION_KEYS, *ENTRY_KEYS))
    for key in ("columns", "tags"):
        given = entry.get(key) or {}
        if not isinstance(given, dict) or not all(isinstance(one, str | None) for one in given.values()):
            raise EntryError(f"{where} has {key} {show(given)}. Expected an object of strings.")
    for key in (*LOCATION_KEYS, "formatting", "subset", "split", "folder"):
        if not isinstance(entry.get(key), str | None):
            raise EntryError(f"{where} has {key} {show(entry[key])}. Expected a string.")
    if not isinstance(entry.get("ranking"), bool | None):
        raise EntryError(f"{where} has ranking {show(entry['ranking'])}. Expected true or false.")
    wanted = entry.get("num_samples")
    if wanted is not None and not (
        isinstance(wanted, int) and not isinstance(wanted, bool) and 1 <= wanted <= MAX_SAMPLES
    ):
        raise EntryError(
            f"{where} has num_samples {show(wanted)}. Expected an integer from 1 to {MAX_SAMPLES:,}, or null."
        )
    columns = entry.get("columns") or {}
    _check_keys(f"{where}, in `columns`,", columns, COLUMNS)
    _check_keys(f"{where}, in `tags`,", entry.get("tags") or {}, TAGS)
    formatting = entry.get("formatting", "alpaca")
    known = [name for name, one in declared(FormatDeclaration).items() if one.layout != "text"]
    if formatting not in known:
        raise EntryError(f"{where} has formatting {formatting!r}. Expected one of {', '.join(known)}.")
