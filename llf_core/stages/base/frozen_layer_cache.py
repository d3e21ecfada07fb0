"""Whether a run keeps what its frozen lower layers compute, and where."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.frozen_layer_store import TrunkStore
from llf_core.acceleration.frozen_layers import Trunk, frozen_depth
from llf_core.acceleration.patching.causal_head import causal_of
from llf_core.config.registry import modifiers_of, stage_of
from llf_core.data import PackedRows
from llf_core.data.example_store import lengths
from llf_core.data.streaming import Stream

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder
    from llf_core.stages.base.context import TrainingContext

logger = logging.getLogger(__name__)

SHARE = 0.5  # of the free disk that the file may fill
PROBE = (3, 5)  # tokens of the documents that it is tried with
WHOLE = {"answers", "texts"}  # kinds of data whose examples are the documents of a batch
LENGTH_DEPENDENT = {"dynamic", "longrope"}  # rotary embeddings that depend on the longest document of a batch


def keep_trunk(work: TrainingContext) -> Trunk | None:
    """Lets later epochs skip the lowest layers, where these are frozen and nothing in them is random.

    Args:
        work: model, data and plan. The file lies in its folder's `cache/trunk` until the run has ended, so that a
            resumed run reads the same bits; the config's `trunk_cache_gb` bounds it, and 0 keeps none.

    Returns:
        None where nothing is kept.
    """
    config, folder = work.config, work.folder
    if isinstance(work.data.train, Stream) or stage_of(config).data_kind not in WHOLE:
        return None
    most = config.training.trunk_cache_gb * 1e9
    decoder = causal_of(work.model).get_decoder()
    depth = frozen_depth(decoder)
    if most == 0 or depth == 0 or epochs(config, len(work.data.train)) <= 1 or not _fits(work, decoder):
        return None
    with torch.autocast(
        work.plan.device, getattr(torch, work.plan.autocast or "float32"), enabled=work.plan.autocast is not None
    ):
        states = try_trunk(decoder, depth)
    if states is None:
        logger.info(
            "Later epochs compute all layers: the outputs of the frozen layers cannot be cached for this model."
        )
        return None
    examples = work.data.train.examples if isinstance(work.data.train, PackedRows) else work.data.train
    tokens = int(lengths(examples).sum())
    size = tokens * states.shape[-1] * states.element_size()
    where = folder.path / "cache" / "trunk"
    free = shutil.disk_usage(folder.path).free
    layers = f"the {depth} frozen lower layers of {len(decoder.layers)}"
    if size > most or size > SHARE * free:
        logger.info(
            f"Later epochs compute {layers} again: caching their outputs would need {size / 1e9:.1f} GB of disk; "
            f"{free / 1e9:.1f} GB are free, and trunk_cache_gb is {config.training.trunk_cache_gb:g}."
        )
        return None
    store = TrunkStore(where, tokens=tokens, width=states.shape[-1], dtype=states.dtype)
    logger.info(f"Later epochs skip {layers}: their cached outputs take {size / 1e9:.2f} GB until the run ends.")
    return Trunk(decoder, depth, store)


def forget_trunk(folder: RunFolder) -> None:
    """Gives the disk back."""
    shutil.rmtree(folder.path / "cache", ignore_errors=True)


def epochs(config: RunConfig, rows: int) -> float:
    """How often every row is seen."""
    training = config.training
    if training.max_steps > 0:
        step = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes()
        return training.max_steps * step / rows
    return float(training.num_train_epochs)


def processes() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def try_trunk(decoder: PreTrainedModel, depth: int) -> Tensor | None:
    """Runs a small batch twice, the second time with the lowest layers left out.

    Returns:
        What the lowest layers gave, `[1, tokens, hidden]`; None where the decoder's output is not the same bits.
    """
    device = decoder.get_input_embeddings().weight.device
    ids = torch.zeros(len(PROBE), max(PROBE), dtype=torch.int64, device=device)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(PROBE):
        ids[row, :length] = torch.arange(length, device=device) + row
        mask[row, :length] = 1
    found: list[Tensor] = []
    hook = decoder.layers[depth - 1].register_forward_hook(lambda _, __, output: found.append(output))
    training = decoder.training
    decoder.train()
    trunk: Trunk | None = None
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), TemporaryDirectory() as temporary:
            before = _run(decoder, ids, mask)
            if not isinstance(found[0], torch.Tensor):
                return None
            store = TrunkStore(Path(temporary), tokens=sum(PROBE), width=found[0].shape[-1], dtype=found[0].dtype)
            trunk = Trunk(decoder, depth, store)
            recorded, replayed = _run(decoder, ids, mask), _run(decoder, ids, mask)
            whole = mask.bool()
            same = torch.equal(before[whole], recorded[whole]) and torch.equal(before[whole], replayed[whole])
            return found[0] if same and trunk.skipped == sum(PROBE) else None
    finally:
        hook.remove()
        if trunk is not None:
            trunk.remove()
        decoder.train(training)


def _run(decoder: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    torch.manual_seed(0)
    hidden: Tensor = decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    return hidden


def length_dependent(model: PreTrainedModel) -> bool:
    """Whether what a model makes of a document depends on the longest one of its batch."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = {one.get("rope_type") for one in (rope, *rope.values()) if isinstance(one, dict)}
    return bool(kinds & LENGTH_DEPENDENT)


def _fits(work: TrainingContext, decoder: PreTrainedModel) -> bool:
    alone = processes() == 1  # else examples change places between processes
    return (
        alone
        and work.plan.device == "cpu"  # on a GPU it was not measured
        and not modifiers_of(work.config)
        and not length_dependent(decoder)
    )
