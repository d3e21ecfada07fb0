"""Carries out the control requests of a live run between two steps: stop, checkpoint, evaluate, sample, set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.runs import Checkpoints, Inbox
from llf_core.stages.base.ranks import from_all, is_main

if TYPE_CHECKING:
    from transformers import TrainerControl

    from llf_core.runs import Request, RunFolder, RunWriter
    from llf_core.training.live_changes import LiveChanges
    from llf_core.training.sample_callback import SamplePrompts


class ControlRequests:
    """Requests that clients put into a run's folder, see `llf_core.runs.control`.

    A request is answered when it has had its effect, so one for a checkpoint or a stop waits for the checkpoint.
    """

    def __init__(self, folder: RunFolder, writer: RunWriter, live_changes: LiveChanges) -> None:
        self.stop_wanted = False
        self._writer = writer
        self._live_changes = live_changes
        self._inbox = Inbox(folder)
        self._checkpoints = Checkpoints(folder)
        self._waiting: list[Request] = []  # for the next complete checkpoint
        self._evaluations: list[Request] = []

    def stop(self) -> None:
        """Stop with a checkpoint after the current step. Only sets a flag, so it is safe in a signal handler."""
        self.stop_wanted = True

    def handle(self, control: TrainerControl, step: int, watched: SamplePrompts | None) -> None:
        """Handle the requests that have arrived, between two steps, when model and optimizer are consistent."""
        takers = {
            "stop": self._stop,
            "checkpoint": self._save,
            "evaluate": self._evaluate,
            "sample": lambda request, _control, step: self._sample(request, step, watched),
            "set": self._set,
        }
        told = from_all((self._inbox.scan() if is_main() else [], self.stop_wanted))
        self.stop_wanted = any(stop for _, stop in told)
        for request in told[0][0]:
            self._writer.event("request", id=request.id, request=request.type, args=request.args, by=request.by)
            if request.type in takers:
                takers[request.type](request, control, step)
            else:
                self._answer(request, ok=False, message="The file is not a valid request.")
        if self.stop_wanted:
            control.should_training_stop = True
            control.should_save = not self._checkpoints.complete(step)

    def answer_checkpoint(self, step: int) -> None:
        """Answer the requests that waited for the now complete checkpoint."""
        for request in self._waiting:
            self._answer(request, ok=True, message=f"checkpoint-{step} is complete.")
        self._waiting.clear()

    def answer_evaluation(self, metrics: dict[str, float], step: int) -> None:
        """Answer the requests for an evaluation with its mean reward of completions, else the loss."""
        what, value = "evaluation loss", metrics.get("eval_loss", math.nan)
        if "eval_reward" in metrics:
            what, value = "mean reward on the evaluation set", metrics["eval_reward"]
        for request in self._evaluations:
            self._answer(request, ok=True, message=f"The {what} is {value:.4f} at step {step}.")
        self._evaluations.clear()

    def _stop(self, request: Request, _control: TrainerControl, _step: int) -> None:
        self.stop_wanted = True
        self._writer.status(state="stopping", reason=None)
        self._waiting.append(request)

    def _save(self, request: Request, control: TrainerControl, _step: int) -> None:
        control.should_save = True
        self._waiting.append(request)

    def _evaluate(self, request: Request, control: TrainerControl, step: int) -> None:
        try:
            self._live_changes.change({"evaluate": True}, step, request.id, control)
        except ValueError as error:
            self._answer(request, ok=False, message=str(error))
        else:
            self._evaluations.append(request)

    def _sample(self, request: Request, step: int, watched: SamplePrompts | None) -> None:
        if watched is None or not watched.prompts:
            self._answer(request, ok=False, message="No prompts are watched. Add one, or set watched_prompts.")
            return
        watched.answer(step)
        if watched.last == step:
            self._answer(request, ok=True, message=f"Generated at step {step}.")
        else:
            self._answer(request, ok=False, message="The completions could not be generated. See the warning.")

    def _set(self, request: Request, control: TrainerControl, step: int) -> None:
        try:
            said = self._live_changes.change(request.args, step, request.id, control)
        except ValueError as error:
            self._answer(request, ok=False, message=str(error))
        else:
            self._answer(request, ok=True, message=said)

    def _answer(self, request: Request, *, ok: bool, message: str) -> None:
        self._writer.event("answer", id=request.id, request=request.type, ok=ok, message=message)
        if is_main():
            self._inbox.done(request)
