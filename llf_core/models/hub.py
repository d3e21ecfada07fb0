"""Downloads models and adapters from a Hugging Face hub into its cache (uses `HF_HOME`, `HF_ENDPOINT`, proxies).

`mirror.py` does so from other hubs.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.name_checks.hub import HUGGING_FACE, fetch_repository_info
from llf_core.config.name_checks.models import meant_instead, shown_name
from llf_core.models.errors import ModelError, connection_line, lacks_certificates
from llf_core.models.header_check import check_sizes
from llf_core.models.mirror import mirror_folder, mirror_model
from llf_core.models.model_folder import NON_WEIGHT_FILES, PICKLE_SUFFIXES, card_license, check_files, check_shards
from llf_core.models.model_source import ModelSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from huggingface_hub import DatasetInfo, ModelInfo
    from huggingface_hub.errors import HfHubHTTPError

    from llf_core.config import RunConfig

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
                refusal = _refusal(name, revision, error, endpoint or constants.ENDPOINT)
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


def _refusal(name: str, revision: str, error: HfHubHTTPError, endpoint: str) -> str:
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
