"""Properties of architectures that change what a run computes, from `properties.toml`."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from llf_core.config.name_checks.model_folder import CheckResult, config_of, folder_of
from llf_core.config.registry import stage_of
from llf_core.config.rope_scaling import check_rope_scaling
from llf_core.config.rule import Fix, Problem
from llf_core.config.rules.conditions import packs_examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.run_config import RunConfig

KEY = "model_name_or_path"

LONGEST = "max_position_embeddings"
"""Original length of a long RoPE if the model's config names none."""


@dataclass(frozen=True)
class Property:
    """A property of some architectures.

    Attributes:
        text: what it does and what to do about it; `{limit}` stands for the value of `above`.
        severity: `error` if nothing right can be learned.
        types: values of `model_type` that have it.
        rope: kinds of rotary embedding that have it.
        above: the key of the model's config that `cutoff_len` must exceed for it to matter; None if it always matters.
        shared: whether it matters only where examples share a micro-batch.
        predicts: whether it matters only where next tokens are learned.
        unless: keys of the model's config and the values with which it does not matter.
        given: keys of the model's config and the values with which any type has it.
    """

    name: str
    text: str
    severity: Literal["note", "warning", "error"]
    types: tuple[str, ...] = ()
    rope: tuple[str, ...] = ()
    above: str | None = None
    shared: bool = False
    predicts: bool = False
    unless: Mapping[str, object] = field(default_factory=dict)
    given: Mapping[str, object] = field(default_factory=dict)

    def limit(self, settings: Mapping[str, object]) -> int | None:
        """Value of `above` in a model's `config.json`; `max_position_embeddings` for a rotary embedding without one."""
        if self.above is None:
            return None
        near = (settings, *_rotary(settings)) if self.rope else (settings,)
        values = [one.get(self.above) for one in near] + ([settings.get(LONGEST)] if self.rope else [])
        return next((one for one in values if isinstance(one, int) and not isinstance(one, bool)), None)

    def message(self, settings: Mapping[str, object]) -> str:
        """Format the message about a model, from its `config.json`."""
        return f"{self.name} ({settings.get('model_type')}): {self.text.format(limit=self.limit(settings))}"

    def belongs_to(self, settings: Mapping[str, object]) -> bool:
        """Whether a model has the property: by architecture, rotary embedding or `given`, and not `unless`."""
        kinds = [kind for one in _rotary(settings) for kind in (one.get("rope_type"), one.get("type"))]
        if any(settings.get(key) == value for key, value in self.unless.items()):
            return False
        if any(settings.get(key) is value for key, value in self.given.items()):
            return True
        return settings.get("model_type") in self.types or any(kind in self.rope for kind in kinds)


@functools.cache
def properties() -> tuple[Property, ...]:
    """All properties, in the order in which they are reported."""
    tables = tomllib.loads(files(__package__).joinpath("properties.toml").read_text(encoding="utf-8"))["property"]
    lists = ("types", "rope")
    return tuple(Property(**(one | {key: tuple(one[key]) for key in lists if key in one})) for one in tables)


def indexed_types() -> tuple[str, ...]:
    """Values of `model_type` whose attention picks other tokens if a sequence is padded."""
    return _indexed().types


def indexed_limit(settings: Mapping[str, object]) -> int | None:
    """Tokens of an example above which a model with indexed attention computes it without padding; None for others."""
    return next((_indexed().limit(part) for part in _parts(settings) if _indexed().belongs_to(part)), None)


def _indexed() -> Property:
    return next(one for one in properties() if one.name == "Indexed attention")


def refusal(settings: Mapping[str, object]) -> str | None:
    """Reason why a model with this `config.json` cannot be trained with any config, or None."""
    errors = [one for one in properties() if one.severity == "error" and not one.predicts]
    return next((one.message(part) for one in errors for part in _parts(settings) if one.belongs_to(part)), None)


