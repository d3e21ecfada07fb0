from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.kernels.cross_entropy import CHUNK, CHUNK_ELSEWHERE

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.acceleration.patching.causal_head import Head


@torch.no_grad()
def entropies(rows: Tensor, head: Head) -> Tensor:
    """Entropy `[N]` of the distribution after each row, `H = -Σ_v p_v log p_v`, in nats, detached.

    float32 (float64 for float64), computed chunk by chunk. Shannon, A mathematical theory of communication, 1948,
    section 6.

    Args:
        rows: hidden states `[N, H]`; logits `[N, V]` for a head without weight. A logit of -inf makes its row NaN.
    """
    vocab = rows.shape[1] if head.weight is None else len(head.weight)
    exact = torch.promote_types(rows.dtype, torch.float32)
    size = max(1, CHUNK.get(rows.device.type, CHUNK_ELSEWHERE) // (vocab * exact.itemsize))
    found = rows.new_empty(len(rows), dtype=exact)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        logits = head.logits(part if head.weight is None else part.to(head.weight.dtype))
        logged = torch.log_softmax(logits.to(exact), -1)
        found[start : start + size] = -(logged.exp() * logged).sum(-1)
    return found
