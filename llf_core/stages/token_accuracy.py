"""The metric `accuracy` of an evaluation, and the losses of tokens by document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name

from llf_core.config.data import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from llf_core.acceleration.kernels.cross_entropy import TokenWeights


class TokenAccuracy:
    """Counts, for each example, the tokens in the loss and those of them that are the most likely ones.

    It reads the distributions that the loss is computed from. Counts are pending until `commit`, since a batch may
    be computed again in smaller parts.
    """

    def __init__(self) -> None:
        self._found: list[Tensor] = []
        self._pending: list[Tensor] = []
        self._committed: list[Tensor] = []

    def observe(self, weights: TokenWeights | None = None) -> TokenWeights:
        """Wrap the weights of a loss (None for 1) to keep the most likely token of each row for `add`."""

        def observed(log_probs: Tensor, costs: Tensor) -> Tensor:
            self._found.append(log_probs.argmax(-1))
            return torch.ones_like(costs) if weights is None else weights(log_probs, costs)

        return observed

    def add(self, batch: dict[str, Any]) -> None:
        """Count correct tokens of a batch (`[1, tokens]` or `[batch, seq]`) after its loss; pending until `commit`.

        As in transformers' and LLaMA-Factory's `compute_accuracy`.
        """
        targets = shifted_targets(batch["labels"]).flatten()
        learned = (targets != IGNORED).nonzero()[:, 0]
        found = torch.cat(self._found) if self._found else targets[:0]
        self._found.clear()
        correct = (found == targets[learned]).to(torch.float32)
        record_document_losses(batch, self._keep, learned, correct)

    def _keep(self, correct: Tensor, tokens: Tensor) -> None:
        self._pending.append(torch.stack([correct, tokens.to(correct.dtype)], dim=1))

    def rollback(self) -> None:
        """Discard pending counts: the batch is computed again."""
        self._found.clear()
        self._pending.clear()

    def commit(self) -> None:
        """Keep pending counts, once a batch is complete."""
        self._committed += self._pending
        self._pending.clear()

    def take(self) -> list[list[float]]:
        """Return the committed counts and clear them: correct tokens and tokens in the loss of each example."""
        taken, self._committed = self._committed, []
        return torch.cat(taken).tolist() if taken else []


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
