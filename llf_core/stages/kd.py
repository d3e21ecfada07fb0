"""Knowledge distillation: what a teacher finds likely after each token (arXiv 1503.02531, 2306.13649)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from llf_core.config.option import Names, Section, option
from llf_core.config.problem import Fix
from llf_core.config.registry import Stage
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from llf_core.acceleration.patching.causal_head import Head


class KDOptions(Section):
    """The teacher, and how it is listened to."""

    teacher_model: str | None = option(
        None,
        unset="a hub id or a folder",
        label="Teacher model",
        help="Model to distil from: a hub id or folder, with the same tokenizer as the model that is trained.",
        level="basic",
        path="model",
    )
    teacher_model_adapters: Names | None = option(
        None,
        unset="none",
        label="Teacher adapters",
        help="Adapters to merge into the teacher model.",
        path="adapters",
    )
    teacher_model_quantization_bit: Literal[4, 8] | None = option(
        None,
        unset="none",
        label="Teacher bits",
        help="Loads the teacher model quantized to 4 or 8 bits.",
        choices=(4, 8),
    )
    kd_alpha: float = option(
        0.5,
        label="Distillation weight",
        help="Weight of the distillation loss. 1 uses the teacher only, 0 the answers of the data only.",
        minimum=0,
        maximum=1,
        level="basic",
    )
    kd_temperature: float = option(
        1.0,
        label="Temperature",
        help="Softmax temperature of teacher and student. Above 1, unlikely tokens count more.",
        above=0,
    )
    kd_beta: float = option(
        0.0,
        label="Divergence",
        help=(
            "Generalized Jensen-Shannon divergence: 0 is the forward KL (covers all modes of the teacher), 1 the "
            "reverse KL (seeks one)."
        ),
        minimum=0,
        maximum=1,
    )


class KD(Stage):
    """Learns a teacher's distribution over the vocabulary at each token of the answers, and the answers themselves."""

    name: ClassVar[str] = "kd"
    label: ClassVar[str] = "kd (a teacher's distribution)"
    Options: ClassVar[type[Section]] = KDOptions
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            ("teacher_model", "stage"),
            lambda c: c.stage.stage == "kd" and not c.get("teacher_model"),
            "Stage kd learns from another model, and none is named. Expected a teacher with the same tokenizer.",
            (Fix("Learn the answers alone", {"stage": "sft"}),),
        ),
    )

    def __init__(self, work: Any = None) -> None:
        """Loads the teacher."""
        super().__init__(work)
        from llf_core.stages.auxiliary_model import load_auxiliary

        options: Any = work.config.options("stage.kd")
        self.alpha, self.temperature, self.beta = options.kd_alpha, options.kd_temperature, options.kd_beta
        adapters = options.teacher_model_adapters or ()
        self.teacher = load_auxiliary(
            work, "teacher_model", options.teacher_model, adapters, options.teacher_model_quantization_bit
        )

    def loss_sum(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        label_smoothing: float = 0.0,
        note: Callable[[Tensor, Tensor], object] | None = None,
    ) -> Tensor:
        """Sum over the supervised tokens of `(1 - α) · nll + α · T² D(teacher ‖ student)`, see `Stage.loss_sum`."""
        from functools import partial

        import torch

        from llf_core.acceleration.kernels.distillation import divergence_sum
        from llf_core.acceleration.kernels.token_loss import nll_sum
        from llf_core.acceleration.patching.causal_head import forward
        from llf_core.config.ignore_index import IGNORED
        from llf_core.stages.auxiliary_model import computing
        from llf_core.stages.sft import by_document, shifted_targets

        targets = shifted_targets(batch["labels"])
        learned = (targets.flatten() != IGNORED).nonzero()[:, 0]
        taught: tuple[Any, ...] = ()
        if self.alpha:
            with torch.no_grad(), computing(self.work):
                taught = forward(self.teacher, batch, lambda hidden, head: (hidden, head))
        costs: list[Tensor] = []

        def objective(hidden: Tensor, head: Head) -> Tensor:
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
                    part = cost(partial(self._hear, costs, share))
                    self.measures.add(name, part.detach(), len(learned))
                    parts.append(share * part)
            return torch.stack(parts).sum()

        loss: Tensor = forward(model, batch, objective)
        if note is not None:
            by_document(batch, note, learned, torch.stack(costs).sum(0))
        return loss

    @staticmethod
    def _hear(costs: list[Tensor], share: float, _: Tensor, each: Tensor) -> None:
        costs.append(share * each)
