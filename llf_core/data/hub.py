"""Data sets of a Hugging Face hub, through its own client: HF_ENDPOINT, HF_HOME, HF_TOKEN, proxies are honoured."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.repository import ask_repository
from llf_core.data.errors import DataError
from llf_core.models.hub import NOT_A_HUB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.data.source import Source

PROBE_SECONDS = 3.0
REFUSED = {401, 403, 404}


def fetch(source: Source, cache_dir: str | None = None, *, streaming: bool = False) -> Any:
    """Has the client prepare a data set; where the hub does not answer within 3 s, what its cache holds is taken.

    Args:
        source: with a `hub_id`.
        cache_dir: where the client keeps what it fetches; None means its default.
        streaming: fetch nothing yet.

    Returns:
        A `datasets.Dataset`; where it is streamed, a `datasets.IterableDataset`.

    Raises:
        DataError: no such set, subset or split, gated or private, or no connection and nothing kept.
    """
    import datasets

    answers = _probe(str(source.hub_id))
    try:
        with nullcontext() if answers else _offline():
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
    except (ConnectionError, RuntimeError, datasets.exceptions.DatasetsError, *NOT_A_HUB) as error:
        if not answers:
            raise DataError(_unreachable(str(source.hub_id))) from None
        raise DataError(f"The data set {source.hub_id!r} cannot be opened: {_first_line(error)}.") from None


def fetch_info(repository: str, name: str) -> Path:
    """The file `name` of a data set's repository.

    Raises:
        DataError: the hub does not give it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    answers = _probe(repository)
    try:
        found = hf_hub_download(
            repository, name, repo_type="dataset", local_files_only=not answers, endpoint=_endpoint()
        )
    except (EntryNotFoundError, *NOT_A_HUB) as error:
        if not answers or not isinstance(error, EntryNotFoundError):
            raise DataError(_unreachable(repository)) from None
        raise DataError(f"The data set {repository!r} of the hub has no file {name}.") from None
    return Path(found)


def _probe(hub_id: str) -> bool:
    """Whether the hub answers; the client itself would try for half a minute before it says no."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return False
    # The client's HTTP library has changed its name over versions; its errors have one base.
    network: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    try:
        ask_repository("dataset", hub_id, "main", seconds=PROBE_SECONDS)
    except HFValidationError:
        raise DataError(f"{hub_id!r} is neither a path nor a hub id such as owner/name.") from None
    except HfHubHTTPError as error:
        if error.response.status_code in REFUSED:
            raise DataError(_refusal(hub_id)) from None
        return False
    except (network, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # a full disk is no matter of the network
        return False
    except NOT_A_HUB:
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Lets the client look into its cache alone; it takes no argument for that, only these two switches."""
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
        f"The hub gives no data set {hub_id!r}: there is none of that name, or it is gated or private. "
        f"Look at {page}, accept the conditions there, and set HF_TOKEN to a token that may read it."
    )


def _unreachable(hub_id: str) -> str:
    return (
        f"The data set {hub_id!r} is not in the hub's cache, and the hub did not answer within {PROBE_SECONDS:g} s. "
        "Check the network, HF_ENDPOINT and the proxy variables, or give a local file; llf_demo needs no hub."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
