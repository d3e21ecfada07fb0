"""Lengths of examples, and the cost of each cutoff."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.data.packing import pack
from llf_core.estimate import Forecaster, device_of, find_devices
from llf_core.estimate.example_lengths import of_lengths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llf_core.config import RunConfig

BARS = 24
STEP = 64  # candidate cutoffs are multiples of it
FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5)
MAX_PACKED = 200_000  # examples; of more, a sample of this size is packed


def histogram(lengths: NDArray[np.int64], cutoff: int) -> dict[str, object]:
    """Histogram of the lengths `[examples]`, int64, before truncation, with at least one example.

    Its 24 bars cover 99.5 % of the examples (both chosen by hand), and the cutoff if it truncates some.

    Returns:
        `edges` (`[bars + 1]`, tokens), `counts` (`[bars]`; the last bar includes all longer examples), `median`
        (rounded down), `longest` and `cutoff` (tokens each), `longer` (number of examples longer than the cutoff).
    """
    top = max(int(np.quantile(lengths, 0.995)), cutoff if (lengths > cutoff).any() else 0, 2)
    width = -(-top // BARS)
    edges = np.arange(BARS + 1) * width
    counts = np.histogram(np.minimum(lengths, edges[-1] - 1), edges)[0]
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "median": int(np.median(lengths)),
        "longest": int(lengths.max()),
        "cutoff": cutoff,
        "longer": int((lengths > cutoff).sum()),
    }


def candidate_cutoffs(cutoff: int, longest: int) -> list[int]:
    """Cutoffs whose costs are compared (see `cost`), ascending: the current one, and others near it.

    The others are from half to one and a half times it, rounded to multiples of 64, and no longer than the longest
    example needs. The factors and the multiple are chosen by hand.
    """
    near = {max(STEP, round(cutoff * factor / STEP) * STEP) for factor in FACTORS}
    enough = -(-longest // STEP) * STEP
    return sorted({one for one in near if one <= max(enough, cutoff)} | {cutoff})


def cost(counts: NDArray[np.int64], cutoff: int, config: RunConfig, speed: float | None) -> dict[str, object]:
    """Estimate the cost of a cutoff: what is truncated, and the time and memory that training needs with it.

    Truncation is that of `llf_core.data.truncation.truncated_lengths`, as if each example had one answer.

    Args:
        counts: `[examples, columns]`, int64, see `llf_core.data.example_store.COUNT_COLUMNS`; at least one example.
        speed: tokens per second of an earlier run.

    Returns:
        `cutoff`, `cut` (number of truncated examples), `lost` (tokens), `lost_answers` (fraction of the trained tokens
        that is lost), `rows` (number of packed rows; of more than `MAX_PACKED` examples estimated from the first ones),
        `fill` (fraction of their capacity), `seconds` (of an epoch; None without a speed), `memory` (peak in bytes;
        None if unknown).
    """
    learned, whole, learned_cut = (counts[:, column] for column in (1, 2, 3))
    target = learned + learned_cut
    source = whole - target
    room = np.minimum(source, np.maximum(cutoff - target, cutoff // 2))
    lost_learned = np.where(whole > cutoff, np.maximum(0, target - (cutoff - room)), 0)
    lengths = np.minimum(whole, cutoff)
    sample = lengths[:MAX_PACKED]
    rows = len(pack(sample, cutoff)) * (len(lengths) / len(sample))
    tokens = int(lengths.sum())
    return {
        "cutoff": cutoff,
        "cut": int((whole > cutoff).sum()),
        "lost": int((whole - lengths).sum()),
        "lost_answers": float(lost_learned.sum() / max(1, target.sum())),
        "rows": round(rows),
        "fill": tokens / (max(1.0, rows) * cutoff),
        "seconds": tokens / speed if speed else None,
        "memory": _forecast_memory(config, lengths, cutoff),
    }


def _forecast_memory(config: RunConfig, lengths: NDArray[np.int64], cutoff: int) -> int | None:
    """Forecast the peak memory of the largest step in bytes, see `llf_core.estimate.forecaster`."""
    known = of_lengths(lengths, basis="The lengths of the prepared examples.", exact=True)
    parts, _ = Forecaster(config.replace(cutoff_len=cutoff), known, device_of(config, find_devices())).memory()
    return None if parts is None else parts.total
