"""Applies changes to a live run between two steps, records them, and repeats them after a resume or in a replay."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from llf_core.config.registry import stage_of
from llf_core.runs.control import Change, check_changes, read_changes
from llf_core.runs.formatting import rate as written
from llf_core.runs.step_counters import read_counters, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from transformers import TrainerControl

    from llf_core.runs import RunFolder, RunWriter
    from llf_core.stages.base.loop import TrainingLoop
    from llf_core.training.callbacks import SamplePrompts

logger = logging.getLogger(__name__)


class LiveChanges:
    """Changes requested while a run trains, and changes to repeat from an earlier attempt or another run.

    `held` is the latest value of each changed setting, which every checkpoint stores.
    """

    def __init__(self, folder: RunFolder, writer: RunWriter) -> None:
        """Bind to a run. Call `begin` before the first step."""
        self.held: dict[str, Any] = {}
        self._folder = folder
        self._writer = writer
        self._trainer: TrainingLoop | None = None
        self._watched: SamplePrompts | None = None
        self._plan: list[Change] = []

    def begin(
        self, trainer: TrainingLoop, watched: SamplePrompts | None, held: Mapping[str, object], step: int
    ) -> None:
        """Restore the changes in the checkpoint of a step, and schedule those that an earlier attempt made later."""
        self._trainer, self._watched, self.held = trainer, watched, dict(held)
        trainer.peak_rate = self.held.get("learning_rate", trainer.peak_rate)
        known = read_changes(self._folder)
        self._plan = [change for change in known if change.step > step]
        first = _initial_changes(known, step, held)
        if first.changes:
            self._plan.insert(0, first)

    def reapply(self, step: int, control: TrainerControl) -> None:
        """Repeat the changes that were made after this step in an earlier attempt or in the replayed run.

        A change that is not possible now is recorded with the reason; the run continues without it.
        """
        due = [change for change in self._plan if change.step == step]
        self._plan = [change for change in self._plan if change.step > step]
        for change in due:
            try:
                said = self._make(change.changes, step, control)
            except ValueError as error:
                said = str(error)
            self._writer.event("steered", **change.json(), says=said, again=True)
            logger.info(said)

    def change(self, changes: Mapping[str, object], step: int, id: str, control: TrainerControl) -> str:  # noqa: A002
        """Apply and record a change (see `check_changes`); cancels scheduled changes of the same setting."""
        checked = check_changes(changes)
        said = self._make(checked, step, control)
        given_up = [one for one in self._plan if one.changes.keys() & checked.keys() & REPLACING_CHANGES]
        self._plan = [one for one in self._plan if one not in given_up]
        cancels = {"cancels": [one.id for one in given_up]} if given_up else {}
        self._writer.event("steered", **Change(step, checked, id).json(), says=said, **cancels)
        logger.info(said)
        return said

    def _make(self, changes: Mapping[str, Any], step: int, control: TrainerControl) -> str:
        self._check_now(changes, step)
        makers: dict[str, Callable[[Any, int, TrainerControl], str]] = {
            "max_steps": self._max_steps,
            "evaluate": self._evaluate,
            "learning_rate": self._learning_rate,
            "watch": self._watch,
        }
        said = [make(changes[name], step, control) for name, make in makers.items() if name in changes]
        self.held |= {name: changes[name] for name in REPLACING_CHANGES & changes.keys()}
        if REPLACING_CHANGES & changes.keys():
            self.record_schedule()
        return " ".join(said)

    def record_schedule(self) -> None:
        """Write the planned learning rates, if the schedule has a plan, as an event for the monitor's chart."""
        assert self._trainer is not None  # noqa: S101 - for the type checker
        steps, rates = self._trainer.planned_rates()
        if steps:
            self._writer.event("schedule", steps=steps, rates=rates)

    def _check_now(self, changes: Mapping[str, Any], step: int) -> None:
        """Refuse changes that this run cannot make now, before any is applied."""
        assert self._trainer is not None  # noqa: S101 - for the type checker
        if changes.get("max_steps", step + 1) <= step:
            raise ValueError(f"The run is already at step {step}. Expected a later step.")
        if "evaluate" in changes and self._trainer.eval_dataset is None:
            raise ValueError("The run has no evaluation data. Set val_size or eval_dataset in the next run.")
        config = self._trainer.stage.config
        if "watch" in changes and config is not None and not stage_of(config).generates:
            raise ValueError("A reward model does not generate text, so there are no prompts to watch.")

    def _learning_rate(self, rate: float, step: int, _control: TrainerControl) -> str:
        trainer = self._trainer
        assert trainer is not None  # noqa: S101 - for the type checker
        before = trainer.peak_rate
        trainer.set_learning_rate(rate)
        following = written(trainer.optimizer.param_groups[0]["lr"])
        return f"Learning rate {written(before)} → {written(rate)} from step {step + 1} on, where it is {following}."

    def _max_steps(self, total: int, step: int, control: TrainerControl) -> str:
        trainer = self._trainer
        assert trainer is not None  # noqa: S101 - for the type checker
        before = trainer.state.max_steps
        trainer.end_at(total)
        if step == before:  # the Trainer has made its last step already
            control.should_training_stop = False
        self._writer.status(total=total)
        return f"The run ends at step {total}{f' in place of {before}' if before != total else ''}."

    def _evaluate(self, _yes: bool, step: int, control: TrainerControl) -> str:
        control.should_evaluate = True
        return f"Evaluated at step {step} on request."

    def _watch(self, prompt: str, step: int, _control: TrainerControl) -> str:
        assert self._watched is not None  # noqa: S101 - for the type checker
        if not self._watched.add(prompt):
            return "The prompt is already watched."
        self._watched.answer(step, only=prompt)
        self.held["watch"] = self._watched.added
        return f"A prompt is watched from step {step} on."


REPLACING_CHANGES = {"learning_rate", "max_steps"}
"""Settings whose latest change replaces earlier ones."""


def _initial_changes(known: Iterable[Change], step: int, held: Mapping[str, object]) -> Change:
    """Changes at a checkpoint's own step that the checkpoint does not contain: the changed settings of a branch."""
    settings: dict[str, object] = {}
    last = ""
    for change in known:
        if change.step == step and REPLACING_CHANGES & change.changes.keys():
            settings |= {name: value for name, value in change.changes.items() if name in REPLACING_CHANGES}
            last = change.id
    return Change(step, {name: value for name, value in settings.items() if held.get(name) != value}, last)


def active_at_checkpoint(folder: RunFolder, checkpoint: Path) -> dict[str, Any]:
    """Active changes of a run that resumes from a checkpoint, including the changed settings of a branch."""
    held: dict[str, object] = read_counters(checkpoint).get("held", {})
    return held | _initial_changes(read_changes(folder), step_of(checkpoint), held).changes
