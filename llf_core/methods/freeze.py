"""Full fine-tuning, and freeze fine-tuning: a few layers are trained, the others stay frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.methods.freeze import FreezeOptions, trained_layers
from llf_core.methods.adapter_targets import block_count, block_modules, block_of, outer_modules, require_known
from llf_core.methods.method import Method, keep_trained_weights_exact
from llf_core.methods.peft_tuner import new_rows
from llf_core.models.architecture import choose_parts, frozen_modules, multimodal_parts
from llf_core.models.errors import ModelError
from llf_core.models.reward_model import HEAD_NAME, generates, unused_lm_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Freeze(Method):
    """Freeze fine-tuning: trains the last or first layers."""

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Make the selected modules of the selected layers trainable and freeze the rest.

        Layers are those of the language model. Encoders and projectors that are not frozen are trained in full.

        Raises:
            ModelError: there are no such layers or modules; the message lists the choices.
        """
        options = self.config.options(FreezeOptions)
        try:
            layers = trained_layers(self.config, block_count(model))
        except ValueError as error:
            raise ModelError(str(error)) from error
        choose_parts(model, self.config)
        parts, frozen = multimodal_parts(model), set(frozen_modules(model))
        names = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in parts]
        modules = set(options.freeze_trainable_modules)
        require_known("freeze_trainable_modules", modules - {"all"}, block_modules(names))
        extra = set(options.freeze_extra_modules or ())
        require_known("freeze_extra_modules", extra, outer_modules(names))
        extra |= {HEAD_NAME} if hasattr(model, HEAD_NAME) else set()
        # Gradients of single rows alone would still let weight decay change the others.
        new = tuple(f"{path}." for path in new_rows(model, ()))
        for name, parameter in model.named_parameters():
            module, inside = name.rpartition(".")[0], block_of(name)
            if module in parts:
                trained = True
            elif inside is None:
                trained = name.startswith(new) or not extra.isdisjoint(name.split("."))
            else:
                index, rest = inside
                trained = index in layers and ("all" in modules or not modules.isdisjoint(rest.split(".")))
            parameter.requires_grad_(trained and parameter.is_floating_point() and module not in frozen)
        for parameter in () if generates(self.config) else unused_lm_head(model):
            parameter.requires_grad = False
        keep_trained_weights_exact(model, self.config)
        return model


class Full(Method):
    """Full fine-tuning."""

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Make every parameter outside of frozen parts trainable, in the precision of `keep_trained_weights_exact`."""
        choose_parts(model, self.config)
        model.requires_grad_(requires_grad=True)
        for name in frozen_modules(model):
            for parameter in model.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad = False
        for parameter in () if generates(self.config) else unused_lm_head(model):
            parameter.requires_grad = False
        keep_trained_weights_exact(model, self.config)
        return model
