"""Problems of the values of a form: of the config, of the names in it and of its data, by field."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llf_core.config import Problem
from llf_core.config.build import setting_fix
from llf_core.config.name_checks import check_local, problem_from_answer, required_for_start
from llf_core.config.registry import all_declared
from llf_core.data.media_problems import media_problems
from llf_core.data.precheck import dataset_problems, template_problems
from llf_core.data.sources import CELL_ROWS_LABEL
from llf_core.estimate.fast_kernels import kernel_problems
from llf_core.launch.launchers import launch_problem
from llf_core.runs.folder import home, run_ids
from llf_widgets.forms.form_values import FormValues
from llf_widgets.forms.places import LAUNCH, PlaceQuestion, is_shown
from llf_widgets.forms.values import plain_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.name_checks import Answer, CheckResult, Question


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
