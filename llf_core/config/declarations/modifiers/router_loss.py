"""Auxiliary loss of the routers of a mixture-of-experts model (arXiv 2101.03961)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.registry import method_of, stage_of
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

KEY = "moe_aux_loss_coef"


class RouterLossOptions(Section):
    """Options of the routers' auxiliary loss."""

    moe_aux_loss_coef: float | None = option(
        None,
        unset="none",
        label="Expert balance loss",
        help=(
            "Weight of the load balancing loss of a mixture-of-experts model: it keeps tokens spread over the experts. "
            "Typical: 0.001 to 0.01."
        ),
        minimum=0,
        source="LLaMA-Factory",
    )


def _on(config: ConfigValues) -> bool:
    return bool(config.get(KEY))


WITHOUT = Fix("Train without it", {KEY: None})
ROUTER_LOSS = ModifierDeclaration(
    name="router_loss",
    label="Expert balance loss (mixture of experts)",
    summary="Keeps tokens spread over the experts of a mixture-of-experts model.",
    paper="arXiv 2101.03961",
    implementation="llf_core.modifiers.router_loss:RouterLoss",
    options=RouterLossOptions,
    rules=(
        Rule(
            (KEY, "stage"),
            lambda c: _on(c) and stage_of(c).data_kind == "prompts",
            lambda c: (
                f"Stage {c.stage.stage} trains on completions that it samples, where the auxiliary loss of the routers "
                "is not added. Expected a stage that trains on a data set, such as sft or dpo."
            ),
            (WITHOUT,),
        ),
        Rule(
            (KEY, "finetuning_type"),
            lambda c: _on(c) and method_of(c).prompts(c),
            lambda c: (
                f"finetuning_type {c.method.finetuning_type} puts vectors before the tokens of an example, so the "
                "routers see another number of tokens than the batch has. Expected a method without them, such as lora."
            ),
            (WITHOUT, Fix("Use LoRA", {"finetuning_type": "lora"})),
        ),
        Rule(
            (KEY, "use_reentrant_gc"),
            lambda c: _on(c) and c.model.use_reentrant_gc,
            "Reentrant gradient checkpointing computes the routers without gradients, so their auxiliary loss would "
            "train nothing. Expected use_reentrant_gc: false.",
            (Fix("Use the newer implementation", {"use_reentrant_gc": False}), WITHOUT),
        ),
        Rule(
            (KEY, "torch_compile"),
            lambda c: _on(c) and c.training.torch_compile,
            "The auxiliary loss reads the outputs of the routers, which a compiled model keeps to itself. Expected "
            "torch_compile: false.",
            (Fix("Train without compiling", {"torch_compile": False}), WITHOUT),
        ),
    ),
    switch=KEY,
)
