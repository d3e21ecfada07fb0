"""Scores from a reward endpoint over HTTP, by LLaMA-Factory's protocol."""

from __future__ import annotations

import json
import math
import os
import time
import urllib.error
from http.client import HTTPException
from typing import TYPE_CHECKING

from llf_core.config.declarations.stages.ppo import AUTHORIZATION, is_address
from llf_core.config.paths import without_secrets
from llf_core.redaction.url_secrets import restore_url
from llf_core.stages.base.cannot_continue import StopTraining
from llf_core.untrusted.http_answer import BUSY, ask
from llf_core.user_functions.results import as_float

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT = 60.0
"""Seconds to wait for a response."""
PAUSES = (1.0, 4.0)
"""Seconds before the second and the third attempt."""
LARGEST = 16 * 2**20
SHOWN = 60
"""Maximum characters of a score that a message quotes."""


def ask_scores(url: str, texts: Sequence[str], *, timeout: float = TIMEOUT) -> list[float]:
    """Score texts with a reward endpoint, by LLaMA-Factory's protocol.

    The request is `POST {"model": "model", "messages": [text, …]}`, the response `{"scores": [number, …]}`. The
    environment variable `LLF_REWARD_AUTHORIZATION`, if set, is sent as the header `Authorization`, without
    surrounding white space. Network errors and the status codes in `BUSY` are retried twice, after 1 and 4 s.
    Redirects are not followed.

    Args:
        url: `http` or `https`. Redacted credentials (`***`) are restored from the environment.
        texts: prompts with their completions, special tokens included.
        timeout: seconds for each of the three attempts; a read that has begun by then may take as long again.

    Raises:
        StopTraining: the URL or credentials cannot be used, the endpoint does not answer or answers with an error
            status, or the response is not one finite number per text.
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
    if authorization := os.environ.get(AUTHORIZATION, "").strip():  # a token from a file ends with a line break
        if not (authorization.isascii() and authorization.isprintable()):
            raise StopTraining(
                f"{AUTHORIZATION} has a character that an HTTP header cannot have.",
                "Set it to one line of printable ASCII, then resume.",
            )
        headers["Authorization"] = authorization
    for pause in (*PAUSES, None):
        try:
            return _scores(ask(address, body, headers, timeout=timeout, largest=LARGEST), len(texts), url)
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


def _scores(body: bytes, count: int, url: str) -> list[float]:
    what = ""
    try:
        found = json.loads(body)["scores"]
    except (ValueError, KeyError, TypeError, RecursionError):
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
