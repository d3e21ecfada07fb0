"""Errors of the server in OpenAI's format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.chat.events import Failed

RETRY_SECONDS = 5
"""Seconds after which a client may retry when the server is busy or an engine has ended."""
_MAX_QUOTED = 200
_OF_FAILURE = {
    "invalid": (400, "invalid_value"),
    "too_long": (400, "context_length_exceeded"),
    "busy": (429, "queue_full"),
    "model_gone": (410, "model_gone"),
    "out_of_memory": (503, "out_of_memory"),
    "untrusted": (403, "code_not_allowed"),
    "engine": (503, "engine_failed"),
}
"""HTTP status and code of each kind of failure."""


class ApiError(Exception):
    """A request that cannot be answered; `param` is the wrong field, `code` a short name of the error for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if status in {429, 503}:
            self.headers.setdefault("Retry-After", str(RETRY_SECONDS))

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's format, for an answer or an event of a stream."""
        kind = "rate_limit_error" if self.status == 429 else "invalid_request_error"  # noqa: PLR2004 - HTTP's codes
        if self.status >= 500:  # noqa: PLR2004 - HTTP's codes
            kind = "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer with this error."""
        return JSONResponse(self.body(), self.status, self.headers)


def invalid(param: str, value: object, expected: str) -> ApiError:
    """The error of a field such as `messages[0].role`; `expected` ends the sentence "Expected …"."""
    return ApiError(400, f"{param} is {shown(value)}. Expected {expected}.", param=param, code="invalid_value")


def shown(value: object) -> str:
    """A value of a request for a message: as JSON, shortened, without control characters."""
    if isinstance(value, str | list | dict) and len(value) > _MAX_QUOTED:
        value = value[:_MAX_QUOTED] + "…" if isinstance(value, str) else f"{type(value).__name__} of {len(value)}"
    return brief(json.dumps(value, ensure_ascii=False))


def of_failure(failure: Failed) -> ApiError:
    """The error of an engine's failure, with its HTTP status."""
    status, code = _OF_FAILURE[failure.kind]
    return ApiError(status, f"{failure.message} {failure.what_to_do}".strip(), code=code)
