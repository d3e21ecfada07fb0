"""A run's config: immutable, valid, and the same in a form, a file and a cell."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llf_core.config.field_specs import field, fields, option_classes, plain
from llf_core.config.number_format import exact
from llf_core.config.read_config import dump_yaml
from llf_core.config.registry import plugins
from llf_core.door import BIDI_CONTROLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llf_core.config.data import Data
    from llf_core.config.generation import Generation
    from llf_core.config.launch import Launch
    from llf_core.config.method import MethodSection
    from llf_core.config.model import Model
    from llf_core.config.optimizer import OptimizerSection
    from llf_core.config.option import Section
    from llf_core.config.stage import StageSection
    from llf_core.config.training import Training

ALWAYS_SHOWN = ("model_name_or_path", "stage", "finetuning_type")


@dataclass(frozen=True, repr=False)
class RunConfig:
    """All that a run needs to know, in sections; make one with `RunConfig.load`.

    Attributes:
        model: which model, and how it is loaded.
        data: what is learned from.
        method: what is trained.
        optimizer: how the parameters move.
        stage: what is minimised.
        training: how long, how large, what is kept.
        generation: how answers are sampled.
        launch: how the process starts.
        plugin_options: options of every plug-in, by `kind.name`; `options(name)` reads them.
    """

    model: Model
    data: Data
    method: MethodSection
    optimizer: OptimizerSection
    stage: StageSection
    training: Training
    generation: Generation
    launch: Launch
    plugin_options: Mapping[str, Section]

    @classmethod
    def load(cls, source: object, overrides: Sequence[str] = (), base: str | Path | None = None) -> RunConfig:
        """Reads and checks a config.

        Args:
            source: a mapping, YAML or JSON text, a path to a file of them, or a `RunConfig`.
            overrides: `key=value`, the value as YAML.
            base: where relative paths start; unset, the file's folder, or the working directory.

        Returns:
            The config; warnings and notes are dropped, `validate` tells them.

        Raises:
            ConfigError: with all problems of severity `error`.
        """
        from llf_core.config.validation import validate

        return validate(source, overrides, base).accepted()

    def get(self, key: str) -> Any:
        """The value of a key of any section or plug-in.

        Raises:
            KeyError: there is no such key.
        """
        spec = field(key)
        if spec is None:
            raise KeyError(key)
        owner = getattr(self, spec.section) if spec.owner is None else self.plugin_options[spec.owner]
        return getattr(owner, key)

    def plugin(self, kind: str) -> Any:
        """The selected plug-in class of a kind, e.g. `method`; None where none is selected."""
        return next((one for one in plugins(kind).values() if one.selected(self)), None)

    def options(self, name: str) -> Any:
        """The options of a plug-in, selected or not, by its name or by `kind.name`.

        Raises:
            KeyError: there is no such plug-in.
        """
        for key, options in self.plugin_options.items():
            if name in {key, key.partition(".")[2]}:
                return options
        raise KeyError(name)

    def flat(self, defaults: bool = False) -> dict[str, Any]:
        """The keys and values as plain data, as they stand in a file.

        Args:
            defaults: with the defaults of all sections and selected plug-ins; else only what differs from
                them, and always model, stage and method.
        """
        shown = {}
        for spec in fields():
            value = plain(self.get(spec.key))
            active = defaults and (spec.owner is None or option_classes()[spec.owner].selected(self))
            active = active and (not spec.stages or self.stage.stage in spec.stages)
            if active or value != spec.default or spec.key in ALWAYS_SHOWN:
                shown[spec.key] = value
        return shown

    def yaml(self, defaults: bool = False) -> str:
        """The config as YAML; `RunConfig.load` of it is equal to the config."""
        return dump_yaml(self.flat(defaults))

    def python(self, variables: Mapping[str, str] = MappingProxyType({})) -> str:
        """A notebook cell that trains this config.

        Args:
            variables: keys whose values stand in variables of the notebook, and their names: `{"dataset": "rows"}`.
        """
        literals = {key: _literal(value) for key, value in self.flat().items()} | dict(variables)
        lines = [f"        {json.dumps(key)}: {literal}," for key, literal in literals.items()]
        start = ["import llf_widgets as llf", "", "run = llf.train(", "    {"]
        return "\n".join([*start, *lines, "    }", ")", "llf.Monitor(run)", ""])

    def replace(self, **changes: Any) -> RunConfig:
        """A config with other values; None resets a key to its default.

        Raises:
            ConfigError: the new values do not fit.
        """
        values = self.flat() | changes
        return RunConfig.load({key: value for key, value in values.items() if value is not None or key not in changes})

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in self.flat().items())
        return f"RunConfig({shown})"


def _literal(value: Any) -> str:
    """A value as Python writes it, text in double quotes, numbers as a form shows them."""
    match value:
        case str():
            return BIDI_CONTROLS.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(value, ensure_ascii=False))
        case float() if math.isfinite(value):
            return exact(value)
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case dict():
            return f"{{{', '.join(f'{_literal(key)}: {_literal(inner)}' for key, inner in value.items())}}}"
    return repr(value)
