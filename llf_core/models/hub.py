"""Downloads models and adapters: from Hugging Face into its cache, from ModelScope and Modelers into LLF's own."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.name_checks.hub import (
    HUGGING_FACE,
    LISTING,
    REVISION,
    Mirror,
    MirrorError,
    MirrorFile,
    cache_folder,
    fetch_repository_info,
    mirror_of,
    offline,
)
from llf_core.config.name_checks.models import may_be_hub_id, meant_instead, shown_name
from llf_core.models.errors import ModelError, connection_line, first_line, lacks_certificates
from llf_core.models.header_check import check_sizes
from llf_core.models.model_folder import NON_WEIGHT_FILES, PICKLE_SUFFIXES, card_license, check_files, check_shards
from llf_core.models.model_source import ModelSource
from llf_core.runs.files import shared_lock
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from huggingface_hub import DatasetInfo, ModelInfo
    from huggingface_hub.errors import HfHubHTTPError

    from llf_core.config import RunConfig

    Choose = Callable[[list[str]], list[str]]

logger = logging.getLogger(__name__)
PROBE_SECONDS = 3.0

INVALID_RESPONSE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""Errors of the hub's client on an HTML page or unexpected JSON."""
WEIGHT_SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
FILE_TYPES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken", ".md")


def hub_model(name: str, config: RunConfig | None = None, *, weights: bool = True) -> ModelSource:
    """Find a hub's model in the cache, or download its config, safetensors and tokenizer.

    Args:
        config: None for the defaults.
        weights: whether the weights are needed; if not, they are not downloaded.

    Returns:
        The source, with the commit as its revision; of a mirror, a folder.
    """
    pickle_allowed = bool(config and config.model.allow_pickle)
    revision = config.model.model_revision if config else "main"

    def choose(files: Iterable[str]) -> list[str]:
        files = list(files)
        check_files(name, files, allow_pickle=pickle_allowed, weights=weights)
        wanted = _files_to_download(files, code=bool(config and config.model.trust_remote_code))
        return [file for file in wanted if weights or not file.endswith(WEIGHT_SUFFIXES)]

    if config is not None and config.model.hub != HUGGING_FACE:
        return mirror_model(name, config, choose, weights=weights)
    folder, commit, license_ = _snapshot(name, revision, config, choose)
    check_files(name, [file.name for file in folder.iterdir()], allow_pickle=pickle_allowed, weights=weights)
    if weights:
        check_shards(folder)
        check_sizes(folder)
    return ModelSource(name, folder, "hub", commit, None, license_ or card_license(folder), name)


def hub_adapter(name: str, config: RunConfig) -> Path:
    """Download an adapter from the hub, with `adapter_folder`. Its files are not checked."""
    start = f"{(config.model.adapter_folder or '').strip('/')}/".lstrip("/")

    def choose(files: Iterable[str]) -> list[str]:
        files = list(files)
        inside = [file.removeprefix(start) for file in files if file.startswith(start)]
        return [start + file for file in _files_to_download(inside, code=False)] or _files_to_download(
            files, code=False
        )

    if config.model.hub != HUGGING_FACE:
        return mirror_folder(name, "main", config, choose)
    return _snapshot(name, "main", config, choose)[0]


def _files_to_download(files: list[str], *, code: bool) -> list[str]:
    """Files in the top folder that loading needs; repositories also have other formats and results of tests."""
    top = [name for name in files if "/" not in name and not name.startswith(".")]
    kinds = FILE_TYPES + ((".py",) if code else ())
    if not any(name.endswith(".safetensors") for name in top):
        kinds += PICKLE_SUFFIXES
    return [name for name in top if name.endswith(kinds) and name not in NON_WEIGHT_FILES]


