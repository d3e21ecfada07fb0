"""The request of an export: plain values, which pass to a child process as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from llf_core.chat.target import Target

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""`auto` is the dtype in which the base model is stored."""
DEVICES = ("cpu", "auto")
COMBINATIONS = (
    "cat",
    "linear",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
)
"""PEFT's combinations of LoRAs. `cat` and `svd` (of full rank) give the weighted sum of their products."""
SHARD_BYTES = 5 * 10**9
"""As LLaMA-Factory's `export_size: 5`."""


@dataclass(frozen=True)
class WeightedAdapter:
    """An adapter with its weight in a combination.

    Attributes:
        adapter: folder or hub id.
        weight: factor of its change to the base's weights; negative values subtract it.
    """

    adapter: str
    weight: float = 1.0
    name: str = ""


@dataclass(frozen=True)
class ExportRequest:
    """An export.

    Attributes:
        adapters: adapters on the target's base, the target's own among them; empty for a whole model.
        density: share of the values that pruning combinations (TIES, DARE, magnitude) keep, in (0, 1].
        rank: rank of the LoRA into which another PEFT adapter is converted; None to keep its type.
        device: one of `DEVICES`: `cpu`, or `auto` for a GPU if there is one.
        keep_failed: whether to keep an export that failed its receipt, as `<name>.failed`.
    """

    target: Target
    format: str
    folder: Path
    adapters: tuple[WeightedAdapter, ...] = ()
    combination: str = "cat"
    density: float | None = None
    dtype: str = "auto"
    shard_bytes: int = SHARD_BYTES
    rank: int | None = None
    quantizations: tuple[str, ...] = ()
    device: str = "cpu"
    keep_failed: bool = False

    def json(self) -> str:
        """JSON text for a child process."""
        return json.dumps(asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def read(cls, text: str) -> ExportRequest:
        """The request that `json` wrote."""
        values = json.loads(text)
        values["target"] = Target(**values["target"])
        values["folder"] = Path(values["folder"])
        values["adapters"] = tuple(WeightedAdapter(**one) for one in values["adapters"])
        values["quantizations"] = tuple(values["quantizations"])
        return cls(**values)


def plain_name(name: str) -> str:
    """A name with `-` in place of all but letters, digits and `_.@-`; `model` if nothing is left."""
    return re.sub(r"[^\w.@-]+", "-", name).strip("-.") or "model"
