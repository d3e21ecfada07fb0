"""Notable records (dropped, truncated, duplicated, leaked from evaluation into training data), lengths and cutoffs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llf_core.config.number_format import with_unit
from llf_core.data.conversation import UNANSWERED
from llf_core.data.packing import pack
from llf_core.estimate import Forecaster, device_of, find_devices
from llf_core.estimate.example_lengths import of_lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from llf_core.config import RunConfig
    from llf_core.data.report import DataReport

KINDS = ("dropped", "cut", "divided", "doubled", "leaked")
MAX_LONGEST = 100


class Notable(NamedTuple):
    """A notable record, by its 0-based index in the data set."""

    kind: str
    dataset: str
    record: int
    reason: str


def longest(names: list[tuple[str, int]], whole: NDArray[np.int64]) -> Iterator[Notable]:
    """The `MAX_LONGEST` longest examples before truncation (`whole`: tokens, `[examples]`, int64)."""
    for place in np.argsort(-whole, kind="stable")[:MAX_LONGEST].tolist():
        dataset, number = names[place]
        yield Notable("longest", dataset, number, f"{with_unit(int(whole[place]), 'token')}")


EXTRA_KINDS = ("unanswered", "longest")
"""Kinds that are not part of `all`: records dropped because they have no answer, and the longest examples."""
MAX_DUPLICATES_NAMED = 3


def from_report(report: DataReport) -> Iterator[Notable]:
    """Records that the preparation has reported: unusable, truncated (most tokens first) and divided ones."""
    for dropped in report.unusable():
        yield Notable("dropped", dropped.dataset, dropped.index, dropped.reason)
    cuts = Counter[tuple[str, int]]()  # a record may give several examples
    for cut in report.truncated:
        cuts[cut.dataset, cut.index] += cut.cut
    for (dataset, index), tokens in cuts.most_common():
        yield Notable("cut", dataset, index, f"{with_unit(tokens, 'token')} cut")
    for divided in report.divided:
        yield Notable("divided", divided.dataset, divided.index, f"gives {with_unit(divided.parts, 'example')}")


def duplicates(
    names: list[tuple[str, int]], hashes: NDArray[np.int64], where: Callable[[int, str], str]
) -> Iterator[Notable]:
    """Find records that give an example with the same tokens and labels as an earlier one.

    Args:
        hashes: `[examples]`, int64, equal for equal tokens and labels.
        where: formats the place of a record, see `DataReport.where`.
    """
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.r_[True, hashes[order][1:] != hashes[order][:-1]])
    ends = np.r_[starts[1:], len(order)]
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        group = order[start:end].tolist()
        records = list(dict.fromkeys(names[place] for place in group))
        for record in records[1:]:
            first = ", ".join(
                f"{dataset} {where(number, dataset)}"
                for dataset, number in records[:MAX_DUPLICATES_NAMED]
                if (dataset, number) != record
            )
            dataset, number = record
            yield Notable("doubled", dataset, number, f"the same prompt and answer as {first}")


def leaks(
    names: list[tuple[str, int]],
    hashes: NDArray[np.int64],
    held_names: list[tuple[str, int]],
    held_hashes: NDArray[np.int64],
    where: Callable[[int, str], str],
) -> Iterator[Notable]:
    """Find evaluation examples that also occur in the training data.

    Args:
        hashes: `[examples]`, int64, of the training examples, equal for equal tokens and labels.
        held_hashes: `[eval_examples]`, int64, the same of the evaluation examples.
        where: formats the place of a record, see `DataReport.where`.
    """
    trained: dict[int, tuple[str, int]] = {}
    for digest, name in zip(hashes.tolist(), names, strict=True):
        trained.setdefault(digest, name)
    for digest, name in zip(held_hashes.tolist(), held_names, strict=True):
        if digest in trained:
            dataset, number = trained[digest]
            yield Notable(
                "leaked",
                name[0],
                name[1],
                f"held out, but its duplicate {dataset} {where(number, dataset)} is in the training set",
            )


def _is_unanswered(one: Notable) -> bool:
    return one.kind == "dropped" and one.reason.startswith(UNANSWERED)


def page(found: list[Notable], kind: str, offset: int, limit: int) -> dict[str, Any]:
    """Select a page of the records of a kind: one of `KINDS` or `EXTRA_KINDS`, or `all`.

    Returns:
        `total` (number of records of this kind), `kinds` (number of records of each kind) and `rows`, each a dictionary
        of the attributes of a `Notable`.
    """
    groups = {name: [one for one in found if one.kind == name] for name in (*KINDS, "longest")}
    groups["unanswered"] = [one for one in groups["dropped"] if _is_unanswered(one)]
    groups["all"] = [one for one in found if one.kind in KINDS]
    chosen, first = groups.get(kind, []), max(0, offset)
    return {
        "total": len(chosen),
        "kinds": {name: len(groups[name]) for name in (*KINDS, *EXTRA_KINDS)},
        "rows": [one._asdict() for one in chosen[first : first + max(0, limit)]],
    }


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
