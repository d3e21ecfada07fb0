"""Generation by transformers' `generate`, for models that the decode loop does not support."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from llf_core.generation.sampling import Sampling


class _Watch(StoppingCriteria):  # type: ignore[misc]  # transformers ships no types
    """Stopping criterion that reports each row's new token, ends finished rows, and stops when cancelled."""

    def __init__(self, rows: int, put: Callable[[int, int], bool], cancelled: Callable[[], bool]) -> None:
        self._put, self._cancelled = put, cancelled
        self.done = [False] * rows

    def __call__(self, input_ids: Tensor, *_: object, **__: object) -> Tensor:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self.done[row]:
                self.done[row] = self._put(row, token)
        if self._cancelled():
            self.done = [True] * len(self.done)
        return torch.tensor(self.done, device=input_ids.device)


def decode_with_transformers(  # noqa: PLR0913 - the settings of a completion
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    max_new_tokens: int,
    pad: int,
    ends: Sequence[int] | None,
    put: Callable[[int, int], bool],
    cancelled: Callable[[], bool] = lambda: False,
    numbers: Sequence[int] | None = None,
) -> None:
    """Generate tokens with `model.generate`, for models that the decode loop does not support; see `decode`.

    Sampled rows are computed one by one, each with its own seed; `cancelled` is also polled before each of them.

    Args:
        pad: token id of padding.
        ends: end-of-sequence token ids; None or none for the model's generation config.
    """
    of = list(numbers) if numbers is not None else list(range(len(prompts)))
    if sampling.do_sample and len(prompts) > 1:
        for row, prompt in enumerate(prompts):
            if row and cancelled():
                return
            decode_with_transformers(
                model,
                [prompt],
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                pad=pad,
                ends=ends,
                put=lambda _, token, row=row: put(row, token),  # type: ignore[misc]
                cancelled=cancelled,
                numbers=[of[row]],
            )
        return
    longest = max(map(len, prompts))
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([[pad] * (longest - len(one)) + list(one) for one in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=device)
    warpers: dict[str, float | None] = {"temperature": None, "top_p": None, "top_k": None}
    if sampling.do_sample:
        warpers = {"temperature": float(sampling.temperature), "top_p": sampling.top_p, "top_k": sampling.top_k}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(sampling.seed + of[0])
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=sampling.do_sample,
            repetition_penalty=float(sampling.repetition_penalty),
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            eos_token_id=list(ends) if ends else None,
            stopping_criteria=StoppingCriteriaList([_Watch(len(prompts), put, cancelled)]),
            **warpers,
        )