def _snapshot(  # noqa: C901 - one branch for each kind of answer
    name: str, revision: str, config: RunConfig | None, choose: Callable[[Iterable[str]], list[str]]
) -> tuple[Path, str, str | None]:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT") or None
    place: dict[str, object] = {"cache_dir": config.model.cache_dir if config else None, "endpoint": endpoint}
    failure: BaseException | None = None
    if not constants.HF_HUB_OFFLINE:
        try:
            info = fetch_repository_info("model", name, revision, seconds=PROBE_SECONDS)
            files = choose(sibling.rfilename for sibling in info.siblings or ())
            logger.info(f"Loading {name} from the hub's cache, or downloading it …")
            # By revision name, not by commit: the cache then resolves the name when the hub does not answer.
            patterns = [_literal(file) for file in files]
            folder = _inside(snapshot_download(name, revision=revision, allow_patterns=patterns, **place))
            return folder, folder.name, _license(info)
        except ModelError:
            raise
        except HFValidationError as error:
            raise _no_id(name, config) from error
        except HfHubHTTPError as error:
            if error.response.status_code < 500:  # noqa: PLR2004 - the hub understood and refused
                refusal = _hub_refusal(name, revision, error, endpoint or constants.ENDPOINT)
                raise ModelError(refusal + _meant(name, config)) from error
            failure = error
        except (_network_error(), LocalEntryNotFoundError, OSError) as error:
            local = isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)
            if local and not lacks_certificates(error):
                raise  # such as a full disk: not a network problem
            failure = error
        except INVALID_RESPONSE as error:
            failure = error
    try:
        folder = snapshot_download(name, revision=revision, local_files_only=True, **place)
    except HFValidationError as error:
        raise _no_id(name, config) from error
    except LocalEntryNotFoundError as error:
        unreachable = _unreachable(name, failure, endpoint or constants.ENDPOINT)
        raise ModelError(unreachable + _meant(name, config)) from error
    logger.info(f"Using the cached copy of {name} without contacting the hub.")
    return Path(folder), Path(folder).name, None


def _inside(folder: str) -> Path:
    """Check that a folder lies in the cache: a server could return a path as the name of a commit."""
    path = Path(folder)
    if ".." in path.parts:
        raise ValueError("its commit is a path")
    return path


def _no_id(name: str, config: RunConfig | None) -> ModelError:
    return ModelError(
        f"{shown_name(name)} is neither a path nor a hub id such as owner/name, or its revision is not valid."
        f"{_meant(name, config)}"
    )


def _meant(name: str, config: RunConfig | None) -> str:
    return meant_instead(name, config.model.cache_dir if config else None)


def _network_error() -> type[Exception]:
    """Base class of the HTTP client's errors, which differs between versions of the hub's library."""
    from huggingface_hub.errors import HfHubHTTPError

    found: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    return found


def _hub_refusal(name: str, revision: str, error: HfHubHTTPError, endpoint: str) -> str:
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    page = f"{endpoint}/{name}"
    if isinstance(error, GatedRepoError):
        return (
            f"{name} is gated: its owner gives access on {page}. Accept the conditions there, then set HF_TOKEN to "
            "a token of your account."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {revision!r}. Choose one that {page} lists, or remove model_revision."
    status = error.response.status_code
    if status in {401, 403, 404}:
        return (
            f"{name} was not found on {endpoint}, or it is private. Check the name on {page}; for a private model "
            "set HF_TOKEN to a token that may read it."
        )
    return (
        f"{endpoint} answered the request for {name} with status {status}. Check the name on {page}, or try again "
        "later."
    )


def _unreachable(name: str, failure: BaseException | None, endpoint: str) -> str:
    why = "HF_HUB_OFFLINE is set" if failure is None else f"{endpoint} did not answer ({_short(failure)})"
    if isinstance(failure, INVALID_RESPONSE):
        why = f"{endpoint} did not answer like a hub ({type(failure).__name__}); the network may require a login"
    return (
        f"{name} is not a folder here, it is not in the hub's cache, and {why}. Check the network, HF_ENDPOINT and the "
        "proxy variables, or use a local folder. smollm2-135m-instruct needs no hub."
    )


def _short(error: BaseException) -> str:
    return connection_line(error).rstrip(".")


def _literal(file: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in file)


def _license(info: ModelInfo | DatasetInfo) -> str | None:
    named = [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
    return named[0] if named else None


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
            raise ModelError(_mirror_refusal(mirror, name, named, error.status)) from error
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


def _mirror_refusal(mirror: Mirror, name: str, revision: str, status: int) -> str:
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
