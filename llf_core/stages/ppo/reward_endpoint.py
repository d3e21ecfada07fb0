"""Scores from an HTTP endpoint, by LLaMA-Factory's protocol."""

from __future__ import annotations

import json
import math
import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING

from llf_core.config.declarations.stages.ppo import AUTHORIZATION, is_address
from llf_core.config.shown_url import without_secrets
from llf_core.redaction.url_secrets import restore_url
from llf_core.rewards import as_float
from llf_core.stages.base.cannot_continue import StopTraining

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.client import HTTPResponse

TIMEOUT = 60.0
"""Seconds that an answer is waited for."""
PAUSES = (1.0, 4.0)
"""Seconds before the second and the third try."""
BUSY = {408, 425, 429, 500, 502, 503, 504}
"""What a server says that may answer later."""
LARGEST = 16 * 2**20
"""Bytes of an answer."""
SHOWN = 60
"""Characters of an answer that a message shows."""


class _Here(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: a redirect would carry what is secret to another place, and turn a POST into a GET."""

    def redirect_request(self, *_: object) -> None:
        """None."""


def ask_scores(url: str, texts: Sequence[str], *, timeout: float = TIMEOUT) -> list[float]:
    """Score texts with a reward endpoint, by LLaMA-Factory's protocol.

    The request is `POST {"model": "model", "messages": [text, …]}`, the response `{"scores": [number, …]}`. The value
    of the environment variable `LLF_REWARD_AUTHORIZATION`, if set, is sent as the header `Authorization`. Network
    errors and the status codes in `BUSY` are retried twice. Redirects are not followed.

    Args:
        url: `http` or `https`. Redacted credentials (`***`) are restored from the environment.
        texts: prompts with their completions, special tokens included.
        timeout: seconds that each of the three tries may take.

    Returns:
        One score per text.

    Raises:
        StopTraining: `url` is not an HTTP URL, its redacted credentials are not in the environment, the endpoint does
            not answer or answers with an error status, or the response is not one finite number per text.
    """
    if not is_address(url):
        raise StopTraining(
            f"{url} is not the URL of a reward endpoint.", "Expected one such as http://localhost:8000/score."
        )
    try:
        address = restore_url(url)
    except LookupError as error:
        raise StopTraining(str(error.args[0]), "") from None
    body = json.dumps({"model": "model", "messages": list(texts)}).encode()
    headers = {"Content-Type": "application/json"}
    if os.environ.get(AUTHORIZATION):
        headers["Authorization"] = os.environ[AUTHORIZATION]
    opener = urllib.request.build_opener(_Here)
    for pause in (*PAUSES, None):
        until = time.monotonic() + timeout
        try:
            request = urllib.request.Request(address, body, headers, method="POST")  # noqa: S310 - http(s) alone
            with opener.open(request, timeout=timeout) as answer:
                return _scores(_read(answer, until), len(texts), url)
        except urllib.error.HTTPError as error:
            said = f"answers with status {error.code} ({error.reason})"
            if error.code not in BUSY:
                break
        except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
            reason = getattr(error, "reason", None) or error
            said = f"does not answer ({str(reason) or type(reason).__name__})"
        if pause is not None:
            time.sleep(pause)
    raise StopTraining(
        f"The reward endpoint {without_secrets(url)} {said}.",
        "Restart it or fix reward_model, then resume.",
    )


def _read(answer: HTTPResponse, until: float) -> bytes:
    """The body of an answer.

    Raises:
        OSError: it is too long, or takes too long.
    """
    parts, size = [], 0
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise OSError(f"more than {LARGEST:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError("timed out")
    return b"".join(parts)


def _scores(body: bytes, count: int, url: str) -> list[float]:
    what = ""
    try:
        found = json.loads(body)["scores"]
    except (ValueError, KeyError, TypeError):
        found, what = None, "not a JSON object with scores"
    if not what and (not isinstance(found, list) or len(found) != count):
        what = f"{len(found)} scores" if isinstance(found, list) else f"scores of type {type(found).__name__}"
    bad = [] if what else [one for one in found if not _is_number(one)]
    if bad:
        said = json.dumps(bad[0], ensure_ascii=False)
        what = f"the score {said if len(said) <= SHOWN else said[: SHOWN - 1] + '…'}"
    if what:
        raise StopTraining(
            f"The reward endpoint {without_secrets(url)} answers {count} texts with {what}. Expected one finite number "
            "each.",
            "Fix it, then resume.",
        )
    return [float(one) for one in found]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(as_float(value))
