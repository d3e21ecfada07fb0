"""A run's config: immutable, valid, and the same in a form, a file and a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.problem import ConfigError
from llf_core.config.registry import GROUPS, plugins
from llf_core.config.source import dump_yaml
from llf_core.config.spec import field, fields

if TYPE_CHECKING:
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
        from llf_core.config.validation import judge

        report = judge(source, overrides, base)
        if report.config is None or not report.ok:
            raise ConfigError(tuple(problem for problem in report.problems if problem.severity == "error"))
        return report.config

    def get(self, key: str) -> Any:
        """The value of a key of any section or plug-in.

        Raises:
            KeyError: there is no such key.
        """
        spec = field(key)
        if spec is None:
            raise KeyError(key)
        owner = getattr(self, spec.section) if spec.plugin is None else self._options_of(spec.section, spec.plugin)
        return getattr(owner, key)

    def plugin(self, kind: str) -> Any:
        """The selected plug-in class of a kind: `method`, `modifier`, `optimizer` or `stage`; None where none is."""
        return next((one for one in plugins(kind).values() if one.selected(self)), None)

    def options(self, name: str) -> Any:
        """The options of a plug-in, selected or not, by its name or by `kind.name`.

        Raises:
            KeyError: there is no such plug-in.
        """
        if name in self.plugin_options:
            return self.plugin_options[name]
        return next(
            self.plugin_options[f"{kind}.{name}"] for kind in (*GROUPS, name) if f"{kind}.{name}" in self.plugin_options
        )

    def flat(self, defaults: bool = False) -> dict[str, Any]:
        """The keys and values as plain data, as they stand in a file.

        Args:
            defaults: with the defaults of all sections and selected plug-ins; else only what differs from them,
                and always model, stage and method.
        """
        shown = {}
        for spec in fields():
            value = _plain(self.get(spec.key))
            active = defaults and (spec.plugin is None or self._is_selected(spec.section, spec.plugin))
            if active or value != spec.default or spec.key in ALWAYS_SHOWN:
                shown[spec.key] = value
        return shown

    def yaml(self, defaults: bool = False) -> str:
        """The config as YAML; `RunConfig.load` of it is equal to the config."""
        return dump_yaml(self.flat(defaults))

    def python(self) -> str:
        """A notebook cell that trains this config."""
        lines = [f"        {json.dumps(key)}: {value!r}," for key, value in self.flat().items()]
        return "\n".join(
            ["import llf_widgets as llf", "", "run = llf.train(", "    {", *lines, "    }", ")", "llf.Monitor(run)", ""]
        )

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

    def _options_of(self, section: str, plugin: str) -> Section:
        for kind in GROUPS:
            name = f"{kind}.{plugin}"
            if name in self.plugin_options and plugins(kind)[plugin].section == section:
                return self.plugin_options[name]
        raise KeyError(plugin)

    def _is_selected(self, section: str, plugin: str) -> bool:
        for kind in GROUPS:
            found = plugins(kind).get(plugin)
            if found is not None and found.section == section:
                return bool(found.selected(self))
        return False


def _plain(value: Any) -> Any:
    """A value as it is written in a file."""
    return ",".join(value) if isinstance(value, tuple) else value
