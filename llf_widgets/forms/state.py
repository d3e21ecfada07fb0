"""The form's values and everything derived from them, without widgets."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config import Fix, Problem, RunConfig, fields, preset, validate
from llf_core.config.build import absolute_values, setting_fix
from llf_core.config.field_specs import plain
from llf_core.config.key_aliases import translate
from llf_core.config.known_keys import known
from llf_core.config.name_checks import check_local, problem_from_answer, required_for_start
from llf_core.config.read_config import dump_yaml, read
from llf_core.config.registry import all_declared
from llf_core.config.run_config import ALWAYS_SHOWN
from llf_core.config.trained_keys import only_trained_keys
from llf_core.data.kind_check import FORMAT_KEYS, dataset_problems, demo_for_stage
from llf_core.data.media_problems import media_problems
from llf_core.data.sources import CELL_ROWS_LABEL
from llf_core.data.template_facts import own_template_of
from llf_core.data.template_problems import template_problems
from llf_core.estimate.fast_kernels import kernel_problems
from llf_core.launch.cell_rows import RowsError
from llf_core.model_catalog import find_model
from llf_core.runs.folder import home, run_ids
from llf_core.runs.uploads import mark_used
from llf_widgets.forms.cell_rows import CellRows
from llf_widgets.forms.values import format_value, parse_value
from llf_widgets.start import split_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import FieldSpec, Report
    from llf_core.config.name_checks import Answer, CheckResult, Question

KEPT_KEYS = ("model_name_or_path", "dataset", "eval_dataset", "dataset_dir")
"""Keys that a preset without a value for them leaves unchanged: the chosen model and data."""

MODEL = "model_name_or_path"
DATASET_KEYS = ("dataset", "eval_dataset")
"""Fields that can refer to the rows of the cell."""

UNSET = -1
"""Default that means "no value" for fields that cannot be null."""

NO_PYTHON = "# Fix the errors in the form first.\n"


class FormState:
    """Values of a form and everything derived from them.

    `config_values` holds the values by YAML key; an invalid value stays as it was typed, and `report` names it.

    Args:
        source: initial values: a RunConfig, a dict, YAML text or a path; None for the preset.
        preset_name: preset that the form is compared with.

    Attributes:
        specs: the fields by key.
        preset_name: name of the preset.
        preset_values: its values by key.
        from_preset: whether the values started as a preset, not as a config or an earlier run.
        notes: notes from reading the last text, e.g. about a deprecated key.
        cell_rows: rows passed as `dataset`; None if it names its data.
        hub_answers: answers from a hub about names.

    Raises:
        ValueError: the source is not a mapping of keys to values.
        KeyError: the preset does not exist.
        PluginError: two installed plug-ins declare the same key or name.
        FileNotFoundError: the working directory was removed.
    """

    def __init__(self, source: Any = None, preset_name: str = "first-minute") -> None:
        self.specs: dict[str, FieldSpec] = {spec.key: spec for spec in fields()}
        self.preset_name = preset_name
        self.from_preset = source is None
        self.preset_values: dict[str, Any] = preset(preset_name)
        self.config_values: dict[str, Any] = dict(self.preset_values)
        self.notes: tuple[Problem, ...] = ()
        self.cell_rows: CellRows | None = None
        self._attached: dict[str, tuple[Any, Problem]] = {}
        self._template: str | None = None
        self.hub_answers: Mapping[Question, Answer] = {}
        if source is not None:
            source, rows = split_rows(source.flat() if isinstance(source, RunConfig) else source)
            self._load(source)
            if rows is not None:
                self._load_rows(rows)

    # ---- what follows from the values ----------------------------------------------------------

    @functools.cached_property
    def report(self) -> Report:
        """Result of `validate` for the values, cached until they change; line numbers refer to `yaml()`.

        Raises:
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        return validate(self.yaml())

    @property
    def config(self) -> RunConfig | None:
        """The config, for Start and previews; None if there are errors.

        Raises:
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        return self.report.config if self.report.ok else None

    @property
    def trained_config(self) -> RunConfig | None:
        """The config as far as it decides what is trained; None if the model or the method has errors.

        A missing data set does not matter for it.

        Raises:
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        report = only_trained_keys(self.report)
        return report.config if report.ok else None

    @functools.cached_property
    def data_problems(self) -> tuple[Problem, ...]:
        """Problems of the chosen data sets, and missing fast kernels, which a user should know before Start.

        Data sets are not read completely, since an edit of the form must not wait for them.

        Raises:
            OSError: `dataset_info.json` cannot be read, for example without permission.
            PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
                name or key.
        """
        if self.report.config is None:
            return ()
        config = self.report.config
        of_data = (*dataset_problems(config), *media_problems(config))
        found = (*of_data, *template_problems(config), *kernel_problems(config))
        if self.cell_rows is None:
            return found
        path = self.cell_rows.path
        return tuple(replace(one, message=one.message.replace(path, CELL_ROWS_LABEL)) for one in found)

    @property
    def uses_cell_rows(self) -> bool:
        """Whether the data set consists of the rows of the cell only; then a run gets a copy of them."""
        return self.cell_rows is not None and self.cell_rows.matches(self.config_values.get("dataset"))

    @functools.cached_property
    def name_check(self) -> CheckResult:
        """Local check of the named models, data sets and modules, and open questions for a hub, which is asked later.

        Raises:
            OSError: a weight file of the model cannot be read.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: two installed packages declare the same name or key.
        """
        return check_local(self.report.config, runs=run_ids(), home=home())

    def name_problems(self) -> tuple[Problem, ...]:
        """Problems of the names, with the hub's answers so far, so that a misspelled one is found before Start.

        A key that the config already rejects has none here.

        Raises:
            OSError: a weight file of the model cannot be read.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: two installed packages declare the same name or key.
        """
        wrong = {problem.key for problem in self.report.problems if problem.severity == "error"}
        from_hub = (
            problem_from_answer(one, self.hub_answers[one])
            for one in self.name_check.questions
            if one in self.hub_answers
        )
        found = (
            required_for_start(problem) for problem in (*self.name_check.problems, *from_hub) if problem is not None
        )
        return tuple(problem for problem in found if problem.key not in wrong)

    def value(self, key: str) -> Any:
        """Effective value of a field: as given, else as derived from the other values.

        Raises:
            KeyError: there is no such field.
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        if key in self.config_values:
            return self.config_values[key]
        spec = self.specs[key]
        return spec.default if spec.path or self.report.config is None else self.report.config.get(key)

    def text(self, key: str) -> str:
        """Value of a field as displayed text, which `edit` reads back; empty for "not set".

        Raises:
            KeyError: there is no such field.
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        spec, value = self.specs[key], self.value(key)
        if value == UNSET and value == spec.default and spec.unset:
            return ""
        text = format_value(value)
        return text if self.cell_rows is None or key not in DATASET_KEYS else self.cell_rows.to_display(text)

    def is_visible(self, key: str) -> bool:
        """Whether a field is shown: options of other methods and stages are hidden.

        Fields with an error are always shown, so that it can be fixed.

        Raises:
            KeyError: there is no such field.
            OSError: a weight file of the model or `dataset_info.json` cannot be read.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
                name or key.
        """
        spec = self.specs[key]
        if any(problem.severity == "error" for problem in self.problems(key)):
            return True
        if spec.stages and self.value("stage") not in spec.stages:
            return False
        if spec.methods and self.value("finetuning_type") not in spec.methods:
            return False
        owner = None if spec.owner is None else all_declared()[spec.owner]
        return owner is None or key == owner.selector or owner.is_selected_in(self.value)

    def is_changed(self, key: str) -> bool:
        """Whether a value differs from the preset; the form marks such fields."""
        return bool(
            _plain(self.config_values.get(key, self._default(key)))
            != _plain(self.preset_values.get(key, self._default(key)))
        )

    def changed_keys(self) -> list[str]:
        """Keys that differ from the preset, for the count above the form."""
        return [key for key in dict.fromkeys((*self.preset_values, *self.config_values)) if self.is_changed(key)]

    def problems(self, key: str) -> tuple[Problem, ...]:
        """Problems of a field, which the form shows beside it: of its value, of the names in it, of the data.

        Problems that were attached, such as that of an upload, replace those of its value if they are errors, and
        follow them otherwise.

        Args:
            key: the field; `""` for problems without a field, such as unknown keys.

        Raises:
            OSError: a weight file of the model or `dataset_info.json` cannot be read.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
                name or key.
        """
        if key:
            attached = [one for one in self._attached_problems(key) if one.severity != "error"]
            return (*(one for one in self._all_problems() if one.key == key), *attached)
        return tuple(problem for problem in (*self.report.problems, *self.notes) if problem.key not in self.specs)

    def errors(self) -> tuple[Problem, ...]:
        """Problems that disable Start, which names their fields.

        Raises:
            OSError: a weight file of the model or `dataset_info.json` cannot be read.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
                name or key.
        """
        return tuple(one for one in self._all_problems() if one.severity == "error")

    def _all_problems(self) -> tuple[Problem, ...]:
        """All problems; recorded errors replace those of a field whose value was rejected."""
        attached = [one for key in self._attached for one in self._attached_problems(key) if one.severity == "error"]
        keys = {one.key for one in attached}
        refused = (self._with_preset_fix(one) for one in self.report.problems)
        found = (*refused, *self.name_problems(), *self.data_problems)
        return (*attached, *(one for one in found if one.key not in keys))

    def _with_preset_fix(self, problem: Problem) -> Problem:
        """A problem whose fix sets the value of the preset that the form started from, not the default."""
        key = problem.key
        if problem.kind != "invalid" or not self.from_preset or key not in self.specs or key not in self.preset_values:
            return problem
        default = {key: self.specs[key].default}
        better = setting_fix(self.specs[key], self.preset_values[key], self.config_values)
        return replace(problem, fixes=tuple(better if fix.changes == default else fix for fix in problem.fixes))

    def yaml(self, *, defaults: bool = False) -> str:
        """The values as YAML in section order, unknown keys last: what the form shows and saves.

        Args:
            defaults: whether to include default values.

        Raises:
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        values = self.config_values
        if defaults and self.report.config is not None:
            values = self.report.config.flat(defaults=True) | self.config_values
        order = {key: index for index, key in enumerate(self.specs)}
        return dump_yaml(
            {key: _plain(values[key]) for key in sorted(values, key=lambda key: order.get(key, len(order)))}
        )

    def python(self) -> str:
        """A notebook cell that trains with the values, so a form can become code; a comment if there are errors.

        Raises:
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        if self.config is None:
            return NO_PYTHON
        rows = self.cell_rows if self.uses_cell_rows else None
        return self.config.python({"dataset": rows.variable} if rows else {})

    # ---- what changes the values ---------------------------------------------------------------

    def edit(self, key: str, text: str) -> None:
        """Set a field from typed text; an invalid one stays as it was typed, so that it can be corrected.

        Args:
            key: the field.
            text: typed text.

        Raises:
            KeyError: there is no such field.
            PluginError: two installed packages declare the same name or key.
        """
        if self.cell_rows is not None and key in DATASET_KEYS:
            text = self.cell_rows.from_display(text)
        self.set(
            key, parse_value(self.specs[key], text.replace("\0", ""))
        )  # which no keyboard writes and no config holds

    def while_typing(self, key: str, text: str) -> RunConfig | None:
        """The config with a field as it is being typed, for a forecast that follows each key press.

        Args:
            key: the field.
            text: the text so far.

        Returns:
            The config; None if it would have errors, as a half typed value may. Nothing of the form changes.

        Raises:
            KeyError: there is no such field.
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        if self.config is None:
            return None
        if self.cell_rows is not None and key in DATASET_KEYS:
            text = self.cell_rows.from_display(text)
        try:
            return self.config.replace(**{key: parse_value(self.specs[key], text.replace("\0", ""))})
        except ValueError:  # a `ConfigError` is one
            return None

    def set(self, key: str, value: object) -> None:
        """Set a field by its value, as code does; None means "not set".

        Args:
            key: the field.
            value: its value.

        Raises:
            KeyError: there is no such field.
            PluginError: two installed packages declare the same name or key.
        """
        spec, model = self.specs[key], self.config_values.get(MODEL)
        if value is None and spec.optional and spec.default is not None:
            self.config_values[key] = None
        else:
            self._put(key, value)
        self._invalidate()
        if self.config_values.get(MODEL) != model:
            self._set_template()

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Set several fields at once, as a fix does; None removes a key. Unknown keys are reported, not refused.

        Raises:
            PluginError: two installed packages declare the same name or key.
        """
        model = self.config_values.get(MODEL)
        for key, value in changes.items():
            self._put(key, value)
        self._invalidate()
        if self.config_values.get(MODEL) != model and "template" not in changes:
            self._set_template()

    def select_preset(self, preset_name: str) -> None:
        """Start from a preset: all fields take its values; the chosen model and data are kept.

        A user who compares ways to train need not choose model and data again. A built-in data set is replaced by one
        that suits the preset's stage.

        Raises:
            KeyError: there is no such preset.
            PluginError: two installed packages declare the same plug-in.
        """
        chosen = preset(preset_name)
        kept = {key: self.config_values[key] for key in KEPT_KEYS if key in self.config_values and key not in chosen}
        shipped = demo_for_stage(_plain(kept.get("dataset")), str(chosen.get("stage", "sft")))
        kept |= {"dataset": shipped} if shipped else {}
        if MODEL not in kept:
            self._attached.pop("template", None)
        elif self._template is not None and self.config_values.get("template") == self._template:
            kept |= {"template": chosen.get("template", self._template)}
        self.preset_values = chosen | kept
        self.preset_name = preset_name
        self.reset()

    def reset(self) -> None:
        """Reset to the preset, so that experiments with many fields can be undone at once."""
        self.from_preset = True
        self.config_values = dict(self.preset_values)
        self.notes = ()
        self._invalidate()

    def load_text(self, text: str, *, defaults: bool = False, folder: Path | None = None) -> None:
        """Replace the values with a YAML text, as one that was pasted; changes are still counted against the preset.

        Args:
            text: YAML or JSON.
            defaults: whether to drop default values in it, as written by `yaml(defaults=True)`.
            folder: folder of the file that the text comes from, at which its relative paths start; None for a text
                without a file.

        Raises:
            ValueError: the text is not a mapping of keys to values, has a key twice, or gives two names of one key
                different values. Nothing changes.
            PluginError: two installed packages declare the same name or key.
            FileNotFoundError: the working directory was removed.
        """
        self._load(text if "\n" in text else f"{text}\n", folder)
        if defaults:
            self.config_values = {
                key: value for key, value in self.config_values.items() if not self._is_left_out(key, value)
            }
        self._invalidate()

    def set_dataset(self, key: str, name: str) -> None:
        """Set the data set of a field, and drop a column mapping that does not fit it, for example after an upload.

        Args:
            key: the field.
            name: the data set.

        Raises:
            KeyError: there is no such field.
            OSError: `dataset_info.json` cannot be read, for example without permission.
            PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
                name or key.
        """
        self.set(key, name)
        if any(column in self.config_values for column in FORMAT_KEYS) and any(
            one.key == key and one.severity == "error" for one in self.data_problems
        ):
            self.apply(dict.fromkeys(FORMAT_KEYS))

    def keep_uploads(self) -> None:
        """Mark uploaded data in the form as used, so that `llf runs clean` keeps it.

        Raises:
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
        """
        if self.cell_rows is not None:
            with suppress(OSError):  # the run gets the rows themselves
                self.cell_rows.ensure_saved()
        for key in DATASET_KEYS:
            value = self.config_values.get(key)
            names = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
            mark_used(home(), [str(one) for one in names])

    def attach_problem(self, key: str, problem: Problem) -> None:
        """Attach a problem to a field until its value changes.

        It is for problems that validation cannot find, such as a failed upload.

        Args:
            key: the field.
            problem: the problem.
        """
        self._attached[key] = (_plain(self.config_values.get(key)), problem)

    def _set_template(self) -> None:
        """Set the chat template of a chosen model that the catalog knows, and say so in a note that can undo it.

        A template that somebody chose stays. One that was set for the model before is replaced, or removed. Where
        LLaMA-Factory's template is known to differ from the model's own, none is set.
        """
        if self.config_values.get("template") not in (None, self._template):  # it may be a list that was pasted
            return
        model = find_model(str(self.config_values.get(MODEL) or ""))
        own = own_template_of(model.id) if model and model.template else None
        self._template = model.template or None if model and own is None else None
        self.apply({"template": self._template})
        self._attached.pop("template", None)
        fixes: tuple[Fix, ...] = ()
        if model is None or (self._template is None and own is None and model.tuning != "chat"):
            return
        if own is not None:
            said = (
                f"The tokenizer's own template is used ({own.family}): `{model.template}`, LLaMA-Factory's template of "
                f"{model.id}, writes conversations otherwise."
            )
            fixes = (Fix(f"Use {model.template}", {"template": model.template}),)
        elif self._template is None:
            said = f"No named template is known for {model.id}: its tokenizer's own is used."
        else:
            said = f"The template of {model.id}. It was set when the model was chosen."
            fixes = (Fix("Use the tokenizer's own", {"template": None}),)
        note = Problem("violation", "template", self._template, said, fixes, "note", keys=("template",))
        self.attach_problem("template", note)

    def _attached_problems(self, key: str) -> tuple[Problem, ...]:
        """Problems attached to the field's current value."""
        value, problem = self._attached.get(key, (None, None))
        return () if problem is None or value != _plain(self.config_values.get(key)) else (problem,)

    def _load_rows(self, rows: object) -> None:
        """Use rows as the data set; invalid rows are reported beside the field."""
        try:
            self.cell_rows = CellRows.save(rows)
        except (OSError, RowsError) as error:
            reason = str(error) if isinstance(error, RowsError) else f"The rows of the cell cannot be saved: {error}."
            self.attach_problem("dataset", Problem("invalid", "dataset", None, reason))
            return
        self.config_values["dataset"] = self.cell_rows.path
        self._invalidate()

    def _load(self, source: Any, folder: Path | None = None) -> None:
        source_config = read(source, base=folder)
        if (source_config.file or folder is not None) and source_config.base != Path.cwd():
            # the form's own text has no folder: its relative paths start at the working directory
            source_config.file = True
            source_config.values = absolute_values(source_config)
        older = known().translated
        named = {older.get(key, key) for key in source_config.values} | set(source_config.values)
        translate(source_config)
        errors = [problem.message for problem in source_config.problems if problem.severity == "error"]
        if errors:
            raise ValueError(" ".join(errors))
        # what the config adds to these values follows from them, and would stay where they change
        self.config_values = {key: value for key, value in source_config.values.items() if key in named}
        self.notes = tuple(source_config.problems)
        self._invalidate()

    def _put(self, key: str, value: object) -> None:
        if value is None or self._is_left_out(key, value):
            self.config_values.pop(key, None)
        else:
            self.config_values[key] = value

    def _is_left_out(self, key: str, value: object) -> bool:
        """Whether a value is a default that the text of the form does not show."""
        is_default = key in self.specs and _same(value, self._default(key))
        return is_default and (value is None or (key not in self.preset_values and key not in ALWAYS_SHOWN))

    def _default(self, key: str) -> Any:
        return self.specs[key].default if key in self.specs else None

    def _invalidate(self) -> None:
        self.__dict__.pop("report", None)
        self.__dict__.pop("data_problems", None)
        self.__dict__.pop("name_check", None)


def _plain(value: object) -> Any:
    """A value as written in a file, see `llf_core.config.field_specs.plain`; the values of the form have lists too."""
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return plain(tuple(value))
    return value


def _same(value: object, other: object) -> bool:
    """Equality where 1 differs from true, and 2 equals 2.0."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(_plain(value) == other)
