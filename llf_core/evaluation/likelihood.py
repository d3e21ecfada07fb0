"""The loss of each token of examples, and whether it is the most likely one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name

from llf_core.acceleration.patching.causal_head import causal_of, forward
from llf_core.config.data import IGNORED
from llf_core.config.name_checks.architecture_properties import indexed_types
from llf_core.models.device import autocast_mixed_dtypes
from llf_core.models.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llf_core.acceleration.patching.causal_head import Head
    from llf_core.evaluation.examples import TokenizedPart

BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 16_384}
"""Maximum tokens of a batch with padding; one longer sequence is a batch of its own."""
CHUNK_BYTES = 64 << 20
"""Bytes of float32 logits of a chunk."""
MAX_PADDING = 0.1
"""Share of padding from which a shorter sequence begins a new batch."""
MIN_SHARE = 1 / 8
"""Batches below this share of the maximum are completed whatever the padding: products are slow for few rows."""


@dataclass(frozen=True)
class PartLosses:
    """Losses of a sequence in nats, by the positions of its measured tokens."""

    places: tuple[int, ...]
    losses: tuple[float, ...]
    correct: tuple[bool, ...]


def measure_losses(
    model: torch.nn.Module, parts: Sequence[TokenizedPart], progress: Callable[[int], object]
) -> list[PartLosses]:
    """Cross-entropy in float32 of the tokens of sequences, each of at least one token, as in training.

    Sequences of similar length are batches; one that does not fit into memory is split in two. Only positions in the
    loss pass through the output head, if `causal_head.install_head` has prepared the model, which is in evaluation
    mode.
    """
    device = causal_of(model).get_input_embeddings().weight.device
    found: dict[int, PartLosses] = {}
    limit = BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"])
    waiting = list(batches([len(part.ids) for part in parts], limit, equal=depends_on_length(model)))[::-1]
    with torch.inference_mode(), autocast_mixed_dtypes(model):
        while waiting:
            numbers = waiting.pop()
            try:
                measured = _batch_losses(model, [parts[number] for number in numbers], device)
            except Exception as error:
                if not is_out_of_memory(error) or len(numbers) == 1:
                    raise
                half = len(numbers) // 2
                waiting += [numbers[half:], numbers[:half]]
                continue
            found.update(zip(numbers, measured, strict=True))
            progress(len(found))
    return [found[number] for number in range(len(parts))]


def batches(lengths: Sequence[int], limit: int, *, equal: bool = False) -> Iterator[list[int]]:
    """Group sequences by length, the longest first, so that a batch that does not fit into memory is found at once.

    A batch ends where the next sequence would exceed `limit` tokens, or need more padding than `MAX_PADDING` in a batch
    that is large enough (`MIN_SHARE`).
    """
    batch: list[int] = []
    longest = total = 0
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        length = lengths[number]
        padded = longest * (len(batch) + 1)
        large = longest * len(batch) >= MIN_SHARE * limit
        sparse = large and padded - total - length > MAX_PADDING * padded
        if batch and (padded > limit or sparse or (equal and length != longest)):
            yield batch
            batch, total = [], 0
        if not batch:
            longest = length
        batch.append(number)
        total += length
    if batch:
        yield batch


def depends_on_length(model: torch.nn.Module) -> bool:
    """Whether attention or rotary frequencies depend on the longest sequence of a batch: padding changes losses."""
    config = causal_of(model).config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    tables = (rope, *rope.values()) if isinstance(rope, dict) else ()  # Gemma 3 has one for each kind of layer
    kinds = {one.get("rope_type", one.get("type")) for one in tables if isinstance(one, dict)}
    return config.model_type in indexed_types() or not kinds.isdisjoint({"dynamic", "longrope"})


def _batch_losses(model: torch.nn.Module, parts: Sequence[TokenizedPart], device: torch.device) -> list[PartLosses]:
    """No mask is given: with padding on the right, no token attends to it."""
    length = max(len(part.ids) for part in parts)
    ids = torch.zeros(len(parts), length, dtype=torch.int64)
    targets = torch.full((len(parts), length), IGNORED, dtype=torch.int64)
    for row, part in enumerate(parts):
        ids[row, : len(part.ids)] = torch.tensor(part.ids)
        targets[row, : len(part.ids) - 1] = torch.tensor(part.labels[1:])
    wanted = (targets != IGNORED).nonzero()
    places = targets.to(device)

    def objective(hidden: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
        mask = places != IGNORED
        return _token_costs(hidden[mask], head, places[mask])

    costs, correct = forward(model, {"input_ids": ids.to(device)}, objective)
    of_rows: list[tuple[list[int], list[float], list[bool]]] = [([], [], []) for _ in parts]
    for (row, place), cost, right in zip(wanted.tolist(), costs.tolist(), correct.tolist(), strict=True):
        for values, value in zip(of_rows[row], (place + 1, cost, right), strict=True):
            values.append(value)
    return [PartLosses(tuple(where), tuple(losses), tuple(right)) for where, losses, right in of_rows]


def _token_costs(rows: torch.Tensor, head: Head, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the token after each row, and whether it is the most likely one, without storing all logits.

    Args:
        rows: hidden states `[N, H]`; logits `[N, V]` for a head without weight.
        targets: `[N]`, int64.

    Returns:
        Losses `[N]`, float32 (float64 for float64), and booleans `[N]`.
    """
    columns = rows.shape[-1] if head.weight is None else len(head.weight)
    size = max(1, CHUNK_BYTES // (4 * columns))
    costs, correct = [], []
    for start in range(0, max(1, len(rows)), size):
        wanted = targets[start : start + size]
        logits = head.logits(rows[start : start + size])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        costs.append(F.cross_entropy(logits, wanted, reduction="none"))
        correct.append(logits.argmax(-1) == wanted)
    return torch.cat(costs), torch.cat(correct)
