"""The largest step of a run, from its config alone."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerMemory
from llf_core.config.declarations.methods.freeze import layers_of, trained_weights
from llf_core.config.name_checks.modules import HEADS
from llf_core.config.quantizers import QUANTIZERS
from llf_core.config.registry import method_of, optimizer_of, quantizer_of, stage_of
from llf_core.config.rules.conditions import REFERENCE, names_reference, packs_examples, precomputes_reference
from llf_core.config.weight_shapes import LAYER, count
from llf_core.estimate.memory_forecast import ALONE, Forecast, TrainingPass, training_memory, weight_bytes
from llf_core.estimate.model_sizes import model_sizes, new_token_parameters, trained_parameters
from llf_core.estimate.strategies import Link, Shares, Traffic, link_of, traffic

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.config.weight_shapes import Shapes
    from llf_core.estimate.devices import Device, Precision
    from llf_core.estimate.example_lengths import ExampleLengths
    from llf_core.estimate.model_sizes import ModelSizes

SINGLE = 4
CUDA_CONTEXT = 520_000_000
"""Bytes of a process on a GPU before its first tensor: CUDA's context and the workspace of matrix products."""
PADDING = 8
"""Padded batches have a multiple of this number of tokens."""


@dataclass(frozen=True)
class PlannedStep:
    """The largest step of a run and its model.

    Attributes:
        training: settings of the pass, without gradient checkpointing.
        base_weights: bytes of the model's own weights as loaded, and of frozen models beside it.
        adapter_weights: bytes of the weights of adapters.
        gradient_width: bytes of a value of a gradient.
        rows: whether single rows of the embedding are trained beside an adapter.
        shares: the processes that train together.
        scales: bytes of `base_weights` that each of them keeps.
    """

    sizes: ModelSizes
    device: Device
    training: TrainingPass
    base_weights: int
    adapter_weights: int
    trained: int
    optimizer: OptimizerMemory
    gradient_width: int
    quantized: bool = False
    rows: bool = False
    shares: Shares = ALONE
    scales: int = 0

    def traffic(self, passes: int, link: Link | None = None) -> Traffic:
        """What each process sends in a step of `passes` micro-batches, over the link of its device or another one."""
        size = self.base_weights + self.adapter_weights, self.optimizer.gradients * self.gradient_width
        return traffic(self.shares, link or link_of(self.device), size, self.sizes.model.layers, passes)

    def memory(self, *, checkpointing: bool) -> Forecast:
        """Forecast the peak memory of the step; `base` is taken on the device before the model is loaded."""
        found = training_memory(
            self.sizes.model,
            dataclasses.replace(self.training, checkpointing=checkpointing),
            weights=self.base_weights + self.adapter_weights,
            trained=self.trained,
            optimizer=self.optimizer,
            gradient_width=self.gradient_width,
            device=self.device.kind,
            quantized=self.quantized,
            rows=self.rows,
            encoder=self.sizes.encoder,
            shares=self.shares,
            parameters=self.sizes.parameters,
            scales=self.scales,
        )
        return dataclasses.replace(found, base=CUDA_CONTEXT) if self.device.kind == "cuda" else found


def plan_step(
    config: RunConfig, sizes: ModelSizes, lengths: ExampleLengths, device: Device, precision: Precision
) -> PlannedStep | None:
    """Derive the largest step of a run from its config; None if the number of trained parameters is unknown."""
    method, optimizer, stage = method_of(config), optimizer_of(config), stage_of(config)
    weights = sizes.language if sizes.language is not None and _trains_language_alone(config) else sizes.weights
    trained = trained_parameters(config, weights)
    if trained is None:
        return None
    sees = sizes.language is not None
    tokens, longest = largest_step(config, lengths, padded=sees, unpadded_above=sizes.unpadded_above)
    autocast = precision.autocast and not optimizer.keeps_masters
    loaded = _loaded_width(config, sizes, precision)
    width = loaded if optimizer.keeps_masters else precision.width if config.get("pure_bf16") else SINGLE
    own = _trained_shapes(config, weights, trained)
    embedding = not method.selects_blocks or _has_embedding(own, sizes)
    fast = config.training.fast_path and not stage.pads and not method.prompts(config)
    training = TrainingPass(
        tokens=tokens,
        longest=longest,
        width=precision.width,
        autocast=autocast,
        trains_base=not method.frozen_base,
        rank=int(config.get(method.rank_key)) if method.rank_key else 0,
        fast=bool(fast) and not sees,
        patches=largest_patches(config, lengths.patches),
        trains_encoder=sees and not config.method.freeze_vision_tower,
        chunks_head=bool(fast),
        varies=config.data.streaming or (not packs_examples(config) and lengths.varies(config.data.cutoff_len)),
        on_cpu=device.kind != "cuda",
        first=min(layers_of(own).values(), default=0) if method.selects_blocks and not embedding else 0,
        tied=not method.frozen_base and embedding and sizes.model.tied,
    )
    bits = config.model.quantization_bit if sizes.packed_bytes is None else None
    each = None if bits is None else quantizer_of(config).bytes_per_weight(bits, loaded)
    base = sizes.packed_bytes or weight_bytes(sizes.model, sizes.parameters, width=loaded, each=each)
    copies = 2 if stage.trains_value_function and stage.separates_models(config) else 1  # a value model like the policy
    further = _further_models(config, sizes, base, precision.width, lengths.examples)
    if not method.frozen_base:
        base += trained * (width - loaded)  # trained weights have their own precision
    memory = optimizer.memory_for(config, own, width)
    return PlannedStep(
        sizes=sizes,
        device=device,
        training=training,
        base_weights=copies * base + further,
        adapter_weights=copies * trained * width if method.frozen_base else 0,
        trained=copies * trained,
        optimizer=OptimizerMemory(copies * memory.state_bytes, copies * memory.gradients),
        gradient_width=width,
        quantized=bits is not None or sizes.packed_bytes is not None,
        rows=bool(method.frozen_base and new_token_parameters(config, weights)),
        shares=Shares(config.launch.strategy, config.launch.ranks, config.launch.num_nodes),
        scales=0
        if bits is None
        else copies * quantizer_of(config).scale_bytes(bits, sizes.parameters - sizes.model.outer),
    )


