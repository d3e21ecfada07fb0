"""LongLoRA's shifted sparse attention (arXiv 2309.12307)."""

from __future__ import annotations

from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.registry import stage_of
from llf_core.config.rule import Rule


class ShiftAttnOptions(Section):
    """Options of shifted sparse attention."""

    shift_attn: bool = option(
        False,
        label="Shifted sparse attention",
        help=(
            "Trains with attention in groups of tokens, shifted for half of the heads (LongLoRA). Saves time and "
            "memory with long contexts; evaluation and generation attend to everything."
        ),
        source="LLaMA-Factory",
    )
    shift_attn_group: int | None = option(
        None,
        unset="a quarter of cutoff_len",
        label="Group size",
        help="Tokens of a group of shifted sparse attention.",
        unit="tokens",
        minimum=2,
    )


RULES = (
    Rule(
        ("shift_attn", "stage"),
        lambda c: bool(c.get("shift_attn")) and stage_of(c).data_kind not in ("answers", "texts"),
        lambda c: (
            f"shift_attn would change the log-probabilities that stage {c.stage.stage} needs. Expected pt, sft or kd."
        ),
        (Fix("Attend to everything", {"shift_attn": False}), Fix("Take stage sft", {"stage": "sft"})),
    ),
    Rule(
        ("shift_attn", "fast_path", "flash_attn"),
        lambda c: bool(c.get("shift_attn")) and (not c.training.fast_path or c.model.flash_attn != "auto"),
        "shift_attn is a part of LLF's own attention, which is switched off. Expected fast_path: true and flash_attn: "
        "auto.",
        (Fix("Use LLF's attention", {"fast_path": True, "flash_attn": "auto"}),
         Fix("Attend to everything", {"shift_attn": False})),
    ),
    Rule(
        ("shift_attn_group", "shift_attn"),
        lambda c: c.get("shift_attn_group") is not None and not c.get("shift_attn"),
        "shift_attn_group is the group size of shift_attn, which is false.",
        (Fix("Use it", {"shift_attn": True}), Fix("Remove it", {"shift_attn_group": None})),
        severity="note",
    ),
)  # fmt: skip
SHIFT_ATTN = ModifierDeclaration(
    name="shift_attn",
    label="shifted sparse attention (LongLoRA)",
    summary="Attention in groups while training. For contexts of many thousand tokens.",
    paper="arXiv 2309.12307",
    implementation="llf_core.modifiers.shift_attn:ShiftAttn",
    options=ShiftAttnOptions,
    rules=RULES,
    switch="shift_attn",
    reads_weights=False,
    flattened=True,
)
