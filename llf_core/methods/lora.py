"""LoRA: low-rank matrices beside the frozen weights (arXiv 2106.09685).

With rsLoRA (arXiv 2312.03732) and DoRA (arXiv 2402.09353).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.methods.lora import LoRAOptions
from llf_core.methods.lora_targets import adapter_targets, multimodal_towers, saved_modules
from llf_core.methods.method import Method
from llf_core.methods.peft_adapter import begin_adapter
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedModel


class LoRA(Method):
    """LoRA: trains low-rank matrices beside the frozen weights."""

    def apply(self, model: PreTrainedModel) -> PeftModel:
        """Add a new adapter to the model, or continue the last one in `adapter_name_or_path`.

        Returns:
            A `PeftModel` in which only the adapter and `additional_target` are trainable, in float32 unless
            `pure_bf16`. `llf_notes` on its base are sentences on what `lora_target: all` leaves out.

        Raises:
            ModelError: a module that the model does not have, or an adapter that does not fit.
        """
        _keep_scale(model)
        return begin_adapter(model, self.config, lambda merged: _wrap(merged, self.config.options(LoRAOptions)))


def _wrap(model: PreTrainedModel, options: LoRAOptions) -> PeftModel:
    """A new adapter around a model."""
    from peft import LoraConfig, TaskType, get_peft_model

    plain = not options.lora_dropout and not options.use_dora
    targets = adapter_targets(model, options.lora_target, plain=plain)
    model.llf_notes = targets.notes
    whole = _whole_modules(model, options.additional_target or ())
    if not targets.parameters and not _left_for_adapters(model, targets.modules, whole):
        raise ModelError(
            f"additional_target trains {', '.join(whole)} whole, which leaves no module of lora_target "
            f"({', '.join(options.lora_target)}) for the adapter. Take them out of additional_target, or set "
            "finetuning_type: full."
        )
    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=options.lora_rank,
            lora_alpha=options.lora_alpha or 2 * options.lora_rank,
            lora_dropout=options.lora_dropout,
            target_modules=targets.modules,
            target_parameters=targets.parameters or None,
            exclude_modules=multimodal_towers(model) or None,
            modules_to_save=whole or None,
            use_rslora=options.use_rslora,
            use_dora=options.use_dora,
            ensure_weight_tying=_trains_tied_weights(model, options.additional_target or ()),
        ),
    )


def _left_for_adapters(model: PreTrainedModel, targets: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether one of the targets is not trained whole, by itself or with the module that holds it."""
    paths = [path for path, _ in model.named_modules()]
    kept = [path for path in paths if _ends(path, whole)]
    return any(
        _ends(path, targets) and not any(path == one or path.startswith(f"{one}.") for one in kept) for path in paths
    )


def _ends(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _keep_scale(model: PreTrainedModel) -> None:
    """Has RWKV evaluate with the weights that it trains with.

    It divides weights of its deeper layers while it evaluates, against overflows in float16. What an adapter adds to
    them, and weights in 4 bits, it does not divide.
    """
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0


def _whole_modules(model: PreTrainedModel, requested: Sequence[str]) -> list[str]:
    """Modules that are trained in full beside the adapter: `additional_target`, and the head of a reward model."""
    from llf_core.models.reward_head import HEAD_NAME

    own = [HEAD_NAME] if hasattr(model, HEAD_NAME) and HEAD_NAME not in requested else []
    return saved_modules(model, requested) + own


def _trains_tied_weights(model: PreTrainedModel, modules: Sequence[str]) -> bool:
    """Whether embedding or head are trained whole and share one matrix, which must then stay one."""
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    pair = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    names = {name for name, module in model.named_modules() if any(module is one for one in pair)}
    return tied and any(name == module or name.endswith(f".{module}") for name in names for module in modules)
