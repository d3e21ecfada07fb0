"""Document boundaries of flattened and packed batches: no loss crosses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.ignore_index import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def flatten_documents(ids: Sequence[NDArray[np.int64]], labels: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """Concatenate documents to one row without padding.

    The first label of each document is ignored, since the token before it belongs to another document.

    Args:
        ids: token ids of each document, `[seq]` each, int64; at least one document, none of them empty.
        labels: labels of each document, `[seq]` each, int64.

    Returns:
        `input_ids`, `labels`, `position_ids` (`[1, tokens]`, int64; positions begin at 0 in each document),
        `cu_seq_lens_q` and `cu_seq_lens_k` (`[documents + 1]`, int32), `max_length_q` and `max_length_k` (int).
    """
    import torch

    lengths = np.array([len(row) for row in ids])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    targets = np.concatenate(labels)
    targets[starts] = IGNORED
    positions = np.arange(ends[-1]) - np.repeat(starts, lengths)
    borders = torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32))
    longest = int(lengths.max())
    return {
        "input_ids": torch.from_numpy(np.concatenate(ids))[None],
        "labels": torch.from_numpy(targets)[None],
        "position_ids": torch.from_numpy(positions)[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
    }
