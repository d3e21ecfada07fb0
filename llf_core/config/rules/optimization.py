"""Rules about step size, schedule and length, and the choice of an optimizer."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.config.classify_key import show
from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.field_specs import field as spec_of
from llf_core.config.number_format import exact, with_unit
from llf_core.config.registry import declared, method_of, optimizer_of, optimizer_packages
from llf_core.config.rule import Fix, Rule
from llf_core.config.rules.conditions import OPTIMIZERS, SCHEDULES, optimizer_options, rejected_options, weights_frozen
from llf_core.config.rules.data import has_data_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

MIN_LR_SCHEDULES = {"cosine_with_min_lr", "cosine_warmup_with_min_lr"}
BY_EVALUATION = {"reduce_lr_on_plateau", "greedy"}

GREEDY_FLOOR = 1e-3
"""`min_lr` of the greedy schedule in transformers."""

POLYNOMIAL_END = 1e-7
"""`lr_end` of the polynomial schedule in transformers."""

NO_WARMUP = {"constant", "reduce_lr_on_plateau", "greedy"}
"""Schedules to which transformers passes no warmup."""
HIGHEST_FULL_RATE = 2e-4
OURS = "llf_core."


def _schedule_refuses(c: ConfigValues) -> str:
    """The first option that the schedule rejects, as a sentence; empty if it accepts all."""
    kind, given = c.optimizer.lr_scheduler_type, c.optimizer.lr_scheduler_kwargs or {}
    if kind not in SCHEDULES:
        return ""
    wrong = rejected_options("lr_scheduler_kwargs", given, SCHEDULES[kind], f"The schedule {kind}")
    if not wrong and {"min_lr", "min_lr_rate"} <= given.keys():
        return "`lr_scheduler_kwargs` has both `min_lr` and `min_lr_rate`. Expected one of them."
    if not wrong and given.get("factor", 0) >= 1:
        return f"`factor` in `lr_scheduler_kwargs` is {show(given['factor'])}. Expected a number below 1."
    return wrong


def _schedule_option(c: ConfigValues, name: str, default: float) -> float:
    """A number in `lr_scheduler_kwargs`; -inf for what is no number, which `_schedule_refuses` reports."""
    value = (c.optimizer.lr_scheduler_kwargs or {}).get(name, default)
    return value if isinstance(value, int | float) else -math.inf


def _greedy_floor(c: ConfigValues) -> float:
    return _schedule_option(c, "min_lr", GREEDY_FLOOR)


def _polynomial_end(c: ConfigValues) -> float:
    return _schedule_option(c, "lr_end", POLYNOMIAL_END)


def _lower_end(c: ConfigValues) -> tuple[Fix, ...]:
    rate, options = c.optimizer.learning_rate, c.optimizer.lr_scheduler_kwargs or {}
    if rate > 0:
        return (Fix("Set lr_end to a tenth of the rate", {"lr_scheduler_kwargs": {**options, "lr_end": rate / 10}}),)
    others = {name: value for name, value in options.items() if name != "lr_end"}
    return (Fix("Reset both to the defaults", {"learning_rate": None, "lr_scheduler_kwargs": others or None}),)


def _optimizer_refuses(c: ConfigValues) -> str:
    """The first option that the optimizer rejects, as a sentence; empty if it accepts all."""
    kind, given = c.optimizer.optim, optimizer_options(c.optimizer.optim_args)
    if kind not in OPTIMIZERS:
        return ""
    wrong = rejected_options("optim_args", given, OPTIMIZERS[kind], f"The optimizer {kind}")
    numbers = {name: value for name, value in given.items() if not isinstance(value, str)}
    below = next((name for name, value in numbers.items() if not wrong and value < 0), None)
    if below is not None:
        return f"`{below}` in `optim_args` is {show(given[below])}. Expected a number of at least 0."
    if not wrong and given.get("nesterov") and (not given.get("momentum") or given.get("dampening")):
        return "Nesterov momentum (`optim_args`) needs a `momentum` above 0 and no `dampening`."
    return wrong


def _has_no_options(c: ConfigValues) -> bool:
    """Whether `optim_args` is set for an optimizer of LLF or transformers that reads none."""
    selected = optimizer_of(c)
    ours = not selected.implementation or selected.implementation.startswith(OURS)
    return bool(c.optimizer.optim_args) and ours and selected.name not in OPTIMIZERS


OPTIMIZATION = (
    Rule(
        ("lr_scheduler_kwargs", "lr_scheduler_type"),
        lambda c: bool(_schedule_refuses(c)),
        _schedule_refuses,
        (Fix("Remove the options", {"lr_scheduler_kwargs": None}),),
    ),
    Rule(
        ("optim_args", "optim"),
        lambda c: bool(_optimizer_refuses(c)),
        _optimizer_refuses,
        (Fix("Remove the options", {"optim_args": None}),),
    ),
    Rule(
        ("optim_args", "optim"),
        _has_no_options,
        lambda c: f"`optim_args` has no effect: the optimizer {optimizer_of(c).name} has no options.",
        (Fix("Remove the options", {"optim_args": None}),),
        severity="note",
    ),
    Rule(
        ("lr_scheduler_type", "eval_strategy"),
        lambda c: c.optimizer.lr_scheduler_type in BY_EVALUATION and c.training.eval_strategy == "no",
        "This schedule depends on the evaluation loss, but `eval_strategy` is no.",
        (
            Fix("Use the cosine schedule", {"lr_scheduler_type": "cosine"}),
            Fix("Evaluate each epoch", {"eval_strategy": "epoch", "val_size": 0.05, "eval_dataset": None}),
        ),
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate"),
        lambda c: c.optimizer.lr_scheduler_type == "greedy" and c.optimizer.learning_rate <= _greedy_floor(c),
        lambda c: (
            f"The greedy schedule never goes below its `min_lr` of {exact(_greedy_floor(c))}, and the learning rate is "
            f"{exact(c.optimizer.learning_rate)}: it could only rise. Expected a lower `min_lr` in "
            "`lr_scheduler_kwargs`."
        ),
        lambda c: (
            Fix(
                "Set min_lr to a tenth of the rate",
                {
                    "lr_scheduler_kwargs": {
                        **(c.optimizer.lr_scheduler_kwargs or {}),
                        "min_lr": c.optimizer.learning_rate / 10,
                        "max_lr": c.optimizer.learning_rate * 10,
                    }
                },
            ),
        ),
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs"),
        lambda c: (
            c.optimizer.lr_scheduler_type in MIN_LR_SCHEDULES
            and not {"min_lr", "min_lr_rate"}.intersection(c.optimizer.lr_scheduler_kwargs or {})
        ),
        "This schedule needs a minimum learning rate. Expected `min_lr` or `min_lr_rate` in `lr_scheduler_kwargs`.",
        (Fix("Set min_lr_rate to 0.1", {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),),
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate"),
        lambda c: c.optimizer.lr_scheduler_type == "polynomial" and c.optimizer.learning_rate <= _polynomial_end(c),
        lambda c: (
            f"The polynomial schedule ends at its `lr_end` of {exact(_polynomial_end(c))}, and the learning rate is "
            f"{exact(c.optimizer.learning_rate)}. Expected a lower `lr_end` in `lr_scheduler_kwargs`, or a higher "
            "learning rate."
        ),
        _lower_end,
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate"),
        lambda c: (
            c.optimizer.lr_scheduler_type in MIN_LR_SCHEDULES
            and c.optimizer.learning_rate == 0
            and "min_lr" in (c.optimizer.lr_scheduler_kwargs or {})
        ),
        "This schedule divides its `min_lr` by the learning rate, which is 0. Expected a learning rate above 0, or "
        "`min_lr_rate` in `lr_scheduler_kwargs`.",
        (Fix("Reset the learning rate to the default", {"learning_rate": None}),),
    ),
    Rule(
        ("label_smoothing_factor", "stage"),
        lambda c: c.training.label_smoothing_factor > 0 and not has_data_kind(c, "answers", "texts"),
        lambda c: f"Label smoothing is for the stages sft and pt: stage {c.stage.stage} has no loss per token.",
        (Fix("Set to 0", {"label_smoothing_factor": 0.0}),),
    ),
    Rule(
        ("learning_rate",),
        lambda c: c.optimizer.learning_rate == 0,
        "The learning rate is 0, so nothing is learned.",
        (Fix("Reset to the default", {"learning_rate": None}),),
        severity="warning",
    ),
    Rule(
        ("learning_rate", "finetuning_type"),
        lambda c: not weights_frozen(c) and c.optimizer.learning_rate > HIGHEST_FULL_RATE,
        lambda c: (
            f"The learning rate is {exact(c.optimizer.learning_rate)}, and all weights are trained: "
            "the model may forget what it knew. Typical: 1e-5."
        ),
        (Fix("Set to 1e-5", {"learning_rate": 1e-5}),),
        severity="warning",
    ),
    Rule(
        ("warmup_steps", "max_steps"),
        lambda c: 1 <= c.training.max_steps <= c.optimizer.warmup_steps and c.optimizer.warmup_steps >= 1,
        lambda c: (
            f"The warmup takes {exact(c.optimizer.warmup_steps)} of {c.training.max_steps} steps, so the "
            "learning rate never reaches its full value."
        ),
        (Fix("Warm up over 10 %", {"warmup_steps": 0.1}),),
        severity="warning",
    ),
    Rule(
        ("warmup_steps", "lr_scheduler_type"),
        lambda c: c.optimizer.warmup_steps > 0 and c.optimizer.lr_scheduler_type in NO_WARMUP,
        lambda c: f"`warmup_steps` has no effect: the schedule {c.optimizer.lr_scheduler_type} has no warmup.",
        lambda c: (
            *(
                [Fix("Warm up, then keep the rate", {"lr_scheduler_type": "constant_with_warmup"})]
                if c.optimizer.lr_scheduler_type == "constant"
                else []
            ),
            Fix("Remove it", {"warmup_steps": None}),
        ),
        severity="note",
    ),
    Rule(
        ("max_steps", "num_train_epochs"),
        lambda c: (
            c.training.max_steps > 0
            and c.training.num_train_epochs != type(c.training).model_fields["num_train_epochs"].default
        ),
        lambda c: f"Steps override Epochs: the run ends after {with_unit(c.training.max_steps, 'step')}.",
        (Fix("Use epochs", {"max_steps": -1}),),
        severity="note",
    ),
)

SHARE = "share"
"""In `when`: whether the value is a share, below 1."""


@dataclass(frozen=True)
class TypicalValue:
    """Typical values of a field, from `typical_values.toml`.

    Attributes:
        when: values of other fields under which it applies.
        least: smaller values, except 0, get a warning; None for no bound.
        most: larger values get a warning; None for no bound.
        set: value that the fix sets; None where no value is always right.
    """

    key: str
    typical: str
    when: Mapping[str, list[object]] = field(default_factory=dict)
    least: float | None = None
    most: float | None = None
    set: float | None = None

    def applies_to(self, config: ConfigValues) -> bool:
        """Whether the entry applies to a config."""
        value = config.get(self.key)
        return all(
            (value is not None and value < 1) in allowed if key == SHARE else config.get(key) in allowed
            for key, allowed in self.when.items()
        )

    def deviation(self, value: float) -> str:
        """`above` if a value exceeds `most`, `below` if it is positive and less than `least`, else `""`."""
        if self.most is not None and value > self.most:
            return "above"
        return "below" if self.least is not None and 0 < value < self.least else ""


def table() -> tuple[TypicalValue, ...]:
    """The entries; the first that applies to a config counts."""
    data = tomllib.loads(files(__package__).joinpath("typical_values.toml").read_text(encoding="utf-8"))
    return tuple(TypicalValue(**entry) for entry in data["value"])


def _rule(key: str, entries: tuple[TypicalValue, ...]) -> Rule:
    def entry(config: ConfigValues) -> TypicalValue | None:
        return next((one for one in entries if one.applies_to(config)), None)

    def far(config: ConfigValues) -> bool:
        one, value = entry(config), config.get(key)
        return one is not None and value is not None and bool(one.deviation(value))

    def reason(config: ConfigValues) -> str:
        one, spec, value = entry(config), spec_of(key), config.get(key)
        assert one is not None and spec is not None, key  # noqa: PT018, S101 - `far` has found it
        typical = f"Usual {one.typical}" if one.typical[0].isalpha() else f"Usual: {one.typical}"
        return f"{spec.label} (`{key}`) is {value:g}, far {one.deviation(value)} the usual range. {typical}."

    def fix(config: ConfigValues) -> tuple[Fix, ...]:
        one = entry(config)
        return () if one is None or one.set is None else (Fix(f"Set to {_short(one.set)}", {key: one.set}),)

    others = dict.fromkeys(name for one in entries for name in one.when if name != SHARE)
    return Rule((key, *others), far, reason, fix, severity="warning")


def _short(value: float) -> str:
    if value and abs(value) < 1e-3:  # noqa: PLR2004 - as a form writes numbers
        digits, _, exponent = f"{value:e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:g}"


_TABLE = table()

TYPICAL_VALUE_RULES: tuple[Rule, ...] = tuple(
    _rule(key, tuple(one for one in _TABLE if one.key == key)) for key in dict.fromkeys(one.key for one in _TABLE)
)


def optimizer_rules() -> tuple[Rule, ...]:
    """Create the rules about the installed optimizers from their traits."""
    switches = tuple(one.switch for one in declared(OptimizerDeclaration).values() if one.switch)
    return (
        Rule((*switches,), lambda c: len(_switched_on(c)) > 1, _several, _one_alone),
        Rule(("optim", *switches), lambda c: bool(_wrong_base(c)), _wrong_base, _right_base),
        Rule(
            ("optim", "finetuning_type", *switches),
            lambda c: method_of(c).adapter and not optimizer_of(c).trains_adapters,
            lambda c: (
                f"{optimizer_of(c).label} is for the model's own weights, and finetuning_type "
                f"{c.method.finetuning_type} trains an adapter instead. Expected finetuning_type full or freeze."
            ),
            lambda c: (
                Fix("Train the whole model", {"finetuning_type": "full"}),
                Fix("Use AdamW", {"optim": None, **_off(c)}),
            ),
        ),
        Rule(
            ("gradient_accumulation_steps", "optim", *switches),
            lambda c: _layerwise(c) and c.training.gradient_accumulation_steps > 1,
            lambda c: (
                f"`gradient_accumulation_steps` is {c.training.gradient_accumulation_steps}. Layer-wise updates apply "
                "each gradient in the backward pass that computes it, so none is left to accumulate. Expected 1."
            ),
            (Fix("Set to 1", {"gradient_accumulation_steps": 1}),),
        ),
        Rule(
            ("fp16", "optim", *switches),
            lambda c: _layerwise(c) and c.training.fp16,
            "fp16 scales the loss and checks all gradients before an update, and layer-wise updates never have all "
            "gradients at once. Expected bf16, or float32.",
            (Fix("Use bf16", {"fp16": False, "bf16": True}), Fix("Remove fp16", {"fp16": False})),
        ),
        Rule(
            ("max_grad_norm", "optim", *switches),
            lambda c: _layerwise(c) and c.optimizer.max_grad_norm > 0,
            lambda c: (
                f"`max_grad_norm` ({exact(c.optimizer.max_grad_norm)}) has no effect: layer-wise updates apply each "
                "gradient before the norm of all is known."
            ),
            (Fix("Switch clipping off", {"max_grad_norm": 0.0}),),
            severity="note",
        ),
        Rule(
            ("optim", *switches),
            lambda c: find_spec("torch") is not None and bool(missing_packages(c)),
            lambda c: (
                f"{optimizer_of(c).label} needs {missing_packages(c)[0]}, which is not installed. {install_command(c)}"
            ),
            lambda c: (Fix("Use AdamW", {"optim": None, **_off(c)}),),
        ),
    )


def missing_packages(config: ConfigValues) -> list[str]:
    """Packages of the selected optimizer that are not installed, as pip calls them."""
    return [name for name in optimizer_packages(config) if find_spec(name.replace("-", "_")) is None]


def install_command(config: ConfigValues) -> str:
    """Sentence with the command that installs missing packages of the selected optimizer; empty if there are none."""
    missing = missing_packages(config)
    return f"Run: pip install {' '.join(missing)}." if missing else ""


def _layerwise(config: ConfigValues) -> bool:
    return optimizer_of(config).layerwise(config)


def _switched_on(config: ConfigValues) -> list[OptimizerDeclaration]:
    return [one for one in declared(OptimizerDeclaration).values() if one.is_switched_on(config)]


def _off(config: ConfigValues) -> dict[str, object]:
    return {one.switch: None for one in _switched_on(config)}


def _several(config: ConfigValues) -> str:
    switches = [f"`{one.switch}`" for one in _switched_on(config)]
    return f"{', '.join(switches[:-1])} and {switches[-1]} each select an optimizer, and a run has one. Expected one."


def _one_alone(config: ConfigValues) -> tuple[Fix, ...]:
    chosen = _switched_on(config)
    return tuple(
        Fix(f"Use {one.label}", {other.switch: None for other in chosen if other is not one}) for one in chosen
    )


def _wrong_base(config: ConfigValues) -> str:
    """Reason why `optim` does not fit the switch that is on, as a sentence; empty if it does."""
    selected, base = optimizer_of(config), config.optimizer.optim
    if not selected.is_switched_on(config) or base in {*selected.bases, selected.name}:
        return ""
    *others, last = selected.bases
    expected = f"{', '.join(others)} or {last}" if others else last
    return f"`optim` is {base}, which {selected.label} (`{selected.switch}`) is not built on. Expected {expected}."


def _right_base(config: ConfigValues) -> tuple[Fix, ...]:
    selected, base = optimizer_of(config), config.optimizer.optim
    return (
        Fix(f"Set optim to {selected.bases[0]}", {"optim": selected.bases[0]}),
        Fix(f"Use {declared(OptimizerDeclaration)[base].label}", {selected.switch: None}),
    )
