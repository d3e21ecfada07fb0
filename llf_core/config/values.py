from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from llf_core.config.option import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.data import Data
    from llf_core.config.model import Model
    from llf_core.config.sections import Chat, Evaluation, Generation, Launch, MethodSection, OptimizerSection
    from llf_core.config.stage import StageSection
    from llf_core.config.training import Training

OptionsT = TypeVar("OptionsT", bound=Section)


@dataclass(frozen=True, repr=False)
class ConfigValues:
    """All values of a config, in sections; `llf_core.config.RunConfig` adds how one is read and written.

    Attributes:
        plugin_options: options of every plug-in, selected or not, by `kind.name`; `options` reads them.
    """

    model: Model
    data: Data
    method: MethodSection
    optimizer: OptimizerSection
    stage: StageSection
    training: Training
    generation: Generation
    launch: Launch
    chat: Chat
    evaluation: Evaluation
    plugin_options: Mapping[str, Section]

    def get(self, key: str) -> Any:
        """The value of a key of any section or plug-in."""
        return self._by_key[key]

    def options(self, options: type[OptionsT]) -> OptionsT:
        """The options of a plug-in, selected or not, with their types.

        Raises:
            KeyError: no installed plug-in has options of that class.
        """
        for found in self.plugin_options.values():
            if isinstance(found, options):
                return found
        raise KeyError(options.__name__)

    @cached_property
    def _by_key(self) -> Mapping[str, object]:
        sections = [getattr(self, one.name) for one in fields(ConfigValues) if one.name != "plugin_options"]
        return {
            key: getattr(owner, key)
            for owner in (*sections, *self.plugin_options.values())
            for key in type(owner).model_fields
        }
