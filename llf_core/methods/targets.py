"""Which linear layers an adapter is put on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.methods.blocks import require_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from transformers import PreTrainedModel


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last names of all linear leaves but the output head, sorted.

    Quantized layers of bitsandbytes are subclasses of `nn.Linear`, and transformers' `Conv1D` (GPT-2) is a linear
    layer with its weight transposed; both count.

    Args:
        model: a `PreTrainedModel`, not yet wrapped.

    Returns:
        E.g. `["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]`.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head, outside = model.get_output_embeddings(), set(senses(model))
    heads = {"lm_head", "output_layer", "embed_out", "score"}
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head and name not in outside
        }
        - heads
    )


def senses(model: PreTrainedModel) -> list[str]:
    """Paths of the modules with which a model sees or hears: they stay as they are. Of a model of texts, none.

    Args:
        model: a `PreTrainedModel`, not yet wrapped.
    """
    if not hasattr(model.config, "vision_config") and not hasattr(model.config, "audio_config"):
        return []
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    inside = {id(module) for part in (decoder, head) for module in part.modules()}
    holders = {name for name, module in model.named_modules() if any(id(one) in inside for one in module.modules())}
    return [name for name, module in model.named_modules() if id(module) not in inside and name not in holders]


def adapter_targets(model: PreTrainedModel, asked: Sequence[str]) -> list[str]:
    """Names of the modules an adapter is put on.

    Args:
        model: a `PreTrainedModel`, not yet wrapped.
        asked: module names (last part or whole path), or `all`.

    Returns:
        What PEFT takes as `target_modules`.

    Raises:
        ModelError: a name that no linear or embedding layer has; the message lists the choices.
    """
    if "all" in asked:
        return linear_names(model)
    from torch import nn

    paths = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    leaves = set(linear_names(model))
    whole = {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in leaves} | paths
    unknown = [name for name in asked if not any(path == name or path.endswith(f".{name}") for path in whole)]
    require_known("lora_target", unknown, leaves | {path.rsplit(".", 1)[-1] for path in paths} | {"all"})
    return list(asked)


def saved_modules(model: nn.Module, asked: Sequence[str]) -> list[str]:
    """Modules that are trained whole beside the adapter and saved with it (`additional_target`).

    Raises:
        ModelError: a name that the model does not have.
    """
    modules = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules() if name}
    unknown = [name for name in asked if name.rsplit(".", 1)[-1] not in modules]
    holders = {path.split(".")[-2] for path, _ in model.named_parameters() if "." in path}
    require_known("additional_target", unknown, holders)
    return list(asked)
