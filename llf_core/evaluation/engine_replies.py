from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.chat.events import CollectedReply, Failed
from llf_core.chat.predictions import by_length
from llf_core.evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from llf_core.chat.engine import Engine
    from llf_core.chat.events import Event
    from llf_core.chat.request import ChatRequest


def collect_replies(
    engine: Engine,
    requests: Sequence[ChatRequest],
    lengths: Sequence[int],
    progress: Callable[[int], object],
    *,
    of_one: Collection[str] = (),
) -> list[CollectedReply]:
    """Generate the replies to requests, those of similar length at a time. The first failure ends all of them.

    At the end the engine drops its prefix cache.

    Args:
        progress: called with the number of replies so far; what it raises is dropped.
        of_one: kinds of failures that concern a single request, whose reply has them in `failed`.

    Raises:
        EvaluationError: a request failed, as where the model ran out of memory or its logits are not numbers.
    """
    replies = [CollectedReply() for _ in requests]
    failures: list[Failed] = []
    done = 0

    def receive(number: int, event: Event) -> None:
        # An engine goes on when a listener raises, so a failure is raised below.
        nonlocal done
        if isinstance(event, Failed) and event.kind not in of_one:
            failures.append(event)
        if replies[number].take(event):
            done += 1
            progress(done)

    for number in by_length(lengths, set(range(len(requests)))):
        engine.submit(number, requests[number], lambda event, number=number: receive(number, event))  # type: ignore[misc]
    while not failures and engine.step():
        pass
    if failures:
        for number in range(len(requests)):
            engine.cancel(number)
        raise EvaluationError(failures[0].message, failures[0].what_to_do)
    engine.forget_prefixes()
    return replies
