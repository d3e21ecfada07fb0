"""Full fine-tuning: every parameter is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llf_core.config.registry import Method
from llf_core.methods.lora_targets import senses
from llf_core.methods.trained_precision import keep_trained_weights_exact
from llf_core.models.reward_head import generates, unused_lm_head

if TYPE_CHECKING:
    from llf_core.config import RunConfig


class Full(Method):
    """Every parameter is trained."""

    name: ClassVar[str] = "full"
    label: ClassVar[str] = "full (every parameter)"

    @classmethod
    def apply(cls, model: Any, config: RunConfig) -> Any:
        """Makes every parameter trainable, in float32 unless `pure_bf16`; what a model sees with stays as it is."""
        model.requires_grad_(requires_grad=True)
        for name in senses(model):
            model.get_submodule(name).requires_grad_(requires_grad=False)
        for parameter in () if generates(config) else unused_lm_head(model):
            parameter.requires_grad = False
        keep_trained_weights_exact(model, config)
        return model
