"""The values of a form by key, the config that they make, both as text, and their problems by field."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llf_core.config import Problem, RunConfig, fields, preset, validate
from llf_core.config.build import setting_fix
from llf_core.config.name_checks import check_local, problem_from_answer, required_for_start
from llf_core.config.read_config import dump_yaml
from llf_core.config.registry import all_declared
from llf_core.config.run_config import ALWAYS_SHOWN
from llf_core.config.trained_keys import only_trained_keys
from llf_core.data.precheck import dataset_problems, media_problems, template_problems
from llf_core.data.sources import CELL_ROWS_LABEL
from llf_core.estimate.model_sizes import kernel_problems
from llf_core.launch.launchers import launch_problem
from llf_core.runs.folder import home, run_ids
from llf_widgets.forms.places import LAUNCH, PlaceQuestion, is_shown
from llf_widgets.forms.values import format_value, plain_value, same_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import FieldSpec, Report
    from llf_core.config.name_checks import Answer, CheckResult, Question
    from llf_widgets.forms.suggestions import CellRows

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


class FormProblems(FormValues):
    """Values of a form with all their problems, and which fields are shown."""

    def __init__(self, preset_name: str) -> None:
        super().__init__(preset_name)
        self.hub_answers: Mapping[Question, Answer] = {}
        self.place_answers: Mapping[PlaceQuestion, Answer] = {}
        self._attached: dict[str, tuple[Any, Problem]] = {}

    @functools.cached_property
    def data_problems(self) -> tuple[Problem, ...]:
        """Problems of the chosen data sets, which are not read completely, and missing fast kernels."""
        if self.report.config is None:
            return ()
        config = self.report.config
        of_data = (*dataset_problems(config), *media_problems(config))
        found = (*of_data, *template_problems(config), *kernel_problems(config))
        if self.cell_rows is None:
            return found
        path = self.cell_rows.path
        return tuple(replace(one, message=one.message.replace(path, CELL_ROWS_LABEL)) for one in found)

    @functools.cached_property
    def place_question(self) -> PlaceQuestion | None:
        """Whether the run can be started where the form says; None for this machine."""
        return PlaceQuestion.of(self.report.config)

    @functools.cached_property
    def _machine_problem(self) -> Problem | None:
        """Why this machine cannot run the config; None for a config of another place."""
        config = self.report.config
        return None if config is None or self.place_question is not None else launch_problem(config)

    def _place_problems(self) -> tuple[Problem, ...]:
        """Problems of the place; what another one has answered is a warning, since Start asks it again."""
        if self.place_question is None:
            return () if self._machine_problem is None else (self._machine_problem,)
        answer = self.place_answers.get(self.place_question)
        if answer is None or answer.there:
            return ()
        return (Problem("unresolved", LAUNCH, self.place_question.launch, answer.why, severity="warning"),)

    @functools.cached_property
    def name_check(self) -> CheckResult:
        """Local check of the named models, data sets and modules, with open questions for a hub."""
        return check_local(self.report.config, runs=run_ids(), home=home())

    def name_problems(self) -> tuple[Problem, ...]:
        """Problems of the names, with the hub's answers so far, without keys that the config already rejects."""
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

    def problems(self, key: str) -> tuple[Problem, ...]:
        """Problems of a field: of its value, of the names in it, of the data; of no field (unknown keys) for `""`.

        Attached problems replace all of these if they are errors, and follow them otherwise.
        """
        if key:
            attached = [one for one in self._attached_problems(key) if one.severity != "error"]
            return (*(one for one in self._all_problems() if one.key == key), *attached)
        return tuple(problem for problem in (*self.report.problems, *self.notes) if problem.key not in self.specs)

    def errors(self) -> tuple[Problem, ...]:
        """Problems that disable Start."""
        return tuple(one for one in self._all_problems() if one.severity == "error")

    def is_visible(self, key: str) -> bool:
        """Whether a field is shown: options of other methods and stages are hidden, unless they have an error."""
        spec = self.specs[key]
        if any(problem.severity == "error" for problem in self.problems(key)):
            return True
        if not is_shown(key, self.value) and not self.is_changed(key):
            return False
        if spec.stages and self.value("stage") not in spec.stages:
            return False
        if spec.methods and self.value("finetuning_type") not in spec.methods:
            return False
        owner = None if spec.owner is None else all_declared()[spec.owner]
        return owner is None or key == owner.selector or owner.is_selected_in(self.value)

    def attach_problem(self, key: str, problem: Problem) -> None:
        """Attach a problem that validation cannot find, such as a failed upload, to a field until its value changes."""
        self._attached[key] = (plain_value(self.config_values.get(key)), problem)

    def _all_problems(self) -> tuple[Problem, ...]:
        """All problems; attached errors replace those of a field whose value was rejected."""
        attached = [one for key in self._attached for one in self._attached_problems(key) if one.severity == "error"]
        keys = {one.key for one in attached}
        refused = (self._with_preset_fix(one) for one in self.report.problems)
        found = (*refused, *self._place_problems(), *self.name_problems(), *self.data_problems)
        return (*attached, *(one for one in found if one.key not in keys))

    def _with_preset_fix(self, problem: Problem) -> Problem:
        """A problem whose fix sets the value of the preset that the form started from, not the default."""
        key = problem.key
        if problem.kind != "invalid" or not self.from_preset or key not in self.specs or key not in self.preset_values:
            return problem
        default = {key: self.specs[key].default}
        better = setting_fix(self.specs[key], self.preset_values[key], self.config_values)
        return replace(problem, fixes=tuple(better if fix.changes == default else fix for fix in problem.fixes))

    def _attached_problems(self, key: str) -> tuple[Problem, ...]:
        value, problem = self._attached.get(key, (None, None))
        return () if problem is None or value != plain_value(self.config_values.get(key)) else (problem,)

    def _invalidate(self) -> None:
        super()._invalidate()
        for name in ("data_problems", "name_check", "place_question", "_machine_problem"):
            self.__dict__.pop(name, None)
