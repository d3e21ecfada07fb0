"""Numbers of tokens of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.chat.events import Finished


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
