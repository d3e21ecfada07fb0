"""Rules about tokens that a run adds to the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.new_tokens import TRAINS_ROWS, adds_tokens, listed_tokens
from llf_core.config.problem import Fix
from llf_core.config.registry import method_of
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

KEYS = ("add_tokens", "add_special_tokens", "new_special_tokens_config", "resize_vocab")
NO_TOKENS = Fix("Add no tokens", dict.fromkeys(KEYS))


def _why_not(config: ConfigValues) -> str:
    """Why the tokens that the config names cannot be added; empty if they can."""
    try:
        listed_tokens(config)
    except ValueError as error:
        return str(error)
    return ""


def _trains_no_rows(config: ConfigValues) -> bool:
    if not adds_tokens(config):
        return False
    method = method_of(config)
    if method.tuner is None:
        return method.frozen_base
    return method.tuner(config).peft_type not in TRAINS_ROWS


TOKENS = (
    Rule(
        ("add_special_tokens", "new_special_tokens_config"),
        lambda c: bool(c.model.add_special_tokens and c.model.new_special_tokens_config),
        "`new_special_tokens_config` names the special tokens itself. Expected one of both keys.",
        (
            Fix("Take those of the file", {"add_special_tokens": None}),
            Fix("Take those of the list", {"new_special_tokens_config": None}),
        ),
    ),
    Rule(KEYS[:2], lambda c: bool(_why_not(c)), _why_not, (NO_TOKENS,)),
    Rule(
        ("init_special_tokens", "new_special_tokens_config"),
        lambda c: c.model.init_special_tokens.startswith("desc") and not c.model.new_special_tokens_config,
        lambda c: (
            f"`init_special_tokens: {c.model.init_special_tokens}` begins with the descriptions in "
            "`new_special_tokens_config`, which is not set. Expected that file, or another initialization."
        ),
        (Fix("Use the mean and noise", {"init_special_tokens": "noise_init"}),),
    ),
    Rule(
        ("finetuning_type", *KEYS),
        _trains_no_rows,
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` does not train the embeddings of new tokens. Expected "
            "`lora` or `adalora`, beside which PEFT trains and saves their rows, or `full` or `freeze`."
        ),
        (Fix("Use LoRA", {"finetuning_type": "lora"}), NO_TOKENS),
    ),
)
