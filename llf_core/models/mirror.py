"""Downloads models and adapters from ModelScope and Modelers into LLF's own cache."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING

from llf_core.config.name_checks.hub import (
    LISTING,
    REVISION,
    Mirror,
    MirrorError,
    MirrorFile,
    cache_folder,
    mirror_of,
    offline,
)
from llf_core.config.name_checks.models import may_be_hub_id, meant_instead, shown_name
from llf_core.models.errors import ModelError, connection_line, first_line
from llf_core.models.header_check import check_sizes
from llf_core.models.model_folder import card_license, check_files, check_shards
from llf_core.models.model_source import ModelSource
from llf_core.runs.lock import shared_lock
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llf_core.config import RunConfig

    Choose = Callable[[list[str]], list[str]]

logger = logging.getLogger(__name__)

SECONDS = 10.0
"""Timeout of a connection."""
TRIES = 3
PARTIAL = 206


def mirror_model(name: str, config: RunConfig, choose: Choose, *, weights: bool) -> ModelSource:
    """Find a mirror's model in the cache, or download the files that `choose` selects, as `hub_model` does."""
    folder = mirror_folder(name, config.model.model_revision, config, choose)
    files = [file.name for file in folder.iterdir()]
    check_files(name, files, allow_pickle=config.model.allow_pickle, weights=weights)
    if weights:
        check_shards(folder)
        check_sizes(folder)
    return ModelSource(name, folder, "folder", license=card_license(folder), portable_name=str(folder))


def mirror_folder(name: str, revision: str, config: RunConfig, choose: Choose) -> Path:
    """Download files of a repository; those in the cache that have not changed are kept.

    An interrupted download is continued; a second process waits for the first.

    Args:
        revision: branch, tag or commit; `main` is the mirror's own main branch.
    """
    mirror = mirror_of(config.model.hub)
    if mirror is None or not may_be_hub_id(name) or "/" not in name or not REVISION.fullmatch(revision):
        raise ModelError(
            f"{shown_name(name)} at {shown_name(revision)} is no model of a hub. Expected owner/name, and a branch, "
            f"tag or commit as model_revision.{meant_instead(name, config.model.cache_dir)}"
        )
    named = mirror.revision(revision)
    folder = cache_folder(config.model.hub, name, named, config.model.cache_dir)
    if offline():
        return _cached(folder, mirror, name, ConnectionError("HF_HUB_OFFLINE is set"))
    try:
        files = mirror.files(name, named, SECONDS)
    except MirrorError as error:
        if error.status < 500:  # noqa: PLR2004 - the hub understood and refused
            raise ModelError(_refusal(mirror, name, named, error.status)) from error
        return _cached(folder, mirror, name, error)
    except Exception as error:  # noqa: BLE001 - networks, proxies and their clients fail in many ways
        return _cached(folder, mirror, name, error)
    wanted = set(choose([file.name for file in files]))
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    # Two processes would write into the same part of a file.
    with shared_lock(f"mirror-{digest}", f"Waiting for another process that downloads {name}."):
        known = _listing(folder)
        for file in files:
            if file.name not in wanted or known.get(file.name) == [file.size, file.sha256]:
                continue
            logger.info(f"Downloading {file.name} of {name} from {mirror.label}, {file.size / 1e6:,.1f} MB …")
            _download(mirror, name, named, file, folder / file.name)
            known[file.name] = [file.size, file.sha256]
            written = folder / f"{LISTING}.new"
            written.write_text(json.dumps(known), encoding="utf-8")
            written.replace(folder / LISTING)  # a list that is cut off would let all files be downloaded again
    return folder


def _cached(folder: Path, mirror: Mirror, name: str, error: Exception) -> Path:
    if _listing(folder):
        logger.info(f"Using the cached copy of {name}, since {mirror.shown} does not answer.")
        return folder
    why = connection_line(error).rstrip(".")
    raise ModelError(
        f"{name} is not in the cache, and {mirror.shown} did not answer like {mirror.label} ({why}). Check the "
        f"network, {mirror.address_variable} and the proxy variables, or use a local folder."
    ) from error


def _listing(folder: Path) -> dict[str, object]:
    """Sizes and checksums of complete files by name; empty if there is no download, or its list is damaged."""
    kept = read_object_or_empty(folder / LISTING)
    return {name: entry for name, entry in kept.items() if (folder / name).is_file()}


def _refusal(mirror: Mirror, name: str, revision: str, status: int) -> str:
    page = f"{mirror.shown}/models/{name}"
    if status in {401, 403, 404}:
        return (
            f"{mirror.label} has no model {name} with the revision {revision}, or it is private. Check the name on "
            f"{page}; for a private model set {mirror.token_variable} to a token that may read it."
        )
    return f"{mirror.label} answered the request for {name} with status {status}. Check the name on {page}."


def _download(mirror: Mirror, name: str, revision: str, file: MirrorFile, path: Path) -> None:
    """Download a file, or the rest of it, and compare the whole by its checksum."""
    address = f"{mirror.endpoint}/{mirror.file_path(name, revision, file.name)}"
    part = path.with_name(f".{path.name}.part")
    why = "the connection ended early"
    for _ in range(TRIES):
        try:
            _receive(address, mirror.headers, part, file.size)
        except OSError as error:
            if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
                raise  # such as a full disk: not a network problem
            why = first_line(error).rstrip(".") or type(error).__name__
        except Exception as error:  # noqa: BLE001 - networks, proxies and their clients fail in many ways
            why = first_line(error).rstrip(".") or type(error).__name__
        size = part.stat().st_size if part.is_file() else 0
        if size == file.size and file.sha256 in {"", _sha256(part)}:
            part.replace(path)
            return
        if size >= file.size:
            part.unlink(missing_ok=True)
            why = "its content is not the one that the hub lists"
    raise ModelError(
        f"{file.name} of {name} could not be downloaded from {mirror.shown}: {why}. Start again to continue the "
        "download, or use a local folder."
    )


def _receive(address: str, headers: Mapping[str, str], part: Path, most: int) -> None:
    """Append the rest of a file, up to `most` bytes and one chunk together."""
    from huggingface_hub.utils import get_session

    start = part.stat().st_size if part.is_file() else 0
    asked = {**headers, **({"Range": f"bytes={start}-"} if start else {})}
    with get_session().stream("GET", address, headers=asked, timeout=SECONDS, follow_redirects=True) as said:
        if said.status_code >= 400:  # noqa: PLR2004 - refusals and errors of HTTP
            raise MirrorError(said.status_code)
        with part.open("ab" if said.status_code == PARTIAL else "wb") as kept:
            size = kept.tell()
            for data in said.iter_bytes():
                size += kept.write(data)
                if size > most:
                    return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
