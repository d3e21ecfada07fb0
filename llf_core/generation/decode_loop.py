"""The decode loop: choose tokens, remove finished rows, compute the next logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.generation.sampling import TokenSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from llf_core.generation.decoder import Decoder
    from llf_core.generation.sampling import Sampling


def decode(  # noqa: PLR0913 - the settings of a completion
    decoder: Decoder,
    logits: Tensor,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    max_new_tokens: int,
    put: Callable[[int, int], bool],
    cancelled: Callable[[], bool] = lambda: False,
    numbers: Sequence[int] | None = None,
) -> None:
    """Generate tokens after the prompts that a decoder has read. Finished rows leave the batch.

    Args:
        logits: logits `[batch, vocabulary]` that its `read` returned.
        prompts: token ids of each row, for the repetition penalty.
        max_new_tokens: maximum number of tokens of a row, at least 1.
        put: called with a row and its new token; returns whether the row ends with it.
        cancelled: polled after each step; true ends generation.
        numbers: index of each row among all prompts, which selects its random seed; None if these are all prompts.
    """
    rows = list(range(len(prompts)))
    of = list(rows if numbers is None else numbers)
    sampler = TokenSampler(sampling, of, logits.device)
    texts = [list(prompt) for prompt in prompts]
    for left in range(max_new_tokens - 1, -1, -1):
        tokens = sampler(logits, [of[row] for row in rows], [texts[row] for row in rows])
        ended = [at for at, (row, token) in enumerate(zip(rows, tokens, strict=True)) if put(row, token)]
        if len(ended) == len(rows) or not left or cancelled():
            return
        for at in reversed(ended):
            decoder.leave(at)
            for one in (rows, tokens):
                one[at] = one[-1]
                del one[-1]
        for row, token in zip(rows, tokens, strict=True):
            texts[row].append(token)
        logits = decoder.step(tokens)
