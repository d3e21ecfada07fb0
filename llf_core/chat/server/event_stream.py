"""Server-sent events: a stream of JSON objects, as OpenAI's API sends them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
MEDIA_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"


def event_bytes(chunks: Iterable[dict[str, Any]]) -> bytes:
    """JSON objects as server-sent events (`data: …` and an empty line), in UTF-8 with `?` for a lone surrogate."""
    return b"".join(b"data: " + _encoded(chunk) + b"\n\n" for chunk in chunks)


def _encoded(chunk: dict[str, object]) -> bytes:
    return json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
