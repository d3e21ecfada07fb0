from __future__ import annotations

import json
import os
import queue
import threading
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from huggingface_hub import DatasetInfo, ModelInfo

MOST_BYTES = 32 << 20
"""Maximum bytes of an answer; a repository of 10,000 files has about 1 million."""
TRIES = 3
"""Maximum duration of the whole answer, in multiples of `seconds`."""


def fetch_repository_info(
    kind: Literal["model", "dataset"], name: str, revision: str | None = None, *, seconds: float
) -> ModelInfo | DatasetInfo:
    """Fetch the metadata of a repository from the hub at `HF_ENDPOINT`, with limits on size and time.

    The client's own function waits for as long as a server goes on sending, and reads all of it.

    Args:
        name: `owner/name`.
        revision: a branch, tag or commit. Default: the newest commit.
        seconds: how long the server may be silent; the whole answer may take three times as long.
    """
    found: ModelInfo | DatasetInfo = _within(lambda: _request(kind, name, revision, seconds), seconds)
    return found


def read_json(address: str, headers: Mapping[str, str], *, seconds: float) -> tuple[int, Any]:
    """HTTP status and JSON value of a server's answer, with limits on size and time; None from status 400.

    Args:
        headers: of the request. Those of authorization are not sent on to another server.
        seconds: how long the server may be silent; the whole answer may take three times as long.
    """

    def request() -> tuple[int, Any]:
        status, body, _ = _read(address, headers, seconds)
        return status, json.loads(body) if status < 400 else None  # noqa: PLR2004 - refusals and errors of HTTP

    found: tuple[int, Any] = _within(request, seconds)
    return found


def _within(request: Callable[[], Any], seconds: float) -> Any:
    """Result of a request that may take `TRIES` times as long as the server may be silent."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put(request())
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            answers.put(error)

    # A server that sends a byte now and then never times out, so the thread may outlive this call.
    threading.Thread(target=answer, name="llf-hub", daemon=True).start()
    try:
        found = answers.get(timeout=TRIES * seconds)
    except queue.Empty:
        raise TimeoutError(f"no complete answer within {TRIES * seconds:g} s") from None
    if isinstance(found, Exception):
        raise found
    return found


def _request(kind: str, name: str, revision: str | None, seconds: float) -> Any:
    from huggingface_hub import DatasetInfo, ModelInfo, constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, validate_repo_id

    validate_repo_id(name)
    path = f"api/{kind}s/{name}" + ("" if revision is None else f"/revision/{quote(revision, safe='')}")
    address = f"{(os.environ.get('HF_ENDPOINT') or constants.ENDPOINT).rstrip('/')}/{path}"
    _, body, said = _read(address, build_hf_headers(), seconds)
    kept = {key: value for key, value in said.headers.items() if not key.startswith(("content-", "transfer-"))}
    # Of the client's own class: its HTTP library has changed over versions.
    whole = type(said)(said.status_code, headers=kept, content=body, request=said.request)
    hf_raise_for_status(whole)
    return {"model": ModelInfo, "dataset": DatasetInfo}[kind](**whole.json())


def _read(address: str, headers: Mapping[str, str], seconds: float) -> tuple[int, bytes, Any]:
    from huggingface_hub.utils import get_session

    body = bytearray()
    with get_session().stream("GET", address, headers=dict(headers), timeout=seconds) as said:
        for part in said.iter_bytes():
            body += part
            if len(body) > MOST_BYTES:
                raise ValueError(f"its answer has more than {MOST_BYTES:,} bytes")
    return said.status_code, bytes(body), said
