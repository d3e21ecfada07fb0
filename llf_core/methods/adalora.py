"""AdaLoRA (arXiv 2303.10512): moves rank between the weights while it trains."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from llf_core.config.declarations.methods.lora import AdaLoRAOptions
from llf_core.methods.peft_tuner import PeftTuner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
PATTERN = "pattern"


class AdaLoRA(PeftTuner):
    """PEFT's AdaLoRA with its penalty and rank schedule, which PEFT leaves to the training loop."""

    def apply(self, model: PreTrainedModel) -> PeftModel:
        """Add a new adapter to the model, or continue the last one in `adapter_name_or_path`, see `PeftTuner.apply`."""
        wrapped = super().apply(model)
        for name, parameter in wrapped.named_parameters():
            if ".ranknum." in name:  # the rank that the adapter is divided by; PEFT does not save it
                parameter.requires_grad_(requires_grad=False)
        self._tuner: Any = wrapped.base_model
        self._pattern: dict[str, Any] | None = None
        return wrapped

    def after_backward(self, scale: float = 1.0) -> None:
        """Add the gradient of the penalty γ · mean of ‖PᵀP - I‖ and ‖QQᵀ - I‖ over all matrices P and Q.

        Frobenius norms, as in PEFT; arXiv 2303.10512, eq. 4, has the sum of their squares.
        """
        import torch

        weight = self.config.options(AdaLoRAOptions).adalora_orthogonality
        pairs = [
            (name, one) for name, one in self._tuner.named_parameters() if ".lora_A." in name or ".lora_B." in name
        ]
        vectors = [(one, ".lora_A." in name) for name, one in pairs if one.requires_grad]
        if not weight or not vectors:
            return
        with torch.enable_grad():
            distances = []
            for one, rows in vectors:
                covariance = one @ one.T if rows else one.T @ one
                distances.append(torch.linalg.norm(covariance - torch.eye(len(covariance)).to(covariance)))
            penalty = weight * scale * torch.stack(distances).mean()
        parameters = [one for one, _ in vectors]
        for one, gradient in zip(parameters, torch.autograd.grad(penalty, parameters), strict=True):
            one.grad = gradient if one.grad is None else one.grad + gradient

    def after_step(self, step: int, total: int) -> None:
        """Measure the importance of each singular value, and set those to 0 that exceed the budget of the step, from 1.

        Importance and budget schedule are PEFT's (arXiv 2303.10512, algorithm 1).
        """
        settings = self._tuner.peft_config[self._tuner.trainable_adapter_name]
        options = self.config.options(AdaLoRAOptions)
        begin, end = (
            int(count * total) if count < 1 else int(count)
            for count in (options.adalora_warmup_steps, options.adalora_final_steps)
        )
        if begin + end >= total:
            if step == 1:
                logger.warning(
                    f"The run has {total} steps, which leaves none for pruning after adalora_warmup_steps and before "
                    "adalora_final_steps. All steps prune."
                )
            begin = end = 0
        settings.total_step, settings.tinit, settings.tfinal = total, begin, end
        if step >= total - end and self._pattern is None and not self._tuner.rankallocator.ipt:
            return  # nothing was measured before the last steps, so there is nothing to choose by
        # Kept here, since PEFT saves smaller matrices once its config has the pattern, which a resume could not load.
        settings.rank_pattern = self._pattern
        self._tuner.update_and_allocate(step)
        self._pattern, settings.rank_pattern = settings.rank_pattern, None

    def state(self) -> dict[str, Tensor]:
        """Moving averages of the allocator, of the shape of their matrix, and which ranks are left, `[rank]`, bool."""
        import torch

        allocator = self._tuner.rankallocator
        averages = {f"{kind}.{name}": tensor for kind in AVERAGES for name, tensor in getattr(allocator, kind).items()}
        pattern = {f"{PATTERN}.{name}": torch.as_tensor(kept) for name, kept in (self._pattern or {}).items()}
        return averages | pattern

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of `state`, so that a resumed run prunes the same ranks; shapes as there."""
        allocator = self._tuner.rankallocator
        of = dict(self._tuner.model.named_parameters())
        for kind in AVERAGES:
            own = {name.partition(".")[2]: tensor for name, tensor in state.items() if name.partition(".")[0] == kind}
            setattr(allocator, kind, {name: tensor.to(of[name].device) for name, tensor in own.items()})
        self._pattern = {
            name.partition(".")[2]: tensor.tolist()
            for name, tensor in state.items()
            if name.partition(".")[0] == PATTERN
        } or None
