"""Supervised fine-tuning: the negative log-likelihood of the answers' tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llf_core.config.registry import Stage

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100


def shifted_targets(labels: Tensor) -> Tensor:
    """Moves each label to the position that predicts it.

    Args:
        labels: `[batch, seq]`, int64; `-100` where nothing is learned.

    Returns:
        `[batch, seq]`: `labels` one to the left, with `-100` in the last column.
    """
    import torch.nn.functional as F  # noqa: N812 - torch's own short name

    return F.pad(labels[..., 1:], (0, 1), value=IGNORED)


def token_nll_sum(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum of the negative log-likelihoods of all supervised tokens.

    Only the rows that are learned from are upcast to float32, so the copy is as large as the answers, not
    as large as the batch.

    Args:
        logits: `[batch, seq, vocab]`, any float dtype.
        labels: `[batch, seq]`, not shifted, `-100` where nothing is learned.
        label_smoothing: share of the probability that is spread evenly over the vocabulary, 0 to 1.

    Returns:
        A float32 scalar: the sum, not the mean, so that the caller can weight by tokens over accumulation and
        ranks.

    Source:
        Cross-entropy of a causal language model; label smoothing as in arXiv 1512.00567, section 7.
    """
    import torch.nn.functional as F  # noqa: N812 - torch's own short name

    targets = shifted_targets(labels)
    rows = targets != IGNORED
    return F.cross_entropy(logits[rows].float(), targets[rows], reduction="sum", label_smoothing=label_smoothing)


class SFT(Stage):
    """Trains on the answers of conversations; the prompts are only read."""

    name: ClassVar[str] = "sft"
    label: ClassVar[str] = "sft (answers)"

    @staticmethod
    def loss_sum(model: nn.Module, batch: dict[str, Tensor], label_smoothing: float = 0.0) -> Tensor:
        """Sum of the loss over the supervised tokens of one micro-batch.

        Args:
            model: a causal language model.
            batch: `input_ids`, `attention_mask`, `labels`, each `[batch, seq]`.
            label_smoothing: see `token_nll_sum`.

        Returns:
            A float32 scalar with a graph.
        """
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return token_nll_sum(model(**inputs, use_cache=False).logits, batch["labels"], label_smoothing)
