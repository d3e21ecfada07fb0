"""What the form holds, without a widget: the values as they were given, and what follows from them."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config import Problem, RunConfig, fields, preset, validate
from llf_core.config.field_specs import option_classes
from llf_core.config.key_aliases import translate
from llf_core.config.known_keys import known
from llf_core.config.name_checks import for_a_start, look, settle
from llf_core.config.read_config import dump_yaml, read
from llf_core.config.run_config import ALWAYS_SHOWN
from llf_core.data.kind_check import READ_AS, against, shipped_for
from llf_core.launch.cell_rows import RowsError
from llf_core.runs.folder import home, run_ids
from llf_core.runs.uploads import mark_used
from llf_widgets.forms.cell_rows import CellRows
from llf_widgets.forms.values import parse, show
from llf_widgets.start import split_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import FieldSpec, Report
    from llf_core.config.name_checks import Answer, Found, Question

KEPT = ("model_name_or_path", "dataset", "eval_dataset", "dataset_dir")
"""What a preset leaves alone where it says nothing of it: the model and the data that were chosen before."""

NAMES_DATA = ("dataset", "eval_dataset")
"""Fields that can name the rows of the cell."""

UNSET = -1
"""A default that stands for no value where a field may not be null."""

NO_PYTHON = "# Fix the errors in the form first.\n"


class FormState:
    """The values of a form and everything that follows from them.

    `given` holds what was asked for, under the keys of a YAML file; a value that cannot mean anything for its field
    stays in it as it was typed, and `report` says so.

    Args:
        source: what the form starts with: a RunConfig, a dict, YAML text or a path. None takes the preset.
        preset_name: what the form compares with.

    Attributes:
        from_preset: whether the values began as a preset's; those of a cell's config or of an earlier run did not.
        notes: what reading the last text said, e.g. that an older name of a key was understood.
        cell_rows: the rows that the source had for `dataset`; None where it named its data.
        answers: what a hub has said of names that only it can tell of.

    Raises:
        ValueError: the source is no mapping of keys to values.
        KeyError: there is no such preset.
    """

    def __init__(self, source: Any = None, preset_name: str = "first-minute") -> None:
        self.specs: dict[str, FieldSpec] = {spec.key: spec for spec in fields()}
        self.preset_name = preset_name
        self.from_preset = source is None
        self.base: dict[str, Any] = preset(preset_name)
        self.given: dict[str, Any] = dict(self.base)
        self.notes: tuple[Problem, ...] = ()
        self.cell_rows: CellRows | None = None
        self._said: dict[str, tuple[Any, Problem]] = {}
        self.answers: Mapping[Question, Answer] = {}
        if source is not None:
            source, rows = split_rows(source.flat() if isinstance(source, RunConfig) else source)
            self._take(source)
            if rows is not None:
                self._take_rows(rows)

    # ---- what follows from the values ----------------------------------------------------------

    @functools.cached_property
    def report(self) -> Report:
        """What `validate` says about the values; its lines are those of `yaml()`."""
        return validate(self.yaml())

    @property
    def config(self) -> RunConfig | None:
        """The config; None while an error stands."""
        return self.report.config if self.report.ok else None

    @functools.cached_property
    def data_problems(self) -> tuple[Problem, ...]:
        """What stands against the chosen data sets, as far as that is known without reading them whole."""
        if self.report.config is None:
            return ()
        found = against(self.report.config)
        if self.cell_rows is None:
            return found
        file, words = Path(self.cell_rows.path).name, f"({self.cell_rows.label})"
        return tuple(replace(one, message=one.message.replace(file, words)) for one in found)

    @property
    def trains_cell_rows(self) -> bool:
        """Whether the data set is the rows of the cell, and nothing else."""
        return self.cell_rows is not None and self.cell_rows.are(self.given.get("dataset"))

    @functools.cached_property
    def names(self) -> Found:
        """What this machine says of the models, data sets and modules that are named, and what only a hub knows."""
        return look(self.report.config, runs=run_ids(), home=home())

    def name_problems(self) -> tuple[Problem, ...]:
        """What stands against these names, with what a hub has answered by now."""
        wrong = {problem.key for problem in self.report.problems if problem.severity == "error"}
        settled = (settle(one, self.answers[one]) for one in self.names.questions if one in self.answers)
        found = (for_a_start(problem) for problem in (*self.names.problems, *settled) if problem is not None)
        return tuple(problem for problem in found if problem.key not in wrong)

    def value(self, key: str) -> Any:
        """The value that a field stands at: as given, else what the config makes of the other values."""
        if key in self.given:
            return self.given[key]
        spec = self.specs[key]
        return spec.default if spec.path or self.report.config is None else self.report.config.get(key)

    def text(self, key: str) -> str:
        """The value of a field as the form shows it."""
        spec, value = self.specs[key], self.value(key)
        if value == UNSET and value == spec.default and spec.unset:
            return ""
        text = show(value)
        return text if self.cell_rows is None or key not in NAMES_DATA else self.cell_rows.shown(text)

    def applies(self, key: str) -> bool:
        """Whether a field is shown: options of a method that is not chosen are not, nor those of other stages.

        One that is refused is shown all the same, so that what keeps Start off can be seen and mended.
        """
        spec = self.specs[key]
        if any(problem.severity == "error" for problem in self.problems(key)):
            return True
        if spec.stages and self.value("stage") not in spec.stages:
            return False
        owner = _owner(spec)
        return owner is None or key in owner or all(self.value(name) == value for name, value in owner.items())

    def changed(self, key: str) -> bool:
        """Whether a value differs from the preset."""
        return bool(_plain(self.given.get(key, self._default(key))) != _plain(self.base.get(key, self._default(key))))

    def changes(self) -> list[str]:
        """The keys that differ from the preset."""
        return [key for key in dict.fromkeys((*self.base, *self.given)) if self.changed(key)]

    def problems(self, key: str) -> tuple[Problem, ...]:
        """What is said beside a field, errors first; `""` has what stands beside none."""
        if key:
            told = [one for one in self._still_said(key) if one.severity != "error"]
            return (*(one for one in self._everything() if one.key == key), *told)
        return tuple(problem for problem in (*self.report.problems, *self.notes) if problem.key not in self.specs)

    def errors(self) -> tuple[Problem, ...]:
        """What keeps Start off."""
        return tuple(one for one in self._everything() if one.severity == "error")

    def _everything(self) -> tuple[Problem, ...]:
        """Errors that were said stand in place of what would be said of a field that was not given its value."""
        said = [one for key in self._said for one in self._still_said(key) if one.severity == "error"]
        keys = {one.key for one in said}
        found = (*self.report.problems, *self.name_problems(), *self.data_problems)
        return (*said, *(one for one in found if one.key not in keys))

    def yaml(self, *, defaults: bool = False) -> str:
        """The values as a YAML file in the order of the sections, keys that are no field last."""
        values = self.given
        if defaults and self.report.config is not None:
            values = self.report.config.flat(defaults=True) | self.given
        order = {key: index for index, key in enumerate(self.specs)}
        return dump_yaml(
            {key: _plain(values[key]) for key in sorted(values, key=lambda key: order.get(key, len(order)))}
        )

    def python(self) -> str:
        """A cell that trains with the values."""
        if self.config is None:
            return NO_PYTHON
        rows = self.cell_rows if self.trains_cell_rows else None
        return self.config.python({"dataset": rows.variable} if rows else {})

    # ---- what changes the values ---------------------------------------------------------------

    def edit(self, key: str, text: str) -> None:
        """Takes what was typed into a field."""
        if self.cell_rows is not None and key in NAMES_DATA:
            text = self.cell_rows.meant(text)
        self.set(key, parse(self.specs[key], text.replace("\0", "")))  # which no keyboard writes and no config holds

    def set(self, key: str, value: Any) -> None:
        """Gives a field a value; None means "not set".

        Raises:
            KeyError: a key that has no field.
        """
        spec = self.specs[key]
        if value is None and spec.optional and spec.default is not None:
            self.given[key] = None
        else:
            self._put(key, value)
        self._forget()

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Gives several keys values at once, as a fix does; None takes a key out."""
        for key, value in changes.items():
            self._put(key, value)
        self._forget()

    def choose(self, preset_name: str) -> None:
        """Starts from a preset: every field as it has it; the model and the data that were chosen stay.

        A shipped data set gives way to the shipped one that the preset's stage learns from.
        """
        chosen = preset(preset_name)
        kept = {key: self.given[key] for key in KEPT if key in self.given and key not in chosen}
        shipped = shipped_for(_plain(kept.get("dataset")), str(chosen.get("stage", "sft")))
        kept |= {"dataset": shipped} if shipped else {}
        self.base = chosen | kept
        self.preset_name = preset_name
        self.undo()

    def undo(self) -> None:
        """Goes back to the preset."""
        self.from_preset = True
        self.given = dict(self.base)
        self.notes = ()
        self._forget()

    def paste(self, text: str, *, defaults: bool = False) -> None:
        """Takes a whole YAML file; the preset stays what changes are counted against.

        Args:
            text: YAML or JSON.
            defaults: whether defaults that stand in it are left out, as they were written by `yaml(defaults=True)`.

        Raises:
            ValueError: the text is no mapping of keys to values; the message says where. Nothing changes then.
        """
        self._take(text if "\n" in text else f"{text}\n")
        if defaults:
            for key, value in list(self.given.items()):
                self._put(key, value)
        self._forget()

    def take_data(self, key: str, name: str) -> None:
        """Gives a field another data set; columns that were named for the one before go where they do not fit it."""
        self.set(key, name)
        if any(column in self.given for column in READ_AS) and any(one.key == key for one in self.data_problems):
            self.apply(dict.fromkeys(READ_AS))

    def hold_data(self) -> None:
        """Counts uploaded data that the form names as used, so that `llf runs clean` keeps it."""
        if self.cell_rows is not None:
            with suppress(OSError):  # the run gets the rows themselves
                self.cell_rows.hold()
        for key in NAMES_DATA:
            names = self.given.get(key) or ()
            mark_used(home(), names.split(",") if isinstance(names, str) else [str(one) for one in names])

    def say(self, key: str, problem: Problem) -> None:
        """Says something beside a field, as long as it keeps its value."""
        self._said[key] = (_plain(self.given.get(key)), problem)

    def _still_said(self, key: str) -> tuple[Problem, ...]:
        """What was said beside a field of the value that it still has."""
        value, problem = self._said.get(key, (None, None))
        return () if problem is None or value != _plain(self.given.get(key)) else (problem,)

    def _take_rows(self, rows: Any) -> None:
        """Has rows for the data set; of those that are none, it says why beside the field."""
        try:
            self.cell_rows = CellRows.keep(rows)
        except (OSError, RowsError) as error:
            reason = str(error) if isinstance(error, RowsError) else f"The rows of the cell cannot be saved: {error}."
            self.say("dataset", Problem("invalid", "dataset", None, reason))
            return
        self.given["dataset"] = self.cell_rows.path
        self._forget()

    def _take(self, source: Any) -> None:
        asked = read(source)
        older = known().translated
        named = {older.get(key, key) for key in asked.values} | set(asked.values)
        translate(asked)
        bad = [problem.message for problem in asked.problems if problem.severity == "error"]
        if bad:
            raise ValueError(" ".join(bad))
        # what the config adds to these values follows from them, and would stay where they change
        self.given = {key: value for key, value in asked.values.items() if key in named}
        self.notes = tuple(asked.problems)
        self._forget()

    def _put(self, key: str, value: Any) -> None:
        is_default = key in self.specs and _same(value, self._default(key))
        if value is None or (is_default and key not in self.base and key not in ALWAYS_SHOWN):
            self.given.pop(key, None)
        else:
            self.given[key] = value

    def _default(self, key: str) -> Any:
        return self.specs[key].default if key in self.specs else None

    def _forget(self) -> None:
        self.__dict__.pop("report", None)
        self.__dict__.pop("data_problems", None)
        self.__dict__.pop("names", None)


def _owner(spec: FieldSpec) -> Mapping[str, Any] | None:
    """What selects the plug-in that brings a field; None where the section itself holds it."""
    if spec.plugin is None:
        return None
    return next(
        one.selects for one in option_classes().values() if one.name == spec.plugin and one.section == spec.section
    )


def _plain(value: Any) -> Any:
    """A value as it is written in a file: names as a comma list."""
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    return value


def _same(value: Any, other: Any) -> bool:
    """Equal, where 1 and true are not, and 2 and 2.0 are."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(_plain(value) == other)
