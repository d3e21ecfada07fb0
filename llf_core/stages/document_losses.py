"""Losses of tokens by document, and the token that each position predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name

from llf_core.config.ignore_index import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def shifted_targets(labels: Tensor) -> Tensor:
    """Labels `[batch, seq]` shifted left by one, to the positions that predict them; -100 in the last column."""
    return F.pad(labels[..., 1:], (0, 1), value=IGNORED)


def record_document_losses(
    batch: dict[str, Tensor], record_losses: Callable[[Tensor, Tensor], object], positions: Tensor, costs: Tensor
) -> None:
    """Record the loss and the number of supervised tokens of each document, for the view of example losses.

    Args:
        batch: of `llf_core.data.Collator`, flattened or padded.
        record_losses: called with losses and token counts, `[documents]` each.
        positions: `[N]`, int64: positions of the supervised tokens in the flattened batch.
        costs: `[N]`, losses of these tokens in nats.
    """
    ends = batch.get("cu_seq_lens_q")
    count = len(batch["input_ids"]) if ends is None else len(ends) - 1
    if ends is None:
        documents = positions // batch["input_ids"].shape[-1]
    else:
        documents = torch.bucketize(positions, ends[1:].long(), right=True)
    sums = costs.new_zeros(count).index_add_(0, documents, costs)
    record_losses(sums, torch.bincount(documents, minlength=count))
