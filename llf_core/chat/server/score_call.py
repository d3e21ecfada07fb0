"""Reads requests to `/v1/score` and `/v1/score/evaluation`, and writes their answers."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.server.api_error import invalid
from llf_core.chat.server.messages import messages_of
from llf_core.chat.server.request_body import Fields
from llf_core.chat.server.sampling_fields import ignore

if TYPE_CHECKING:
    from collections.abc import Mapping

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
