from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from llf_core.models.checksums import bitwise_equal, list_first
from llf_core.models.errors import ModelError
from llf_core.models.prompt_encoder import encoded_prompt

if TYPE_CHECKING:
    from torch import nn


def check_adapter_reloads(model: nn.Module) -> None:
    """Check, before training, that PEFT can save a new adapter and load all of it again.

    Some versions of PEFT drop weights of some modules. Models without an adapter or without values, and prompts that an
    encoder computes (`encoded_prompt`), are not checked.

    Raises:
        ModelError: names the modules that can be trained.
    """
    if not hasattr(model, "peft_config") or encoded_prompt(model) is not None:
        return
    if any(one.is_meta for one in model.parameters()):
        return
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    begun = {name: parameter.detach().clone() for name, parameter in trained.items()}
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    saved = {name: tensor.detach().clone() for name, tensor in saved.items()}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.fill_(torch.nan)
        set_peft_model_state_dict(model, saved)
        lost = [name for name, parameter in trained.items() if not bitwise_equal(begun[name], parameter)]
        for name in lost:
            trained[name].copy_(begun[name])
    if lost:
        fit = sorted({_target(model, name) for name in trained} - {_target(model, name) for name in lost})
        todo = f"Set lora_target: {','.join(fit)}" if fit else "Set finetuning_type: full"
        raise ModelError(
            f"PEFT {version('peft')} would not load the adapter completely after saving it: it drops "
            f"{list_first(lost)} of {len(trained):,} weights. {todo}, or use another model."
        )


def _target(model: nn.Module, name: str) -> str:
    """Name of the module or parameter that an adapter weight belongs to, as `lora_target` takes it."""
    parts = name.split(".")
    place = next((at for at, part in enumerate(parts) if part.startswith("lora_") or part == "modules_to_save"), -1)
    of = getattr(
        model.get_submodule(".".join(parts[:place])), "parameter_name", None
    )  # set by PEFT's wrapper of a parameter
    return str(of or parts[place - 1])
