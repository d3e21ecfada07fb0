"""Batches of prompts with sampled completions."""

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
    """Make a batch of prompts with their completions, in the form of `llf_core.data.collate.PairCollator`.

    ```
    prompts 5 6 and 7, completions 8 9 and 1  ->  input_ids   [[5, 6, 8, 9, 7, 1]]
                                                  predictors  [1, 2, 4]   the hidden states that predict
                                                  targets     [8, 9, 1]
                                                  answers     [0, 0, 1]   completion of each token
                                                  ends        [3, 5]      the completions' last tokens
                                                  groups      2
    ```

    Args:
        prompts: token ids, none empty, at least one prompt.
        answers: token ids of the completions, none empty.
        flatten: concatenate documents; else rows are padded on the right, and `predictors` and `ends` are indices
            into the flattened `[batch * seq]`.

    Returns:
        The model's inputs, with names and shapes as in `Collator.__call__`: `input_ids` is `[1, tokens]` or `[batch,
            seq]`, int64. Also `predictors`, `targets` and `answers` (each `[answer tokens]`, int64), `ends`
            (`[completions]`, int64), and `groups` (int, number of completions).
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


def pad_to_rows(flat: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad one value per token to rows of completions, and return their mask.

    Args:
        flat: `[tokens]`, completion after completion.
        lengths: `[answers]`, int64: tokens of each; at least one completion.

    Returns:
        Values `[answers, longest]`, 0 at padding, and the mask, bool: `values[mask]` is `flat` again.
    """
    mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    rectangle = flat.new_zeros(mask.shape)
    rectangle[mask] = flat
    return rectangle, mask
