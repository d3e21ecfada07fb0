"""Any adapter that the installed PEFT has, with the options of PEFT's own config class.

IA³ (arXiv 2205.05638): trained factors of keys, values and the inner activations of the MLP.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.option import Names, Object, Section, option
from llf_core.config.peft_tuners import check_options, tuner_names
from llf_core.config.peft_tuners import tuner as installed_tuner
from llf_core.config.rule import Fix, Rule
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.peft_tuners import PeftTuner
    from llf_core.config.values import ConfigValues


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


def ia3_tuner(config: ConfigValues) -> Tuner:
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
    feedforward: Any = ia3_tuner(config).options.get("feedforward_modules", LLAMA_FEEDFORWARD)
    found = targeted(shapes, options.ia3_target or LLAMA_TARGETS, experts=False)
    if not found:
        return None
    scaled_inputs = targeted(found, feedforward)
    return sum(shape[name in scaled_inputs] for name, shape in found.items())


ALL = "all"


def _not_targeted(config: ConfigValues) -> list[str]:
    """Names in `ia3_feedforward` that `ia3_target` does not have, which PEFT refuses once the model is loaded."""
    targets, feedforward = config.get("ia3_target"), config.get("ia3_feedforward") or ()
    if config.method.finetuning_type != "ia3" or targets is None or ALL in targets:
        return []
    return [name for name in feedforward if name not in targets]


IA3_RULES = (
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
    rules=IA3_RULES,
    frozen_base=True,
    adapter=True,
    tuner=ia3_tuner,
    trained_parameters=trained_parameters,
)

NOT_LINEAR = frozenset({"ADAPTION_PROMPT", "BEFT", "IA3", "LN_TUNING", "SHADOW", "TRAINABLE_TOKENS"})
"""Types that adapt something else than the product of a linear layer; PEFT chooses their targets."""

UNSUITED: Mapping[str, str] = MappingProxyType(
    {
        "MULTITASK_PROMPT_TUNING": "it reads the number of a task with each example, which no data set here has",
        "POLY": "it reads the number of a task with each example, which no data set here has",
        "XLORA": "it learns to mix adapters that are already trained, and none can be named here",
    }
)
"""Types of PEFT that cannot be trained on text alone, and why."""

TRAINS_CACHE = frozenset({"CARTRIDGE", "PREFIX_TUNING"})
"""Types that train keys and values in the cache of attention."""

SECOND_NETWORK = frozenset({"SHADOW"})
"""Types that run a network of their own beside the model's layers."""

FIRST_CLASS: Mapping[str, str] = MappingProxyType({"LORA": "lora", "ADALORA": "adalora"})
"""Types that need more than PEFT's adapter, such as a schedule of ranks, and the method that has it."""


class PeftOptions(Section):
    """Options of the adapters of PEFT that have no method of their own."""

    peft_type: str | None = option(
        None,
        unset="none",
        label="PEFT type",
        help="The adapter, by PEFT's name of it.",
        choices=tuner_names() or None,
        level="basic",
    )
    peft_options: Object | None = option(
        None,
        unset="PEFT's defaults",
        label="PEFT options",
        help='Options of the adapter, as its config class in PEFT names them: `{"r": 16}`.',
        level="basic",
    )
    peft_target: Names | None = option(
        None,
        unset="auto",
        label="Target modules",
        help=(
            "Names of the modules that get an adapter, or `all` for every linear layer except the output head. "
            "Default: all, or what PEFT chooses where the type does not adapt linear layers."
        ),
    )


def peft_tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config names, with its options."""
    options = config.options(PeftOptions)
    kind = options.peft_type or ""
    found = installed_tuner(kind)
    targets = options.peft_target or (None if kind in NOT_LINEAR else ("all",))
    reaches = found is not None and "target_modules" in found.fields
    return Tuner(
        kind,
        options.peft_options or {},
        target_key="peft_target",
        targets=targets if reaches else None,
        any_module=True,
    )


def _selected(config: ConfigValues) -> PeftTuner | None:
    if config.method.finetuning_type != "peft":
        return None
    return installed_tuner(config.get("peft_type") or "")


def prompts(config: ConfigValues) -> bool:
    """Whether the adapter puts trained vectors before each example."""
    found = _selected(config)
    return found is not None and found.prompts


def _wrong_options(config: ConfigValues) -> list[str]:
    found = _selected(config)
    return [] if found is None else [reason for _, reason in check_options(found, config.get("peft_options") or {})]


def _without_wrong_options(config: ConfigValues) -> tuple[Fix, ...]:
    found = _selected(config)
    given: dict[str, object] = dict(config.get("peft_options") or {})
    wrong = {name for name, _ in check_options(found, given)} & given.keys() if found is not None else set()
    kept = {name: value for name, value in given.items() if name not in wrong}
    return (Fix(f"Remove {', '.join(sorted(wrong))}", {"peft_options": kept or None}),) if wrong else ()


PEFT_RULES = (
    Rule(
        ("peft_type", "finetuning_type"),
        lambda c: c.method.finetuning_type == "peft" and not c.get("peft_type"),
        "No adapter is set: `finetuning_type: peft` trains the adapter that `peft_type` names. Expected one of PEFT's "
        "types, such as IA3.",
        (Fix("Use LoRA", {"finetuning_type": "lora"}),),
    ),
    Rule(
        ("peft_type", "finetuning_type"),
        lambda c: c.method.finetuning_type == "peft" and c.get("peft_type") in UNSUITED,
        lambda c: f"PEFT's {c.get('peft_type')} cannot be trained here: {UNSUITED[c.get('peft_type')]}.",
        (Fix("Use LoRA", {"finetuning_type": "lora", "peft_type": None, "peft_options": None}),),
    ),
    Rule(
        ("peft_type", "finetuning_type"),
        lambda c: c.method.finetuning_type == "peft" and c.get("peft_type") in FIRST_CLASS,
        lambda c: (
            f"{c.get('peft_type')} has a method of its own, with what PEFT's adapter alone does not do. Expected "
            f"finetuning_type: {FIRST_CLASS[c.get('peft_type')]}."
        ),
        lambda c: (
            Fix(
                f"Set finetuning_type: {FIRST_CLASS[c.get('peft_type')]}",
                {"finetuning_type": FIRST_CLASS[c.get("peft_type")], "peft_type": None, "peft_options": None},
            ),
        ),
    ),
    Rule(
        ("fast_path", "peft_type", "finetuning_type"),
        lambda c: (
            c.method.finetuning_type == "peft" and c.get("peft_type") in SECOND_NETWORK and bool(c.training.fast_path)
        ),
        lambda c: (
            f"PEFT's {c.get('peft_type')} runs a second network beside the model's layers, which the fast path does "
            "not know. Expected fast_path: false."
        ),
        (Fix("Set fast_path: false", {"fast_path": False}),),
    ),
    Rule(
        ("peft_options", "peft_type", "finetuning_type"),
        lambda c: bool(_wrong_options(c)),
        lambda c: " ".join(_wrong_options(c)),
        _without_wrong_options,
    ),
)

PEFT = MethodDeclaration(
    name="peft",
    label="peft (another adapter of PEFT)",
    summary="Any other adapter that the installed PEFT has, by its name there and with its own options.",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=PeftOptions,
    rules=PEFT_RULES,
    frozen_base=True,
    adapter=True,
    prompts=prompts,
    trains_cache=lambda c: c.get("peft_type") in TRAINS_CACHE,
    tuner=peft_tuner,
)
