"""Requests to `/v1/score`, `/v1/score/evaluation` and `/v1/embeddings`, and their answers."""

from __future__ import annotations

import base64
import secrets
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.request import ChatRequest, Embedded, Failed, Finished
from llf_core.chat.server.messages import messages_of
from llf_core.chat.server.request_body import Fields, ignore, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.chat.request import Event
    from llf_core.chat.server.reward_process import Scores


MAX_INPUTS = 1024
"""Maximum number of texts or conversations of a request."""


@dataclass(frozen=True)
class ScoreCall:
    """A request for scores; for the fields see `RewardProcess.submit`."""

    model: str
    inputs: list[Any]
    special: bool
    max_length: int | None


def read_score_call(body: Mapping[str, object]) -> ScoreCall:
    """Read a request to `/v1/score`: `input` is a text, a conversation, or a list of either."""
    fields = Fields(dict(body))
    model = fields.required("model", fields.text("model"), "the name of a reward model; /v1/models lists them")
    given = fields.raw("input")
    expected = f"a text, a conversation as a list of messages, or a list of up to {MAX_INPUTS} of either"
    fields.required("input", given, expected)
    if isinstance(given, str) or (isinstance(given, list) and isinstance(given[0], dict)):
        given = [given]
    if not isinstance(given, list) or len(given) > MAX_INPUTS:
        raise invalid("input", given, expected)
    inputs = [_input(one, f"input[{number}]") for number, one in enumerate(given)]
    max_length = fields.integer("max_length", 1)
    ignore(fields)
    fields.finish()
    return ScoreCall(model, inputs, special=True, max_length=max_length)


def read_evaluation_call(body: Mapping[str, object]) -> ScoreCall:
    """Read a request to LLaMA-Factory's `/v1/score/evaluation`: `messages` are whole texts, special tokens included."""
    fields = Fields(dict(body))
    model = fields.required("model", fields.text("model"), "the name of a reward model; /v1/models lists them")
    texts = fields.required("messages", fields.list("messages", MAX_INPUTS, "a list of texts"), "a list of texts")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise invalid(f"messages[{number}]", text, "a text that is not empty; send conversations to /v1/score")
    max_length = fields.integer("max_length", 1)
    fields.finish()
    return ScoreCall(model, texts, special=False, max_length=max_length)


def score_answer(call: ScoreCall, scores: Scores) -> dict[str, Any]:
    """The answer of `/v1/score`."""
    data = [{"index": number, "object": "score", "score": score} for number, score in enumerate(scores.scores)]
    return {
        "id": f"score-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": call.model,
        "data": data,
        "usage": {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens},
    }


def evaluation_answer(call: ScoreCall, scores: Scores) -> dict[str, Any]:
    """The answer of `/v1/score/evaluation`, in LLaMA-Factory's format."""
    ident = f"scoreval-{secrets.token_hex(12)}"
    return {"id": ident, "object": "score.evaluation", "model": call.model, "scores": scores.scores}


def _input(given: object, path: str) -> object:
    if isinstance(given, str) and given:
        return given
    if not isinstance(given, list):
        raise invalid(path, given, "a text that is not empty, or a list of messages")
    messages = messages_of(Fields({"messages": given}, path))
    for number, message in enumerate(messages):
        if not isinstance(message["content"], str):
            raise invalid(f"{path}.messages[{number}].content", "parts", "text")
    return messages


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
