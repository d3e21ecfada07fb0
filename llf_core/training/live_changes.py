"""Changes a run while it trains: between two steps, written down, and made again at the same steps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from llf_core.runs.change_journal import Change, check_changes, read_changes
from llf_core.runs.formatting import rate as written
from llf_core.runs.step_counters import read_counters, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from transformers import TrainerControl

    from llf_core.runs import RunFolder, RunWriter
    from llf_core.stages.base.loop import TrainingLoop
    from llf_core.training.sample_callback import WatchedPrompts

logger = logging.getLogger(__name__)


class LiveChanges:
    """What a live run is told to change, and what a run that goes on or replays another one must change again.

    Attributes:
        held: the last value of each change, for the checkpoint.
    """

    def __init__(self, folder: RunFolder, writer: RunWriter) -> None:
        """Binds it to a run; `begin` must be called before the first step."""
        self.held: dict[str, Any] = {}
        self._folder = folder
        self._writer = writer
        self._trainer: TrainingLoop | None = None
        self._watched: WatchedPrompts | None = None
        self._plan: list[Change] = []

    def begin(self, trainer: TrainingLoop, watched: WatchedPrompts | None, held: Mapping[str, Any], step: int) -> None:
        """Takes over what the checkpoint holds, and looks up what is to be changed again after its step."""
        self._trainer, self._watched, self.held = trainer, watched, dict(held)
        trainer.peak_rate = self.held.get("learning_rate", trainer.peak_rate)
        known = read_changes(self._folder)
        self._plan = [change for change in known if change.step > step]
        first = _begun_with(known, step, held)
        if first.changes:
            self._plan.insert(0, first)

    def again(self, step: int, control: TrainerControl) -> None:
        """Makes the changes that were made after this step before."""
        due = [change for change in self._plan if change.step == step]
        self._plan = [change for change in self._plan if change.step > step]
        for change in due:
            try:
                said = self._make(change.changes, step, control)
            except ValueError as error:
                said = str(error)
            self._writer.event("steered", **change.json(), says=said, again=True)
            logger.info(said)

    def change(self, changes: Mapping[str, Any], step: int, id: str, control: TrainerControl) -> str:  # noqa: A002
        """Makes a change that somebody asks for now; what was to be made again of the same kind is given up.

        Returns:
            What was changed, as a sentence.

        Raises:
            ValueError: it can't be made; nothing was changed.
        """
        checked = check_changes(changes)
        said = self._make(checked, step, control)
        given_up = [one for one in self._plan if one.changes.keys() & checked.keys() & SET]
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
        self.held |= {name: changes[name] for name in SET & changes.keys()}
        if SET & changes.keys():
            self.tell_schedule()
        return " ".join(said)

    def tell_schedule(self) -> None:
        """Writes down which learning rates are planned from here on."""
        assert self._trainer is not None  # noqa: S101 - for the type checker
        steps, rates = self._trainer.planned_rates()
        if steps:
            self._writer.event("schedule", steps=steps, rates=rates)

    def _check_now(self, changes: Mapping[str, Any], step: int) -> None:
        """Refuses what this run cannot do now, before any of it is done."""
        assert self._trainer is not None  # noqa: S101 - for the type checker
        if changes.get("max_steps", step + 1) <= step:
            raise ValueError(f"The run is at step {step} already. Expected a later step than that; or stop it.")
        if "evaluate" in changes and self._trainer.eval_dataset is None:
            raise ValueError("Nothing is held out to evaluate on. Set val_size or eval_dataset in the next run.")
        if "watch" in changes and not self._trainer.stage.generates:
            raise ValueError("A reward model scores answers and writes none, so there is nothing to watch.")

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
        if step == before:  # the Trainer has seen its last step
            control.should_training_stop = False
        self._writer.status(total=total)
        return f"The run ends at step {total}{f' in place of {before}' if before != total else ''}."

    def _evaluate(self, _yes: bool, step: int, control: TrainerControl) -> str:
        control.should_evaluate = True
        return f"Evaluated at step {step}, as asked."

    def _watch(self, prompt: str, step: int, _control: TrainerControl) -> str:
        assert self._watched is not None  # noqa: S101 - for the type checker
        if not self._watched.add(prompt):
            return "The prompt is watched already."
        self._watched.answer(step, only=prompt)
        self.held["watch"] = self._watched.added
        return f"A prompt is watched from step {step} on."


SET = {"learning_rate", "max_steps"}
"""Changes that replace each other."""


def _begun_with(known: Iterable[Change], step: int, held: Mapping[str, Any]) -> Change:
    """What was changed at a checkpoint's own step and the checkpoint does not hold: a branch begins with it."""
    told: dict[str, Any] = {}
    last = ""
    for change in known:
        if change.step == step and SET & change.changes.keys():
            told |= {name: value for name, value in change.changes.items() if name in SET}
            last = change.id
    return Change(step, {name: value for name, value in told.items() if held.get(name) != value}, last)


def held_from(folder: RunFolder, checkpoint: Path) -> dict[str, Any]:
    """What holds for a run that goes on at a checkpoint: what the checkpoint holds, and what a branch begins with."""
    held: dict[str, Any] = read_counters(checkpoint).get("held", {})
    return held | _begun_with(read_changes(folder), step_of(checkpoint), held).changes
