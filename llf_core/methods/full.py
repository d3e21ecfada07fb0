"""Full fine-tuning: every parameter is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.methods.method import Method, keep_trained_weights_exact
from llf_core.models.architecture import choose_parts, frozen_modules
from llf_core.models.reward_model import generates, unused_lm_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
