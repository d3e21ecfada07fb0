"""Fields of answers in OpenAI's formats: log-probabilities, and numbers of tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.chat.events import Alternative, Finished, Token

LOWEST = -9999.0
"""Replaces minus infinity, which JSON lacks, as in OpenAI's API."""


def chat_logprobs(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Tokens as in chat completions: natural logarithms (`LOWEST` if infinite); `bytes` only of whole characters."""
    return [_entry(token) | {"top_logprobs": [_entry(one) for one in token.top]} for token in tokens]


def completion_logprobs(tokens: Sequence[Token], offset: int) -> dict[str, list[Any]]:
    """Tokens as in `/v1/completions`: natural logarithms (`LOWEST` if infinite), and offsets in characters.

    Of alternatives with the same text, `top_logprobs` has the likeliest.
    """
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [{one.text: _finite(one.logprob) for one in reversed(token.top)} for token in tokens],
        "text_offset": offsets,
    }


def _entry(token: Token | Alternative) -> dict[str, object]:
    whole = "\N{REPLACEMENT CHARACTER}" not in token.text  # a part of a character has no text of its own
    return {
        "token": token.text,
        "logprob": _finite(token.logprob),
        "bytes": list(token.text.encode("utf-8", "replace")) if whole else None,
    }


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LOWEST


def usage_of(finished: Mapping[int, Finished], choices: int) -> dict[str, Any]:
    """Numbers of tokens in OpenAI's format. A prompt with several choices counts once, as in OpenAI's API."""
    prompts = [event for number, event in sorted(finished.items()) if number % choices == 0]
    prompt = sum(event.prompt_tokens for event in prompts)
    completion = sum(event.completion_tokens for event in finished.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(event.cached_tokens for event in prompts)},
    }
