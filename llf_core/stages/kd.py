"""Knowledge distillation: learns a teacher's distribution over the next token (arXiv 1503.02531, 2306.13649)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.kernels.cross_entropy import nll_sum
from llf_core.acceleration.kernels.distillation import divergence_sum
from llf_core.acceleration.patching.causal_head import Head, forward
from llf_core.config.data import IGNORED
from llf_core.config.declarations.stages.sft import KDOptions
from llf_core.stages.base.stage import LossStage
from llf_core.stages.reference_policy import autocast, load_auxiliary
from llf_core.stages.token_accuracy import record_document_losses, shifted_targets

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.stage import Batch, RecordLosses


class KD(LossStage):
    """Learns a teacher's next-token distributions on completions, and the completions."""

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        options = context.config.options(KDOptions)
        self.alpha, self.temperature, self.beta = options.kd_alpha, options.kd_temperature, options.kd_beta
        adapters = options.teacher_model_adapters or ()
        self.teacher = load_auxiliary(
            context, "teacher_model", str(options.teacher_model), adapters, options.teacher_model_quantization_bit
        )

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum over the supervised tokens of `(1 - α) · nll + α · T² D(teacher, student)`, a float32 scalar.

        α is `kd_alpha`; 0 does not run the teacher. D compares the softmaxes at the temperature T (`kd_temperature`;
        arXiv 1503.02531, section 2). By β (`kd_beta`) it is KL(teacher ‖ student) for 0, KL(student ‖ teacher) for
        1, and the generalized Jensen-Shannon divergence between (arXiv 2306.13649, equation 1), see
        `divergence_sum`.
        """
        targets = shifted_targets(batch["labels"])
        learned = (targets.flatten() != IGNORED).nonzero()[:, 0]
        taught: tuple[Tensor, Head] | tuple[()] = ()
        if self.alpha:
            with torch.no_grad(), autocast(self.context):
                taught = forward(self.teacher, batch, lambda hidden, head: (hidden, head))
        costs: list[Tensor] = []

        def objective(hidden: Tensor, head: Head) -> Tensor:
            if self.accuracy is not None:  # the loss has no likelihood where the student learns from the teacher alone
                nll_sum(hidden, head, targets, weights=self.accuracy.observe())
            terms: dict[str, tuple[float, Callable[..., Tensor]]] = {
                "sft_loss": (1 - self.alpha, partial(nll_sum, hidden, head, targets, label_smoothing)),
                "kd_loss": (
                    self.alpha,
                    partial(divergence_sum, hidden, head, *taught, learned, self.temperature, self.beta),  # type: ignore[call-arg]
                ),
            }
            parts = []
            for name, (share, cost) in terms.items():
                if share:
                    part = cost(partial(self._collect_costs, costs, share))
                    self.measures.add(name, part.detach(), len(learned))
                    parts.append(share * part)
            return torch.stack(parts).sum()

        loss: Tensor = forward(model, batch, objective)
        if self.accuracy is not None:
            self.accuracy.add(batch)
        if record_losses is not None:
            record_document_losses(batch, record_losses, learned, torch.stack(costs).sum(0))
        return loss

    @staticmethod
    def _collect_costs(costs: list[Tensor], share: float, _: Tensor, each: Tensor) -> None:
        costs.append(share * each)
