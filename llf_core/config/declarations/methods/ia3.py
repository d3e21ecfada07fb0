"""IA³ (arXiv 2205.05638): trained factors of keys, values and the inner activations of the MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.option import Names, Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

ALL = "all"
LLAMA_TARGETS, LLAMA_FEEDFORWARD = ("k_proj", "v_proj", "down_proj"), ("down_proj",)
"""PEFT's targets in models whose layers are named as those of Llama."""


class IA3Options(Section):
    """Options of IA³ adapters."""

    ia3_target: Names | None = option(
        None,
        unset="auto",
        label="Target modules",
        help=(
            "Names of the linear layers that are scaled. Default: keys, values and the MLP's last layer, as in the "
            "paper."
        ),
        level="basic",
    )
    ia3_feedforward: Names | None = option(
        None,
        unset="auto",
        label="Scaled at the input",
        help="Those of the target modules whose inputs are scaled instead of their outputs: the MLP's last layer.",
    )


def tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's IA³ options ask for.

    With `ia3_target` alone, the names in it that PEFT scales at the input for Llama (`LLAMA_FEEDFORWARD`) are so here;
    `all` names none.
    """
    options = config.options(IA3Options)
    chosen = options.ia3_target
    feedforward = options.ia3_feedforward
    if chosen is not None and feedforward is None:
        feedforward = tuple(name for name in chosen if name.rpartition(".")[2] in LLAMA_FEEDFORWARD)
    given = {} if feedforward is None else {"feedforward_modules": list(feedforward)}
    return Tuner("IA3", given, target_key="ia3_target", targets=chosen)


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Count the factors: one for each output of a target, or for each input of one that is scaled there.

    Without `ia3_target` it is PEFT's choice for models like Llama; of others with the same names, such as Gemma 2 and
    OPT, PEFT chooses more or other layers. None if the model has none of these layers.
    """
    options = config.options(IA3Options)
    feedforward: Any = tuner(config).options.get("feedforward_modules", LLAMA_FEEDFORWARD)
    found = targeted(shapes, options.ia3_target or LLAMA_TARGETS, experts=False)
    if not found:
        return None
    scaled_inputs = targeted(found, feedforward)
    return sum(shape[name in scaled_inputs] for name, shape in found.items())


def _not_targeted(config: ConfigValues) -> list[str]:
    """Names in `ia3_feedforward` that `ia3_target` does not have, which PEFT refuses once the model is loaded."""
    targets, feedforward = config.get("ia3_target"), config.get("ia3_feedforward") or ()
    if config.method.finetuning_type != "ia3" or targets is None or ALL in targets:
        return []
    return [name for name in feedforward if name not in targets]


RULES = (
    Rule(
        ("ia3_feedforward", "ia3_target", "finetuning_type"),
        lambda c: bool(_not_targeted(c)),
        lambda c: (
            f"`ia3_feedforward` has {', '.join(_not_targeted(c))}, which `ia3_target` does not name. Expected some of "
            "the target modules."
        ),
        (Fix("Remove it", {"ia3_feedforward": None}),),
    ),
)
IA3 = MethodDeclaration(
    name="ia3",
    label="ia3 (factors of activations)",
    summary="One factor for each key, value and inner activation. The smallest adapter: some hundred kilobytes at 7B.",
    paper="arXiv 2205.05638",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=IA3Options,
    rules=RULES,
    frozen_base=True,
    adapter=True,
    tuner=tuner,
    trained_parameters=trained_parameters,
)
