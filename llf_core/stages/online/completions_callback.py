"""The callback that writes drawn answers down, and looks after a trainer of TRL's between two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.runs import RunWriter
    from llf_core.stages.online.trl_rewards import TRLRewards
    from llf_core.stages.online.trl_trainers import Online


class CompletionsCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes drawn answers with their rewards into `samples.jsonl`; its trainer remembers where it is between steps."""

    def __init__(self, writer: RunWriter, judge: TRLRewards, most: int) -> None:
        """Binds it to a run.

        Args:
            writer: of the attempt.
            judge: knows the answers.
            most: answers of a logged step that are written.
        """
        self.trainer: Online | None = None
        self._writer = writer
        self._judge = judge
        self._most = most

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """A resumed run goes on where the other one was in its drawn answers."""
        if self.trainer is not None:
            self.trainer.begin()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Before answers are drawn."""
        self._remember()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Before an evaluation draws some."""
        self._remember()

    def _remember(self) -> None:
        if self.trainer is not None:
            self.trainer.remember()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Some answers of the step that is logged."""
        if "reward" not in (logs or {}):
            return
        for one in self._judge.shown(self._most):
            self._writer.sample(
                step=state.global_step,
                kind="completion",
                prompt=one.answered.prompt,
                text=one.answered.answer,
                reward=self._judge.total(one),
                rewards=one.rewards,
            )
