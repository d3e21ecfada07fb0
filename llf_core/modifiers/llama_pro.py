"""LLaMA Pro: inserts blocks that are the identity until they are trained (arXiv 2401.02415)."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from llf_core.config.declarations.modifiers import LLaMAProOptions, expanded_blocks
from llf_core.methods.adapter_targets import block_count, block_list
from llf_core.models.errors import ModelError
from llf_core.modifiers.modifier import Modifier

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

OUTPUTS = frozenset(
    {"o_proj", "out_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "fc2", "fc_out", "wo", "w2"}
)
"""Names of the matrices that add to the residual stream, over the model families of transformers."""
PROBE = 8


class LLaMAPro(Modifier):
    """Inserts blocks, if the config says so; `freeze` selects them by `expanded_blocks`."""

    def before_method(self, model: PreTrainedModel) -> None:
        """Insert as many blocks as `freeze_trainable_layers` if `llama_pro_insert` is true; else the model has them."""
        if self.config.options(LLaMAProOptions).llama_pro_insert:
            insert_blocks(model, int(self.config.get("freeze_trainable_layers")))

    def apply(self, model: nn.Module) -> None:
        """Do nothing: the blocks are inserted before the method, which trains them."""


def insert_blocks(model: PreTrainedModel, number: int) -> None:
    """Insert a copy of the last block of each of `number` equal groups behind it, as the identity.

    The matrices of a copy that add to the residual stream are zero; the model's outputs before and after are
    compared on some tokens. Block expansion, arXiv 2401.02415, section 3.2 and figure 3.

    Args:
        model: changed in place, with its config, also on an error.

    Raises:
        ModelError: `number` is not a divisor, the blocks are not found, or the outputs change.
    """
    depth = block_count(model)
    try:
        copied = expanded_blocks(number, depth)
    except ValueError as error:
        raise ModelError(str(error)) from error
    blocks = block_list(model)
    # Without weights there is nothing to compare: the model is made to see its parameters alone.
    before = None if model.device.type == "meta" else _logits(model)
    for place in reversed(copied):
        blocks.insert(place + 1, _identity(blocks[place]))
    for place, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                vars(module)["layer_idx"] = place
    _lengthen(model, depth, copied)
    difference = 0.0 if before is None else (_logits(model) - before).abs().max().item()
    if difference != 0.0:
        raise ModelError(
            f"{type(model).__name__} cannot be expanded by LLaMA Pro: with inserted blocks its logits differ by "
            f"{difference:.2g}, and expected was no difference. Use another method, such as lora or freeze."
        )


def _identity(block: nn.Module) -> nn.Module:
    import torch

    copy = deepcopy(block)
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if not OUTPUTS.isdisjoint(name.split(".")):
                parameter.zero_()
    return copy


def _lengthen(model: PreTrainedModel, depth: int, copied: range) -> None:
    """Update the number of blocks in the config, and repeat the entries of the copied blocks in its lists."""
    config = model.config.get_text_config()
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == depth:
            entries = [[entry, entry] if place in copied else [entry] for place, entry in enumerate(value)]
            setattr(config, key, [entry for pair in entries for entry in pair])
    for key in ("num_hidden_layers", "num_layers", "n_layer", "n_layers"):
        if getattr(config, key, None) == depth:
            setattr(config, key, depth + len(copied))
            break


def _logits(model: PreTrainedModel) -> Tensor:
    """Logits of a few tokens, `[1, tokens, V]`, without dropout."""
    import torch

    training = model.training
    model.eval()
    tokens: torch.Tensor = torch.arange(PROBE, device=model.device)[None] % model.config.get_text_config().vocab_size
    try:
        with torch.no_grad():
            logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    finally:
        model.train(training)
    return logits