def _trains_language_alone(config: RunConfig) -> bool:
    method = config.method
    return method.freeze_vision_tower and method.freeze_multi_modal_projector and not method.freeze_language_model


def largest_step(
    config: RunConfig, lengths: ExampleLengths, *, padded: bool = False, unpadded_above: int | None = None
) -> tuple[int, int]:
    """Estimate the tokens of the largest micro-batch, and of its longest example, with sampled completions.

    The second answer of a pair counts as long as the first, so that the estimate can be too high;
    `training.memory_plan` counts when the data is prepared.
    """
    batch, cutoff, stage = config.training.per_device_train_batch_size, config.data.cutoff_len, stage_of(config)
    sequences = 2 if stage.data_kind in {"pairs", "unpaired_preferences"} else 1
    drawn = stage.completion_tokens(config, 0)
    known = cutoff if config.data.streaming else lengths.longest(cutoff)  # what a stream brings is not known
    longest = known + drawn
    if packs_examples(config):
        return batch * cutoff, longest
    rows = batch if drawn or config.data.streaming else lengths.rows(batch)
    unpadded = unpadded_above is not None and longest > unpadded_above
    if (stage.pads or padded or not config.training.fast_path) and not unpadded:
        return rows * sequences * -(-longest // PADDING) * PADDING, longest
    if config.data.streaming:
        return rows * sequences * longest, longest
    each = lengths.largest_batch(batch, cutoff)
    # KTO reads each prompt with the completion of another example too, which may be the longest.
    other = rows * known if stage.data_kind == "unpaired_preferences" else (sequences - 1) * each
    return each + other + rows * drawn, longest


def largest_patches(config: RunConfig, most: int) -> int:
    """Patches of the images of the largest micro-batch; both completions of a pair are read with the images."""
    sequences = 2 if stage_of(config).data_kind in {"pairs", "unpaired_preferences"} else 1
    return config.training.per_device_train_batch_size * sequences * most


def _trained_shapes(config: RunConfig, weights: Shapes, trained: int) -> Shapes:
    """Shape of each trained parameter by name, for the memory of the optimizer.

    One vector of `trained` values where others than the model's weights are trained.
    """
    method = method_of(config)
    found = trained_weights(config, weights) if method.selects_blocks else {} if method.frozen_base else weights
    return found if count(found) == trained else {"trained": (trained,)}


def _has_embedding(own: Shapes, sizes: ModelSizes) -> bool:
    """Whether the embedding is trained, so that the backward pass reaches the first layer."""
    least = sizes.model.vocabulary * sizes.model.hidden
    return any(
        math.prod(shape) >= least and not LAYER.search(name) and {*HEADS}.isdisjoint(name.split("."))
        for name, shape in own.items()
    )


def _loaded_width(config: RunConfig, sizes: ModelSizes, precision: Precision) -> int:
    if config.get("pure_bf16"):
        return precision.width
    exact = sizes.float32 or precision.dtype == "float16"
    if config.model.train_from_scratch or (exact and not method_of(config).frozen_base):
        return SINGLE
    return precision.width


def _further_models(config: RunConfig, sizes: ModelSizes, base: int, width: int, examples: int | None) -> int:
    """Bytes of the frozen models beside the trained one: a teacher or reward model, and the reference.

    One of the same weights takes `base` bytes; another one has values of `width` bytes.
    """
    stage = stage_of(config)
    key, separates = stage.second_model(config), stage.separates_models(config)
    total = 0
    if key and stage.second_is_adapter(config):
        total += base if separates else 0
    elif key:
        named = model_sizes(str(config.get(key)), config.model.cache_dir)
        total += 0 if named is None else _frozen_bytes(named, config.get(f"{key}_quantization_bit"), width)
    if not stage.holds_reference(config) or key == REFERENCE[0]:
        return total
    if stage.has_reference and names_reference(config):
        if own := config.get(REFERENCE[0]):
            named = model_sizes(str(own), config.model.cache_dir)
            return total + (0 if named is None else _frozen_bytes(named, config.get(REFERENCE[2]), width))
        return total + _frozen_bytes(sizes, config.get(REFERENCE[2]), width)  # with other adapters, or quantized
    precomputes = stage.compares and precomputes_reference(config, examples)
    shares = method_of(config).frozen_base and not separates
    return total + (0 if shares or precomputes else base)


def _frozen_bytes(sizes: ModelSizes, bits: int | None, width: int) -> int:
    """Bytes of a frozen model, quantized to `bits` by bitsandbytes unless None."""
    each = None if bits is None else QUANTIZERS["bnb"].bytes_per_weight(bits, width)
    return weight_bytes(sizes.model, sizes.parameters, width=width, each=each)
