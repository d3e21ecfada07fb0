"""Finds the data sets that a config names: of `dataset_info.json`, in files, built in, and on a hub."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.classify_key import show
from llf_core.config.declaration import FormatDeclaration
from llf_core.config.did_you_mean import did_you_mean, listed
from llf_core.config.name_checks.data_sets import DEMO, DEMO_PAIRS, INFO_FILE, info_of, locate
from llf_core.config.name_checks.hub import fetch_repository_info
from llf_core.config.paths import CELL_ROWS_FILE, ONLINE, REMOTE, is_there
from llf_core.config.registry import declared
from llf_core.config.rules.data import COLUMNS
from llf_core.data.errors import DataError, EntryError
from llf_core.models.errors import NO_CERTIFICATES, lacks_certificates
from llf_core.models.hub import INVALID_RESPONSE
from llf_core.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from datasets import Dataset, IterableDataset

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


@dataclass(frozen=True)
class Source:
    """A data set that was found but not read yet.

    Attributes:
        label: name as shown to people: the last component of a path, if that is unique.
        path: file or folder.
        url: URL of a cloud file.
        subset: subset (configuration) of the hub's data set; None for its default.
        folder: folder inside the hub's repository; None for the whole repository.
        num_samples: number of records to sample, with replacement if there are fewer; None for all, in their order.
        formatting: `alpaca`, `sharegpt`, `openai`, or None to infer it from the columns.
        columns: the data set's column for each of LLaMA-Factory's names; None for the format's defaults.
        tags: the data set's tag for each of LLaMA-Factory's names.
        described: where format and columns are set.
    """

    name: str
    label: str = ""
    path: Path | None = None
    hub_id: str | None = None
    url: str | None = None
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    num_samples: int | None = None
    formatting: str | None = None
    columns: tuple[tuple[str, str], ...] | None = None
    tags: tuple[tuple[str, str], ...] = ()
    ranking: bool = False
    described: str = "dataset_info.json"


PROBE_SECONDS = 3.0
"""Seconds after which a silent hub counts as offline; chosen by hand."""
SILENT = f"the hub did not answer within {PROBE_SECONDS:g} s"
REFUSED_CODES = {401, 403, 404}


def load_hub_dataset(
    source: Source, cache_dir: str | None = None, *, streaming: bool = False
) -> Dataset | IterableDataset:
    """Open a data set of the hub; if the hub does not answer within 3 s, from the client's cache.

    Raises:
        DataError: no hub id; no such data set, subset or split; gated or private; no connection and nothing in the
            cache; or an unreadable file or answer.
    """
    import datasets

    why = _no_answer(str(source.hub_id))
    try:
        with _offline() if why else nullcontext():
            return datasets.load_dataset(
                source.hub_id,
                name=source.subset,
                data_dir=source.folder,
                split=source.split,
                cache_dir=cache_dir,
                streaming=streaming,
            )
    except datasets.exceptions.DatasetNotFoundError:
        raise DataError(_refusal(str(source.hub_id))) from None
    except (ConnectionError, RuntimeError, datasets.exceptions.DatasetsError, *INVALID_RESPONSE) as error:
        if why:
            raise DataError(_unreachable(str(source.hub_id), why)) from None
        raise DataError(f"The data set {source.hub_id!r} cannot be opened: {_first_line(error)}.") from None


def download_file(repository: str, name: str) -> Path:
    """Download a single file of a data set's repository, such as `dataset_info.json`, or take it from the cache.

    Raises:
        DataError: no hub id; no such data set or file; gated or private; or no connection and nothing in the cache.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    why = _no_answer(repository)
    try:
        found = hf_hub_download(repository, name, repo_type="dataset", local_files_only=bool(why), endpoint=_endpoint())
    except RepositoryNotFoundError:  # a gated one, whose description everyone may read
        raise DataError(_refusal(repository)) from None
    except (EntryNotFoundError, *INVALID_RESPONSE) as error:
        if why or not isinstance(error, EntryNotFoundError):
            raise DataError(_unreachable(repository, why or SILENT)) from None
        raise DataError(f"The data set {repository!r} of the hub has no file {name}.") from None
    return Path(found)


def _no_answer(hub_id: str) -> str:
    """Why the hub cannot be asked; empty if it answers. The client itself would retry for half a minute."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    # The client's HTTP library has changed its name over versions; its errors have one base.
    network: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    try:
        fetch_repository_info("dataset", hub_id, "main", seconds=PROBE_SECONDS)
    except HFValidationError:
        raise DataError(f"{hub_id!r} is neither a path nor a hub id such as owner/name.") from None
    except HfHubHTTPError as error:
        if error.response.status_code in REFUSED_CODES:
            raise DataError(_refusal(hub_id)) from None
        return SILENT
    except (network, OSError) as error:
        if lacks_certificates(error):
            return NO_CERTIFICATES.rstrip(".")
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # such as a full disk: not a network problem
        return SILENT
    except INVALID_RESPONSE:
        return SILENT
    return ""


@contextmanager
def _offline() -> Iterator[None]:
    """Make the client use only its cache. It takes no argument for that, only these two switches."""
    import datasets
    import huggingface_hub

    switches = (huggingface_hub.constants, datasets.config)
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    try:
        for switch in switches:
            switch.HF_HUB_OFFLINE = True
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _refusal(hub_id: str) -> str:
    page = f"{_endpoint() or 'https://huggingface.co'}/datasets/{hub_id}"
    return (
        f"The hub has no data set {hub_id!r}: there is none of that name, or it is gated or private. "
        f"Look at {page}, accept the conditions there, and set HF_TOKEN to a token that may read it."
    )


def _unreachable(hub_id: str, why: str) -> str:
    return (
        f"The data set {hub_id!r} is not in the hub's cache, and {why}. Check the network, HF_ENDPOINT and the proxy "
        "variables, or use a local file. llf_demo needs no hub."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
