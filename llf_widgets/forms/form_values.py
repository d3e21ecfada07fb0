"""The values of a form by key, the config that they make, and both as text."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from llf_core.config import RunConfig, fields, preset, validate
from llf_core.config.read_config import dump_yaml
from llf_core.config.run_config import ALWAYS_SHOWN
from llf_core.config.trained_keys import only_trained_keys
from llf_widgets.forms.values import format_value, plain_value, same_value

if TYPE_CHECKING:
    from llf_core.config import FieldSpec, Problem, Report
    from llf_widgets.forms.cell_rows import CellRows

DATASET_KEYS = ("dataset", "eval_dataset")
"""Fields that can refer to the rows of the cell."""

UNSET = -1
"""Default that means "no value" for fields that cannot be null."""

NO_PYTHON = "# Fix the errors in the form first.\n"


class FormValues:
    """Values of a form, and the config that they make.

    Attributes:
        config_values: values by YAML key; an invalid value stays as it was typed, and `report` names it.
        from_preset: whether the values started as a preset, not as a config or an earlier run.
        notes: notes from reading the last text, e.g. about a deprecated key.
        cell_rows: rows passed as `dataset`; None if it names its data.
    """

    def __init__(self, preset_name: str) -> None:
        self.specs: dict[str, FieldSpec] = {spec.key: spec for spec in fields()}
        self.preset_name = preset_name
        self.from_preset = True
        self.preset_values: dict[str, Any] = preset(preset_name)
        self.config_values: dict[str, Any] = dict(self.preset_values)
        self.notes: tuple[Problem, ...] = ()
        self.cell_rows: CellRows | None = None

    @functools.cached_property
    def report(self) -> Report:
        """Result of `validate` for the values, cached until they change; line numbers refer to `yaml()`."""
        return validate(self.yaml())

    @property
    def config(self) -> RunConfig | None:
        """The config; None if there are errors."""
        return self.report.config if self.report.ok else None

    @property
    def trained_config(self) -> RunConfig | None:
        """The config as far as it decides what is trained; None if the model or the method has errors."""
        report = only_trained_keys(self.report)
        return report.config if report.ok else None

    @property
    def uses_cell_rows(self) -> bool:
        """Whether the data set consists of the rows of the cell only."""
        return self.cell_rows is not None and self.cell_rows.matches(self.config_values.get("dataset"))

    def value(self, key: str) -> Any:
        """Effective value of a field: as given, else as derived from the other values."""
        if key in self.config_values:
            return self.config_values[key]
        spec = self.specs[key]
        return spec.default if spec.path or self.report.config is None else self.report.config.get(key)

    def text(self, key: str) -> str:
        """Value of a field as displayed text, which `edit` reads back; empty for "not set"."""
        spec, value = self.specs[key], self.value(key)
        if value == UNSET and value == spec.default and spec.unset:
            return ""
        text = format_value(value)
        return text if self.cell_rows is None or key not in DATASET_KEYS else self.cell_rows.to_display(text)

    def is_changed(self, key: str) -> bool:
        """Whether a value differs from the preset."""
        return bool(
            plain_value(self.config_values.get(key, self._default(key)))
            != plain_value(self.preset_values.get(key, self._default(key)))
        )

    def changed_keys(self) -> list[str]:
        """Keys that differ from the preset."""
        return [key for key in dict.fromkeys((*self.preset_values, *self.config_values)) if self.is_changed(key)]

    def yaml(self, *, defaults: bool = False) -> str:
        """The values as YAML in section order, unknown keys last."""
        values = self.config_values
        if defaults and self.report.config is not None:
            values = self.report.config.flat(defaults=True) | self.config_values
        order = {key: index for index, key in enumerate(self.specs)}
        return dump_yaml(
            {key: plain_value(values[key]) for key in sorted(values, key=lambda key: order.get(key, len(order)))}
        )

    def python(self) -> str:
        """A notebook cell that trains with the values; a comment if there are errors."""
        if self.config is None:
            return NO_PYTHON
        rows = self.cell_rows if self.uses_cell_rows else None
        return self.config.python({"dataset": rows.variable} if rows else {})

    def _is_left_out(self, key: str, value: object) -> bool:
        """Whether a value is a default that the text of the form does not show."""
        is_default = key in self.specs and same_value(value, self._default(key))
        return is_default and (value is None or (key not in self.preset_values and key not in ALWAYS_SHOWN))

    def _default(self, key: str) -> object:
        return self.specs[key].default if key in self.specs else None

    def _invalidate(self) -> None:
        self.__dict__.pop("report", None)
