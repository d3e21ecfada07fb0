"""Written answers as a batch: where their tokens are predicted, and what each of these is to learn."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from llf_core.data.collate import Collator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase


def answer_batch(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | str = "cpu",
    *,
    flatten: bool,
) -> dict[str, Any]:
    """A batch of prompts with their answers, in the form of `llf_core.data.pair_collator.PairCollator`.

    ```
    prompts 5 6 and 7, answers 8 9 and 1   ->  input_ids   [[5, 6, 8, 9, 7, 1]]
                                               predictors  [1, 2, 4]   the hidden states that predict
                                               targets     [8, 9, 1]
                                               answers     [0, 0, 1]   whose tokens these are
                                               ends        [3, 5]      the answers' last tokens
                                               groups      2
    ```

    Args:
        prompts: token ids, none empty.
        answers: token ids, none empty.
        tokenizer: see `Collator`.
        device: where the tensors are put.
        flatten: whether documents stand one after the other; else rows are padded on the right, and `predictors` and
            `ends` count through all of them.

    Returns:
        A model's inputs, `predictors`, `targets`, `answers` (`[tokens]`, int64), `ends` (`[batch]`, int64), `groups`.
    """
    documents = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    batch = Collator(tokenizer, flatten=flatten)([{"input_ids": ids, "labels": ids} for ids in documents])
    del batch["labels"]
    width = batch["input_ids"].shape[1]
    ends = accumulate(map(len, documents)) if flatten else (width * row + len(ids) for row, ids in enumerate(documents))
    lengths = torch.tensor([len(answer) for answer in answers])
    last = torch.tensor(list(ends)) - 1
    owners = torch.arange(len(answers)).repeat_interleave(lengths)
    within = torch.arange(len(owners)) - (lengths.cumsum(0) - lengths)[owners]
    batch |= {
        "predictors": (last - lengths)[owners] + within,
        "targets": torch.tensor([token for answer in answers for token in answer]),
        "answers": owners,
        "ends": last,
        "groups": len(answers),
    }
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def padded(flat: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One value a token as a rectangle.

    Args:
        flat: `[tokens]`, answer after answer.
        lengths: `[answers]`, tokens of each.

    Returns:
        `[answers, longest]`, 0 where no token is, and the mask of where one is: `rectangle[mask]` is `flat` again.
    """
    mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    rectangle = flat.new_zeros(mask.shape)
    rectangle[mask] = flat
    return rectangle, mask