def properties_of(settings: Mapping[str, object], config: RunConfig) -> tuple[Problem, ...]:
    """Find the properties of a model's architecture that change the loss of a config without an error.

    Of a vision model, the part of `settings` (its `config.json`) about text counts too. Includes routers and experts
    (`mixture_of_depths`, `moe_aux_loss_coef`) that the model lacks.
    """
    batch, steps = config.training.per_device_train_batch_size, config.training.gradient_accumulation_steps
    shares = batch > 1 or packs_examples(config)
    predicts = not stage_of(config).has_reward_head
    parts = _parts(settings)
    found = []
    for one in properties():
        part = next((part for part in parts if one.belongs_to(part)), None)
        if part is None or (one.shared and not shares) or (one.predicts and not predicts):
            continue
        limit = one.limit(part)
        if one.above is not None and (limit is None or config.data.cutoff_len <= limit):
            continue
        fixes = []
        if one.shared:
            alone = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": batch * steps}
            changes = alone | ({"packing": False} if packs_examples(config) else {})
            fixes = [Fix("Train one example at a time", changes)]
        keys = (KEY, "cutoff_len") if one.above else (KEY,)
        message = one.message(part)
        found.append(Problem("violation", KEY, config.get(KEY), message, tuple(fixes), one.severity, keys=keys))
    return (*found, *check_routers(settings, config), *check_experts(settings, config))


def check_architecture(config: RunConfig) -> CheckResult:
    """Check the architecture of the config's model and its RoPE scaling, if the model is on this machine."""
    folder = folder_of(config.model.model_name_or_path, config.model.cache_dir)
    if folder is None:
        return CheckResult()
    settings = config_of(folder)
    return CheckResult((*properties_of(settings, config), *check_rope_scaling(settings, config)))


def _parts(settings: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
    """A model's config; of a vision model, the part about text before it."""
    text = settings.get("text_config")
    return (text, settings) if isinstance(text, dict) and text else (settings,)


def _rotary(settings: Mapping[str, object]) -> list[dict[str, object]]:
    tables = [settings.get(key) for key in ("rope_parameters", "rope_scaling")]
    known = [one for one in tables if isinstance(one, dict)]
    inside = [inner for one in known for inner in one.values() if isinstance(inner, dict)]
    return [*known, *inside]


BALANCE = "moe_aux_loss_coef"


def check_experts(settings: Mapping[str, object], config: RunConfig) -> tuple[Problem, ...]:
    """Refuse the auxiliary loss of routers for a model whose `config.json`, unless empty, names no experts."""
    tables = [settings, *(value for value in settings.values() if isinstance(value, dict))]
    if not config.get(BALANCE) or not settings or any("expert" in str(key) for table in tables for key in table):
        return ()
    wrong = (
        f"{BALANCE} is {config.get(BALANCE):g}, and {config.get('model_name_or_path')} has no experts. Expected a "
        "mixture-of-experts model, such as Mixtral or Qwen3-MoE."
    )
    fix = Fix("Train without it", {BALANCE: None})
    return (
        Problem(
            "violation",
            BALANCE,
            config.get(BALANCE),
            wrong,
            (fix,),
            "error",
            keys=(BALANCE, "model_name_or_path"),
        ),
    )


DEPTHS = "mixture_of_depths"


def check_routers(settings: Mapping[str, object], config: RunConfig) -> tuple[Problem, ...]:
    """Compare a model's `config.json` with `mixture_of_depths`: convert needs one without routers, load one with them.

    Without the option, the routers of a converted model would not be trained with the blocks around them.
    """
    asked, stored = config.get(DEPTHS), settings.get(DEPTHS)
    converted = stored is not None and stored is not False
    if converted and asked != "load":
        wrong = (
            f"{config.get('model_name_or_path')} was converted to Mixture-of-Depths before. Expected {DEPTHS}: load."
        )
        fix = Fix("Continue it", {DEPTHS: "load"})
    elif asked == "load" and not converted:
        wrong = (
            f"{DEPTHS} is load, and {config.get('model_name_or_path')} has no routers. Expected a model that was "
            f"trained with {DEPTHS}: convert."
        )
        fix = Fix("Convert it", {DEPTHS: "convert"})
    else:
        return ()
    return (Problem("violation", DEPTHS, asked, wrong, (fix,), "error", keys=(DEPTHS, "model_name_or_path")),)
