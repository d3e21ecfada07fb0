"""Reads requests to `/v1/embeddings`, and writes their answers."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.events import Embedded, Failed, Finished
from llf_core.chat.request import ChatRequest
from llf_core.chat.server.api_error import invalid
from llf_core.chat.server.request_body import Fields
from llf_core.chat.server.sampling_fields import ignore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.chat.events import Event

MAX_TEXTS = 128
UNSUPPORTED = {"dimensions": "The embeddings have the model's hidden size."}


@dataclass(frozen=True)
class EmbeddingCall:
    """A request for embeddings; `as_base64` sends little-endian float32, the default of OpenAI's client."""

    model: str
    requests: tuple[ChatRequest, ...]
    as_base64: bool


def read_embedding_call(body: Mapping[str, object]) -> EmbeddingCall:
    """Read a request; `ApiError` if a field is invalid, unknown or not supported."""
    fields = Fields(dict(body))
    model = fields.required("model", fields.text("model"), "the name of a model; /v1/models lists them")
    given = fields.raw("input")
    expected = f"a text that is not empty, or a list of up to {MAX_TEXTS} of them; token ids are not supported"
    texts = [given] if isinstance(given, str) else given
    fields.required("input", given, expected)
    if not isinstance(texts, list) or len(texts) > MAX_TEXTS or not all(isinstance(one, str) and one for one in texts):
        raise invalid("input", given, expected)
    form = fields.choice("encoding_format", ("float", "base64"), "float")
    ignore(fields)
    fields.finish(UNSUPPORTED)
    return EmbeddingCall(model, tuple(ChatRequest(prompt=text, embed=True) for text in texts), form == "base64")


class EmbeddingReply:
    """Turns events into the answer of `/v1/embeddings`."""

    def __init__(self, call: EmbeddingCall) -> None:
        self._call = call
        self._found: dict[int, tuple[float, ...]] = {}
        self._tokens = 0
        self.failure: Failed | None = None

    def take(self, number: int, event: Event) -> bool:
        """Take an event; False, since a text is never cancelled."""
        if isinstance(event, Failed):
            self.failure = self.failure or event
        elif isinstance(event, Embedded):
            self._found[number] = event.values
        elif isinstance(event, Finished):
            self._tokens += event.prompt_tokens
            if number not in self._found:
                self.failure = self.failure or Failed("engine", "The text was not read to its end.", "Ask again.")
        return False

    def whole(self) -> dict[str, Any]:
        """The answer once each text has ended and `failure` is None; embeddings are in the order of the texts."""
        data = [
            {"object": "embedding", "index": number, "embedding": self._numbers(values)}
            for number, values in sorted(self._found.items())
        ]
        usage = {"prompt_tokens": self._tokens, "total_tokens": self._tokens}
        return {"object": "list", "data": data, "model": self._call.model, "usage": usage}

    def _numbers(self, values: tuple[float, ...]) -> str | list[float]:
        if self._call.as_base64:
            return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        return list(values)
