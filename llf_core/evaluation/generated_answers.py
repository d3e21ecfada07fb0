from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.chat.predictions import OF_ONE_RECORD
from llf_core.chat.request import ChatRequest, ChatSampling
from llf_core.evaluation.engine_replies import collect_replies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.chat.engine import Engine
    from llf_core.chat.events import CollectedReply
    from llf_core.evaluation.examples import EvaluationExample

GREEDY = ChatSampling(temperature=0.0, repetition_penalty=1.0)


@dataclass(frozen=True)
class GeneratedAnswer:
    """The answer to a prompt.

    Attributes:
        text: without thinking, with calls as JSON after it; None if the prompt is too long or the template refuses it.
        problem: why there is no text; empty otherwise.
    """

    text: str | None
    tokens: int
    problem: str = ""


def generate_answers(  # noqa: PLR0913 - the engine, the examples and the limits
    engine: Engine,
    adapter: str | None,
    examples: Sequence[EvaluationExample],
    max_new_tokens: int,
    progress: Callable[[int], object],
    *,
    json_schema: dict[str, object] | None = None,
) -> list[GeneratedAnswer]:
    """Generate the answers to the prompts of examples, greedily; those of similar length at a time.

    At the end the engine drops its prefix cache. `json_schema` is a schema that the answers follow.
    """
    requests = [
        ChatRequest(
            one.prompt,
            adapter=adapter,
            tools=one.tools,
            sampling=GREEDY,
            max_tokens=max_new_tokens,
            json_schema=json_schema,
        )
        for one in examples
    ]
    lengths = [sum(len(str(message.get("content"))) for message in one.prompt) for one in examples]
    return [_answer(reply) for reply in collect_replies(engine, requests, lengths, progress, of_one=OF_ONE_RECORD)]


def _answer(reply: CollectedReply) -> GeneratedAnswer:
    if reply.failed is not None:
        return GeneratedAnswer(None, 0, reply.failed.message)
    finished = reply.finished
    tokens = 0 if finished is None else finished.prompt_tokens + finished.completion_tokens
    return GeneratedAnswer(reply.text, tokens)
