from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.rules.conditions import shards_weights, whole_load_reason
from llf_core.estimate.memory_forecast import ALONE, FLOAT32_BYTES, PROCESS_BYTES, QUANTIZED_PROCESS_BYTES
from llf_core.runs.formatting import size

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.estimate.planned_step import PlannedStep

HQQ_TENSORS = 9
"""Tensors of the shape of a layer's weight that HQQ's solver holds at once, in float32 on a CPU.

hqq 0.2.8.post1, `hqq/core/optimize.py`: in `shrink_lp_op` its argument, `out`, the power and the power's multiple; in
`optimize_weights_proximal_legacy_step` `W_f`, `W_q` and `W_r`; and in `optimize_weights_proximal_legacy` the `W_q` and
`W_r` of the iteration before.
"""
HQQ_HEAP = 1.5
"""Allocated over used memory of these tensors, measured: 53 to 55 bytes for a weight of a layer, of which 36 are used.

The gap that a freed tensor leaves is too short for an aligned one of the same size. The heap does not grow further from
layer to layer.
"""
FILE_WIDTHS = {False: 2, True: 4}
"""Bytes of a weight in the model's files, by whether it is float32."""


@dataclass(frozen=True)
class Loading:
    """Peak of the resident set while a model is loaded, in bytes.

    Attributes:
        mapped: part of `total` that is pages of the weight files, which the system can drop.
        alone: whether only the first of several processes has this peak.
        beside: whether it is in the memory of the CPU, beside that of the device.
    """

    total: int
    mapped: int = 0
    alone: bool = False
    beside: bool = False

    def text(self) -> str:
        """The peak as a sentence."""
        total, mapped = (" ".join(size(one)) for one in (self.total, self.mapped))
        if not self.mapped:
            who = "the first process" if self.alone else "each process"
            where = " in the memory of the CPU" if self.beside else ""
            return f"While the model is loaded, before it is sharded, {who} holds all of it{where}: {total}."
        return (
            f"While the model is loaded and quantized, the process takes up to {total}. {mapped} of it are pages of "
            "the weight files, which the system drops when memory is short."
        )


def first_loads_alone(config: RunConfig) -> bool:
    """Whether the first of several processes loads all weights on the CPU, and the others get their shares from it."""
    gguf = config.model.model_name_or_path.lower().endswith(".gguf")
    return shards_weights(config) and not whole_load_reason(config, gguf=gguf)


def forecast_loading(config: RunConfig, step: PlannedStep) -> Loading | None:
    """Forecast the peak of a process while its model is quantized on the CPU or before it is sharded, else None.

    Weight files are mapped, and a quantizer reads each weight as it is stored: all pages of the files become resident
    beside the quantized weights, until the last layer is quantized. HQQ's solver takes memory for the largest layer
    beside them. An ordinary model is not read before its first step.
    """
    if step.shares.parts > 1:
        weights = step.base_weights + step.adapter_weights
        alone = step.sizes.packed_bytes is None and first_loads_alone(config)
        if alone and step.device.kind != "cpu":
            return Loading(weights, alone=True, beside=True)
        workspace = dataclasses.replace(step, shares=ALONE).memory(checkpointing=False).base
        return Loading(workspace + weights, alone=alone)
    if step.device.kind != "cpu" or not step.quantized or step.sizes.packed_bytes is not None:
        return None
    mapped = step.sizes.parameters * FILE_WIDTHS[step.sizes.float32]
    name = config.model.quantization_method
    beside = QUANTIZED_PROCESS_BYTES if name == "bnb" else 0
    if name == "hqq":
        beside = round(HQQ_HEAP * HQQ_TENSORS * FLOAT32_BYTES * step.sizes.model.largest)
    return Loading(PROCESS_BYTES["cpu"] + beside + step.base_weights + mapped, mapped)
