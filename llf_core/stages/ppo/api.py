"""Scores from an HTTP endpoint, by LLaMA-Factory's protocol."""

from __future__ import annotations

import base64
import json
import math
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from llf_core.stages.halt import Halted

if TYPE_CHECKING:
    from collections.abc import Sequence

TRIES = 3
TIMEOUT = 60.0
"""Seconds that an answer is waited for."""
PAUSES = (1.0, 4.0)
"""Seconds before the second and the third try."""
BUSY = {408, 425, 429, 500, 502, 503, 504}
"""What a server says that may answer later."""


def is_address(text: str) -> bool:
    """Whether a text is an address of the web."""
    parts = urlsplit(text)
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


def ask_scores(url: str, texts: Sequence[str], *, timeout: float = TIMEOUT) -> list[float]:
    """Has texts scored: `POST {"model": "model", "messages": [text, …]}`, answered by `{"scores": [number, …]}`.

    Args:
        url: `http` or `https`.
        texts: prompts with their answers, special tokens included.
        timeout: seconds that each of three tries may take.

    Returns:
        One score a text.

    Raises:
        Halted: the endpoint is down, or does not answer with one finite number a text.
    """
    body = json.dumps({"model": "model", "messages": list(texts)}).encode()
    request = urllib.request.Request(_bare(url), body, _headers(url), method="POST")  # noqa: S310 - see below
    for pause in (*PAUSES, None):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - a rule allows http(s) alone
                return _scores(answer.read(), len(texts), url)
        except urllib.error.HTTPError as error:
            said = f"answers with status {error.code} ({error.reason})"
            if error.code not in BUSY:
                break
        except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
            reason = getattr(error, "reason", None) or error
            said = f"does not answer ({str(reason) or type(reason).__name__})"
        if pause is not None:
            time.sleep(pause)
    raise Halted(
        f"The reward endpoint {_shown(url)} {said}.",
        "Start it again or mend reward_model, then resume: the run goes on where it is.",
    )


def _scores(body: bytes, count: int, url: str) -> list[float]:
    what = ""
    try:
        found = json.loads(body)["scores"]
    except (ValueError, KeyError, TypeError):
        found, what = None, "no JSON object with scores"
    if not what and (not isinstance(found, list) or len(found) != count):
        what = f"{len(found)} scores" if isinstance(found, list) else f"scores of type {type(found).__name__}"
    bad = [] if what else [one for one in found if not _is_number(one)]
    if bad:
        what = f"the score {bad[0]!r}"
    if what:
        raise Halted(
            f"The reward endpoint {_shown(url)} answers {count} texts with {what}. Expected one finite number each.",
            "Mend it, then resume: the run goes on where it is.",
        )
    return [float(one) for one in found]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bare(url: str) -> str:
    """An address without a name and a password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _headers(url: str) -> dict[str, str]:
    """The kind of the body, and who asks where the address says it (`https://name:password@host`)."""
    who = urlsplit(url).netloc.rpartition("@")[0]
    said = {"Authorization": f"Basic {base64.b64encode(unquote(who).encode()).decode()}"} if who else {}
    return {"Content-Type": "application/json", **said}


def _shown(url: str) -> str:
    """An address as a message may show it: what may be secret is left out."""
    return urlunsplit(urlsplit(_bare(url))._replace(query="", fragment=""))
