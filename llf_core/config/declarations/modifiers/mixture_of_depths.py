"""Mixture-of-Depths: blocks that only some tokens pass (arXiv 2404.02258)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.registry import method_of, stage_of
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

CAPACITY = 0.125
EVERY = 2


class MixtureOfDepthsOptions(Section):
    """Options of Mixture-of-Depths."""

    mixture_of_depths: Literal["convert", "load"] | None = option(
        None,
        unset="none",
        label="Mixture-of-Depths",
        help=(
            "Routes only some tokens through a part of the blocks; the others skip them. convert gives the model "
            "routers, load continues a model that was converted."
        ),
        choices=("convert", "load"),
        source="LLaMA-Factory",
    )
    mod_capacity: float = option(
        CAPACITY,
        label="Capacity",
        help="Share of the tokens of each document that pass a routed block in training.",
        above=0,
        maximum=1,
    )
    mod_every: int = option(
        EVERY,
        label="Routed blocks",
        help="Every how many blocks one is routed. 2: the second, the fourth, …; 1: all.",
        unit="blocks",
        minimum=1,
    )
    mod_aux_loss_coef: float = option(
        0.01,
        label="Router loss",
        help=(
            "Weight of the auxiliary loss that trains routers to tell their own choice without the tokens that follow, "
            "by which evaluation and generation route."
        ),
        minimum=0,
    )


def _on(config: ConfigValues) -> bool:
    return config.get("mixture_of_depths") is not None


WITHOUT = Fix("Train without it", {"mixture_of_depths": None})
RULES = (
    Rule(
        ("mixture_of_depths", "finetuning_type"),
        lambda c: _on(c) and method_of(c).frozen_base,
        lambda c: (
            f"Routers and routed blocks are trained as they are, and finetuning_type {c.method.finetuning_type} trains "
            "an adapter, which would load without routers. Expected full or freeze."
        ),
        (Fix("Train everything", {"finetuning_type": "full"}), Fix("Train a few layers", {"finetuning_type": "freeze"}),
         WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "stage"),
        lambda c: _on(c) and stage_of(c).data_kind not in ("answers", "texts"),
        lambda c: (
            f"In training, Mixture-of-Depths chooses tokens by those that follow, which would change what stage "
            f"{c.stage.stage} compares or scores. Expected pt, sft or kd."
        ),
        (Fix("Take stage sft", {"stage": "sft"}), WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "use_llama_pro"),
        lambda c: _on(c) and bool(c.get("use_llama_pro")),
        "LLaMA Pro trains inserted blocks and keeps the others as they are, which routers change. Use one of the two.",
        (Fix("Without LLaMA Pro", {"use_llama_pro": False, "llama_pro_insert": False}), WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "shift_attn"),
        lambda c: _on(c) and bool(c.get("shift_attn")),
        "shift_attn groups tokens that follow each other, which in a routed block are far apart. Use one of the two.",
        (Fix("Attend to everything", {"shift_attn": False}), WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "flash_attn"),
        lambda c: _on(c) and c.model.flash_attn not in ("auto", "sdpa", "disabled"),
        lambda c: (
            f"flash_attn {c.model.flash_attn} finds documents by positions without gaps, which the tokens of a routed "
            "block have. Expected auto, sdpa or disabled."
        ),
        (Fix("Set to auto", {"flash_attn": "auto"}), WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "torch_compile"),
        lambda c: _on(c) and c.training.torch_compile,
        "Each document sends another number of tokens through a routed block, and torch_compile would compile the "
        "block again for each. Expected torch_compile: false.",
        (Fix("Train without compiling", {"torch_compile": False}), WITHOUT),
    ),
    Rule(
        ("mod_capacity", "mod_every", "mixture_of_depths"),
        lambda c: (
            c.get("mixture_of_depths") == "load" and (c.get("mod_capacity"), c.get("mod_every")) != (CAPACITY, EVERY)
        ),
        "A model that was converted keeps its capacity and its routed blocks: mod_capacity and mod_every have no "
        "effect with mixture_of_depths: load.",
        (Fix("Remove them", {"mod_capacity": CAPACITY, "mod_every": EVERY}),),
        severity="note",
    ),
)  # fmt: skip
MIXTURE_OF_DEPTHS = ModifierDeclaration(
    name="mixture_of_depths",
    label="Mixture-of-Depths (tokens skip blocks)",
    summary="Every other block computes the tokens that its router chooses. For faster models, with much training.",
    paper="arXiv 2404.02258",
    implementation="llf_core.modifiers.mixture_of_depths:MixtureOfDepths",
    options=MixtureOfDepthsOptions,
    rules=RULES,
    switch="mixture_of_depths",
    continued={"mixture_of_depths": "load"},
)
