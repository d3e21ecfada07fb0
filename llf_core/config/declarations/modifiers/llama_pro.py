"""LLaMA Pro: blocks inserted into a model, which alone are trained (arXiv 2401.02415)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.registry import method_of
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


class LLaMAProOptions(Section):
    """Options of LLaMA Pro."""

    use_llama_pro: bool = option(
        False,
        label="LLaMA Pro",
        help=(
            "Trains the blocks that were inserted between those of the model, which keep what it knows. "
            "freeze_trainable_layers is their number."
        ),
        source="LLaMA-Factory",
    )
    llama_pro_insert: bool = option(
        False,
        label="Insert blocks",
        help=(
            "Inserts the blocks of LLaMA Pro: copies that change nothing until they are trained. Leave it off for a "
            "model that has them already."
        ),
    )


def expanded_blocks(number: int, depth: int) -> range:
    """Indices of the blocks that LLaMA Pro trains: the last one of each of `number` equal groups.

    Before the insertion these are the blocks that are copied, afterwards the copies (block expansion, arXiv 2401.02415,
    section 3.2).

    Raises:
        ValueError: the groups are not equal, or `number` or `depth` is not positive.
    """
    if number < 1 or depth < 1 or depth % number:
        raise ValueError(
            f"freeze_trainable_layers is {number}, and LLaMA Pro divides the {depth} layers of the model into as many "
            f"equal groups. Expected a divisor of {depth}."
        )
    return range(depth // number - 1, depth, depth // number)


def _selected(config: ConfigValues) -> bool:
    return bool(config.get("use_llama_pro"))


RULES = (
    Rule(
        ("use_llama_pro", "finetuning_type"),
        lambda c: _selected(c) and not method_of(c).selects_blocks,
        lambda c: (
            f"LLaMA Pro trains some blocks, and finetuning_type {c.get('finetuning_type')} does not select blocks. "
            "Expected freeze."
        ),
        (Fix("Take freeze", {"finetuning_type": "freeze"}), Fix("Without LLaMA Pro", {"use_llama_pro": False})),
    ),
    Rule(
        ("llama_pro_insert", "use_llama_pro"),
        lambda c: bool(c.get("llama_pro_insert")) and not _selected(c),
        "llama_pro_insert inserts the blocks of LLaMA Pro, and use_llama_pro is false.",
        (Fix("Use LLaMA Pro", {"use_llama_pro": True}), Fix("Insert none", {"llama_pro_insert": False})),
    ),
    Rule(
        ("llama_pro_insert", "quantization_bit"),
        lambda c: bool(c.get("llama_pro_insert")) and c.model.quantization_bit is not None,
        "Blocks cannot be inserted into a quantized model. Expected a model in full precision.",
        (Fix("Do not quantize", {"quantization_bit": None}),),
    ),
    Rule(
        ("freeze_trainable_layers", "use_llama_pro"),
        lambda c: _selected(c) and method_of(c).selects_blocks and c.get("freeze_trainable_layers") < 1,
        lambda c: (
            f"freeze_trainable_layers is {c.get('freeze_trainable_layers')}, and with LLaMA Pro it is the number of "
            "inserted blocks. Expected 1 or more."
        ),
        (Fix("Set to 2", {"freeze_trainable_layers": 2}),),
    ),
    Rule(
        ("llama_pro_insert", "use_llama_pro"),
        lambda c: _selected(c) and method_of(c).selects_blocks and not c.get("llama_pro_insert"),
        "The last block of each group is trained as one that was inserted before. If the model has no inserted blocks "
        "yet, have them inserted.",
        (Fix("Insert them", {"llama_pro_insert": True}),),
        severity="note",
    ),
)
LLAMA_PRO = ModifierDeclaration(
    name="llama_pro",
    label="LLaMA Pro (inserted blocks)",
    summary="Trains inserted blocks, so that the others keep what they know. For new domains.",
    paper="arXiv 2401.02415",
    implementation="llf_core.modifiers.llama_pro:LLaMAPro",
    options=LLaMAProOptions,
    rules=RULES,
    switch="use_llama_pro",
    continued={"llama_pro_insert": False},
)
