"""Data sets of a Hugging Face hub, through its client (respects `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and proxies)."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.name_checks.hub import fetch_repository_info
from llf_core.data.errors import DataError
from llf_core.models.errors import NO_CERTIFICATES, lacks_certificates
from llf_core.models.hub import INVALID_RESPONSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset, IterableDataset

    from llf_core.data.source import Source

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
