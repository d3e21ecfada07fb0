"""A judge behind an endpoint with OpenAI's API."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING

from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.judge.judge import CALLS, MAX_TOKENS
from llf_core.evaluation.judge.rubric import SCHEMA
from llf_core.untrusted import NotPlainError, brief, json_value
from llf_core.untrusted.http_answer import BUSY, ask, read_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.evaluation.judge.judge import Judge

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further attempt, of which half is random."""
LONGEST_PAUSE = 60.0
"""Maximum of `Retry-After` in seconds."""
MAX_ANSWER, MAX_MESSAGE = 1 << 20, 200
"""Maximum bytes of an answer, and quoted characters of a server's message."""
BAD_REQUEST = frozenset({400, 413, 422})
"""Status codes that concern the one request, such as a text that is too long or an unsupported option."""
REFUSED = frozenset({401, 403})


@dataclass(frozen=True)
class Reply:
    """Answer of the endpoint: `text`, or the `problem` why there is none."""

    text: str
    problem: str = ""


class Endpoint:
    """Asks an endpoint. Threads may ask at the same time.

    Raises:
        EvaluationError: the environment variable of its key is not set, or its value cannot be a key.
    """

    def __init__(self, judge: Judge, pauses: Sequence[float] = PAUSES) -> None:
        self._judge, self._pauses = judge, tuple(pauses)
        self._key = judge.key()
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._takes_schema = True
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the waits between attempts, also in other threads."""
        self._stopped.set()

    def check(self) -> None:
        """Check that the endpoint answers and takes the key, by the list of models, which no provider charges for.

        A server without such a list has answered too.

        Raises:
            EvaluationError: it does not answer, is busy in all attempts or until `stop` is called, or refuses the key.
        """

        def lists_models() -> Reply:
            ask(f"{self._judge.url}/models", None, self._headers, timeout=self._judge.timeout, largest=MAX_ANSWER)
            return Reply("")

        self._attempts(lists_models, lambda error: Reply("") if error.code not in BUSY else None)

    def ask(self, messages: Sequence[dict[str, object]]) -> Reply:
        """Ask for a reply that follows the schema of a verdict, if the server can, else in free text.

        Network errors and busy servers (`BUSY`, such as 429) are retried; `Retry-After` is respected.
        """

        def send() -> Reply:
            with_schema = self._takes_schema
            body: dict[str, object] = {
                "model": self._judge.model, "messages": list(messages), "temperature": 0, "max_tokens": MAX_TOKENS,
            }  # fmt: skip
            if with_schema:
                form = {"name": "verdict", "schema": SCHEMA}
                body["response_format"] = {"type": "json_schema", "json_schema": form}
            url, timeout = self._judge.url + CALLS, self._judge.timeout
            try:
                found = ask(url, json.dumps(body).encode(), self._headers, timeout=timeout, largest=MAX_ANSWER)
            except urllib.error.HTTPError as error:
                if not with_schema or error.code not in BAD_REQUEST:
                    raise
                # The server may not know response_format: what it says to the request without it decides.
                del body["response_format"]
                found = ask(url, json.dumps(body).encode(), self._headers, timeout=timeout, largest=MAX_ANSWER)
                self._takes_schema = False
            return Reply(self._content(found))

        return self._attempts(send, lambda error: Reply("", self._said(error)) if error.code in BAD_REQUEST else None)

    def _attempts(self, send: Callable[[], Reply], of_one: Callable[[urllib.error.HTTPError], Reply | None]) -> Reply:
        """`of_one` turns an error of the request itself into a reply."""
        said = ""
        for pause in (*self._pauses, None):
            wait = None
            try:
                return send()
            except EvaluationError:  # a ValueError
                raise
            except urllib.error.HTTPError as error:
                if error.code in REFUSED:
                    raise self._failed(f"refuses the request: {self._said(error)}", self._what_to_do()) from None
                if (reply := of_one(error)) is not None:
                    return reply
                said = f"answers {self._said(error)}"
                if error.code not in BUSY:
                    break
                wait = _seconds(error.headers.get("Retry-After"))
            except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
                reason = getattr(error, "reason", None) or error
                told = brief(self._hidden(" ".join(str(reason).split()))[:MAX_MESSAGE])  # may quote what is no HTTP
                said = f"does not answer ({told or type(reason).__name__})"
            if pause is not None and self._stopped.wait(wait or pause * (0.5 + random.random() / 2)):  # noqa: S311 - no secret
                break
        raise self._failed(
            said, "Check the URL and the model, or try again later. Results and verdicts so far are kept."
        )

    def _content(self, body: bytes) -> str:
        try:
            content = json_value(body)["choices"][0]["message"]["content"]
        except (NotPlainError, KeyError, IndexError, TypeError):
            shown = brief(self._hidden(body.decode("utf-8", "replace"))[:MAX_MESSAGE])
            raise self._failed(
                f"answers without a reply: {shown!r}", "Expected an endpoint with OpenAI's API."
            ) from None
        return content if isinstance(content, str) else ""

    def _said(self, error: urllib.error.HTTPError) -> str:
        """Status and message of an error."""
        try:
            value = json_value(read_answer(error, time.monotonic() + self._judge.timeout, MAX_ANSWER))
            told = value.get("error", value.get("message", "")) if isinstance(value, dict) else ""
            text = str(told.get("message", "")) if isinstance(told, dict) else str(told)
        except (OSError, HTTPException, ValueError):
            text = ""
        shown = brief(self._hidden(" ".join(text.split()))[:MAX_MESSAGE])
        return f"with status {error.code}" + (
            f": {shown}" if shown else f" ({brief(self._hidden(str(error.reason))[:MAX_MESSAGE])})"
        )

    def _hidden(self, text: str) -> str:
        """Hide the key, which some servers quote."""
        return text if self._key is None else text.replace(self._key, "***")

    def _what_to_do(self) -> str:
        variable = self._judge.key_variable
        return "Name the environment variable of its key." if variable is None else f"Check the key in {variable}."

    def _failed(self, said: str, what_to_do: str) -> EvaluationError:
        return EvaluationError(f"The judge {self._judge.name} {said}.", what_to_do)


def _seconds(retry_after: str | None) -> float | None:
    """The value of a header `Retry-After`; None for others, such as a date."""
    try:
        found = float(retry_after or "")
    except ValueError:
        return None
    return min(found, LONGEST_PAUSE) if found > 0 else None
